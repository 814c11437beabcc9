"""AP^mesh of Multi-SPARC section 4 (after Mesh R-CNN): how well the posed CAD model's surface covers the
true one's."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

RADII = (0.3, 0.5, 0.7)
LONGEST_SIDE = 10.0  # length of the true box's longest side after scaling; radii are in this unit
F1_LIMITS = tuple(np.arange(50, 100, 5) / 100)


def surface_f1(points: np.ndarray, true_points: np.ndarray, longest_side_m: float) -> list[float]:
    """F1 at each of `RADII` between two sampled surfaces (K, 3) in metres.

    The harmonic mean of the share of `points` within the radius of a true point and the share of the true
    points within it of a point.
    """
    if not np.isfinite(points).all():
        return [0.0] * len(RADII)
    scale = LONGEST_SIDE / longest_side_m
    there = cKDTree(true_points).query(points)[0] * scale
    back = cKDTree(points).query(true_points)[0] * scale
    scores = []
    for radius in RADII:
        precision, recall = float((there <= radius).mean()), float((back <= radius).mean())
        total = precision + recall
        scores.append(2 * precision * recall / total if total > 0 else 0.0)
    return scores


def average_precision(score: np.ndarray, correct: np.ndarray, truths: int) -> float:
    """Area under the precision-recall curve, every recall counted with the best precision at it or beyond.

    score, correct (D,) of all predictions of a category; truths: how many objects there were. NaN without
    any.
    """
    if truths == 0:
        return float("nan")
    hits = correct[np.argsort(-score, kind="stable")].astype(np.float64)
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * hits).sum() / truths)


def mesh_ap(
    score: np.ndarray, f1: np.ndarray, category: np.ndarray, truths: dict[str, int] | None = None
) -> dict[str, float]:
    """AP50 and the mean over AP50, AP55 … AP95 in percent, each averaged over the categories.

    score (D,), f1 (D,) at one radius, category (D,) names. truths: how many objects of every category there
    are; None: as many as predictions, one for every object.
    """
    if truths is None:
        truths = {name: int((category == name).sum()) for name in sorted(set(category))}
    ap = [
        [
            average_precision(score[category == name], f1[category == name] > limit, count)
            for limit in F1_LIMITS
        ]
        for name, count in truths.items()
    ]
    by_limit = 100 * np.mean(ap, axis=0)
    return {"AP50": round(float(by_limit[0]), 2), "AP": round(float(by_limit.mean()), 2)}
