"""`sparc evaluate rivals`: several methods on the same pictures, and their latencies, in one table."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.workers import process_count, run_parts


def rivals(
    method: options.Methods,
    out: Annotated[Path, typer.Option(help="Folder for rivals.json, rivals.md and the plots.")],
    images: options.Rooms = 100,
    seed: options.Seed = 2027,
    cad_library: options.TestLibrary = "procedural:1000000-1000019",
    track: options.Tracks = None,
    detector: options.BenchPredictor = "",
    depth_model: options.BenchPredictor = "",
    min_score: options.MinScore = 0.4,
    retrieval: Annotated[
        Path | None, typer.Option(help="Weights that choose the CAD models; none: the shipped ones.")
    ] = None,
    device: options.Device = "cpu",
    jobs: options.Jobs = 0,
    threads: Annotated[int, typer.Option(help="Of the latencies, measured alone; 0: all cores.")] = 0,
    repeats: Annotated[int, typer.Option(help="Of each latency; 0: none is measured.")] = 10,
) -> None:
    """One table for all methods: same pictures, detections, depth and CAD models."""
    from sparc_core.device import find_device
    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.methods import MethodSpec
    from sparc_core.evaluation.papers import PAPER_ROWS
    from sparc_core.evaluation.rgb_bench import RgbBenchConfig
    from sparc_core.evaluation.rivals import RIVAL_TRACKS, RivalsRunner
    from sparc_core.evaluation.rivals_report import markdown, summarise_rivals
    from sparc_core.perception.see import SHIPPED, PerceptionConfig

    with report_bad_input():
        if repeats < 0:
            raise ValueError(f"repeats must not be negative, got {repeats}")
        specs = tuple(MethodSpec.parse(text) for text in method)
        config = RgbBenchConfig(images, seed, cad_library, tuple(track) if track else RIVAL_TRACKS)
        perception = PerceptionConfig(detector or SHIPPED, depth_model or SHIPPED, "", min_score)
        arguments = (config, perception, specs, retrieval, device)
        runner = RivalsRunner.load(*arguments)  # whatever is wrong with the arguments shows here
        out.mkdir(parents=True, exist_ok=True)
        latency = _measure(runner, specs, repeats, threads)  # before other processes take the cores
    jobs = process_count(jobs, images)
    records: dict[str, list[dict]] = {"objects": [], "predictions": [], "perception": []}
    if runner.accurate:
        for room in run_parts(RivalsRunner.load, arguments, images, jobs):
            for kind, rows in room.items():
                records[kind] += rows
    summary = summarise_rivals(records, config.tracks, runner.accurate, latency)
    facts = {
        "bench": dataclasses.asdict(config),
        "perception": dataclasses.asdict(perception),
        "methods": {spec.name: dataclasses.asdict(spec) for spec in specs},
        "papers": {name: dataclasses.asdict(row) for name, row in PAPER_ROWS.items()},
        "machine": describe_machine(find_device(device))
        | {"jobs": jobs, "latency_threads": threads or os.cpu_count()},
        **summary,
    }
    (out / "rivals.json").write_text(json.dumps(facts, indent=1))
    (out / "rivals.md").write_text(markdown(summary))
    _draw(records, summary, runner, out)
    typer.echo(markdown(summary))
    typer.echo(f"wrote {out}/rivals.json, rivals.md and plots")


def _measure(runner, specs, repeats: int, threads: int) -> dict:
    """{method: {objects: figures}}; nothing without repeats."""
    import torch

    if not repeats:
        return {}
    torch.set_num_threads(threads or os.cpu_count() or 1)
    figures = {}
    for spec in specs:
        figures[spec.name] = runner.time(spec.name, repeats)
        shown = " / ".join(f"{f['median_ms']:.0f}" for f in figures[spec.name].values())
        typer.echo(f"{spec.name}: {shown} ms for {' / '.join(map(str, figures[spec.name]))} objects")
    torch.set_num_threads(1)
    return figures


def _draw(records, summary: dict, runner, out: Path) -> None:
    """The plots of every track in a folder of its own, and accuracy against latency of all."""
    from sparc_core.evaluation.picture_plots import plot_accuracy_against_latency
    from sparc_core.evaluation.picture_report import MAIN
    from sparc_core.evaluation.plots import plot_bench
    from sparc_core.scripts.contact_sheets import file_stem, picture_source, write_contact_sheet

    accuracy = {t: {m: f["all"]["accuracy"][MAIN] for m, f in found.items()}
                for t, found in summary["tracks"].items()}  # fmt: skip
    five = {name: figures[5]["median_ms"] for name, figures in summary["latency"].items()}
    if any(name in five for found in accuracy.values() for name in found):
        plot_accuracy_against_latency(five, accuracy, out / "latency.png")
    picture_of = picture_source(runner.pictures)
    for track, found in summary["tracks"].items():
        if not found:
            continue
        folder = out / file_stem(track)
        folder.mkdir(exist_ok=True)
        plot_bench(list(found.values()), folder)
        for name in found:
            rows = [r for r in records["objects"] if (r["track"], r["method"]) == (track, name)]
            path = folder / f"cases_{file_stem(name)}.jpg"
            if not write_contact_sheet(rows, picture_of, runner.cad_library, path):
                typer.echo(f"{name}, {track}: nothing aligned is well visible; no contact sheet", err=True)
