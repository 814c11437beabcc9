"""What the aligner's run-time options are worth: accuracy against milliseconds on the benchmark's rooms.

    ./run python benchmarks/run_time_options.py --out benchmarks/results/run_time_options

Every row changes something of the default `AlignerConfig`, or (`gravity: False`) keeps the up direction from
the aligner; all rows see the same images. Writes a table (options.md), the figures (options.json) and a plot
of accuracy over latency (options.png).
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import torch
import typer
from rich.progress import track

from sparc_core.evaluation.bench import BenchConfig, BenchRunner
from sparc_core.evaluation.bench_report import TrackRecords, summarise_track
from sparc_core.evaluation.machine import describe_machine
from sparc_core.pipeline import Aligner, AlignerConfig

ROWS = {
    "default": {},
    "16 + 12 tokens": {"n_bbox": 16, "n_cad": 12},
    "32 + 24 tokens": {"n_bbox": 32, "n_cad": 24},
    "64 + 48 tokens": {"n_bbox": 64, "n_cad": 48},
    "160 + 96 tokens": {"n_bbox": 160, "n_cad": 96},
    "256 + 160 tokens": {"n_bbox": 256, "n_cad": 160},
    "no second looks": {"second_looks": 0},
    "4 finalists, 4 looks": {"finalists": 4, "second_looks": 4},
    "1 update": {"refinements": 1},
    "2 updates": {"refinements": 2},
    "5 updates": {"refinements": 5},
    "no fit to depth": {"depth_fit": False},
    "no masks from depth": {"depth_masks": False},
    "gravity estimated": {"gravity": False},
    "gravity unknown": {"gravity": False, "estimate_gravity": False},
}
TRACK = "sensor, right model"
_runner, _aligners = None, {}


def main(
    out: Annotated[Path, typer.Option(help="Folder for table, figures and plot.")],
    weights: Annotated[Path | None, typer.Option(help="Weights file; none: the shipped one.")] = None,
    images: Annotated[int, typer.Option(help="Rooms of the benchmark.")] = 200,
    row: Annotated[list[str] | None, typer.Option(help="Only this row; repeatable.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes of one thread each; 0: one a core.")] = 0,
) -> None:
    """Measure every row."""
    rows = {name: ROWS[name] for name in row or ROWS}
    jobs = min(jobs or os.cpu_count() or 1, images)
    found = []
    with multiprocessing.get_context("spawn").Pool(jobs, _start, (images, weights, rows)) as pool:
        for part in track(pool.imap_unordered(_run, range(images)), total=images, description="aligning"):
            found += part
    results = []
    for name, options in rows.items():
        summary = summarise_track(TRACK, TrackRecords.from_records([r for r in found if r["row"] == name]))
        kept = {key: summary[key] for key in ("all", "well_visible", "latency_ms")}
        results.append({"row": name, "options": options, **kept})
    out.mkdir(parents=True, exist_ok=True)
    facts = {"images": images, "machine": describe_machine() | {"jobs": jobs, "threads": 1}, "rows": results}
    (out / "options.json").write_text(json.dumps(facts, indent=1))
    table = _table(results)
    (out / "options.md").write_text(table)
    _plot(results, out / "options.png")
    typer.echo(table)


def _start(images: int, weights: Path | None, rows: dict[str, dict]) -> None:
    global _runner
    torch.set_num_threads(1)
    _runner = BenchRunner(BenchConfig(images=images, tracks=(TRACK,)))
    for name, row in rows.items():
        options = {key: value for key, value in row.items() if key != "gravity"}
        aligner = Aligner.load(weights, _runner.library, device="cpu", config=AlignerConfig(**options))
        _aligners[name] = aligner if row.get("gravity", True) else _WithoutGravity(aligner)


class _WithoutGravity:
    """An aligner that is not told which way is up."""

    def __init__(self, aligner: Aligner):
        self.aligner, self.cad = aligner, aligner.cad

    def align(self, image_rgb, camera, *inputs, **options):
        return self.aligner.align(image_rgb, dataclasses.replace(camera, up_cam=None), *inputs, **options)


def _run(number: int) -> list[dict]:
    records = []
    for name, aligner in _aligners.items():
        _runner.free = aligner
        records += [record | {"row": name} for record in _runner.run(number)]
    return records


def _table(results: list[dict]) -> str:
    lines = [
        "| row | all: 20 / 20 / 20 | 10 / 10 / 10 | 5 / 5 / 5 | well visible: 20 / 20 / 20 | 10 / 10 / 10 "
        "| 5 / 5 / 5 | right quadrant | ECE of σ | alignment, median |",
        "|" + "---|" * 10,
    ]
    for result in results:
        cells = [result["row"]]
        for which in ("all", "well_visible"):
            cells += [f"{value:.1f}" for value in result[which]["accuracy"].values()]
        cells += [f"{result['all']['quadrant']:.1f}", f"{result['all']['ece']:.3f}"]
        cells.append(f"{result['latency_ms']['alignment']['p50']:.0f} ms")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _plot(results: list[dict], path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for result in results:
        x = result["latency_ms"]["alignment"]["p50"]
        y = np.mean(list(result["all"]["accuracy"].values()))
        axes.plot(x, y, "o")
        axes.annotate(result["row"], (x, y), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="alignment of an image, median ms on one core", ylabel="mean of the three accuracies, %")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    typer.run(main)
