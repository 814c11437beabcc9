"""CAMERA.json: intrinsics, lens distortion, gravity and height in, `Camera` out (and back)."""

from __future__ import annotations

from pathlib import Path

from sparc_core.files.fields import Fields, load_json
from sparc_core.types import DISTORTION_LENGTHS, Camera

_WHAT = "a camera"
# OpenCV tells its polynomial models apart by the number of coefficients alone.
_MODEL_BY_LENGTH = {0: "none", 4: "plumb_bob", 5: "plumb_bob"} | dict.fromkeys(
    DISTORTION_LENGTHS["rational_polynomial"], "rational_polynomial"
)


def read_camera(path: str | Path) -> Camera:
    """Read a CAMERA.json.

    Fields: width, height, fx, fy, cx, cy in pixels; optional `distortion` (OpenCV's order: 4 or 5
    coefficients are plumb_bob, 8, 12 or 14 rational_polynomial), optional `distortion_model` (needed for
    "equidistant"), optional `up_cam` (3 numbers) and with it `above_floor_m`. Other fields are notes and
    are ignored. Raises FileNotFoundError, or ValueError naming file and field.
    """
    return camera_from_json(load_json(Path(path), dict, _WHAT), str(path))


def camera_from_json(content: dict, where: str) -> Camera:
    """The same for parsed JSON; `where` starts every error."""
    fields = Fields(content, where)
    sizes = {
        name: fields.integer(name, expected="a positive integer", accept=lambda v: v > 0)
        for name in ("width", "height")
    }
    focal = {
        name: fields.number(name, expected="a positive number (zero: not calibrated)", accept=lambda v: v > 0)
        for name in ("fx", "fy")
    }
    centre = {name: fields.number(name) for name in ("cx", "cy")}
    distortion, model = _distortion(fields)
    up = fields.array("up_cam", (3,), default=None)
    above = fields.number(
        "above_floor_m", default=None, expected="a positive number of metres", accept=lambda v: v > 0
    )
    try:
        return Camera(
            **sizes, **focal, **centre, distortion=distortion, distortion_model=model,
            up_cam=None if up is None else tuple(up), above_floor_m=above,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def camera_to_json(camera: Camera) -> dict:
    """The fields `read_camera` reads; absent where there is no distortion, and for what is not known."""
    content = {name: getattr(camera, name) for name in ("width", "height", "fx", "fy", "cx", "cy")}
    if camera.distortion_model != "none":
        content["distortion"] = list(camera.distortion)
        content["distortion_model"] = camera.distortion_model
    if camera.up_cam is not None:
        content["up_cam"] = list(camera.up_cam)
    if camera.above_floor_m is not None:
        content["above_floor_m"] = camera.above_floor_m
    return content


def read_depth_scale(path: str | Path) -> float | None:
    """`depth_scale_units_per_m` of a CAMERA.json (depth image units in one metre), None when absent."""
    fields = Fields(load_json(Path(path), dict, _WHAT), str(path))
    return fields.number(
        "depth_scale_units_per_m", default=None, expected="a positive number", accept=lambda v: v > 0
    )


def _distortion(fields: Fields) -> tuple[tuple[float, ...], str]:
    values = fields.array("distortion", None, default=None)
    distortion = () if values is None else tuple(float(value) for value in values)
    model = fields.text("distortion_model", default=None, choices=tuple(DISTORTION_LENGTHS))
    if model is None:
        if len(distortion) not in _MODEL_BY_LENGTH:
            raise ValueError(
                f"{fields.where}: field 'distortion': expected {sorted(_MODEL_BY_LENGTH)} coefficients, "
                f"got {len(distortion)}"
            )
        model = _MODEL_BY_LENGTH[len(distortion)]
    if len(distortion) not in DISTORTION_LENGTHS[model]:
        raise ValueError(
            f"{fields.where}: field 'distortion': expected {list(DISTORTION_LENGTHS[model])} coefficients "
            f"for {model}, got {len(distortion)}"
        )
    return distortion, model
