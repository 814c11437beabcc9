"""Overlap of boxes on the image, in numpy: torchvision's `box_iou` for those who do not load PyTorch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def box_iou(boxes_a: ArrayLike, boxes_b: ArrayLike) -> np.ndarray:
    """(A, 4) and (B, 4) xyxy boxes in pixels -> (A, B) intersection over union; boxes that are NaN or have no
    area give 0."""
    a = np.asarray(boxes_a, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(boxes_b, dtype=np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    intersection = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = intersection / union
    return np.nan_to_num(np.where(union > 0, iou, 0.0), nan=0.0)
