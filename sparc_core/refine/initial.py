"""Start poses at run time (Multi-SPARC section 3.3, with depth: DESIGN.md's gap closed)."""

from __future__ import annotations

import math

import torch

from sparc_core.geometry.camera import bearing_z1
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import start_up, upright_rotation
from sparc_core.perception.samples import Frame, PixelSamples

START_AZIMUTHS_DEG = (0, 90, 180, 270)
# names of the starts, by the number a row of the search has: the four rotations, then a given pose
START_NAMES = (*(f"azimuth_{degrees}" for degrees in START_AZIMUTHS_DEG), "track")
GIVEN_START = len(START_AZIMUTHS_DEG)
DEFAULT_DEPTH_M = 3.0


def start_rotations(frame: Frame, objects: int) -> torch.Tensor:
    """(4, B, N, 3, 3) upright rotations at 0°, 90°, 180° and 270° azimuth; at 0° the front faces the
    camera."""
    up = start_up(frame.up_cam, frame.has_up)
    azimuths = torch.tensor([math.radians(a) for a in START_AZIMUTHS_DEG], device=up.device)
    R = upright_rotation(up[None].expand(4, -1, -1), azimuths[:, None].expand(4, len(up)))
    return R[:, :, None].expand(-1, -1, objects, -1, -1)


def start_translation(frame: Frame, box_samples: PixelSamples, extents_m: torch.Tensor) -> torch.Tensor:
    """(B, N, 3) start positions on the ray through the box centre.

    With depth: the median depth in the mask plus half the object's mean horizontal extent. An object
    without a mask uses the central half of its box. Without any depth: 3 m. extents_m: (B, N, 3).
    """
    low, high = frame.boxes_xyxy[..., :2], frame.boxes_xyxy[..., 2:]
    centre = (low + high) / 2
    offset = (box_samples.uv_px - centre[:, :, None]).abs()
    central = (offset <= (high - low)[:, :, None] / 4).all(-1)
    on_mask = box_samples.has_mask & (box_samples.mask > 0.5)
    use_mask = (on_mask & box_samples.has_depth).sum(-1, keepdim=True) >= 3
    chosen = torch.where(use_mask, on_mask, central) & box_samples.has_depth
    depth = torch.where(chosen, box_samples.depth_m, torch.nan).nanmedian(-1).values
    behind = extents_m[..., [0, 2]].mean(-1) / 2
    z = torch.where(depth.isnan(), torch.full_like(depth, DEFAULT_DEPTH_M), depth + behind)
    return bearing_z1(centre, frame.intrinsics) * z[..., None]


def start_poses(frame: Frame, box_samples: PixelSamples, extents_m: torch.Tensor) -> Pose:
    """The (4, B, N) start poses of the four-rotation search, with extents_m (B, N, 3) as scale."""
    R = start_rotations(frame, extents_m.shape[1])
    T = start_translation(frame, box_samples, extents_m).expand(4, -1, -1, -1)
    return Pose(R, T, extents_m.expand(4, -1, -1, -1))
