"""One image with its channels, ready to be read at any pixel: the run-time `PixelSource`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparc_core.perception.samples import PixelSamples


@dataclass(frozen=True, eq=False)
class ImageChannels:
    """The channels of one rectified image on one device.

    rgb (H, W, 3) in [0, 1]; depth_m (H, W) z-depth, 0 where unknown; normal_cam (H, W, 3) unit, zero
    where unknown; masks (D, H, W) in [0, 1], one a detection; has_mask (D,) bool.
    """

    rgb: torch.Tensor
    depth_m: torch.Tensor
    normal_cam: torch.Tensor
    masks: torch.Tensor
    has_mask: torch.Tensor


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
        # one gather instead of four: rgb 3, normal 3, depth 1
        self.stacked = torch.cat((channels.rgb, channels.normal_cam, channels.depth_m[..., None]), -1).view(
            -1, 7
        )
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
        values = self.stacked[index] * inside[..., None]
        rgb, normal, depth = values.split((3, 3, 1), -1)
        detection = self.detection[..., None].expand_as(index)
        has_mask = self.channels.has_mask[detection] & inside
        mask = self.masks[detection, index] * has_mask
        depth = depth[..., 0]
        return PixelSamples(
            uv_px, rgb, normal, depth, mask, depth > 0, normal.abs().sum(-1) > 0, has_mask, inside
        )
