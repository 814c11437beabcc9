"""`sparc cad`: look at a folder of CAD models, or write procedural ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

BAD_INPUT = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, help="CAD models: list, check, generate.")

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of meshes, with or without index.json.")
]
DefaultCategory = Annotated[str | None, typer.Option(help="Category of models whose names give none.")]
IncludeOther = Annotated[bool, typer.Option(help="Also models that the index puts into category other.")]


@app.command("list")
def list_models(
    folder: Folder, default_category: DefaultCategory = None, include_other: IncludeOther = False
) -> None:
    """Print every model's id and category, and how many there are of each."""
    library = _open(folder, default_category, include_other)
    for model in library.models:
        typer.echo(f"{model.category:10} {model.model_id}")
    counts = Counter(model.category for model in library.models)
    typer.echo(f"{len(library)} models: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    typer.echo(f"{len(library.skipped)} skipped" + (" (sparc cad check says why)" if library.skipped else ""))


@app.command()
def check(
    folder: Folder, default_category: DefaultCategory = None, include_other: IncludeOther = False
) -> None:
    """Table of what was understood of every model, and what was skipped and why (then the status is 1)."""
    library = _open(folder, default_category, include_other)
    table = Table("id", "category", "x × y × z (m)", "symmetry", "faces", title=f"{len(library)} CAD models")
    for model in library.models:
        size = " × ".join(f"{value:.2f}" for value in model.extents_m)
        table.add_row(escape(model.model_id), model.category, size, model.symmetry, str(len(model.faces)))
    console = Console()
    console.print(table)
    for path, reason in library.skipped:
        console.print(f"[red]skipped[/] {escape(path)}: {escape(reason)}", soft_wrap=True)
    raise typer.Exit(1 if library.skipped else 0)


@app.command("export-procedural")
def export_procedural(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    per_category: Annotated[int, typer.Option(min=1, help="Models of each category.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first; the others follow.")] = 0,
    category: Annotated[list[str] | None, typer.Option(help="Only these categories; repeatable.")] = None,
) -> None:
    """Write procedural furniture as GLB files in metres (y up, front +z) with an index.json."""
    from sparc_core.cad.glb_file import write_glb
    from sparc_core.cad.procedural import generate
    from sparc_core.types import CATEGORIES

    unknown = sorted(set(category or ()) - set(CATEGORIES))
    if unknown:
        raise _bad_input(f"--category must be one of {', '.join(CATEGORIES)}, got {', '.join(unknown)}")
    entries = []
    for name in category or CATEGORIES:
        for seed in range(first_seed, first_seed + per_category):
            made, model_id = generate(name, seed), f"{name}_{seed:07d}"
            file = out / name / f"{model_id}.glb"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_glb(file, made.vertices, made.faces, made.face_colors)
            size = (made.vertices.max(0) - made.vertices.min(0)).round(4).tolist()
            entries.append({
                "id": model_id, "category": name, "file": file.relative_to(out).as_posix(), "units": "m",
                "up": "+Y", "front": "+Z", "extents_m": size, "symmetry": made.symmetry,
            })  # fmt: skip
    (out / "index.json").write_text(json.dumps({"models": entries}, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {len(entries)} models and index.json to {out}")


def _open(folder: Path, default_category: str | None, include_other: bool):
    from sparc_core.cad.library import CadLibrary

    try:
        return CadLibrary.from_folder(folder, default_category=default_category, include_other=include_other)
    except ValueError as error:
        raise _bad_input(str(error)) from error


def _bad_input(message: str) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(BAD_INPUT)
