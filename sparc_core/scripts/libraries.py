"""CAD models named on the command line."""

from __future__ import annotations

from pathlib import Path

import typer


def open_libraries(specs: list[str], hold_out: list[str]):
    """One `CadLibrary` of all specs, folders and procedural:FIRST-LAST, without the models whose id begins
    with one of `hold_out`. Files that were skipped are named on stderr. Raises ValueError for a source that
    is not there."""
    from sparc_core.cad.library import CadLibrary

    library = None
    for spec in specs:
        is_folder = not spec.startswith("procedural")
        part = CadLibrary.from_folder(Path(spec), include_other=True) if is_folder else CadLibrary.open(spec)
        for path, reason in part.skipped:
            typer.echo(f"skipped {path}: {reason}", err=True)
        library = part if library is None else library.merged(part)
    for prefix in hold_out:
        kept = [i for i, model in enumerate(library.models) if not model.model_id.startswith(prefix)]
        if len(kept) == len(library):
            raise ValueError(f"--hold-out {prefix!r}: no CAD model's id begins so")
        library = library.subset(kept)
    return library
