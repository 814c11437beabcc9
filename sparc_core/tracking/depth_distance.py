"""How far a detection is from where a track is expected, before anything is aligned: from box and depth.

A box holds more than its object: what stands in front, what is behind. Its middle says where the object is
across the view; along it, the depths in the box only say whether something is where the track should be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparc_core.tracking.association import inside_share
from sparc_core.tracking.track import Expectation
from sparc_core.types import Camera, Detection

GRID = 20  # depths are read at so many columns and rows of a box
PART = 0.9  # of a box that lies in the expected one: it may show a part of the object
OWN_SHARE = 0.2  # of a box's depths belong to its object, at least


def depth_distances(
    expected: Sequence[Expectation],
    detections: Sequence[Detection],
    depth_m: np.ndarray | None,
    camera: Camera,
) -> np.ndarray:
    """(N, M) metres between tracks, where they were measured last, and detections; NaN without depth.

    Across the view: between the track's centre and the ray through the middle of the box; 0 for a box within
    the expected one, which may show any part of an object that something hides. Along it: how far
    the depths of the box (or of the mask) are from the object's, if it stood as expected; those nearest to it
    count. Lens distortion is left out: to tell tracks apart it does not matter.
    """
    distances = np.full((len(expected), len(detections)), np.nan)
    if depth_m is None:
        return distances
    if not expected:
        return distances
    centres = np.array([e.last_T_m for e in expected])
    parts = inside_share([e.box_xyxy for e in expected], [d.box_xyxy for d in detections]) >= PART
    radius = np.array([np.linalg.norm(e.S_m[[0, 2]]) / 2 for e in expected])
    for m, detection in enumerate(detections):
        depths = _depths(detection, depth_m)
        if not depths.size:
            continue
        x0, y0, x1, y1 = detection.box_xyxy
        ray = np.array([((x0 + x1) / 2 - camera.cx) / camera.fx, ((y0 + y1) / 2 - camera.cy) / camera.fy])
        across = np.linalg.norm(ray * centres[:, 2:] - centres[:, :2], axis=1)
        across[parts[:, m]] = 0.0
        gap = np.maximum(np.abs(depths[None] - centres[:, 2:]) - radius[:, None], 0.0)
        distances[:, m] = np.hypot(across, np.quantile(gap, OWN_SHARE, axis=1))
    return distances


def _depths(detection: Detection, depth_m: np.ndarray) -> np.ndarray:
    """(K,) depths of the mask, or of a grid over the box."""
    if detection.mask is not None and detection.mask.shape == depth_m.shape:
        values = depth_m[detection.mask]
        values = values[:: max(1, len(values) // GRID**2)]
    else:
        box = np.asarray(detection.box_xyxy, dtype=np.float64)
        if not np.isfinite(box).all():
            return np.zeros(0)
        limit = np.array(depth_m.shape[::-1]) - 1
        low, high = np.clip(box[:2], 0, limit), np.clip(box[2:], 0, limit)
        columns, rows = (np.rint(np.linspace(low[k], high[k], GRID)).astype(int) for k in (0, 1))
        values = depth_m[np.ix_(rows, columns)].ravel()
    return values[np.isfinite(values) & (values > 0)]
