"""`sparc align` on one image: RESULT.json, an overlay picture and a 3D scene on request."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparc_core.files.cameras import read_camera
from sparc_core.files.detections import read_detections
from sparc_core.files.images import read_depth, read_image, write_image
from sparc_core.files.results import write_result
from sparc_core.scripts.align_inputs import InputOptions
from sparc_core.scripts.align_networks import Networks
from sparc_core.types import AlignmentResult, Camera, Detection


@dataclass(frozen=True)
class ImageOptions(InputOptions):
    """Written besides: overlay (picture), scene (.glb or .html)."""

    overlay: Path | None = None
    scene: Path | None = None


@dataclass(frozen=True, eq=False)
class _Inputs:
    image_rgb: np.ndarray
    camera: Camera
    detections: tuple[Detection, ...] | None
    depth_m: np.ndarray | None


def align_image(options: ImageOptions, networks: Networks, console: Console, errors: Console) -> None:
    """Align the image, write what was asked for and print the objects; `errors` gets what was skipped.

    Raises ValueError or OSError naming what was wrong.
    """
    inputs = _read_inputs(options)
    aligner = networks.load_aligner()
    for path, reason in aligner.cad_library.skipped:
        errors.print(f"[yellow]skipped CAD file[/] {escape(str(path))}: {escape(reason)}")
    perception = networks.load_perception(inputs.detections is not None, inputs.depth_m is not None)
    seen = perception.see(inputs.image_rgb, inputs.camera, inputs.detections, inputs.depth_m)
    result = aligner.align(
        inputs.image_rgb, inputs.camera, seen.detections, seen.depth_m, seen.normals_cam,
        depth_predicted=options.depth_predicted or seen.depth_predicted, hints=seen.hints,
    )  # fmt: skip
    result = dataclasses.replace(result, timing_ms={**seen.timing_ms, **result.timing_ms})
    write_result(options.out, result, config=_plain(aligner.config), perception=seen.ran)
    if options.overlay is not None:
        _write_overlay(options.overlay, inputs, result, aligner.cad_library)
    if options.scene is not None:
        _write_scene(options.scene, inputs, seen.depth_m, result, aligner.cad_library)
    _print_result(console, result)


def _read_inputs(options: ImageOptions) -> _Inputs:
    """Everything the aligner needs, with sizes that agree. Raises ValueError or OSError."""
    units_per_m = options.depth_units_per_m()
    camera = read_camera(options.camera)
    image_rgb = read_image(options.source)
    options.check_size(options.source, image_rgb, camera)
    depth_m = None
    if options.depth is not None:
        depth_m = read_depth(options.depth, units_per_m)
        options.check_size(options.depth, depth_m, camera)
    found = None if options.detections is None else read_detections(options.detections)
    options.check_masks(options.detections, found or (), camera)
    return _Inputs(image_rgb, camera, found, depth_m)


def _plain(config) -> dict:
    """The aligner's configuration as JSON values."""
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _write_overlay(path: Path, inputs: _Inputs, result: AlignmentResult, library) -> None:
    from sparc_core.visualise import draw_overlay

    write_image(path, draw_overlay(inputs.image_rgb, inputs.camera, result.objects, library))


def _write_scene(path: Path, inputs: _Inputs, depth_m, result: AlignmentResult, library) -> None:
    from sparc_core.visualise import write_scene

    write_scene(
        result.objects, library, path,
        camera=inputs.camera, image_rgb=inputs.image_rgb, depth_m=depth_m,
    )  # fmt: skip


def _print_result(console: Console, result: AlignmentResult) -> None:
    """A table of the objects, then what was skipped and how long the stages took."""
    table = Table(title=f"{len(result.objects)} objects", title_justify="left", box=box.SIMPLE_HEAD)
    for name, justify in (
        ("#", "right"), ("category", "left"), ("CAD model", "left"), ("score", "right"),
        ("position m", "right"), ("size m", "right"), ("start", "left"),
    ):  # fmt: skip
        foldable = name in ("category", "CAD model")
        table.add_column(name, justify=justify, no_wrap=not foldable, overflow="fold")
    for item in result.objects:
        position, size = (" ".join(f"{value:.2f}" for value in vector) for vector in (item.T_m, item.S_m))
        table.add_row(
            str(item.detection), item.category, escape(item.model_id), f"{item.score:.2f}", position, size,
            item.start,
        )  # fmt: skip
    console.print(table)
    for skipped in result.skipped:
        console.print(f"[yellow]skipped detection {skipped.detection}:[/] {escape(skipped.reason)}")
    if result.timing_ms:
        stages = ", ".join(f"{name} {ms:.0f}" for name, ms in result.timing_ms.items())
        console.print(f"milliseconds: {stages}")
