"""`sparc prepare`: check licensed datasets and turn them once into what the other commands read."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts.errors import report_bad_input

app = typer.Typer(no_args_is_help=True, add_completion=False)
SHOWN = 5  # of each kind of what is missing

_work = None  # of this worker process: the tree and the folder to write


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
    from sparc_core.datasets.prepare import (
        Sources,
        check_tree,
        claim_folder,
        collect_cad,
        unfinished,
        write_common,
    )

    with report_bad_input():
        tree = check_tree(Sources(frames, scan2cad, shapenet, scenes, depth))
        _print_tree(tree)
        if check:
            raise typer.Exit(1 if any(tree.missing.values()) else 0)
        _refuse_missing(tree, keep_going)
        claim_folder(tree, out)
        left = unfinished(tree.scenes, out)
        if len(left) < len(tree.scenes):
            typer.echo(f"{len(tree.scenes) - len(left)} scenes were converted before")
        with _workers(tree, out, jobs) as each:
            tree.missing["CAD models"] += filter(None, each(_convert_cad, list(tree.cad), "CAD models"))
            _refuse_missing(tree, keep_going)
            write_common(tree, collect_cad(tree, out), out)
            _print_some("notes", tree.notes)
            written = sum(each(_convert_scene, left, "scenes"))
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


def _print_tree(tree) -> None:
    """What is there and what is missing."""
    frames = sum(len(names) for names in tree.scenes.values())
    typer.echo(f"{len(tree.scenes)} scenes with {frames} frames, {len(tree.cad)} CAD models")
    counts = tree.annotations.counts()
    listed = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    typer.echo(f"{sum(counts.values())} annotated objects: {listed}")
    for kind, problems in tree.missing.items():
        _print_some(f"missing {kind}", problems)


def _print_some(kind: str, lines: list[str]) -> None:
    if lines:
        typer.echo(f"{kind}: {len(lines)}", err=True)
        for line in lines[:SHOWN]:
            typer.echo(f"  {line}", err=True)
        if len(lines) > SHOWN:
            typer.echo(f"  … and {len(lines) - SHOWN} more", err=True)


def _refuse_missing(tree, keep_going: bool) -> None:
    """ValueError when something is missing, unless the rest is wanted; also when nothing is left."""
    missing = [line for lines in tree.missing.values() for line in lines]
    if missing and not keep_going:
        raise ValueError(
            f"{len(missing)} files are missing, the last: {missing[-1]}. --keep-going converts the rest"
        )
    if not tree.scenes:
        raise ValueError("no scene is complete")


@contextmanager
def _workers(tree, out: Path, jobs: int) -> Iterator[Callable[[Callable, list, str], list]]:
    """Gives a function that applies another one to every item of a list, with a progress bar, in as many
    processes as are wanted, and returns what comes out."""
    from rich.progress import track

    jobs = min(jobs or os.cpu_count() or 1, len(tree.scenes) + len(tree.cad))
    _start_worker(tree, out)
    if jobs == 1:
        yield lambda convert, items, name: [convert(item) for item in track(items, description=name)]
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _start_worker, (tree, out)) as pool:
        yield lambda convert, items, name: list(
            track(pool.imap_unordered(convert, items), total=len(items), description=name)
        )


def _start_worker(tree, out: Path) -> None:
    global _work
    _work = tree, out


def _convert_cad(key) -> str | None:
    from sparc_core.datasets.prepare import convert_cad

    tree, out = _work
    return convert_cad(tree.cad[key], key, out)


def _convert_scene(scene: str) -> int:
    from sparc_core.datasets.prepare import convert_scene

    return convert_scene(_work[0], scene, _work[1])
