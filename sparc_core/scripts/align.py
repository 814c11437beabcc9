"""`sparc align`: an image, a folder of images or a video in, results out. What is done with them is in
`align_image.py` and `align_sequence.py`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sparc_core.files.images import require_image_suffix
from sparc_core.files.sequence import is_sequence
from sparc_core.scripts.align_image import ImageOptions, align_image
from sparc_core.scripts.align_networks import Networks
from sparc_core.scripts.align_sequence import SequenceOptions, align_sequence
from sparc_core.scripts.options import Device

BAD_INPUT = 2
SHIPPED = "shipped"  # as in perception/see.py, which takes seconds to import
VIDEO = "Folders and videos"


class ScaleMode(enum.StrEnum):
    """Which scales the alignment may change."""

    free = "free"
    uniform = "uniform"
    fixed = "fixed"


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
    box_model: Annotated[
        str,
        typer.Option(
            help="What tells where objects are and corrects the boxes of our detector: shipped, weights of "
            "ours or none."
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
    stand_on_floor: Annotated[
        bool,
        typer.Option(
            help="Without --depth, furniture stands on the floor, or on one floor; not on platforms."
        ),
    ] = True,
    overlay: Annotated[Path | None, typer.Option(help="Picture with the projected models to write.")] = None,
    scene: Annotated[Path | None, typer.Option(help="3D scene (.glb or .html) to write.")] = None,
    poses: Annotated[
        Path | None,
        typer.Option(help="Folder or video: camera poses, TUM trajectory or .json.", rich_help_panel=VIDEO),
    ] = None,
    world_up: Annotated[
        str, typer.Option(help="Axis of the poses that is up: z, y, -y or none.", rich_help_panel=VIDEO)
    ] = "z",
    floor: Annotated[
        float | None,
        typer.Option(
            help="Height of the floor along --world-up of the poses: tells the scale without --depth.",
            rich_help_panel=VIDEO,
        ),
    ] = None,
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
        networks = Networks(
            weights, cad_library, device, scale_mode.value, _scale_modes(scale_mode_of or []), retrieval,
            detector, depth_model, box_model, masks, min_score, fill_holes, download, stand_on_floor,
        )  # fmt: skip
        if is_sequence(image):
            _check_sequence_outputs(out, overlay)
            options = SequenceOptions(
                image, camera, out, detections, depth, depth_scale, depth_predicted, poses, world_up, floor,
                fps, every, smooth, reinit_score, scene, map_file,
            )  # fmt: skip
            align_sequence(options, networks)
        else:
            if map_file is not None:
                raise ValueError(f"--map {map_file}: expected only for a folder or video, got {image}")
            options = ImageOptions(
                image, camera, out, detections, depth, depth_scale, depth_predicted, overlay, scene
            )
            align_image(options, networks, console, errors)
    except (ValueError, OSError) as error:
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(BAD_INPUT) from error
    written = [path for path in (out, overlay, scene, map_file) if path is not None]
    console.print("wrote " + ", ".join(escape(str(path)) for path in written), soft_wrap=True)


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
