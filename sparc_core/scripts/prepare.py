"""`sparc prepare`: check licensed datasets and turn them once into what the other commands read."""

from __future__ import annotations

import functools
import multiprocessing
import os
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts.errors import report_bad_input

app = typer.Typer(no_args_is_help=True, add_completion=False)
SHOWN = 5  # of each kind of what is missing

_tree = None  # of this worker process


@app.callback()
def _group() -> None:
    """Datasets that users bring: check what is there, convert it once."""


@app.command()
def scannet25k(
    frames: Annotated[
        Path, typer.Option(help="ScanNet25k: the folder of the scenes, or above tasks/scannet_frames_25k.")
    ],
    scan2cad: Annotated[
        Path, typer.Option(help="Folder with full_annotations.json (and cad_appearances.json).")
    ],
    shapenet: Annotated[Path, typer.Option(help="ShapeNetCore.v2: synset/id/models/model_normalized.obj.")],
    out: Annotated[Path, typer.Option(help="Folder to write; a run that stopped goes on.")],
    scenes: Annotated[
        Path | None,
        typer.Option(help="Text file, a scene a line (scannetv2_val.txt); none: all that are annotated."),
    ] = None,
    depth: Annotated[bool, typer.Option(help="Convert depth images and judge by them what is seen.")] = True,
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Convert what is complete when something is missing.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one a core.")] = 0,
) -> None:
    """Check ScanNet25k, Scan2CAD and ShapeNet, then write images at 480 × 360 with their truth."""
    from sparc_core.datasets.prepare import Sources, check_tree, unfinished, write_header

    with report_bad_input():
        tree = check_tree(Sources(frames, scan2cad, shapenet, scenes, depth))
        complete = _print_tree(tree)
        if check:
            raise typer.Exit(0 if complete else 1)
        if not complete and not keep_going:
            raise ValueError("files are missing (above); --keep-going converts the rest")
        if not tree.scenes:
            raise ValueError("no scene is complete")
        write_header(tree, out)
        left = unfinished(tree.scenes, out)
        if len(left) < len(tree.scenes):
            typer.echo(f"{len(tree.scenes) - len(left)} scenes were converted before")
        written = _convert(tree, left, out, min(jobs or os.cpu_count() or 1, max(len(left), 1)))
    typer.echo(f"wrote {written} frames of {len(left)} scenes to {out}")


@app.command("3d-future")
def future3d(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="With model_info.json and the models.")],
    out: Annotated[Path, typer.Option(help="Folder for an index.json, to be used as --cad-library.")],
) -> None:
    """Index 3D-FUTURE's models for `sparc pretrain --cad-library OUT`; the meshes stay where they are."""
    from collections import Counter

    from sparc_core.datasets.future3d import read_index
    from sparc_core.datasets.prepare import write_json

    with report_bad_input():
        entries, missing = read_index(folder)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "index.json", {"models": entries})
    _print_some("models without a mesh", missing)
    counts = Counter(entry["category"] for entry in entries)
    typer.echo(f"{len(entries)} models: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    typer.echo(f"wrote {out / 'index.json'}")


def _print_tree(tree) -> bool:
    """What is there, what is odd, what is missing; whether nothing is missing."""
    frames = sum(len(names) for names in tree.scenes.values())
    typer.echo(f"{len(tree.scenes)} scenes with {frames} frames, {len(tree.cad)} CAD models")
    counts = tree.annotations.counts()
    listed = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    typer.echo(f"{sum(counts.values())} annotated objects: {listed}")
    _print_some("notes", tree.notes)
    for kind, problems in tree.missing.items():
        _print_some(f"missing {kind}", problems)
    return not any(tree.missing.values())


def _print_some(kind: str, lines: list[str]) -> None:
    if lines:
        typer.echo(f"{kind}: {len(lines)}", err=True)
        for line in lines[:SHOWN]:
            typer.echo(f"  {line}", err=True)
        if len(lines) > SHOWN:
            typer.echo(f"  … and {len(lines) - SHOWN} more", err=True)


def _convert(tree, scenes: list[str], out: Path, jobs: int) -> int:
    """Convert scenes, in processes when there are several; returns how many frames were written."""
    from rich.progress import track

    _start_worker(tree)
    convert = functools.partial(_convert_scene, out)
    if jobs == 1:
        return sum(track(map(convert, scenes), total=len(scenes), description="converting"))
    with multiprocessing.get_context("spawn").Pool(jobs, _start_worker, (tree,)) as pool:
        counts = pool.imap_unordered(convert, scenes)
        return sum(track(counts, total=len(scenes), description="converting"))


def _start_worker(tree) -> None:
    global _tree
    _tree = tree


def _convert_scene(out: Path, scene: str) -> int:
    from sparc_core.datasets.prepare import convert_scene

    return convert_scene(_tree, scene, out)
