"""How much two posed boxes overlap in space."""

from __future__ import annotations

import numpy as np

GRID = 12  # sample points along each axis of a box
_STEPS = (np.arange(GRID) + 0.5) / GRID - 0.5
_CELLS = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS, indexing="ij"), -1).reshape(-1, 3)


def box_overlap(a, b) -> float:
    """Intersection over union of two boxes in any pose, from sample points in both; exact to a few percent.

    a, b: with R (3, 3), T_m (3,) centre and S_m (3,) extents in one frame.
    """
    reach = np.linalg.norm(a.S_m) / 2 + np.linalg.norm(b.S_m) / 2
    if np.linalg.norm(np.asarray(a.T_m) - b.T_m) > reach:
        return 0.0
    volumes = float(np.prod(a.S_m)), float(np.prod(b.S_m))
    shared = (_share_inside(a, b) * volumes[0] + _share_inside(b, a) * volumes[1]) / 2
    return shared / (sum(volumes) - shared)


def _share_inside(a, b) -> float:
    """The share of a's volume that lies in b."""
    points = (_CELLS * a.S_m) @ np.asarray(a.R).T + a.T_m
    inside = np.abs((points - b.T_m) @ b.R) <= np.asarray(b.S_m) / 2
    return float(inside.all(1).mean())
