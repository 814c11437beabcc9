"""`sparc evaluate rgb`: the benchmark's rooms from RGB alone, in as many processes as there are cores."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input

_runner = None  # of this worker process


def rgb(
    out: Annotated[Path, typer.Option(help="Folder for rgb.json and rgb.md.")],
    images: Annotated[int, typer.Option(help="How many of the benchmark's rooms.")] = 200,
    seed: Annotated[int, typer.Option(help="Fixes the rooms.")] = 2027,
    cad_library: Annotated[
        str,
        typer.Option(help="CAD models to test on, and to choose from: a folder or procedural:FIRST-LAST."),
    ] = "procedural:1000000-1000019",
    track: Annotated[list[str] | None, typer.Option(help="Only this track; repeatable. None: all.")] = None,
    detector: Annotated[str, typer.Option(help="As for sparc align; empty: the shipped one.")] = "",
    depth_model: Annotated[str, typer.Option(help="As for sparc align; empty: the shipped one.")] = "",
    masks: Annotated[str, typer.Option(help="As for sparc align; empty: the detector's.")] = "",
    min_score: Annotated[float, typer.Option(help="Of the detections that are aligned.")] = 0.4,
    weights: Annotated[Path | None, typer.Option(help="Weights file; none: the shipped one.")] = None,
    retrieval: Annotated[str, typer.Option(help="As for sparc align: shipped, size or a file.")] = "shipped",
    method: options.Method = "multi-sparc",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    jobs: Annotated[int, typer.Option(help="Processes; 0: one a core.")] = 0,
) -> None:
    """Boxes, depth, normals and CAD models predicted from a picture, and the poses that come of them."""
    from rich.progress import track as progress

    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.rgb_bench import TRACKS, RgbBenchConfig
    from sparc_core.evaluation.rgb_report import markdown, summarise
    from sparc_core.perception.see import SHIPPED, PerceptionConfig

    with report_bad_input():
        names = tuple(track) if track else tuple(t.name for t in TRACKS)
        config = RgbBenchConfig(images, seed, cad_library, names)
        perception = PerceptionConfig(detector or SHIPPED, depth_model or SHIPPED, masks, min_score)
        arguments = (config, perception, weights, retrieval, device, method)
        start_worker(*arguments)  # whatever is wrong with the arguments shows here
        out.mkdir(parents=True, exist_ok=True)
    jobs = min(jobs or os.cpu_count() or 1, images)
    with multiprocessing.get_context("spawn").Pool(jobs, start_worker, arguments) as pool:
        rooms = list(progress(pool.imap(run_room, range(images)), total=images, description="aligning"))
    summary = summarise(rooms, names)
    facts = {
        "bench": dataclasses.asdict(config),
        "perception": dataclasses.asdict(perception),
        "weights": str(weights) if weights else SHIPPED,
        "retrieval": retrieval,
        "method": method,
        "machine": describe_machine("cuda" if device == "cuda" else "cpu") | {"jobs": jobs, "threads": 1},
        **summary,
    }
    (out / "rgb.json").write_text(json.dumps(facts, indent=1))
    (out / "rgb.md").write_text(markdown(summary))
    typer.echo(markdown(summary))
    typer.echo(f"wrote {out}/rgb.json and rgb.md")


def start_worker(config, perception, weights, retrieval: str, device: str, method: str) -> None:
    """Load networks and CAD models once a process."""
    global _runner
    import torch

    from sparc_core.evaluation.rgb_bench import RgbBenchRunner

    torch.set_num_threads(1)
    _runner = RgbBenchRunner.load(config, perception, weights, retrieval, device, method)


def run_room(number: int) -> dict:
    """All about one room, in a worker process."""
    return _runner.run(number)
