"""The paper's ablations and ours: every row is trained under one budget and measured on the open benchmark.

    ./run python benchmarks/ablations.py --out runs/ablations --folder my_models --hold-out SOURCE

Rows stand in config/training/ablations.yaml. A row that has been measured is not run again, so the command
can be interrupted and repeated. When all are there, their latency is measured one after another, so that rows
that train side by side do not count. Prints and writes one table (ablations.json, ablations.md) and a plot of
accuracy over latency (ablations.png).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import torch
import typer

from sparc_core.cad.library import CadLibrary
from sparc_core.config import from_dict, load_yaml
from sparc_core.device import find_device
from sparc_core.evaluation.bench import BenchConfig, BenchRunner
from sparc_core.evaluation.bench_report import TrackRecords, summarise_track
from sparc_core.evaluation.machine import describe_machine
from sparc_core.evaluation.methods import MethodSpec
from sparc_core.pipeline import AlignerConfig
from sparc_core.refine.model import save_weights
from sparc_core.scripts import options
from sparc_core.training.train import TrainConfig, Trainer

TRACKS = ("perfect, right model", "sensor, right model", "sensor, similar model", "mono, right model")
LATENCY_ROOMS = 20
# what is compared is the network: no fit to depth afterwards, and as many tokens as in training
AS_TRAINED = AlignerConfig(depth_fit=False, n_bbox=0, n_cad=0)


@dataclasses.dataclass(frozen=True)
class Task:
    """One row and everything it needs."""

    row: dict
    config: TrainConfig
    out: Path
    procedural: str
    folder: Path | None
    hold_out: tuple[str, ...]
    device: str
    bench: BenchConfig


def main(
    out: Annotated[Path, typer.Option(help="Folder for weights and figures of every row.")],
    rows_file: Annotated[Path, typer.Option(help="The rows.")] = Path("config/training/ablations.yaml"),
    row: Annotated[list[str] | None, typer.Option(help="Only this row; repeatable.")] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps of every row; 0: as in the file.")] = 0,
    procedural: Annotated[str, typer.Option(help="Procedural CAD models.")] = "procedural:0-79",
    folder: Annotated[
        Path | None, typer.Option(help="Folder with CAD models to train on beside them.")
    ] = None,
    hold_out: Annotated[list[str] | None, typer.Option(help="Leave out ids that begin so.")] = None,
    images: Annotated[int, typer.Option(help="Rooms of the benchmark.")] = 200,
    device: options.Device = "cpu",
    jobs: Annotated[int, typer.Option(help="Rows at a time; 0: one a core, or one on a GPU.")] = 0,
) -> None:
    """Train and measure every row."""
    file, device = load_yaml(rows_file), find_device(device)
    chosen = [r for r in file["rows"] if not row or r["name"] in row]
    if not chosen:
        raise typer.BadParameter(f"no row is called {row}; there are {[r['name'] for r in file['rows']]}")
    tasks = []
    for item in chosen:
        values = merged(file["base"], item.get("changes", {}))
        if steps:
            values["steps"] = steps
        config = from_dict(TrainConfig, values, f"{rows_file}: {item['name']}")
        if folder is None and any(s["models"] == "folder" for s in item.get("stages", [])):
            typer.echo(f"{item['name']}: left out, it needs --folder")
            continue
        place = out / item["name"].replace(" ", "_")
        bench = BenchConfig(images=images, tracks=TRACKS)
        tasks.append(Task(item, config, place, procedural, folder, tuple(hold_out or ()), device, bench))
    jobs = jobs or (1 if device != "cpu" else os.cpu_count() or 1)
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        for name, seconds in pool.imap_unordered(_run, tasks, chunksize=1):
            typer.echo(f"{name}: {'measured before' if seconds is None else f'{seconds / 60:.1f} min'}")
    done = [task for task in tasks if (task.out / "result.json").exists()]
    for task in done:
        _measure_latency(task)
    _write(out, done)


def merged(base: dict, changes: dict) -> dict:
    """`base` with the changes put in, mapping by mapping."""
    result = copy.deepcopy(base)
    for name, value in changes.items():
        inner = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if inner else copy.deepcopy(value)
    return result


def _run(task: Task) -> tuple[str, float | None]:
    if (task.out / "result.json").exists():
        return task.row["name"], None
    torch.set_num_threads(1)
    began = time.perf_counter()
    task.out.mkdir(parents=True, exist_ok=True)
    network, seconds = None, 0.0
    for stage in task.row.get("stages", [{"models": "all", "share": 1.0}]):
        config = dataclasses.replace(task.config, steps=round(task.config.steps * stage["share"]))
        trainer = Trainer(config, _models(task, stage["models"]), task.device)
        if network is not None:
            trainer.start_from(network)
        trainer.run(lambda metrics: None)
        network, seconds = trainer.averaged_network(), seconds + trainer.elapsed_s
    weights = task.out / "weights.safetensors"
    save_weights(weights, network.state_dict(), task.config.model)
    runner = BenchRunner(task.bench, MethodSpec.of_file(weights, AS_TRAINED), task.device)
    records = [record for number in range(task.bench.images) for record in runner.run(number)]
    result = {
        "row": task.row,
        "training_s": round(seconds, 1),
        "parameters": sum(p.numel() for p in network.parameters()),
        "machine": describe_machine(task.device),
        "tracks": [
            summarise_track(t, TrackRecords.from_records([r for r in records if r["track"] == t]))
            for t in task.bench.tracks
        ],
    }
    (task.out / "result.json").write_text(json.dumps(result, indent=1))
    return task.row["name"], time.perf_counter() - began


def _measure_latency(task: Task) -> None:
    """Add "alignment_ms" to the row's result: median of the alignment of an image, with one thread."""
    file = task.out / "result.json"
    result = json.loads(file.read_text())
    if "alignment_ms" in result:
        return
    torch.set_num_threads(1)
    bench = dataclasses.replace(task.bench, images=LATENCY_ROOMS, tracks=(TRACKS[1],))
    method = MethodSpec.of_file(task.out / "weights.safetensors", AS_TRAINED)
    runner = BenchRunner(bench, method, task.device)
    runner.run(0)  # the first image pays for what is set up once
    times = [runner.run(number)[0]["alignment_ms"] for number in range(LATENCY_ROOMS)]
    result["alignment_ms"] = round(float(np.median(times)), 1)
    file.write_text(json.dumps(result, indent=1))


