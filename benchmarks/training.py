"""How fast training is, and where its time goes.

    ./run python benchmarks/training.py --device cuda --images 512 --out benchmarks/results/training.json

Runs `Trainer` exactly as `sparc pretrain` does, and reads the stages from PyTorch's profiler. An image counts
once, though it is refined three times and takes three optimiser steps.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from sparc_core.cad.library import CadLibrary
from sparc_core.config import from_dict, load_yaml
from sparc_core.evaluation.machine import describe_machine
from sparc_core.training.train import TrainConfig, Trainer

# in the order of a step; "scenes" without the stages that lie inside it
STAGES = ("scenes", "what is visible", "read pixels", "tokens", "forward", "backward", "optimiser")
INSIDE_SCENES = ("what is visible", "box pixels")


def main(
    config: Annotated[Path, typer.Option(help="TrainConfig as YAML.")] = Path("config/training/shipped.yaml"),
    cad_library: Annotated[
        str, typer.Option(help="Folder of CAD models, or procedural:FIRST-LAST.")
    ] = "procedural:0-19",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    images: Annotated[int, typer.Option(help="Images a batch; 0: as in the config.")] = 0,
    batches: Annotated[int, typer.Option(help="Image batches that are timed.")] = 10,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: PyTorch's choice.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Print images a second and the share of every stage."""
    if threads:
        torch.set_num_threads(threads)
    settings = from_dict(TrainConfig, load_yaml(config), str(config))
    settings = dataclasses.replace(
        settings, images=images or settings.images, steps=10**9, time_limit_min=0.0
    )
    trainer = Trainer(settings, CadLibrary.open(cad_library), device)
    _run(trainer, 2)  # compiles the ray-casting kernel and fills PyTorch's memory pools
    seconds = _run(trainer, batches)
    rate = batches * settings.images / seconds
    stages = _stages(trainer, device)
    facts = {
        "machine": describe_machine(device),
        "precision": trainer.accelerator.mixed_precision,
        "images_a_batch": settings.images,
        "objects_an_image": settings.data.detections,
        "images_per_s": round(rate, 2),
        "steps_per_s": round(batches * settings.refinements / seconds, 3),
        "share_of_time": stages,
    }
    table = Table(title=f"{rate:.1f} images/s, {facts['steps_per_s']:.2f} optimiser steps/s, {device}")
    table.add_column("stage")
    table.add_column("share of the time", justify="right")
    for name, share in stages.items():
        table.add_row(name, f"{100 * share:.1f} %")
    Console(width=100).print(table)
    if out:
        out.write_text(json.dumps(facts, indent=1))
        typer.echo(f"wrote {out}")


def _run(trainer: Trainer, batches: int) -> float:
    """Seconds for so many image batches."""
    last = trainer.step + batches * trainer.config.refinements
    if trainer.device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    trainer.run(lambda metrics: None, stop=lambda: trainer.step >= last)
    if trainer.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _stages(trainer: Trainer, device: str) -> dict[str, float]:
    """Share of the time of every stage, from one profiled image batch."""
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device != "cpu" else [])
    with profile(activities=kinds) as profiler:
        seconds = _run(trainer, 1)
    measured = {event.key: event for event in profiler.key_averages()}

    def total(name: str) -> float:
        event = measured.get(name)
        if event is None:
            return 0.0
        return (event.cpu_time_total if device == "cpu" else event.device_time_total) / 1e6

    found = {name: total(name) for name in STAGES}
    found["scenes"] -= sum(total(inner) for inner in INSIDE_SCENES)
    found["read pixels"] += total("box pixels")
    whole = seconds if device == "cpu" else max(seconds, sum(found.values()))
    shares = {name: round(value / whole, 4) for name, value in found.items()}
    return shares | {"other": round(max(0.0, 1 - sum(shares.values())), 4)}


if __name__ == "__main__":
    typer.run(main)
