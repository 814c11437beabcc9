"""`sparc reconstruct`: posed frames of a scene in, one CAD scene out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input


def command(
    sequence: Annotated[Path, typer.Argument(metavar="SEQUENCE.json", help="Frames with camera poses.")],
    out: Annotated[Path, typer.Option(help="MAP.json to write.")],
    scene: Annotated[Path | None, typer.Option(help="3D scene (.glb or .html) to write.")] = None,
    cad_library: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of CAD models (default: procedural ones)")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file (default: the shipped one)")] = None,
    retrieval: Annotated[str, typer.Option(help="As in sparc align: shipped, size or a file.")] = "shipped",
    detector: Annotated[str, typer.Option(help="For frames without boxes, as in sparc align.")] = "shipped",
    depth_model: Annotated[
        str, typer.Option(help="For frames without depth, as in sparc align.")
    ] = "shipped",
    masks: Annotated[str, typer.Option(help="sam:FILE: masks by segment-anything.")] = "",
    min_score: Annotated[float, typer.Option(help="Objects whose best σ is below are left out.")] = 0.5,
    min_sightings: Annotated[int, typer.Option(help="Objects seen in fewer frames are left out.")] = 1,
    device: options.Device = "auto",
) -> None:
    """Align every frame, find out which sightings are one object, and fuse them in the world frame."""
    from rich.progress import track

    from sparc_core.files.posed_frames import read_sequence
    from sparc_core.mapping.map_file import write_map
    from sparc_core.mapping.scene_map import MapConfig, build_map
    from sparc_core.visualise.scene import require_scene_suffix

    with report_bad_input():
        if scene is not None:
            require_scene_suffix(scene)
        frames = read_sequence(sequence)
        config = MapConfig(min_score=min_score, min_sightings=min_sightings)
        aligner = _load_aligner(cad_library, weights, retrieval, device)
        perception = _load_perception(frames.frames, detector, depth_model, masks, aligner.device)
        sightings = []
        for number, frame in enumerate(track(frames.frames, description="aligning")):
            sightings += _sightings(aligner, perception, frame, number, frames.depth_scale)
        objects = build_map(sightings, config)
        facts = {"map": dataclasses.asdict(config), "aligner": dataclasses.asdict(aligner.config)}
        write_map(out, objects, len(frames.frames), facts)
        if scene is not None:
            _write_scene(scene, objects, aligner.cad_library, frames.up_world)
    _print(objects, len(sightings))
    typer.echo(f"wrote {out}" + (f", {scene}" if scene else ""))


def _load_aligner(cad_library, weights, retrieval: str, device: str):
    from sparc_core.cad.library import CadLibrary
    from sparc_core.pipeline import Aligner

    library = None if cad_library is None else CadLibrary.open(cad_library)
    aligner = Aligner.load(weights, library, device=device, retrieval=retrieval)
    for path, reason in aligner.cad_library.skipped:
        typer.echo(f"skipped CAD file {path}: {reason}", err=True)
    return aligner


def _load_perception(frames, detector: str, depth_model: str, masks: str, device):
    """The predictors of what some of the frames do not have."""
    from sparc_core.perception.see import Perception, PerceptionConfig

    seeks = any(frame.detections is None for frame in frames)
    guesses = depth_model != "none" and any(frame.depth is None for frame in frames)
    config = PerceptionConfig(detector if seeks else "", depth_model if guesses else "", masks)
    return Perception.load(config, device)


def _sightings(aligner, perception, frame, number: int, depth_scale: float) -> list:
    """The aligned objects of one frame in the world."""
    from sparc_core.files.detections import read_detections
    from sparc_core.files.images import read_depth, read_image
    from sparc_core.mapping.sighting import sighting_of

    image = read_image(frame.image)
    if image.shape[:2] != (frame.camera.height, frame.camera.width):
        raise ValueError(
            f"{frame.image}: expected {frame.camera.width}×{frame.camera.height} pixels as its camera says, "
            f"got {image.shape[1]}×{image.shape[0]}"
        )
    depth = None if frame.depth is None else read_depth(frame.depth, depth_scale)
    found = None if frame.detections is None else read_detections(frame.detections)
    seen = perception.see(image, frame.camera, found, depth)
    result = aligner.align(
        image, frame.camera, seen.detections, seen.depth_m, seen.normals_cam,
        depth_predicted=seen.depth_predicted, hints=seen.hints,
    )  # fmt: skip
    for skipped in result.skipped:
        typer.echo(f"{frame.image}: detection {skipped.detection} skipped: {skipped.reason}", err=True)
    library = aligner.cad_library
    symmetry = {o.model_id: library.models[library.index_of(o.model_id)].symmetry for o in result.objects}
    return [sighting_of(o, symmetry[o.model_id], frame.T_world_cam, number) for o in result.objects]


def _write_scene(path: Path, objects, library, up_world) -> None:
    """The map as GLB or HTML, turned until the world's up is that of an upright camera."""
    import numpy as np
    from scipy.spatial.transform import Rotation

    from sparc_core.types import AlignedObject
    from sparc_core.visualise.scene import write_scene

    turn = np.eye(3)
    if up_world is not None:
        turn = Rotation.align_vectors([[0, -1, 0]], [up_world])[0].as_matrix()
    placed = [
        AlignedObject(
            i, o.category, o.model_id, (0, 0, 0, 0), turn @ o.R, turn @ o.T_m, o.S_m, o.score, "map"
        )
        for i, o in enumerate(objects)
    ]
    write_scene(placed, library, path)


def _print(objects, sightings: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("#", "category", "CAD model", "σ", "position m", "size m", "frames", "agreeing")
    for number, item in enumerate(objects):
        position, size = (" ".join(f"{v:.2f}" for v in vector) for vector in (item.T_m, item.S_m))
        table.add_row(
            str(number), item.category, item.model_id, f"{item.score:.2f}", position, size,
            str(len(item.sightings)), str(item.agreeing),
        )  # fmt: skip
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    console.print(f"{len(objects)} objects from {sightings} sightings")
