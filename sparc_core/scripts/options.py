"""Options that several commands have: their types and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparc_core.device import check_device


def _checked_device(name: str) -> str:
    try:
        return check_device(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def yaml_of(kind: str):
    """The option of a YAML file with a configuration dataclass."""
    return typer.Option(help=f"YAML with a {kind}; unnamed options keep their defaults.")


CadLibraries = Annotated[
    list[str] | None, typer.Option(help="Folder of CAD models, or procedural:FIRST-LAST; repeatable.")
]
HoldOut = Annotated[
    list[str] | None,
    typer.Option(help="Leave out CAD models whose id begins so, a source kept for tests; repeatable."),
]
UnseenLibrary = Annotated[str, typer.Option(help="CAD library for validation, unseen in training.")]
Pictures = Annotated[Path, typer.Option(help="Folder of pictures to train on.")]
UnseenPictures = Annotated[Path, typer.Option(help="Folder of pictures to validate on.")]

Out = Annotated[Path, typer.Option(help="Folder for weights, config, log and checkpoint.")]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, or cuda:N for one of several GPUs; auto takes the GPU when there is one.",
        callback=_checked_device,
    ),
]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves PyTorch's choice.")]
StopAfterMin = Annotated[float, typer.Option(help="Save and stop after this many minutes; resume later.")]
Resume = Annotated[bool, typer.Option(help="Go on from the checkpoint in --out.")]
Init = Annotated[
    Path | None, typer.Option(help="Start from the weights of this file instead of random ones.")
]
_METHOD = (
    "[NAME=]FILE: shipped, or weights of sparc pretrain, finetune or train-baseline. FIRST+FILE refines the "
    "poses of a single-shot FIRST instead of searching, FIRST+search+FILE beside a search. Options follow "
    "behind commas: shipped,depth_fit=false."
)
Method = Annotated[str, typer.Option(help=f"What aligns: {_METHOD}")]
Methods = Annotated[
    list[str],
    typer.Option(
        help=f"{_METHOD} A YAML file of sparc pretrain has random weights and is only timed. Repeatable."
    ),
]

# of the benchmarks on pictures
Rooms = Annotated[int, typer.Option(help="How many of the benchmark's rooms.")]
Seed = Annotated[int, typer.Option(help="Fixes the rooms.")]
TestLibrary = Annotated[
    str, typer.Option(help="CAD models to test on, and to choose from: a folder or procedural:FIRST-LAST.")
]
Tracks = Annotated[list[str] | None, typer.Option(help="Only this track; repeatable.")]
BenchPredictor = Annotated[str, typer.Option(help="As for sparc align; empty: the shipped one.")]
MinScore = Annotated[float, typer.Option(help="Of the detections that are aligned.")]
Jobs = Annotated[int, typer.Option(help="Processes; 0: one a core.")]
