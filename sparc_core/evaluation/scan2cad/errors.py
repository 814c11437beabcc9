"""Errors between poses of CAD models, one against many, in float64.

Two conventions. "file": poses of CAD files, as the published evaluators compare them: the translation error
is between the files' origins and the scale error between factors of the files' coordinates. "box": between
the centres of the boxes and their extents in metres, which does not depend on how a file was centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparc_core.cad.symmetry import turn_angles_rad
from sparc_core.datasets.poses import CadPose


@dataclass(frozen=True, eq=False)
class Errors:
    """(N,) each. scale_of_mean: |mean(s/s_true) − 1|, Scan2CAD's; scale_mean: mean|s/s_true − 1|, which
    does not let one axis make up for another."""

    translation_m: np.ndarray
    rotation_deg: np.ndarray
    scale_of_mean: np.ndarray
    scale_mean: np.ndarray

    def scale(self, strict: bool) -> np.ndarray:
        """The stricter scale error or Scan2CAD's."""
        return self.scale_mean if strict else self.scale_of_mean


def errors_to(pose: CadPose, others: Sequence[CadPose], symmetries: Sequence[str]) -> Errors:
    """Errors of one pose against each of `others`, the smallest over the turns of each symmetry.

    symmetries: "none", "c2", "c4" or "cinf" about the CAD y axis, one for each of `others`.
    """
    t, s, R = (np.stack([getattr(o, name) for o in others]) for name in "tsR")
    ratio = pose.s / s
    rotation = [
        rotation_error_deg(pose.R, true, symmetry) for true, symmetry in zip(R, symmetries, strict=True)
    ]
    return Errors(
        np.linalg.norm(pose.t - t, axis=1), np.array(rotation), np.abs(ratio.mean(1) - 1),
        np.abs(ratio - 1).mean(1),
    )  # fmt: skip


def rotation_error_deg(R: np.ndarray, R_true: np.ndarray, symmetry: str) -> float:
    """The smallest angle between R (3, 3) and R_true turned about its y axis by the symmetry.

    The cosine is clipped: rounding must not turn a half turn or none into an error of zero or of NaN.
    """
    angle = turn_angles_rad(symmetry)
    D = R_true.T @ R
    # trace(Ry(−a) · D): Ry turns z towards x
    trace = np.cos(angle) * (D[0, 0] + D[2, 2]) + np.sin(angle) * (D[0, 2] - D[2, 0]) + D[1, 1]
    return float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)).min()))
