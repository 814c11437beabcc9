"""`sparc evaluate bench`: the open benchmark, in as many processes as there are cores."""

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


def bench(
    out: Annotated[Path, typer.Option(help="Folder for bench.json, bench.md and the plots.")],
    images: Annotated[int, typer.Option(help="How many rooms; the benchmark's figures are for 1000.")] = 1000,
    seed: Annotated[int, typer.Option(help="Fixes the rooms.")] = 2027,
    cad_library: Annotated[
        str,
        typer.Option(help="CAD models to test on, unseen in training: a folder or procedural:FIRST-LAST."),
    ] = "procedural:1000000-1000019",
    only: Annotated[
        list[str] | None, typer.Option(help="Only CAD models whose id begins so, a source; repeatable.")
    ] = None,
    track: Annotated[list[str] | None, typer.Option(help="Only this track; repeatable. None: all.")] = None,
    method: options.Method = "shipped",
    device: options.Device = "auto",
    jobs: Annotated[
        int, typer.Option(help="Processes; 0: one a core. Latencies are those of one thread.")
    ] = 0,
    records: Annotated[bool, typer.Option(help="Also write every object's errors to records.jsonl.")] = False,
) -> None:
    """Perfect, depth-camera and predicted channels, each with the right CAD model and with a similar one."""
    from rich.progress import track as progress

    from sparc_core.device import find_device
    from sparc_core.evaluation.bench import TRACKS, BenchConfig
    from sparc_core.evaluation.bench_report import TrackRecords, markdown_table, summarise_track
    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.methods import parse_trained
    from sparc_core.evaluation.plots import plot_bench

    with report_bad_input():
        names = tuple(track) if track else tuple(t.name for t in TRACKS)
        config = BenchConfig(images, seed, names, cad_library, tuple(only or ()))
        library = config.open_library()
        for path, reason in library.skipped:
            typer.echo(f"skipped {path}: {reason}", err=True)
        out.mkdir(parents=True, exist_ok=True)
        spec = parse_trained(method)
        arguments = (config, spec, device)
        start_worker(*arguments)  # whatever is wrong with the arguments shows here
    jobs = min(jobs or os.cpu_count() or 1, images)
    found = []
    with multiprocessing.get_context("spawn").Pool(jobs, start_worker, arguments) as pool:
        for part in progress(
            pool.imap_unordered(run_room, range(images)), total=images, description="aligning"
        ):
            found += part
    found.sort(key=lambda r: r["image"])  # the order of the processes must not show
    summaries = [
        summarise_track(name, TrackRecords.from_records([r for r in found if r["track"] == name]))
        for name in names
        if any(r["track"] == name for r in found)
    ]
    facts = {
        "bench": dataclasses.asdict(config),
        "cad_models": len(library),
        "method": dataclasses.asdict(spec),
        "machine": describe_machine(find_device(device)) | {"jobs": jobs, "threads": 1},
        "tracks": summaries,
    }
    (out / "bench.json").write_text(json.dumps(facts, indent=1))
    table = markdown_table(summaries)
    (out / "bench.md").write_text(table)
    plot_bench(summaries, out)
    if records:
        (out / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    typer.echo(table)
    typer.echo(f"wrote {out}/bench.json, bench.md and plots")


def start_worker(config, method, device: str) -> None:
    """Load networks and CAD models once a process."""
    global _runner
    import torch

    from sparc_core.evaluation.bench import BenchRunner

    torch.set_num_threads(1)
    _runner = BenchRunner(config, method, device)


def run_room(number: int) -> list[dict]:
    """The records of one room, in a worker process."""
    return _runner.run(number)
