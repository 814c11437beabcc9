"""The networks of Mask2CAD: regions of an image and views of CAD models in one space, and the region's pose.

Comes in: the detector's features of a region, under its mask (`Regions`), and grey views of CAD models
(`views.py`). Goes out: unit vectors of both, and for every region the rotation's bin and its residual,
the centre's offset, and, as in the variant b5, depth and extents. Features, mask and box are all it sees of
an object: no depth image takes part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sparc_core.baselines.regions import Regions
from sparc_core.geometry.camera import bearing_z1
from sparc_core.types import CATEGORIES

BOX_CHANNELS = 11 + len(CATEGORIES)
IDENTITY = (0.95, 0.0, 0.0, 0.0)  # the paper's first answer of the residual
GROUPS = 8


@dataclass(frozen=True)
class Mask2CadConfig:
    """features: channels of the detector's regions. width of all branches; shared convolutions, of which the
    first halves the grid, then `convolutions` of each branch. embedding: length of the vectors. bins: of
    rotations (K = 16), which are the canonical views as well. view_px, view_width: of the view encoder."""

    features: int = 96
    width: int = 96
    shared: int = 1
    convolutions: int = 2
    embedding: int = 128
    bins: int = 16
    view_px: int = 48
    view_width: int = 32

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"mask2cad {name} must be at least 1, got {value}")
        for name in ("width", "view_width"):
            if getattr(self, name) % GROUPS:
                raise ValueError(f"mask2cad {name} must be a multiple of {GROUPS}, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class RegionAnswers:
    """What the network says about D regions.

    vector (D, E) of length one; bin_logits (D, K), −inf for bins that the category has not; residual (D, 4)
    quaternion wxyz, not normalised, from the bin to the allocentric rotation, in the axes of the view; offset
    (D, 2) from the middle of the box to the object's centre in widths and heights of the box; log_depth (D,)
    of z times the box's diagonal in units of the focal length; log_extents (D, 3) of metres.
    """

    vector: torch.Tensor
    bin_logits: torch.Tensor
    residual: torch.Tensor
    offset: torch.Tensor
    log_depth: torch.Tensor
    log_extents: torch.Tensor


class Mask2CadNet(nn.Module):
    """Both encoders and the pose branches. Bins and the categories' usual sizes come from the training set
    (`fit_statistics`) and are kept with the weights."""

    def __init__(self, config: Mask2CadConfig):
        super().__init__()
        self.config, width, count = config, config.width, len(CATEGORIES)
        self.stem = nn.Sequential(
            _convolution(config.features, width, 2),
            *(_convolution(width, width) for _ in range(config.shared - 1)),
        )
        self.shape = _Branch(config, config.embedding, 1)
        self.pose = _Branch(config, config.bins)
        self.refine = _Branch(config, 4)
        self.place = _Branch(config, 6)
        self.views = ViewEncoder(config)
        with torch.no_grad():
            self.refine.last.bias.copy_(torch.tensor(IDENTITY).repeat(count))
        self.register_buffer("bins", torch.zeros(count, config.bins, 4))  # quaternions, 0 where there is none
        self.register_buffer("usual_depth", torch.zeros(count))
        self.register_buffer("usual_extents", torch.zeros(count, 3))

    @property
    def has_bin(self) -> torch.Tensor:
        """(9, K) bool: which bins there are."""
        return self.bins.square().sum(-1) > 0.5

    def forward(self, regions: Regions) -> RegionAnswers:
        """See `RegionAnswers`."""
        category = regions.category
        features = self.stem(regions.features * regions.mask[:, None])
        context = box_context(regions)
        vector = F.normalize(self.shape(features, context).float(), dim=-1)
        logits = self.pose(features, context, category).float()
        logits = logits.masked_fill(~self.has_bin[category], -torch.inf)
        residual = self.refine(features, context, category).float()
        offset, depth, extents = self.place(features, context, category).float().split((2, 1, 3), -1)
        return RegionAnswers(
            vector, logits, residual, offset, self.usual_depth[category] + depth[:, 0],
            self.usual_extents[category] + extents,
        )  # fmt: skip


class _Branch(nn.Module):
    """Convolutions, mean over the region, and beside the box's context two layers to `outputs` for each of
    `classes`."""

    def __init__(self, config: Mask2CadConfig, outputs: int, classes: int = len(CATEGORIES)):
        super().__init__()
        width = config.width
        self.body = nn.Sequential(*(_convolution(width, width) for _ in range(config.convolutions)))
        self.mix = nn.Sequential(nn.Linear(width + BOX_CHANNELS, 2 * width), nn.GELU())
        self.last, self.classes = nn.Linear(2 * width, classes * outputs), classes
        if classes > 1:  # answers begin at the usual ones
            nn.init.normal_(self.last.weight, std=1e-3)
            nn.init.zeros_(self.last.bias)

    def forward(self, features, context, category=None) -> torch.Tensor:
        """(D, outputs), of each region's category where there are several classes."""
        pooled = self.body(features).mean((-2, -1))
        found = self.last(self.mix(torch.cat((pooled, context), -1))).unflatten(-1, (self.classes, -1))
        if category is None:
            return found[:, 0]
        return found[torch.arange(len(found), device=found.device), category]


class ViewEncoder(nn.Module):
    """Grey views of CAD models to unit vectors."""

    def __init__(self, config: Mask2CadConfig):
        super().__init__()
        width = config.view_width
        self.body = nn.Sequential(
            _convolution(1, width, 2), _convolution(width, 2 * width, 2), _convolution(2 * width, 2 * width),
            _convolution(2 * width, 4 * width, 2), _convolution(4 * width, 4 * width),
        )  # fmt: skip
        self.last = nn.Sequential(
            nn.Linear(4 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, config.embedding)
        )

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """(V, P, P) uint8 -> (V, E)."""
        grey = views[:, None].to(self.last[0].weight.dtype) / 255
        return F.normalize(self.last(self.body(grey).mean((-2, -1))).float(), dim=-1)


def _convolution(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    # the paper has BatchNorm; batches that fit a CPU are too small for its statistics
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU()
    )


def box_context(regions: Regions) -> torch.Tensor:
    """(D, `BOX_CHANNELS`) what pooled features cannot know: the ray of the box's middle, its size in units of
    the focal length (logarithm), which sides the image cuts, up, and the category."""
    low, high = regions.boxes_xyxy[:, :2], regions.boxes_xyxy[:, 2:]
    ray = bearing_z1((low + high) / 2, regions.intrinsics)[:, :2]
    cut = torch.cat((low <= 2, high >= regions.size_px - 3), -1)
    named = F.one_hot(regions.category, len(CATEGORIES))
    extent = box_extent(regions).log()
    return torch.cat((ray, extent, cut.to(ray.dtype), regions.up_cam, named.to(ray.dtype)), -1)


def box_extent(regions) -> torch.Tensor:
    """(D, 2) width and height of boxes in units of the focal length; regions: with boxes_xyxy and
    intrinsics."""
    low, high = regions.boxes_xyxy[:, :2], regions.boxes_xyxy[:, 2:]
    return (high - low).clamp(min=1) / regions.intrinsics[:, :2]
