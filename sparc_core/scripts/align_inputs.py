"""What `sparc align` is given for an image and for a sequence alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparc_core.files.cameras import read_depth_scale
from sparc_core.types import Camera, Detection

DEFAULT_DEPTH_UNITS_PER_M = 1000.0


@dataclass(frozen=True)
class InputOptions:
    """source (image, folder of images or video), camera (CAMERA.json), out (results to write), detections
    (file or folder; None: a detector finds them), depth (image or folder, or None) with its units per metre
    (None: the camera file's, else 1000) and whether it is predicted."""

    source: Path
    camera: Path
    out: Path
    detections: Path | None = None
    depth: Path | None = None
    depth_scale: float | None = None
    depth_predicted: bool = False

    def depth_units_per_m(self) -> float:
        """Units of an integer depth image in one metre. Raises ValueError for units without a depth image,
        and where the camera's file has wrong ones."""
        if self.depth_scale is None:
            return read_depth_scale(self.camera) or DEFAULT_DEPTH_UNITS_PER_M
        if self.depth is None:
            raise ValueError(
                f"--depth-scale: expected only together with --depth, got {self.depth_scale:g} alone"
            )
        return self.depth_scale

    def check_size(self, name, pixels: np.ndarray, camera: Camera) -> None:
        """Raise ValueError naming what has another size than the camera; pixels (H, W, …)."""
        height, width = pixels.shape[:2]
        if (width, height) != (camera.width, camera.height):
            raise ValueError(
                f"{name}: expected {camera.width}×{camera.height} pixels as {self.camera} says, "
                f"got {width}×{height}"
            )

    def check_masks(self, where, detections: tuple[Detection, ...], camera: Camera) -> None:
        """Raise ValueError naming a detection whose mask has another size than the camera."""
        for index, detection in enumerate(detections):
            if detection.mask is not None:
                self.check_size(f"{where}: detection {index}: mask", detection.mask, camera)
