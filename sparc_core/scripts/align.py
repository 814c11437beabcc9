"""`sparc align`: one image in, RESULT.json out; overlay picture and 3D scene on request. Folders and videos
go to `align_sequence.py`."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparc_core.device import find_device
from sparc_core.files.cameras import read_camera, read_depth_scale
from sparc_core.files.detections import read_detections
from sparc_core.files.images import read_depth, read_image, require_image_suffix, write_image
from sparc_core.files.results import write_result
from sparc_core.files.sequence import is_sequence
from sparc_core.scripts.align_sequence import SequenceOptions, align_sequence
from sparc_core.scripts.options import Device
from sparc_core.types import AlignmentResult, Camera, Detection

DEFAULT_DEPTH_UNITS_PER_M = 1000.0
BAD_INPUT = 2
SHIPPED = "shipped"  # as in perception/see.py, which takes seconds to import
VIDEO = "Folders and videos"


class ScaleMode(enum.StrEnum):
    """Which scales the alignment may change."""

    free = "free"
    uniform = "uniform"
    fixed = "fixed"


@dataclasses.dataclass(frozen=True, eq=False)
class _Inputs:
    image_rgb: object
    camera: Camera
    detections: tuple[Detection, ...] | None
    depth_m: object


def command(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="Colour image (PNG, JPEG, …), folder of images, or video.")
    ],
    camera: Annotated[Path, typer.Option(help="CAMERA.json: width, height, fx, fy, cx, cy, …")],
    out: Annotated[Path, typer.Option(help="RESULT.json to write; of a folder or video a .jsonl file.")],
    detections: Annotated[
        Path | None, typer.Option(help="DETS.json: boxes and categories (default: the detector finds them).")
    ] = None,
    depth: Annotated[Path | None, typer.Option(help="Depth image of the same size and view.")] = None,
    depth_scale: Annotated[
        float | None,
        typer.Option(
            help="Units of an integer depth image in one metre (default: depth_scale_units_per_m of the "
            "camera file, else 1000)"
        ),
    ] = None,
    depth_predicted: Annotated[
        bool, typer.Option("--depth-predicted", help="The depth is a network's guess from the image.")
    ] = False,
    detector: Annotated[
        str,
        typer.Option(
            help="Used without --detections: shipped, weights of ours, coco:FILE (torchvision's Mask R-CNN) "
            "or hf:NAME (transformers)."
        ),
    ] = SHIPPED,
    depth_model: Annotated[
        str,
        typer.Option(
            help="Depth from the image, used without --depth: shipped, weights of ours, hf:NAME or none."
        ),
    ] = SHIPPED,
    masks: Annotated[str, typer.Option(help="sam:FILE: masks by segment-anything.")] = "",
    min_score: Annotated[float, typer.Option(help="Of detections.")] = 0.4,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Holes of --depth are filled by --depth-model.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Models of hf: may be fetched from the Hub.")
    ] = False,
    cad_library: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of CAD models (default: procedural ones)")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file (default: the shipped one)")] = None,
    retrieval: Annotated[
        str,
        typer.Option(
            help="CAD models for detections that name none: by their look (shipped, or a file of "
            "weights) or by their size (size)."
        ),
    ] = SHIPPED,
    device: Device = "auto",
    scale_mode: Annotated[
        ScaleMode, typer.Option(help="free: three scales; uniform: one; fixed: the CAD model's true size.")
    ] = ScaleMode.free,
    scale_mode_of: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODE", help="Another mode for a category or a CAD model's id; repeatable."
        ),
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Picture with the projected models to write.")] = None,
    scene: Annotated[Path | None, typer.Option(help="3D scene (.glb or .html) to write.")] = None,
    poses: Annotated[
        Path | None,
        typer.Option(help="Folder or video: camera poses, TUM trajectory or .json.", rich_help_panel=VIDEO),
    ] = None,
    world_up: Annotated[
        str, typer.Option(help="Axis of the poses that is up: z, y, -y or none.", rich_help_panel=VIDEO)
    ] = "z",
    fps: Annotated[
        float | None, typer.Option(help="Images in a second, where files do not tell.", rich_help_panel=VIDEO)
    ] = None,
    every: Annotated[int, typer.Option(help="Only each n-th image.", rich_help_panel=VIDEO)] = 1,
    smooth: Annotated[
        bool, typer.Option(help="Mean poses of what stands still.", rich_help_panel=VIDEO)
    ] = True,
    reinit_score: Annotated[
        float, typer.Option(help="Tracks with a lower score are searched anew.", rich_help_panel=VIDEO)
    ] = 0.4,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="MAP.json to write: sightings fused, ids that return; needs --poses.",
            rich_help_panel=VIDEO,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Align CAD models to the objects of one image, or of every image of a folder or a video: then
    --detections and --depth are folders with a file a frame, of the image's name. What is not given is
    predicted."""
    console, errors = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width: nothing needs to be cut off
    try:
        _check_outputs(out, overlay, scene, map_file)
        if map_file is not None and not is_sequence(image):
            raise ValueError(f"--map {map_file}: expected only for a folder or video, got {image}")
        if is_sequence(image):
            _check_sequence_outputs(out, overlay)
            options = SequenceOptions(
                image, camera, out, detections, depth, depth_scale, depth_predicted, poses, world_up, fps,
                every, smooth, reinit_score, scene, map_file,
            )  # fmt: skip
            align_sequence(
                options,
                lambda: _load_aligner(
                    weights, cad_library, device, scale_mode.value, _scale_modes(scale_mode_of or []),
                    retrieval,
                ),
                lambda: _load_perception(
                    detections is not None, depth is not None, detector, depth_model, masks, min_score,
                    fill_holes, download, device,
                ),
            )  # fmt: skip
            written = [path for path in (out, scene, map_file) if path is not None]
            console.print("wrote " + ", ".join(escape(str(path)) for path in written), soft_wrap=True)
            return
        inputs = _read_inputs(image, camera, detections, depth, depth_scale)
        modes = _scale_modes(scale_mode_of or [])
        aligner = _load_aligner(weights, cad_library, device, scale_mode.value, modes, retrieval)
        for path, reason in aligner.cad_library.skipped:
            errors.print(f"[yellow]skipped CAD file[/] {escape(str(path))}: {escape(reason)}")
        seen = _see(inputs, detector, depth_model, masks, min_score, fill_holes, download, device)
        result = aligner.align(
            inputs.image_rgb,
            inputs.camera,
            seen.detections,
            seen.depth_m,
            seen.normals_cam,
            depth_predicted=depth_predicted or seen.depth_predicted,
        )
        result = dataclasses.replace(result, timing_ms={**seen.timing_ms, **result.timing_ms})
        write_result(out, result, config=_plain(aligner.config), perception=seen.ran)
        if overlay is not None:
            _write_overlay(overlay, inputs, result, aligner.cad_library)
        if scene is not None:
            _write_scene(scene, inputs, seen.depth_m, result, aligner.cad_library)
    except (ValueError, OSError) as error:
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(BAD_INPUT) from error
    _print_result(console, result)
    written = [path for path in (out, overlay, scene) if path is not None]
    console.print("wrote " + ", ".join(escape(str(path)) for path in written), soft_wrap=True)


