"""`sparc evaluate video`: tracks against a search in every image, on synthetic videos."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.workers import process_count, run_parts


def video(
    out: Annotated[Path, typer.Option(help="Folder for video.json, video.md and video.png.")],
    weights: Annotated[Path | None, typer.Option(help="Weights file; none: the shipped one.")] = None,
    sequences: Annotated[int, typer.Option(help="How many rooms.")] = 3,
    frames: Annotated[int, typer.Option(help="Images of each, at 30 a second.")] = 600,
    seed: Annotated[int, typer.Option(help="Fixes the rooms.")] = 2028,
    cad_library: Annotated[
        str,
        typer.Option(help="CAD models, unseen in training: a folder or procedural:FIRST-LAST."),
    ] = "procedural:1000000-1000009",
    given_models: Annotated[
        bool, typer.Option(help="Detections name their CAD model; otherwise those of the category are tried.")
    ] = True,
    max_hidden_s: Annotated[
        float, typer.Option(help="Tracks end when out of view or hidden for so long.")
    ] = 60.0,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeatable. None: all.")] = None,
    device: options.Device = "auto",
    jobs: Annotated[int, typer.Option(help="Processes of one thread each; 0: one a core.")] = 0,
    records: Annotated[bool, typer.Option(help="Also write every object's record to records.jsonl.")] = False,
) -> None:
    """Id switches, accuracy per image, jitter of what stands still, recovery from wrong poses, latency."""
    from sparc_core.device import find_device
    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.plots import plot_video
    from sparc_core.evaluation.video import METHODS, VideoBenchConfig, VideoRunner
    from sparc_core.evaluation.video_report import summarise_recoveries, summarise_video, video_table
    from sparc_core.synth.sequence_room import SequenceConfig
    from sparc_core.tracking.config import TrackerConfig

    with report_bad_input():
        names = tuple(method) if method else tuple(m.name for m in METHODS)
        layout = SequenceConfig(frames=frames)
        tracker = TrackerConfig(max_hidden_s=max_hidden_s)
        config = VideoBenchConfig(sequences, seed, names, cad_library, given_models, layout, tracker)
        arguments = (config, weights, device)
        VideoRunner(*arguments)  # whatever is wrong with the arguments shows here
        out.mkdir(parents=True, exist_ok=True)
    jobs = process_count(jobs, sequences)
    found: dict[str, list[dict]] = {"objects": [], "images": [], "recoveries": []}
    for part in run_parts(VideoRunner, arguments, sequences, jobs, "sequences"):
        for name, records_of_part in part.items():
            found[name] += records_of_part
    fps = config.sequence.fps
    of_method = {
        m.name: {name: [r for r in found[name] if r["method"] == m.name] for name in ("objects", "images")}
        for m in METHODS
        if m.name in names
    }
    summaries = [
        summarise_video(name, part["objects"], part["images"], fps) for name, part in of_method.items()
    ]
    recoveries = summarise_recoveries(found["recoveries"])
    facts = {
        "bench": dataclasses.asdict(config),
        "weights": str(weights) if weights else "shipped",
        "machine": describe_machine(find_device(device)) | {"jobs": jobs, "threads": 1},
        "methods": summaries,
        "recoveries": recoveries,
    }
    (out / "video.json").write_text(json.dumps(facts, indent=1))
    table = video_table(summaries)
    (out / "video.md").write_text(table)
    plot_video(
        summaries, {n: p["objects"] for n, p in of_method.items()}, found["recoveries"], out / "video.png"
    )
    if records:
        (out / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found["objects"]))
    typer.echo(table)
    typer.echo(f"tracks set wrong: {json.dumps(recoveries)}")
    typer.echo(f"wrote {out}/video.json, video.md and video.png")
