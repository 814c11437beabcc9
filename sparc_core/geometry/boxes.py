"""Overlap of boxes on the image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torchvision import ops


def box_iou(boxes_a: ArrayLike, boxes_b: ArrayLike) -> np.ndarray:
    """(A, 4) and (B, 4) xyxy boxes in pixels -> (A, B) intersection over union; boxes that are NaN or have no
    area give 0."""
    a, b = (torch.from_numpy(np.array(x, dtype=np.float64).reshape(-1, 4)) for x in (boxes_a, boxes_b))
    return ops.box_iou(a, b).nan_to_num(0.0).numpy()
