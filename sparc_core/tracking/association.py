"""Which object is which track: overlap of boxes and distance in 3D, matched by the Hungarian method.

In: boxes in pixels and distances in metres. Out: a cost matrix and the pairs that belong together.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

# Corners of the canonical unit cube, (8, 3).
UNIT_CUBE_CORNERS = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), -1).reshape(8, 3)

# The cost of a pair that may not be matched, and so of leaving a track and an object alone. With
# allowed costs below it, two poor matches never displace one good match and one newcomer.
UNMATCHED_COST = 1.0

# In max_distance_m: boxes that overlap do not make one object of two that are further apart.
FURTHEST_OVERLAP = 2.0


def inside_share(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """(A, 4) and (B, 4) xyxy boxes in pixels -> (A, B) share of b's area that lies in a; NaN boxes give 0."""
    a = np.asarray(boxes_a, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(boxes_b, dtype=np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = sides.prod(-1) / (b[..., 2:] - b[..., :2]).prod(-1)
    return np.where(np.isfinite(share), share, 0.0)


def association_cost(
    iou: np.ndarray,
    distance_m: np.ndarray,
    same_category: np.ndarray,
    *,
    max_distance_m: float | np.ndarray,
    min_iou: float,
) -> np.ndarray:
    """(N, M) cost in [0, 1] of matching track n with object m; `UNMATCHED_COST` where not allowed.

    distance_m is NaN where there is no depth to compare: then the overlap alone decides. A pair of one
    category is allowed when it is near enough, or overlaps enough and is not further apart than twice that:
    depth errors along the ray move a distant object further than its box, but what is seen where a track
    was, a good deal behind it, is another object. max_distance_m: a number or (N, 1), of each track.
    """
    comparable = np.isfinite(distance_m)
    share = np.where(comparable, np.nan_to_num(distance_m) / max_distance_m, 0.0)
    cost = np.where(comparable, 0.5 * (1 - iou) + 0.5 * np.minimum(share, 1.0), 1 - iou)
    near = comparable & (share < 1.0)
    overlaps = (iou >= min_iou) & (share < FURTHEST_OVERLAP)
    return np.where(same_category & (near | overlaps), cost, UNMATCHED_COST)


def match(cost: np.ndarray) -> tuple[tuple[int, int], ...]:
    """(N, M) costs -> pairs (n, m) of the cheapest assignment, those at `UNMATCHED_COST` left out."""
    if cost.size == 0:
        return ()
    rows, columns = linear_sum_assignment(cost)
    return tuple((int(n), int(m)) for n, m in zip(rows, columns, strict=True) if cost[n, m] < UNMATCHED_COST)
