"""`sparc evaluate video`: tracks against a search in every image, on synthetic videos."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts.errors import report_bad_input


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
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of PyTorch.")] = 1,
    records: Annotated[bool, typer.Option(help="Also write every object's record to records.jsonl.")] = False,
) -> None:
    """Id switches, accuracy per image, jitter of what stands still, recovery from wrong poses, latency."""
    import torch
    from rich.progress import Progress

    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.plots import plot_video
    from sparc_core.evaluation.video import METHODS, VideoBenchConfig, VideoRunner
    from sparc_core.evaluation.video_report import summarise_recoveries, summarise_video, video_table
    from sparc_core.synth.sequence import SequenceConfig

    with report_bad_input():
        torch.set_num_threads(threads)
        config = VideoBenchConfig(sequences, seed, cad_library, given_models, SequenceConfig(frames=frames))
        runner = VideoRunner(config, weights, device)
        out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict]] = {"objects": [], "images": [], "recoveries": []}
    with Progress() as progress:
        task = progress.add_task("images", total=sequences * frames)
        for number in range(sequences):
            for name, part in runner.run(number, lambda: progress.advance(task)).items():
                found[name] += part
    fps = config.sequence.fps
    of_method = {
        m.name: {name: [r for r in found[name] if r["method"] == m.name] for name in ("objects", "images")}
        for m in METHODS
    }
    summaries = [
        summarise_video(name, part["objects"], part["images"], fps) for name, part in of_method.items()
    ]
    recoveries = summarise_recoveries(found["recoveries"])
    facts = {
        "bench": dataclasses.asdict(config),
        "weights": str(weights) if weights else "shipped",
        "machine": describe_machine(runner.aligner.device),
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
