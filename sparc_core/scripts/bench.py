"""`sparc evaluate bench`: the open benchmark, in as many processes as there are cores."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.workers import process_count, run_parts


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
    from sparc_core.device import find_device
    from sparc_core.evaluation.bench import TRACKS, BenchConfig, BenchRunner
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
        BenchRunner(*arguments)  # whatever is wrong with the arguments shows here
    jobs = process_count(jobs, images)
    found = [record for room in run_parts(BenchRunner, arguments, images, jobs) for record in room]
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
