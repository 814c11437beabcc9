"""Batches of stored regions with the truth, for the baselines: depth as a camera measures it, or as predicted
from the image, so that one network serves both."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from sparc_core.baselines.regions import Regions, grid_pixels
from sparc_core.geometry.camera import bearing_z1
from sparc_core.geometry.pose import Pose
from sparc_core.synth.corrupt import MONOCULAR, NoiseConfig, corrupt_depth, corrupt_normals, draw_noise
from sparc_core.training.region_store import BYTE, MILLIMETRES, RegionStore
from sparc_core.types import CATEGORIES

DISPLAY = CATEGORIES.index("display")


@dataclass(frozen=True)
class RegionNoise:
    """depth: how the depth of each object is drawn; its `monocular` share sees what the depth network
    predicted from the picture, and its scale off by `predicted_scale` (standard deviation) more, for the
    network has seen pictures of the same rooms in its training. true_masks: share of the objects that come
    with the mask of a good segmentation instead of the detector's own. up_missing: share that does not know
    gravity."""

    depth: NoiseConfig = NoiseConfig(perfect=0.05, sensor=0.45, monocular=0.5, none=0.0)
    predicted_scale: float = 0.05
    true_masks: float = 0.2
    up_missing: float = 0.3


SENSOR_ONLY = RegionNoise(NoiseConfig(perfect=0.0, sensor=1.0, monocular=0.0, none=0.0), 0.0, 0.0, 0.0)
PREDICTED_ONLY = RegionNoise(NoiseConfig(perfect=0.0, sensor=0.0, monocular=1.0, none=0.0), 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """D objects and the truth about each: truth (D,) poses in the camera frame; symmetry_order (D,) int;
    own (D, G, G) bool, which cells are the object's; noc (D, G, G, 3) the cells' true coordinates in the unit
    cube, of use where `own`; visible (D,) share that is seen; row (D,) position in the store, whose
    `model_ids` names the CAD model."""

    regions: Regions
    truth: Pose
    symmetry_order: torch.Tensor
    own: torch.Tensor
    noc: torch.Tensor
    visible: torch.Tensor
    row: torch.Tensor

    def to(self, device) -> RegionBatch:
        """The same on a device."""
        move = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "truth"}
        return RegionBatch(**move, truth=self.truth.map(lambda x: x.to(device)))


class RegionBatches:
    """Draws batches of a store at random, `size` objects each; what is drawn depends on the generator
    alone."""

    def __init__(self, store: RegionStore, size: int, noise: RegionNoise):
        self.store, self.size, self.noise = store, size, noise

    def draw(self, generator: torch.Generator) -> RegionBatch:
        """The next batch."""
        rows = torch.randint(len(self.store), (self.size,), generator=generator)
        return region_batch(self.store, rows, self.noise, generator)


def region_batch(
    store: RegionStore, rows: torch.Tensor, noise: RegionNoise, generator: torch.Generator
) -> RegionBatch:
    """Certain rows (D,) of a store, seen with noise drawn from a CPU generator."""
    stored = {name: value[rows] for name, value in store.tensors.items()}
    count, grid = len(rows), stored["mask"].shape[-1]
    uv = grid_pixels(stored["boxes_xyxy"], stored["size_px"], grid)
    depth, normal, predicted = _observe(stored, uv, noise, generator)

    def chance(share: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) < share

    own = stored["own"]
    mask = torch.where(chance(noise.true_masks)[:, None, None], own.float(), stored["mask"].float() / 255)
    up = stored["up_cam"] * ~chance(noise.up_missing)[:, None]
    regions = Regions(
        stored["features"].float(), mask, uv, depth, normal, stored["boxes_xyxy"], stored["intrinsics"],
        stored["size_px"], up, stored["category"], predicted,
    )  # fmt: skip
    truth = Pose(stored["R"], stored["T"], stored["S"])
    exact = stored["depth_true"].float() / MILLIMETRES
    points = bearing_z1(uv, stored["intrinsics"]) * exact[..., None]
    noc = truth.to_object(points.flatten(1, 2)).unflatten(1, (grid, grid))
    return RegionBatch(
        regions, truth, stored["symmetry_order"], own & (exact > 0), noc, stored["visible"], rows
    )


def _observe(stored: dict, uv: torch.Tensor, noise: RegionNoise, generator: torch.Generator):
    """Depth (D, G, G), normals (D, G, G, 3) and whether they are predicted (D,)."""
    count, grid = uv.shape[:2]
    is_display = (stored["category"] == DISPLAY)[:, None]
    drawn = draw_noise(noise.depth, count, 1, generator, is_display)
    exact, beside, seen = (
        stored[name].float().flatten(1) / MILLIMETRES for name in ("depth_true", "depth_beside", "depth_seen")
    )
    normal, normal_seen = (stored[n].float().flatten(1, 2) / BYTE for n in ("normal_true", "normal_seen"))
    ray = torch.nn.functional.normalize(bearing_z1(uv, stored["intrinsics"]), dim=-1).flatten(1, 2)
    cosine = (ray * normal).sum(-1).abs()
    slot = torch.where(stored["own"].flatten(1), 0, -1)
    depth, valid = corrupt_depth(drawn, uv.flatten(1, 2), exact, beside, cosine, slot, generator)
    noisy, _ = corrupt_normals(drawn, normal, valid, generator)
    predicted = drawn.level == MONOCULAR
    factor = 1 + noise.predicted_scale * torch.randn(count, 1, generator=generator)
    depth = torch.where(predicted[:, None], seen * factor.clamp(min=0.5), depth)
    noisy = torch.where(predicted[:, None, None], normal_seen, noisy)
    return depth.unflatten(1, (grid, grid)), noisy.unflatten(1, (grid, grid)), predicted
