"""What the predictors of perception take and give: detector, depth and normals, masks.

Each is chosen by configuration and can be used alone. Images are (H, W, 3) uint8 RGB; everything a predictor
returns belongs to the image's own pixels, whatever size its network works at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sparc_core.types import Camera, Detection, PixelHints


@dataclass(frozen=True, eq=False)
class DepthPrediction:
    """depth_m (H, W) float32 z-depth, 0 unknown, where it is uncertain the one of least expected relative
    error; normals_cam (H, W, 3) float32 unit, facing the camera, 0 unknown; depth_sigma_m (H, W) float32
    standard deviation and normal_sigma_deg (H, W) float32 expected angle of error, hints about the objects,
    or None where the predictor does not say."""

    depth_m: np.ndarray
    normals_cam: np.ndarray
    depth_sigma_m: np.ndarray | None = None
    normal_sigma_deg: np.ndarray | None = None
    hints: PixelHints | None = None


class Detector(Protocol):
    """Finds objects of the categories the aligner knows."""

    def detect(self, image_rgb: np.ndarray) -> list[Detection]:
        """Boxes with category and score, the best first; with masks where the detector has them."""
        ...


class DepthNormals(Protocol):
    """Predicts depth and normals from an image."""

    def predict(self, image_rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        """Depth and normals of every pixel. The camera has the image's size and no distortion; predictors may
        make use of its gravity."""
        ...


class Estimates(Protocol):
    """Tells where detected objects are, how large, and which way they are turned."""

    def look(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        judged_min_score: float | None = None,
    ) -> list[Detection]:
        """The detections with `estimate`, but for those whose box cannot be looked at. judged_min_score:
        weigh the scores with how likely the categories are, each box in all of them, leave out what is below,
        sort the rest, the best first, and correct their boxes; without it scores, categories and boxes are
        not touched. The camera has the image's size."""
        ...


class Masker(Protocol):
    """Cuts objects out of their boxes."""

    def masks(self, image_rgb: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """(D, H, W) float32 in [0, 1]: for each of the boxes (D, 4), which pixels are the object's."""
        ...


def require_size(image_rgb: np.ndarray, camera: Camera) -> None:
    """Raises ValueError when image and camera differ in size."""
    height, width = image_rgb.shape[:2]
    if (camera.width, camera.height) != (width, height):
        raise ValueError(f"the camera is {camera.width}×{camera.height}, the image {width}×{height}")
