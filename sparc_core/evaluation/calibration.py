"""Does σ mean what it says: of the poses scored 0.8, are 80 % right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

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


def fit_calibration(score: np.ndarray, correct: np.ndarray) -> tuple[float, float]:
    """(slope, offset) of the scores' logits that make them most likely (Platt scaling).

    score (D,) in (0, 1), correct (D,) bool. Raises ValueError when all are right or all wrong.
    """
    if correct.all() or not correct.any():
        raise ValueError("calibration needs poses that are right and poses that are wrong")
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped))

    def cross_entropy(parameters):
        z = np.exp(parameters[0]) * logit + parameters[1]
        return np.mean(np.logaddexp(0, z) - correct * z)

    found = minimize(cross_entropy, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9})
    return float(np.exp(found.x[0])), float(found.x[1])
