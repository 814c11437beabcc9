"""Errors between poses, aware of the CAD models' symmetry (DESIGN: Scan2CAD's thresholds)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_angle_rad, rotation_y

MAX_TURNS = 36
# metres, degrees, fraction: right poses of Scan2CAD, and two stricter regimes
THRESHOLDS = {
    "20cm/20deg/20%": (0.20, 20.0, 0.20),
    "10/10/10": (0.10, 10.0, 0.10),
    "5/5/5": (0.05, 5.0, 0.05),
}


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """translation_m (...), rotation_deg (...) minimal over the symmetry, scale (...): mean over the
    axes of |s/s_gt − 1|, and scale_mean (...): |mean(s/s_gt) − 1| as Scan2CAD counts it."""

    translation_m: torch.Tensor
    rotation_deg: torch.Tensor
    scale: torch.Tensor
    scale_mean: torch.Tensor

    def within(self, threshold: tuple[float, float, float]) -> torch.Tensor:
        """(...) bool: all three errors within (metres, degrees, fraction), by the stricter scale error."""
        metres, degrees, fraction = threshold
        return (self.translation_m <= metres) & (self.rotation_deg <= degrees) & (self.scale <= fraction)


def symmetric_turns(symmetry_order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns about the CAD y axis that leave a model unchanged.

    symmetry_order (...) int of 1, 2, 4 or 36. Returns angles (..., K) in radians and which of them
    exist (..., K), K being the largest order present.
    """
    count = int(symmetry_order.max()) if symmetry_order.numel() else 1
    k = torch.arange(count, device=symmetry_order.device)
    order = symmetry_order[..., None]
    return 2 * math.pi * k / order, k < order


def rotation_error_deg(R: torch.Tensor, R_true: torch.Tensor, symmetry_order: torch.Tensor) -> torch.Tensor:
    """(...) smallest angle in degrees between R (..., 3, 3) and any symmetric turn of R_true."""
    angles, exists = symmetric_turns(symmetry_order)
    turned = R_true[..., None, :, :] @ rotation_y(angles.to(R.dtype))
    error = rotation_angle_rad(R[..., None, :, :].transpose(-1, -2) @ turned)
    return torch.rad2deg(torch.where(exists, error, torch.inf).amin(-1))


def azimuth_error_deg(R: torch.Tensor, R_true: torch.Tensor, symmetry_order: torch.Tensor) -> torch.Tensor:
    """(...) smallest angle in degrees about the CAD y axis between the fronts (+z) of R (..., 3, 3) and of
    any symmetric turn of R_true, however both are tilted."""
    front = (R_true.transpose(-1, -2) @ R)[..., 2]
    azimuth = torch.atan2(front[..., 0], front[..., 2])
    period = 2 * math.pi / symmetry_order
    return torch.rad2deg((torch.remainder(azimuth + period / 2, period) - period / 2).abs())


def pose_errors(pose: Pose, truth: Pose, symmetry_order: torch.Tensor) -> PoseErrors:
    """Errors of (...) poses; symmetry_order (...) int."""
    ratio = pose.S / truth.S
    return PoseErrors(
        (pose.T - truth.T).norm(dim=-1),
        rotation_error_deg(pose.R, truth.R, symmetry_order),
        (ratio - 1).abs().mean(-1),
        (ratio.mean(-1) - 1).abs(),
    )
