"""What a baseline sees of a detected object: a grid over its box, with the detector's features, the lifted
depth and the normals at its cells.

The baselines are single-shot: they see each object once, and nothing of the CAD models. Cells are read at the
nearest pixel, like all our channels, because depth must not be mixed across an edge; only the features are
pooled.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from sparc_core.geometry.camera import bearing_z1
from sparc_core.types import CATEGORIES

CELL_CHANNELS = 13
CONTEXT_CHANNELS = 14 + len(CATEGORIES)
MAX_LOG_DEPTH = 1.0  # of a cell against the middle of its object: beyond, it is background
MAX_OFFSET_M = 2.0


@dataclass(frozen=True, eq=False)
class Regions:
    """D objects, each with G × G cells.

    features (D, C, G, G) of the frozen detector; mask (D, G, G) probability; uv_px (D, G, G, 2) the pixel
    that a cell is read at; depth_m (D, G, G) z-depth, 0 unknown; normal_cam (D, G, G, 3) unit, 0 unknown;
    boxes_xyxy (D, 4); intrinsics (D, 4); size_px (D, 2) width and height of the image; up_cam (D, 3) unit, 0
    unknown; category (D,) index into CATEGORIES; depth_predicted (D,) bool: depth and normals are guesses
    from the image.
    """

    features: torch.Tensor
    mask: torch.Tensor
    uv_px: torch.Tensor
    depth_m: torch.Tensor
    normal_cam: torch.Tensor
    boxes_xyxy: torch.Tensor
    intrinsics: torch.Tensor
    size_px: torch.Tensor
    up_cam: torch.Tensor
    category: torch.Tensor
    depth_predicted: torch.Tensor

    def __len__(self) -> int:
        return len(self.category)

    def __getitem__(self, index) -> Regions:
        """The objects of an index or mask (D,)."""
        return self.map(lambda x: x[index])

    def map(self, function) -> Regions:
        """The same with `function` applied to every tensor."""
        return Regions(*(function(getattr(self, f.name)) for f in fields(self)))

    def to(self, device) -> Regions:
        """The same on a device."""
        return self.map(lambda x: x.to(device))

    @property
    def has_depth(self) -> torch.Tensor:
        """(D, G, G) bool."""
        return self.depth_m > 0

    @property
    def points_cam(self) -> torch.Tensor:
        """(D, G, G, 3) the cells lifted by their depth, in metres; 0 where it is unknown."""
        return bearing_z1(self.uv_px, self.intrinsics) * self.depth_m[..., None]

    @property
    def middle_depth_m(self) -> torch.Tensor:
        """(D,) median depth in the mask, else in the box; NaN where no depth is known at all."""
        depth, known = self.depth_m.flatten(1), self.has_depth.flatten(1)
        inside = known & (self.mask.flatten(1) > 0.5)
        chosen = torch.where(inside.any(1, keepdim=True), inside, known)
        return torch.where(chosen, depth, torch.nan).nanmedian(1).values


def grid_pixels(boxes_xyxy: torch.Tensor, size_px: torch.Tensor, grid: int) -> torch.Tensor:
    """(D, G, G, 2) pixel centres nearest to the centres of the cells of boxes (D, 4), within images of
    size_px (D, 2)."""
    share = (torch.arange(grid, device=boxes_xyxy.device) + 0.5) / grid
    low, size = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:] - boxes_xyxy[:, None, :2]
    along = low + share[:, None] * size  # (D, G, 2)
    x, y = along[:, None, :, 0], along[:, :, None, 1]
    uv = torch.stack(torch.broadcast_tensors(x, y), -1).round()
    return torch.minimum(uv.clamp(min=0), size_px[:, None, None] - 1)


def read_cells(image: torch.Tensor, uv_px: torch.Tensor) -> torch.Tensor:
    """(D, G, G, …) values of an image (H, W, …) at the pixels (D, G, G, 2)."""
    column, row = uv_px.long().unbind(-1)
    return image[row, column]


def region_context(regions: Regions) -> torch.Tensor:
    """(D, `CONTEXT_CHANNELS`) what is known of each object as a whole, the same for all cameras: the ray of
    the box centre, the logarithms of the box's size in units of the focal length and of the object's middle
    depth (0 unknown), up, the share of cells with depth, which sides of the box the image cuts, whether depth
    is predicted, and the category."""
    low, high = regions.boxes_xyxy[:, :2], regions.boxes_xyxy[:, 2:]
    ray = bearing_z1((low + high) / 2, regions.intrinsics)[:, :2]
    extent = ((high - low).clamp(min=1) / regions.intrinsics[:, :2]).log()
    distance = regions.middle_depth_m.nan_to_num(1.0).log()[:, None]
    cut = torch.cat((low <= 2, high >= regions.size_px - 3), -1)
    known = regions.has_depth.flatten(1).to(ray.dtype).mean(1, keepdim=True)
    named = F.one_hot(regions.category, len(CATEGORIES))
    flags = (cut, regions.depth_predicted[:, None], named)
    return torch.cat((ray, extent, distance, regions.up_cam, known, *(f.to(ray.dtype) for f in flags)), -1)


def cell_channels(regions: Regions) -> torch.Tensor:
    """(D, G, G, `CELL_CHANNELS`) geometry of every cell: its ray against the box centre's in units of the
    box's size, its ray, its depth against the object's middle depth (logarithm), its point against the one
    in the box centre at that depth (metres, 0 unknown), its normal, and whether depth and normal are
    known."""
    low, high = regions.boxes_xyxy[:, None, None, :2], regions.boxes_xyxy[:, None, None, 2:]
    place = (2 * regions.uv_px - low - high) / (high - low).clamp(min=1)
    ray = bearing_z1(regions.uv_px, regions.intrinsics)[..., :2]
    middle = regions.middle_depth_m.nan_to_num(1.0)[:, None, None]
    ratio = torch.where(regions.has_depth, regions.depth_m / middle, 1.0)
    behind = ratio.log().clamp(-MAX_LOG_DEPTH, MAX_LOG_DEPTH)
    centre = bearing_z1((low + high) / 2, regions.intrinsics) * middle[..., None]
    offset = (regions.points_cam - centre).clamp(-MAX_OFFSET_M, MAX_OFFSET_M) * regions.has_depth[..., None]
    has_normal = regions.normal_cam.square().sum(-1) > 0.25
    flags = torch.stack((regions.has_depth, has_normal), -1).to(place.dtype)
    return torch.cat((place, ray, behind[..., None], offset, regions.normal_cam, flags), -1)
