"""ROCA (Gümeli et al. 2022, section 3.3): one look at an object, dense object coordinates, and Procrustes.

region → shape code → scale, translation → object coordinates of every cell → weights → rotation

What differs from the paper, because all methods here share perception, data and CAD models: the features are
those of the frozen detector, so depth is an input (measured or predicted) and not learned along; beside the
features a cell has its normal and rays, and the shape code knows the box, the camera and up. CAD models are
chosen by our retrieval, which is built after the paper's section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sparc_core.baselines.procrustes import weighted_procrustes
from sparc_core.baselines.regions import (
    CELL_CHANNELS,
    CONTEXT_CHANNELS,
    Regions,
    cell_channels,
    region_context,
)
from sparc_core.baselines.single_shot import Estimate
from sparc_core.geometry.pose import Pose
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.types import CATEGORIES

MASK_THRESHOLD = 0.5  # of a cell that takes part; the paper's is 0.7, with sharper masks of 28 × 28
RANGE_QUANTILE = 0.05
MIN_CELLS = 6  # with mask and depth; three would do without noise
LOG_SCALE = (-4.0, 2.0)  # extents from 2 cm to 7 m


@dataclass(frozen=True)
class RocaConfig:
    """feature_channels of the detector. code: length of the shape code (the paper's is 512). hidden: width of
    the other layers (512 before the code and 256 behind it in the paper). dropout: of the code.
    local_features: the object coordinates of a cell see its own features, not only its point (the paper's
    equation 5 has the point alone). median_extents_m: of every category, where the scale begins."""

    feature_channels: int = 96
    code: int = 256
    hidden: int = 256
    dropout: float = 0.3
    local_features: bool = False
    median_extents_m: tuple[tuple[float, float, float], ...] = ((1.0, 1.0, 1.0),) * len(CATEGORIES)

    def __post_init__(self):
        for name in ("feature_channels", "code", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"roca {name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"roca dropout must be in [0, 1), got {self.dropout}")
        extents = self.median_extents_m
        if len(extents) != len(CATEGORIES) or any(len(e) != 3 or min(e) <= 0 for e in extents):
            raise ValueError(
                f"roca median_extents_m must be 3 lengths for each of {len(CATEGORIES)} categories"
            )


@dataclass(frozen=True, eq=False)
class RocaOutput:
    """pose (D,): the answer. T_first (D, 3): the translation before Procrustes. noc (D, K, 3) coordinates of
    the cells in the unit cube; weight (D, K) in [0, 1], 0 where a cell does not take part; enough (D,) bool:
    at least `MIN_CELLS` do, without which the pose means nothing."""

    pose: Pose
    T_first: torch.Tensor
    noc: torch.Tensor
    weight: torch.Tensor
    enough: torch.Tensor


class PointNetwork(nn.Module):
    """An MLP over points with something that all points of an object share: (D, K, P), (D, C) -> (D, K, O).

    The first layer is applied to the shared part once an object, which is the same as concatenating it.
    """

    def __init__(self, point: int, shared: int, hidden: int, out: int, layers: int):
        super().__init__()
        self.point, self.shared = nn.Linear(point, hidden), nn.Linear(shared, hidden, bias=False)
        inner = [m for _ in range(layers - 1) for m in (nn.Linear(hidden, hidden), nn.ReLU())]
        self.rest = nn.Sequential(nn.ReLU(), *inner, nn.Linear(hidden, out))

    def forward(self, points: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.rest(self.point(points) + self.shared(shared)[:, None])


class RocaNet(nn.Module):
    """`Regions` in, `RocaOutput` out."""

    def __init__(self, config: RocaConfig):
        super().__init__()
        self.config = config
        code, hidden, classes = config.code, config.hidden, len(CATEGORIES)
        cell = config.feature_channels + CELL_CHANNELS
        self.pixel = nn.Sequential(nn.Linear(cell, hidden), nn.ReLU(), nn.Linear(hidden, code), nn.ReLU())
        self.code = nn.Sequential(
            nn.Linear(code + CONTEXT_CHANNELS, code), nn.ReLU(),
            nn.Linear(code, code), nn.ReLU(), nn.Dropout(config.dropout),
        )  # fmt: skip
        self.scale = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, 3 * classes))
        self.offset = nn.Sequential(nn.Linear(code + 3, hidden), nn.ReLU(), nn.Linear(hidden, 3 * classes))
        point = 3 + (code if config.local_features else 0)
        self.noc = PointNetwork(point, 3 + code, hidden, 3, layers=2)
        self.weigh = PointNetwork(7, 3 + code, hidden, 1, layers=1)
        nn.init.normal_(self.scale[-1].weight, std=1e-3)
        nn.init.normal_(self.offset[-1].weight, std=1e-3)
        nn.init.zeros_(self.offset[-1].bias)
        with torch.no_grad():
            self.scale[-1].bias.copy_(torch.tensor(config.median_extents_m).log().flatten())

    def forward(self, regions: Regions) -> RocaOutput:
        """Poses of D objects in the camera frame. `enough` says which of them mean anything."""
        mask, points = regions.mask.flatten(1), regions.points_cam.flatten(1, 2)
        used = (mask > MASK_THRESHOLD) & regions.has_depth.flatten(1)
        cells = torch.cat((regions.features.permute(0, 2, 3, 1), cell_channels(regions)), -1)
        pixel = self.pixel(cells.flatten(1, 2))
        pooled = (mask[..., None] * pixel).amax(1)
        code = self.code(torch.cat((pooled, region_context(regions)), -1))
        S = self._of_category(self.scale(code), regions.category).clamp(*LOG_SCALE).exp()
        low, high = point_range(points, used)
        T_first = (low + high) / 2 + self._of_category(
            self.offset(torch.cat((code, high - low), -1)), regions.category
        )
        about = points - T_first[:, None]
        shared = torch.cat((S, code), -1)
        noc = self.noc(torch.cat((about, pixel), -1) if self.config.local_features else about, shared)
        seen = torch.cat((mask[..., None], noc, about), -1)
        weight = self.weigh(seen, shared)[..., 0].sigmoid() * used
        with torch.autocast(points.device.type, enabled=False):  # an SVD needs all the precision there is
            noc, weight = noc.float(), weight.float()
            R, shift = weighted_procrustes(noc * S[:, None], about, weight)
        enough = used.sum(1) >= MIN_CELLS
        return RocaOutput(Pose(R, T_first + shift, S), T_first, noc, weight, enough)

    def _of_category(self, values: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
        """(D, 3) of the (D, 3 · 9) outputs for all categories."""
        row = torch.arange(len(values), device=values.device)
        return values.float().unflatten(-1, (len(CATEGORIES), 3))[row, category]


def point_range(points: torch.Tensor, used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the points (D, K, 3) that are used (D, K) begin and end along each axis, (D, 3) both; 0 where
    there are none. The paper takes the extremes of its smooth predicted depth; of a camera's depth these are
    flying pixels, so the outer `RANGE_QUANTILE` on both sides are left out."""
    held = torch.where(used[..., None], points, torch.nan)
    ends = torch.tensor([RANGE_QUANTILE, 1 - RANGE_QUANTILE], device=points.device, dtype=points.dtype)
    low, high = held.nanquantile(ends, dim=1).nan_to_num(0.0)
    return low, high


class Roca:
    """A trained `RocaNet` as a `PoseEstimator`."""

    name = "roca"

    def __init__(self, network: RocaNet, device="cpu"):
        self.network = network.to(device).eval().requires_grad_(False)

    @classmethod
    def load(cls, weights: Path | str, device="cpu") -> Roca:
        """From a file of `sparc train-baseline roca`. Raises ValueError naming the file."""
        return cls(load_predictor(Path(weights), RocaConfig, RocaNet, device)[0], device)

    @torch.no_grad()
    def estimate(self, regions: Regions) -> Estimate:
        """See `PoseEstimator`. Raises ValueError for features of another detector."""
        channels, expected = regions.features.shape[1], self.network.config.feature_channels
        if channels != expected:
            raise ValueError(f"roca was trained on {expected} feature channels, the detector has {channels}")
        found = self.network(regions)
        return Estimate(found.pose, found.enough)
