"""A batch of recorded frames, read at pixels: the `TrainingSource` of `FrameData`."""

from __future__ import annotations

import copy

import torch

from sparc_core.perception.samples import PixelSamples
from sparc_core.types import HINT_CHANNELS


class FrameSource:
    """Reads B images, each at the pixels of its own N objects, as `ImageSource` reads one at run time.

    rgb (B, H, W, 3) in [0, 1]; depth_m (B, H, W), 0 unknown; normals_cam (B, H, W, 3) unit, zero unknown;
    hints (B, H, W, 2) `PixelHints`; masks (B, N, H, W) in [0, 1]; has_mask (B, N) bool.
    """

    def __init__(self, rgb, depth_m, normals_cam, hints, masks, has_mask):
        self.height, self.width = depth_m.shape[1:]
        self.stacked = torch.cat((rgb, normals_cam, hints, depth_m[..., None]), -1).flatten(1, 2)
        self.masks, self.has_mask = masks.flatten(2), has_mask

    def sample(self, uv_px: torch.Tensor) -> PixelSamples:
        """Read all channels at uv_px (B, N, K, 2), at the nearest pixel."""
        column, row = uv_px.round().unbind(-1)
        inside = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        index = (row.clamp(0, self.height - 1) * self.width + column.clamp(0, self.width - 1)).long()
        images = torch.arange(len(index), device=index.device)[:, None, None]
        values = self.stacked[images, index] * inside[..., None]
        rgb, normal, hints, depth = values.split((3, 3, HINT_CHANNELS, 1), -1)
        has_mask = self.has_mask[..., None] & inside
        mask = self.masks.gather(2, index) * has_mask
        depth = depth[..., 0]
        return PixelSamples(
            uv_px,
            rgb,
            normal,
            depth,
            mask.to(depth.dtype),
            depth > 0,
            normal.abs().sum(-1) > 0,
            has_mask,
            inside,
            hints,
        )

    def first_images(self, rows: int) -> FrameSource:
        """The same for the first `rows` images only."""
        few = copy.copy(self)
        few.stacked, few.masks, few.has_mask = self.stacked[:rows], self.masks[:rows], self.has_mask[:rows]
        return few
