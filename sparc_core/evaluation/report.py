"""Accuracy of aligners on the synthetic set: collected errors, one row a method."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from sparc_core.evaluation.synthetic import SyntheticImage
from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.types import AlignmentResult


@dataclass(eq=False)
class ErrorTable:
    """Errors of one method, one entry per object of the set; an object that was not aligned is wrong."""

    name: str
    translation_m: list[float] = field(default_factory=list)
    rotation_deg: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    well_visible: list[bool] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def add(self, image: SyntheticImage, pose: Pose, score: torch.Tensor) -> None:
        """One pose per detection (D,); infinite translations stand for objects that were skipped."""
        errors = pose_errors(pose, image.truth, image.symmetry_order)
        self.translation_m += errors.translation_m.tolist()
        self.rotation_deg += errors.rotation_deg.tolist()
        self.scale += errors.scale.tolist()
        self.well_visible += image.well_visible.tolist()
        self.category += [d.category for d in image.detections]
        self.score += score.tolist()

    def right(self, threshold: str) -> np.ndarray:
        """(D,) bool: within a threshold of `THRESHOLDS`."""
        return within_limits(threshold, *map(np.array, (self.translation_m, self.rotation_deg, self.scale)))

    def summary(self) -> dict:
        """Accuracies in percent over all and over well-visible objects, by category, and medians."""
        well = np.array(self.well_visible)
        categories = np.array(self.category)
        main = self.right(next(iter(THRESHOLDS)))
        return {
            "method": self.name,
            "objects": int(well.size),
            "well_visible_objects": int(well.sum()),
            "accuracy": {t: percent(self.right(t)) for t in THRESHOLDS},
            "accuracy_well_visible": {t: percent(self.right(t)[well]) for t in THRESHOLDS},
            "by_category": {c: percent(main[categories == c]) for c in sorted(set(self.category))},
            "median": {
                "translation_cm": round(float(np.median(self.translation_m)) * 100, 2),
                "rotation_deg": round(float(np.median(self.rotation_deg)), 2),
                "scale_percent": round(float(np.median(self.scale)) * 100, 2),
            },
        }


def within_limits(
    threshold: str, translation_m: np.ndarray, rotation_deg: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """(D,) bool: all three errors within a threshold of `THRESHOLDS`."""
    metres, degrees, fraction = THRESHOLDS[threshold]
    return (translation_m <= metres) & (rotation_deg <= degrees) & (scale <= fraction)


def percent(right: np.ndarray) -> float:
    """Share of True in percent; NaN of nothing."""
    return round(float(right.mean()) * 100, 2) if right.size else float("nan")


def poses_of(result: AlignmentResult, count: int) -> tuple[Pose, torch.Tensor]:
    """The result's poses and scores (count,) in the order of the detections; skipped ones are infinitely far
    away."""
    pose = Pose(torch.eye(3).repeat(count, 1, 1), torch.full((count, 3), torch.inf), torch.ones(count, 3))
    score = torch.zeros(count)
    for found in result.objects:
        i = found.detection
        pose.R[i], pose.T[i], pose.S[i] = (
            torch.from_numpy(x).float() for x in (found.R, found.T_m, found.S_m)
        )
        score[i] = found.score
    return pose, score