def _read_inputs(
    image: Path, camera: Path, detections: Path | None, depth: Path | None, depth_scale: float | None
) -> _Inputs:
    """Everything the aligner needs, with sizes that agree. Raises ValueError or OSError."""
    if depth_scale is not None and depth is None:
        raise ValueError(f"--depth-scale: expected only together with --depth, got {depth_scale:g} alone")
    intrinsics = read_camera(camera)
    image_rgb = read_image(image)
    _check_size(image, image_rgb, intrinsics, camera)
    depth_m = None
    if depth is not None:
        if depth_scale is None:
            depth_scale = read_depth_scale(camera) or DEFAULT_DEPTH_UNITS_PER_M
        depth_m = read_depth(depth, depth_scale)
        _check_size(depth, depth_m, intrinsics, camera)
    found = None if detections is None else read_detections(detections)
    for index, detection in enumerate(found or ()):
        if detection.mask is not None:
            _check_size(f"{detections}: detection {index}: mask", detection.mask, intrinsics, camera)
    return _Inputs(image_rgb, intrinsics, found, depth_m)


def _see(inputs: _Inputs, detector, depth, masks, min_score, fill_holes, download, device: str):
    """Detections and depth by the predictors that were named, or those that were given."""
    given = inputs.detections is not None, inputs.depth_m is not None
    perception = _load_perception(*given, detector, depth, masks, min_score, fill_holes, download, device)
    return perception.see(inputs.image_rgb, inputs.camera, inputs.detections, inputs.depth_m)


