"""Start poses at run time (Multi-SPARC section 3.3, with depth: DESIGN.md's gap closed)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sparc_core.geometry.camera import bearing_z1, box_ray
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import level_frame, rotation_y, start_up, upright_rotation
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.types import AZIMUTH_ORDERS, ESTIMATE_T

START_AZIMUTHS_DEG = (0, 90, 180, 270)
# names of the starts, by the number a row of the search has: the four rotations, then a given pose
START_NAMES = (*(f"azimuth_{degrees}" for degrees in START_AZIMUTHS_DEG), "track")
GIVEN_START = len(START_AZIMUTHS_DEG)
DEFAULT_DEPTH_M = 3.0
AZIMUTH_STEPS = 72


def start_rotations(frame: Frame, objects: int) -> torch.Tensor:
    """(4, B, N, 3, 3) upright rotations at 0°, 90°, 180° and 270° azimuth; at 0° the front faces the camera,
    or looks where an object's predicted azimuth says it most probably does."""
    up = start_up(frame.up_cam, frame.has_up)
    turns = torch.tensor([math.radians(a) for a in START_AZIMUTHS_DEG], device=up.device)
    R = upright_rotation(up[None].expand(4, -1, -1), turns[:, None].expand(4, len(up)))
    R = R[:, :, None].expand(-1, -1, objects, -1, -1)
    if frame.estimate is None:
        return R
    azimuth = frame.estimate[..., : 2 * len(AZIMUTH_ORDERS)]
    rays = F.normalize(box_ray(frame.boxes_xyxy, frame.intrinsics), dim=-1)
    level = level_frame(up[:, None].expand_as(rays), rays)
    turned = level.transpose(-1, -2) @ rotation_y(likeliest_azimuth(azimuth) + turns[:, None, None])
    predicted = azimuth.abs().sum(-1) > 0
    return torch.where(predicted[..., None, None], turned, R)


def likeliest_azimuth(azimuth: torch.Tensor) -> torch.Tensor:
    """(...) the angle in radians to which predicted harmonics (..., 6) fit best, of `AZIMUTH_STEPS`."""
    steps = torch.arange(AZIMUTH_STEPS, device=azimuth.device) * (2 * math.pi / AZIMUTH_STEPS)
    phase = steps[:, None] * torch.tensor(AZIMUTH_ORDERS, device=azimuth.device)
    waves = torch.stack((phase.cos(), phase.sin()), -1).flatten(1)
    return steps[(azimuth @ waves.T).argmax(-1)]


def estimated_translation(frame: Frame, otherwise: torch.Tensor) -> torch.Tensor:
    """(B, N, 3) where objects are expected (`BoxEstimate`); `otherwise` (B, N, 3) where nothing is."""
    if frame.estimate is None:
        return otherwise
    return torch.where(
        (frame.estimate != 0).any(-1, keepdim=True), frame.estimate[..., ESTIMATE_T], otherwise
    )


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


def start_poses(
    frame: Frame, box_samples: PixelSamples, extents_m: torch.Tensor, from_estimates: bool = False
) -> Pose:
    """The (4, B, N) start poses of the four-rotation search, with extents_m (B, N, 3) as scale.
    from_estimates: where `estimated_translation` says."""
    R = start_rotations(frame, extents_m.shape[1])
    T = start_translation(frame, box_samples, extents_m)
    if from_estimates:
        T = estimated_translation(frame, T)
    return Pose(R, T.expand(4, -1, -1, -1), extents_m.expand(4, -1, -1, -1))
