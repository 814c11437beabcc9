"""`sparc evaluate`: accuracy on the fixed synthetic set; the open benchmark, the one from RGB alone, of
methods side by side, of the retrieval and of videos, and ScanNet25k are in `bench.py`, `rgb_bench.py`,
`rivals_bench.py`, `retrieval_bench.py`, `video_bench.py` and `scannet.py`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.bench import bench
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.retrieval_bench import retrieval
from sparc_core.scripts.rgb_bench import rgb
from sparc_core.scripts.rivals_bench import rivals
from sparc_core.scripts.scannet import scannet25k
from sparc_core.scripts.video_bench import video

app = typer.Typer(no_args_is_help=True)
app.command()(bench)
app.command()(rgb)
app.command()(rivals)
app.command()(retrieval)
app.command()(video)
app.command()(scannet25k)


@app.callback()
def _group() -> None:
    """Measure accuracy on data with known poses."""


@app.command()
def synthetic(
    weights: Annotated[
        list[Path] | None, typer.Option(help="Weights files to compare; none: the shipped ones.")
    ] = None,
    scenes: Annotated[int, typer.Option(help="How many images.")] = 200,
    cad_library: Annotated[
        str, typer.Option(help="CAD models of the set, unseen in training.")
    ] = "procedural:1000000-1000019",
    gravity: Annotated[
        bool, typer.Option(help="Tell the aligner which way is up, as TF or an IMU would.")
    ] = True,
    facing_share: Annotated[
        float, typer.Option(help="Share of furniture with a back that turns its front to the camera's side.")
    ] = 0.7,
    untrained: Annotated[
        bool, typer.Option(help="Also the network before training, and the start poses.")
    ] = True,
    device: options.Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write all figures as JSON.")] = None,
) -> None:
    """Print accuracy at 20 cm / 20° / 20 % and the stricter regimes, with right CAD models given."""
    from rich.progress import track

    from sparc_core.cad.library import CadLibrary
    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.report import ErrorTable, poses_of
    from sparc_core.evaluation.starts import add_best_start
    from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images
    from sparc_core.pipeline import SHIPPED_WEIGHTS, Aligner

    with report_bad_input():
        library = CadLibrary.open(cad_library)
        files = weights or [SHIPPED_WEIGHTS]
        named = {"shipped network" if path == SHIPPED_WEIGHTS else str(path): path for path in files}
        aligners = {name: Aligner.load(path, library, device=device) for name, path in named.items()}
        if untrained:
            aligners["untrained network"] = _untrained(files[0], library, device)
        config = SyntheticSetConfig(scenes=scenes, gravity=gravity)
        layout = dataclasses.replace(config.layout, facing_share=facing_share)
        config = dataclasses.replace(config, layout=layout)
    tables = {name: ErrorTable(name) for name in aligners}
    starts = ErrorTable("start poses (best of the four)")
    for image in track(synthetic_images(library, config), total=scenes, description="evaluating"):
        for name, aligner in aligners.items():
            result = aligner.align(image.rgb, image.camera, image.detections, image.depth_m)
            tables[name].add(image, *poses_of(result, len(image.detections)))
        if untrained:
            add_best_start(starts, next(iter(aligners.values())), image)
    rows = [table.summary() for table in tables.values()] + ([starts.summary()] if untrained else [])
    _print(rows)
    if out:
        facts = {
            "set": dataclasses.asdict(config),
            "cad_library": cad_library,
            "machine": describe_machine(next(iter(aligners.values())).device),
            "rows": rows,
        }
        out.write_text(json.dumps(facts, indent=1))
        typer.echo(f"wrote {out}")


def _untrained(weights: Path, library, device: str):
    """An aligner whose network has the same config and random weights."""
    import torch

    from sparc_core.network.alignment import MultiSparcNet
    from sparc_core.pipeline import Aligner

    aligner = Aligner.load(weights, library, device=device)
    torch.manual_seed(0)
    aligner.network = MultiSparcNet(aligner.model_config.network).to(aligner.device).eval()
    return aligner


def _print(rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{rows[0]['objects']} objects, {rows[0]['well_visible_objects']} of them well visible"
    )
    limits = list(rows[0]["accuracy"])
    headings = [*limits, *(f"well visible {name}" for name in limits), "median cm / ° / %"]
    for heading in ("method", *headings):
        table.add_column(heading)
    for row in rows:
        median = row["median"]
        table.add_row(
            row["method"], *(f"{v:.1f}" for v in row["accuracy"].values()),
            *(f"{v:.1f}" for v in row["accuracy_well_visible"].values()),
            f"{median['translation_cm']:.1f} / {median['rotation_deg']:.1f} / {median['scale_percent']:.1f}",
        )  # fmt: skip
    console = Console(width=120)
    console.print(table)
    console.print("by category (20/20/20):", {row["method"]: row["by_category"] for row in rows})
