"""Options that several commands have: their types and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves PyTorch's choice.")]
StopAfterMin = Annotated[float, typer.Option(help="Save and stop after this many minutes; resume later.")]
Resume = Annotated[bool, typer.Option(help="Go on from the checkpoint in --out.")]
Init = Annotated[
    Path | None, typer.Option(help="Start from the weights of this file instead of random ones.")
]
Method = Annotated[
    str,
    typer.Option(
        help="What aligns: multi-sparc or a baseline, roca:FILE or mask2cad:FILE; start:roca:FILE and "
        "beside:roca:FILE refine its poses instead of searching, or beside a search."
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
