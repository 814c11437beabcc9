"""What the assembly reads: values of the image channels at sampled pixels, and sampled CAD points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from sparc_core.cad.tensors import CadPoints


@dataclass(frozen=True, eq=False)
class PixelSamples:
    """Image channels read at (B, N, K) pixels: B images, N objects, K pixels an object.

    uv_px (B, N, K, 2); rgb (B, N, K, 3) in [0, 1]; normal_cam (B, N, K, 3) unit, facing the camera;
    depth_m (B, N, K) z-depth; mask (B, N, K) in [0, 1]; hints (B, N, K, 2) `PixelHints`, zero where there are
    none. The has_* flags and `inside` (on the image) are (B, N, K) bool; a value whose flag is False is zero.
    """

    uv_px: torch.Tensor
    rgb: torch.Tensor
    normal_cam: torch.Tensor
    depth_m: torch.Tensor
    mask: torch.Tensor
    has_depth: torch.Tensor
    has_normal: torch.Tensor
    has_mask: torch.Tensor
    inside: torch.Tensor
    hints: torch.Tensor


@dataclass(frozen=True, eq=False)
class CadSamples:
    """CAD models of each object as points.

    reprojected (B, N, K): those that are looked for in the image. surface (B, N, P): a denser cover of the
    model to find closest points on. expected_m (B, N, 3): the extents in metres that
    the object is believed to have, usually the CAD model's own; extents_known (B, N) bool: they are its true
    ones (scale mode "fixed").
    """

    reprojected: CadPoints
    surface: CadPoints
    expected_m: torch.Tensor
    extents_known: torch.Tensor


@dataclass(frozen=True, eq=False)
class Frame:
    """The image side of a batch, the same for every refinement.

    intrinsics (B, 4) fx fy cx cy; size_px (B, 2) width and height; boxes_xyxy (B, N, 4) detected
    boxes; object_valid (B, N) bool, False where padded; up_cam (B, 3) unit, against gravity; has_up
    (B,) bool; estimate (B, N, `ESTIMATE_NUMBERS`) of the detections (`BoxEstimate`), 0
    unknown, None where none is known; above_floor_m (B,) the camera's height, 0 unknown, None where none is
    known.
    """

    intrinsics: torch.Tensor
    size_px: torch.Tensor
    boxes_xyxy: torch.Tensor
    object_valid: torch.Tensor
    up_cam: torch.Tensor
    has_up: torch.Tensor
    estimate: torch.Tensor | None = None
    above_floor_m: torch.Tensor | None = None


class PixelSource(Protocol):
    """Anything that can be read at pixels: stored images, or rays cast into a synthetic scene."""

    def sample(self, uv_px: torch.Tensor) -> PixelSamples:
        """Read all channels at uv_px (B, N, K, 2)."""
        ...
