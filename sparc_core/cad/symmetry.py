"""Rotational symmetry of CAD models about their vertical axis, from geometry."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

from sparc_core.types import SYMMETRIES

SYMMETRY_ORDERS = {"none": 1, "c2": 2, "c4": 4, "cinf": 36}
TOLERANCE = 0.007  # of the model's diagonal; door handles and drawer fronts are mostly above it
ROUND_TOLERANCE = 0.012  # for cinf: a "round" mesh is a polygon, 12 corners deviate by 1.2 %
PERCENTILE = 97.0
QUERY_POINTS = 1500
SQUARE_TOLERANCE = 0.05  # how much x and z extents may differ for c4 and cinf
_ROUND_TURNS_DEG = (20, 45, 70, 130)


def turn_angles_rad(symmetry: str) -> np.ndarray:
    """Angles (1, 2, 4 or 36,) about +y that leave a model of this symmetry unchanged."""
    if symmetry not in SYMMETRIES:
        raise ValueError(f"symmetry must be one of {SYMMETRIES}, got {symmetry!r}")
    order = SYMMETRY_ORDERS[symmetry]
    return 2 * math.pi * np.arange(order) / order


def estimate_symmetry(points_m: np.ndarray, visible_m: np.ndarray | None = None) -> str:
    """ "none", "c2", "c4" or "cinf" of surface points (P, 3) in metres, centred on the bounding box.

    A turn counts as a symmetry when nearly all turned points lie within a tolerance of the surface.
    The sampling distance of the points themselves is allowed for, so give many (10,000 and more): with
    few points small features are lost in it. visible_m (Q, 3): surface points that can be seen from
    outside, to be turned in their place; the inside of a cabinet would outvote its handles.
    """
    extents = points_m.max(0) - points_m.min(0)
    diagonal = float(np.linalg.norm(extents))
    tree = cKDTree(points_m)
    queries = (points_m if visible_m is None else visible_m)[:QUERY_POINTS]
    # How far a surface point is from the nearest sample when nothing is turned. Among the samples
    # themselves that is the distance to the nearest other one.
    nearest = tree.query(queries, k=2)[0]
    spacing = np.percentile(nearest[:, 1] if visible_m is None else nearest[:, 0], PERCENTILE)

    def unchanged(angle_rad: float, tolerance: float = TOLERANCE) -> bool:
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        turned = queries @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
        return float(np.percentile(tree.query(turned)[0], PERCENTILE)) < tolerance * diagonal + spacing

    square = abs(extents[0] - extents[2]) <= SQUARE_TOLERANCE * max(extents[0], extents[2])
    if square and all(unchanged(math.radians(angle), ROUND_TOLERANCE) for angle in _ROUND_TURNS_DEG):
        return "cinf"
    if not unchanged(math.pi):
        return "none"
    return "c4" if square and unchanged(math.pi / 2) else "c2"