def _load_perception(
    has_detections: bool, has_depth: bool, detector, depth, masks, min_score, fill_holes, download, device
):
    """The predictors that were named, of what is not there."""
    from sparc_core.perception.see import Perception, PerceptionConfig

    config = PerceptionConfig(
        "" if has_detections else detector,
        "" if depth == "none" or (has_depth and not fill_holes) else depth,
        masks, min_score, fill_holes, download,
    )  # fmt: skip
    return Perception.load(config, find_device(device))


def _check_size(name, pixels, camera: Camera, camera_path: Path) -> None:
    height, width = pixels.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ValueError(
            f"{name}: expected {camera.width}×{camera.height} pixels as {camera_path} says, "
            f"got {width}×{height}"
        )


def _check_outputs(out: Path, overlay: Path | None, scene: Path | None, map_file: Path | None) -> None:
    """Refuse what could not be written before the work is done, not after."""
    if overlay is not None:
        require_image_suffix(overlay)
    if scene is not None and scene.suffix.lower() not in (".glb", ".html"):
        raise ValueError(f"{scene}: expected a name ending in .glb or .html")
    for option, path in (("--out", out), ("--overlay", overlay), ("--scene", scene), ("--map", map_file)):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{option} {path}: expected a folder that exists, got {path.parent}")
        if path is not None and path.is_dir():
            raise ValueError(f"{option} {path}: expected a file name, got a folder")


def _check_sequence_outputs(out: Path, overlay: Path | None) -> None:
    if out.suffix.lower() != ".jsonl":
        raise ValueError(f"--out {out}: expected a name ending in .jsonl for a folder or video")
    if overlay is not None:
        raise ValueError(
            f"--overlay {overlay}: expected only for a single image; --scene shows a folder or video"
        )


def _scale_modes(entries: list[str]) -> tuple[tuple[str, str], ...]:
    modes = [mode.value for mode in ScaleMode]
    for entry in entries:
        name, _, mode = entry.rpartition("=")
        if not name or mode not in modes:
            raise ValueError(f"--scale-mode-of {entry}: expected NAME=MODE with a mode of {', '.join(modes)}")
    return tuple((name, mode) for name, _, mode in (entry.rpartition("=") for entry in entries))


def _load_aligner(
    weights: Path | None, cad_library: str | None, device: str, scale_mode: str, modes, retrieval: str
):
    # torch and the network take seconds to import: not for --help, nor for a wrong file name.
    from sparc_core.cad.library import CadLibrary
    from sparc_core.pipeline import Aligner, AlignerConfig

    if weights is not None and not weights.is_file():
        raise FileNotFoundError(f"--weights {weights}: no such file")
    library = None if cad_library is None else CadLibrary.open(cad_library)
    config = AlignerConfig(scale_mode=scale_mode, scale_modes=modes)
    return Aligner.load(weights, library, device=device, config=config, retrieval=retrieval)


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
