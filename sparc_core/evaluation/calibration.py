"""Does σ mean what it says: of the poses scored 0.8, are 80 % right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions sorted into `BINS` bins of equal width by their score: count, mean score and share of
    right ones (NaN in empty bins), each (BINS,). ece: expected calibration error, the mean of the
    differences between both, weighted by count."""

    count: np.ndarray
    mean_score: np.ndarray
    right: np.ndarray
    ece: float


def reliability(score: np.ndarray, correct: np.ndarray) -> Reliability:
    """score (D,) in [0, 1], correct (D,) bool. Raises ValueError for scores outside [0, 1]."""
    if len(score) and not ((score >= 0) & (score <= 1)).all():
        raise ValueError("scores must be in [0, 1]")
    place = np.minimum((score * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, score, BINS) / count
        right = np.bincount(place, correct, BINS) / count
    ece = float(np.nansum(count * np.abs(mean - right)) / max(1, count.sum()))
    return Reliability(count, mean, right, ece)