def _models(task: Task, which: str) -> CadLibrary:
    parts = []
    if which in ("all", "procedural"):
        parts.append(CadLibrary.open(task.procedural))
    if which in ("all", "folder") and task.folder is not None:
        parts.append(CadLibrary.from_folder(task.folder, include_other=True))
    library = parts[0] if len(parts) == 1 else parts[0].merged(parts[1])
    kept = [i for i, m in enumerate(library.models) if not m.model_id.startswith(task.hold_out or ("\0",))]
    return library.subset(kept)


def _write(out: Path, tasks: list[Task]) -> None:
    results = [json.loads((task.out / "result.json").read_text()) for task in tasks]
    head = [
        "row",
        "steps × images × objects",
        "parameters",
        "alignment",
        *(t.replace(", ", ",<br>") for t in TRACKS),
        "the paper, ScanNet",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for task, result in zip(tasks, results, strict=True):
        name = task.row["name"] + (f": {task.row['about']}" if "about" in task.row else "")
        cells = [
            name, f"{task.config.steps} × {task.config.images} × {task.config.data.detections}",
            f"{result['parameters'] / 1e6:.2f} M", f"{result['alignment_ms']:.0f} ms",
        ]  # fmt: skip
        for track in result["tracks"]:
            accuracy = list(track["all"]["accuracy"].values())
            cells.append(" / ".join(f"{value:.1f}" for value in accuracy))
        cells.append(str(task.row.get("paper", "–")))
        lines.append("| " + " | ".join(cells) + " |")
    (out / "ablations.json").write_text(json.dumps(results, indent=1))
    (out / "ablations.md").write_text("\n".join(lines) + "\n")
    _plot(results, out / "ablations.png")
    typer.echo("\n".join(lines))


def _plot(results: list[dict], path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for result in results:
        x, y = result["alignment_ms"], result["tracks"][1]["all"]["accuracy"]
        axes.plot(x, next(iter(y.values())), "o")
        axes.annotate(
            result["row"]["name"], (x, next(iter(y.values()))), xytext=(4, 3), textcoords="offset points",
            fontsize=8,
        )  # fmt: skip
    axes.set(xlabel="alignment of an image, median ms", ylabel=f"{TRACKS[1]}: within 20 cm, 20°, 20 %, %")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    typer.run(main)
