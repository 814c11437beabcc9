"""Rotational symmetry of CAD models about their vertical axis, from geometry."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

from sparc_core.types import SYMMETRIES

SYMMETRY_ORDERS = {"none": 1, "c2": 2, "c4": 4, "cinf": 36}
TOLERANCE = 0.012  # of the model's diagonal
PERCENTILE = 96.0
QUERY_POINTS = 1500
SQUARE_TOLERANCE = 0.05  # how much x and z extents may differ for c4 and cinf


def turn_angles_rad(symmetry: str) -> np.ndarray:
    """Angles (1, 2, 4 or 36,) about +y that leave a model of this symmetry unchanged."""
    if symmetry not in SYMMETRIES:
        raise ValueError(f"symmetry must be one of {SYMMETRIES}, got {symmetry!r}")
    order = SYMMETRY_ORDERS[symmetry]
    return 2 * math.pi * np.arange(order) / order


def estimate_symmetry(points_m: np.ndarray, tolerance: float = TOLERANCE) -> str:
    """"none", "c2", "c4" or "cinf" of surface points (P, 3) in metres, centred on the bounding box.

    A turn counts as a symmetry when nearly all turned points lie within `tolerance` diagonals of the
    surface; the sampling distance of the points themselves is allowed for, so give many (10,000 and
    more): with few points small features are lost in it.
    """
    extents = points_m.max(0) - points_m.min(0)
    limit = tolerance * float(np.linalg.norm(extents))
    tree = cKDTree(points_m)
    queries = points_m[:QUERY_POINTS]
    # distance of a surface point to its nearest sample: that of every sample to its nearest other one
    spacing = np.percentile(tree.query(queries, k=2)[0][:, 1], PERCENTILE)

    def unchanged(angle_rad: float) -> bool:
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        turned = queries @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
        return float(np.percentile(tree.query(turned)[0], PERCENTILE)) < limit + spacing

    if not unchanged(math.pi):
        return "none"
    if abs(extents[0] - extents[2]) > SQUARE_TOLERANCE * max(extents[0], extents[2]):
        return "c2"
    if all(unchanged(math.radians(angle)) for angle in (20, 45, 70, 130)):
        return "cinf"
    return "c4" if unchanged(math.pi / 2) else "c2"
