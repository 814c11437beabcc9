"""SEQUENCE.json: posed frames of one scene, for `sparc reconstruct`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparc_core.files.cameras import camera_from_json
from sparc_core.files.fields import Fields, load_json
from sparc_core.types import Camera

_KNOWN = ("image", "T_world_cam", "camera", "depth", "detections")


@dataclass(frozen=True, eq=False)
class SequenceFrame:
    """One frame: files, camera (gravity included when the world's up is known) and T_world_cam (4, 4)."""

    image: Path
    depth: Path | None
    detections: Path | None
    camera: Camera
    T_world_cam: np.ndarray


@dataclass(frozen=True, eq=False)
class Sequence:
    """The frames of a scene. depth_scale: units of integer depth images in a metre; up_world (3,) or None."""

    frames: tuple[SequenceFrame, ...]
    depth_scale: float
    up_world: np.ndarray | None


def read_sequence(path: str | Path) -> Sequence:
    """Read a SEQUENCE.json.

    {"camera": {as CAMERA.json}, "up_world": [0, 0, 1], "depth_scale_units_per_m": 1000, "frames": [{"image",
    "T_world_cam", "depth", "detections", "camera"}, …]}. A frame needs image and pose; its own camera
    replaces the common one. Paths are relative to the file. up_world null: gravity is not told. Raises
    FileNotFoundError, or ValueError naming file, frame and field.
    """
    path = Path(path)
    fields = Fields(load_json(path, dict, "a sequence"), str(path))
    fields.refuse_unknown(("camera", "up_world", "depth_scale_units_per_m", "frames"))
    up = fields.array("up_world", (3,), default=None)
    common = fields.get("camera", None)
    frames = tuple(
        _frame(Fields(entry, f"{path}: frame {i}"), path.parent, common, up)
        for i, entry in enumerate(fields.items("frames"))
    )
    if not frames:
        raise ValueError(f"{path}: field 'frames': expected at least one frame")
    scale = fields.number(
        "depth_scale_units_per_m", 1000.0, expected="a positive number", accept=lambda v: v > 0
    )
    return Sequence(frames, scale, up)


def _frame(fields: Fields, folder: Path, common: dict | None, up: np.ndarray | None) -> SequenceFrame:
    fields.refuse_unknown(_KNOWN)
    T = fields.array("T_world_cam", (4, 4))
    rotation = T[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise ValueError(f"{fields.where}: field 'T_world_cam': expected a rotation and a shift")
    camera = dict(fields.get("camera", common) or {})
    if not camera:
        raise ValueError(f"{fields.where}: field 'camera' is missing, and the sequence has none for all")
    if up is not None:
        camera["up_cam"] = (rotation.T @ up).tolist()
    named = {name: fields.text(name, default=None) for name in ("depth", "detections")}
    return SequenceFrame(
        folder / fields.text("image"),
        None if named["depth"] is None else folder / named["depth"],
        None if named["detections"] is None else folder / named["detections"],
        camera_from_json(camera, f"{fields.where}: camera"),
        T,
    )
