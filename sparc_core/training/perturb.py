"""Poses the network is trained from: start poses for updates, and poses to be classified.

The paper's Table 3 with the classifier's five regions did not survive; ours is `REGIONS`, written out
in `docs/method.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparc_core.geometry.camera import bearing_z1
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_x, rotation_y, rotation_z, upright_rotation
from sparc_core.perception.samples import Frame


@dataclass(frozen=True)
class Region:
    """Uniform offsets from the truth: Euler angles in degrees (tilt, azimuth, elevation), translation
    in metres a coordinate, scale as a fraction an axis; `turned` adds 0°, 90°, 180° or 270° about the
    vertical; share: relative frequency."""

    name: str
    tilt_deg: float
    azimuth_deg: float
    elevation_deg: float
    translation_m: float
    scale: float
    turned: bool
    share: float


REGIONS = (
    Region("near-exact", 5, 5, 5, 0.05, 0.05, False, 0.30),
    Region("border", 12, 18, 12, 0.16, 0.25, False, 0.25),
    Region("wrong T, S", 10, 25, 10, 0.60, 0.60, False, 0.15),
    Region("turned", 6, 10, 6, 0.06, 0.08, True, 0.25),
    Region("anything", 20, 180, 20, 1.00, 0.80, True, 0.05),
)


def uniform(low, high, shape, generator):
    """Uniform draws of a shape on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def small_rotation(shape, tilt_deg, azimuth_deg, elevation_deg, generator) -> torch.Tensor:
    """Random rotations about the object's z (tilt), y (azimuth) and x (elevation), uniform within the
    given half ranges in degrees (numbers or tensors of `shape`)."""
    angles = [
        torch.deg2rad(uniform(-1, 1, shape, generator) * half)
        for half in (tilt_deg, azimuth_deg, elevation_deg)
    ]
    return rotation_y(angles[1]) @ rotation_x(angles[2]) @ rotation_z(angles[0])


def classifier_poses(truth: Pose, generator: torch.Generator, regions=REGIONS) -> Pose:
    """One pose per object, drawn from a random region around the truth."""
    shape = truth.shape
    shares = torch.tensor([region.share for region in regions], device=generator.device)
    choice = torch.multinomial(shares, truth.T[..., 0].numel(), replacement=True, generator=generator).view(
        shape
    )

    def pick(name):
        values = torch.tensor([float(getattr(region, name)) for region in regions], device=generator.device)
        return values[choice]

    turn = (
        torch.randint(4, shape, generator=generator, device=generator.device) * pick("turned") * (math.pi / 2)
    )
    R = truth.R @ rotation_y(turn)
    R = R @ small_rotation(shape, pick("tilt_deg"), pick("azimuth_deg"), pick("elevation_deg"), generator)
    T = truth.T + uniform(-1, 1, (*shape, 3), generator) * pick("translation_m")[..., None]
    S = truth.S * (1 + uniform(-1, 1, (*shape, 3), generator) * pick("scale")[..., None])
    return Pose(R, T, S)


def paper_starts(truth: Pose, frame: Frame, scale_low_m, scale_high_m, generator: torch.Generator) -> Pose:
    """The paper's starts for updates (supplement B): a random pixel of the box at z ~ U(1, 5) m, extents
    uniform in the category's range, rotation within 10° tilt, 45° azimuth, 20° elevation of the truth.

    scale_low_m, scale_high_m: (B, N, 3).
    """
    shape = truth.shape
    low, high = frame.boxes_xyxy[..., :2], frame.boxes_xyxy[..., 2:]
    uv = low + (high - low) * uniform(0, 1, (*shape, 2), generator)
    T = bearing_z1(uv, frame.intrinsics) * uniform(1, 5, (*shape, 1), generator)
    S = scale_low_m + (scale_high_m - scale_low_m) * uniform(0, 1, (*shape, 3), generator)
    return Pose(truth.R @ small_rotation(shape, 10, 45, 20, generator), T, S)


def turned_starts(pose: Pose, generator: torch.Generator) -> Pose:
    """The poses turned by 0°, 90°, 180° or 270° about the vertical, each as often."""
    turns = torch.randint(4, pose.shape, generator=generator, device=generator.device)
    return Pose(pose.R @ rotation_y(turns * (math.pi / 2)), pose.T, pose.S)


def upright_starts(truth: Pose, frame: Frame, generator: torch.Generator) -> torch.Tensor:
    """(B, N, 3, 3) rotations as a search with gravity would start: upright about the known up, azimuth
    within 45° of the truth; where gravity is not known, the paper's ranges about the truth."""
    shape = truth.shape
    up = frame.up_cam[:, None].expand(*shape, 3)
    facing = upright_rotation(up, torch.zeros(shape, device=up.device))
    relative = facing.transpose(-1, -2) @ truth.R
    azimuth = torch.atan2(relative[..., 0, 2], relative[..., 2, 2])
    azimuth = azimuth + math.radians(45) * uniform(-1, 1, shape, generator)
    known = facing @ rotation_y(azimuth)
    unknown = truth.R @ small_rotation(shape, 10, 45, 20, generator)
    return torch.where(frame.has_up[:, None, None, None], known, unknown)
