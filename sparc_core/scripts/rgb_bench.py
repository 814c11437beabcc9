"""`sparc evaluate rgb`: the benchmark's rooms from RGB alone, in as many processes as there are cores."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.workers import process_count, run_parts


def rgb(
    out: Annotated[Path, typer.Option(help="Folder for rgb.json, rgb.md and the plots.")],
    images: options.Rooms = 200,
    seed: options.Seed = 2027,
    cad_library: options.TestLibrary = "procedural:1000000-1000019",
    track: options.Tracks = None,
    detector: options.BenchPredictor = "",
    depth_model: options.BenchPredictor = "",
    box_model: options.BenchPredictor = "",
    masks: Annotated[str, typer.Option(help="As for sparc align; empty: the detector's.")] = "",
    min_score: options.MinScore = 0.4,
    retrieval: Annotated[str, typer.Option(help="As for sparc align: shipped, size or a file.")] = "shipped",
    method: options.Method = "shipped",
    device: options.Device = "auto",
    jobs: options.Jobs = 0,
    records: Annotated[bool, typer.Option(help="Also write every object's errors to records.jsonl.")] = False,
) -> None:
    """Boxes, depth, normals and CAD models predicted from a picture, and the poses that come of them."""
    from sparc_core.device import find_device
    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.methods import parse_trained
    from sparc_core.evaluation.rgb_bench import TRACKS, RgbBenchConfig, RgbBenchRunner
    from sparc_core.evaluation.rgb_report import markdown, summarise
    from sparc_core.evaluation.scale_limit import scale_limits
    from sparc_core.perception.see import SHIPPED, PerceptionConfig

    with report_bad_input():
        names = tuple(track) if track else tuple(t.name for t in TRACKS)
        config = RgbBenchConfig(images, seed, cad_library, names)
        perception = PerceptionConfig(
            detector or SHIPPED, depth_model or SHIPPED, masks, min_score,
            estimates="" if box_model == "none" else box_model or SHIPPED,
        )  # fmt: skip
        spec = parse_trained(method)
        arguments = (config, perception, spec, retrieval, device)
        runner = RgbBenchRunner.load(*arguments)  # whatever is wrong with the arguments shows here
        out.mkdir(parents=True, exist_ok=True)
    jobs = process_count(jobs, images)
    rooms = list(run_parts(RgbBenchRunner.load, arguments, images, jobs))
    objects = [record for room in rooms for record in room["objects"]]
    first = [record for record in objects if record["track"] == names[0]]
    limits = scale_limits(first, runner.method.cad_library, config.layout)
    summary = summarise(rooms, names) | {"scale_limit": limits}
    facts = {
        "bench": dataclasses.asdict(config),
        "perception": dataclasses.asdict(perception),
        "method": dataclasses.asdict(spec),
        "retrieval": retrieval,
        "machine": describe_machine(find_device(device)) | {"jobs": jobs, "threads": 1},
        **summary,
    }
    (out / "rgb.json").write_text(json.dumps(facts, indent=1))
    (out / "rgb.md").write_text(markdown(summary))
    if records:
        (out / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in objects))
    _draw(summary["tracks"], objects, runner, out)
    typer.echo(markdown(summary))
    typer.echo(f"wrote {out}/rgb.json, rgb.md and plots")


def _draw(summaries: list[dict], objects: list[dict], runner, out: Path) -> None:
    """The plots of all tracks, rankings of those with the detector's boxes, and a contact sheet of each."""
    from sparc_core.evaluation.picture_plots import plot_rankings
    from sparc_core.evaluation.pictured_rooms import TRACKS
    from sparc_core.evaluation.plots import plot_bench
    from sparc_core.scripts.contact_sheets import file_stem, picture_source, write_contact_sheet

    plot_bench(summaries, out)
    picture_of = picture_source(runner.pictures)
    given = {track.name for track in TRACKS if track.boxes}
    ranked = [summary for summary in summaries if summary["track"] not in given]
    if ranked:
        plot_rankings(ranked, out / "ranking.png")
    for summary in summaries:
        rows = [record for record in objects if record["track"] == summary["track"]]
        path = out / f"cases_{file_stem(summary['track'])}.jpg"
        if not write_contact_sheet(rows, picture_of, runner.method.cad_library, path):
            typer.echo(f"{summary['track']}: nothing aligned is well visible; no contact sheet", err=True)
