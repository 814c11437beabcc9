"""Losses of Multi-SPARC section 3.3: L1 between CAD points for the update, BCE for σ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparc_core.geometry.errors import THRESHOLDS, azimuth_error_deg, pose_errors, symmetric_turns
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_y


@dataclass(frozen=True)
class LossConfig:
    """The paper sums the L1 over 1000 points and three coordinates and adds the BCE. We take the mean
    over points and coordinates, in metres, and weight it: `align_weight` times the alignment loss plus
    `score_weight` times the BCE. `size_exponent` divides an object's loss by its mean extent (metres)
    to that power, so that small objects are not drowned by beds: 0 is the paper's absolute loss."""

    points: int = 1000
    align_weight: float = 10.0
    score_weight: float = 1.0
    size_exponent: float = 0.5

    def __post_init__(self):
        if self.points < 1:
            raise ValueError(f"loss points must be at least 1, got {self.points}")


def closest_symmetric_truth(pose: Pose, truth: Pose, symmetry_order, points_cad) -> Pose:
    """The symmetric turn of `truth` whose points lie closest (L1) to those of `pose`.

    pose, truth (...); symmetry_order (...) int; points_cad (..., K, 3), a few dozen are enough. The
    choice has no gradient; the truth keeps its extents, which symmetric models share between axes.
    """
    angles, exists = symmetric_turns(symmetry_order)
    if angles.shape[-1] == 1:
        return truth
    with torch.no_grad():
        turned = truth.R[..., None, :, :] @ rotation_y(angles.to(truth.R.dtype))
        candidates = Pose(turned, *(x[..., None, :].expand(*angles.shape, 3) for x in (truth.T, truth.S)))
        target = candidates.transform(points_cad[..., None, :, :])
        error = (pose.transform(points_cad)[..., None, :, :] - target).abs().mean((-1, -2))
        best = torch.where(exists, error, torch.inf).argmin(-1)
    index = best[..., None, None, None].expand(*best.shape, 1, 3, 3)
    return Pose(turned.gather(-3, index)[..., 0, :, :], truth.T, truth.S)


def alignment_loss(
    pose: Pose, truth: Pose, symmetry_order, points_cad, size_exponent: float = 0.0, choose_with: int = 48
) -> torch.Tensor:
    """(...) mean L1 in metres between CAD points under both poses, minimum over the symmetry group.

    points_cad (..., K, 3) in unit-cube coordinates; the turn is chosen with the first `choose_with`.
    """
    nearest = closest_symmetric_truth(pose, truth, symmetry_order, points_cad[..., :choose_with, :])
    distance = (pose.transform(points_cad) - nearest.transform(points_cad)).abs().mean((-1, -2))
    return distance / truth.S.mean(-1) ** size_exponent


def score_label(pose: Pose, truth: Pose, symmetry_order, score_of: str) -> torch.Tensor:
    """(...) bool, what σ is to say: that a pose is right (20 cm, 20°, 20 %; score_of "pose"), or that it
    faces within 45° of the truth about the vertical ("start")."""
    if score_of == "start":
        return azimuth_error_deg(pose.R, truth.R, symmetry_order) < 45
    return pose_errors(pose, truth, symmetry_order).within(THRESHOLDS["20cm/20deg/20%"])


def score_loss(score_logit: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    """(...) binary cross entropy of σ against `score_label`."""
    return F.binary_cross_entropy_with_logits(score_logit, correct.to(score_logit.dtype), reduction="none")
