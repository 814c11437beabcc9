"""`sparc evaluate retrieval`: how often the right CAD model is found, learned and by other ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input


def retrieval(
    weights: Annotated[Path | None, typer.Option(help="Retrieval weights; none: the shipped ones.")] = None,
    images: Annotated[int, typer.Option(help="How many rooms.")] = 200,
    seed: Annotated[int, typer.Option(help="Fixes the rooms.")] = 5,
    cad_library: Annotated[
        str, typer.Option(help="CAD models unseen in training: a folder or procedural:FIRST-LAST.")
    ] = "procedural:1000000-1000019",
    device: options.Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write all figures as JSON.")] = None,
) -> None:
    """Top-1 and top-5 among the CAD models of the category, from true boxes and a depth camera."""
    from rich.console import Console
    from rich.table import Table

    from sparc_core.cad.library import CadLibrary
    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.retrieval import chamfer_ranking, measure_retrieval, size_ranking
    from sparc_core.pipeline import SHIPPED_RETRIEVAL, Aligner

    with report_bad_input():
        library = CadLibrary.open(cad_library)
        aligner = Aligner.load(None, library, device=device, retrieval=weights or SHIPPED_RETRIEVAL)
    rankings = {
        "learned": aligner.retriever.ranking,
        "Chamfer distance to the depth": chamfer_ranking(library),
        "size": size_ranking,
    }
    found = measure_retrieval(library, rankings, images, seed)
    columns = ("top1", "top5", "top1_well_visible", "top5_well_visible")
    table = Table(title=f"{found['learned']['objects']} objects, {len(library)} CAD models")
    for heading in ("retrieval by", "top-1 %", "top-5 %", "well visible top-1 %", "well visible top-5 %"):
        table.add_column(heading)
    for name, row in found.items():
        table.add_row(name, *(f"{100 * row[column]:.1f}" for column in columns))
    Console(width=120).print(table)
    if out:
        facts = {
            "images": images, "seed": seed, "cad_library": cad_library,
            "weights": str(weights) if weights else "shipped",
            "machine": describe_machine(aligner.device), "rows": found,
        }  # fmt: skip
        out.write_text(json.dumps(facts, indent=1))
        typer.echo(f"wrote {out}")
