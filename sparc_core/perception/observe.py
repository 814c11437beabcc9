"""One image with its channels, ready to be read at any pixel: the run-time `PixelSource`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparc_core.perception.normals import DepthNormals
from sparc_core.perception.samples import PixelSamples
from sparc_core.types import HINT_CHANNELS


@dataclass(frozen=True, eq=False)
class ImageChannels:
    """The channels of one rectified image on one device.

    rgb (H, W, 3) uint8; depth_m (H, W) z-depth, 0 where unknown; normals: (H, W, 3) unit, zero where unknown,
    or what fits them to the depth where they are read; masks (D, H, W) bool, one a detection; has_mask (D,)
    bool; hints (H, W, 2) `PixelHints`, None where nothing gives them.
    """

    rgb: torch.Tensor
    depth_m: torch.Tensor
    normals: torch.Tensor | DepthNormals
    masks: torch.Tensor
    has_mask: torch.Tensor
    hints: torch.Tensor | None = None

    def normals_at(self, index: torch.Tensor) -> torch.Tensor:
        """Normals (…, 3) at flat pixel indices (…) into (H, W)."""
        if isinstance(self.normals, DepthNormals):
            return self.normals.at(index)
        return self.normals.view(-1, 3)[index]


class ImageSource:
    """Reads an image at pixels for a batch whose rows all look at that image.

    detection (B, N): which mask belongs to each object of each row. Values are read at the nearest
    pixel, because depth and normals must not be mixed across edges.
    """

    def __init__(self, channels: ImageChannels, detection: torch.Tensor):
        self.channels = channels
        self.detection = detection
        height, width = channels.depth_m.shape
        self.size = (width, height)
        self.rgb, self.depth_m = channels.rgb.view(-1, 3), channels.depth_m.view(-1)
        self.masks = channels.masks.view(len(channels.masks), -1)

    def for_rows(self, detection: torch.Tensor) -> ImageSource:
        """The same image read for other rows: detection (B', N)."""
        import copy

        other = copy.copy(self)
        other.detection = detection
        return other

    def sample(self, uv_px: torch.Tensor) -> PixelSamples:
        """Read all channels at uv_px (B, N, K, 2)."""
        width, height = self.size
        column, row = uv_px.round().unbind(-1)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        rgb = self.rgb[index] / 255 * inside[..., None]
        normal = self.channels.normals_at(index) * inside[..., None]
        depth = self.depth_m[index] * inside
        detection = self.detection[..., None].expand_as(index)
        has_mask = self.channels.has_mask[detection] & inside
        mask = self.masks[detection, index] * has_mask
        if self.channels.hints is None:
            hints = normal.new_zeros(*index.shape, HINT_CHANNELS)
        else:
            hints = self.channels.hints.view(-1, HINT_CHANNELS)[index] * inside[..., None]
        return PixelSamples(
            uv_px, rgb, normal, depth, mask, depth > 0, normal.abs().sum(-1) > 0, has_mask, inside, hints
        )
