"""Small Mask2CAD networks, and what the tests of Mask2CAD give them."""

import functools

import numpy as np
import torch
from baseline_fixtures import store
from builders import furniture, random_poses

from sparc_core.baselines.mask2cad import Mask2CadConfig, Mask2CadNet
from sparc_core.baselines.mask2cad_pose import (
    RegionBoxes,
    fit_statistics,
)
from sparc_core.baselines.regions import Regions
from sparc_core.geometry.camera import project
from sparc_core.geometry.pose import Pose
from sparc_core.training.mask2cad import Mask2CadTraining, make_mask2cad_trainer
from sparc_core.training.predictor_trainer import PredictorTrainConfig
from sparc_core.training.region_batches import SENSOR_ONLY
from sparc_core.types import CATEGORIES

TINY = Mask2CadConfig(
    features=8, width=16, shared=1, convolutions=1, embedding=16, bins=4, view_px=24, view_width=8
)


def regions_of(pose, category, channels=8, grid=6):
    """Regions of objects (D,) with boxes that are not quite round their centres."""
    count, rng = len(category), np.random.default_rng(0)
    intrinsics = torch.tensor([[300.0, 320.0, 160.0, 120.0]]).expand(count, 4)
    middle, _ = project(pose.T[:, None], intrinsics)
    size = torch.tensor(rng.uniform(30, 90, (count, 2))).float()
    middle = middle[:, 0] + size * torch.tensor(rng.uniform(-0.2, 0.2, (count, 2))).float()
    boxes = torch.cat((middle - size / 2, middle + size / 2), -1)
    return Regions(
        torch.tensor(rng.normal(size=(count, channels, grid, grid))).float(), torch.ones(count, grid, grid),
        torch.zeros(count, grid, grid, 2), torch.zeros(count, grid, grid),
        torch.zeros(count, grid, grid, 3), boxes, intrinsics, torch.tensor([[320.0, 240.0]]).expand(count, 2),
        torch.tensor([[0.0, -1.0, 0.0]]).expand(count, 3), category, torch.zeros(count, dtype=torch.bool),
    )  # fmt: skip


def network_for(regions, pose, order, config=TINY):
    torch.manual_seed(0)
    network = Mask2CadNet(config)
    boxes = RegionBoxes(regions.boxes_xyxy, regions.intrinsics, regions.category)
    fit_statistics(network, boxes, pose, order)
    return network


def example(count=12):
    """Regions of chairs and tables, their poses and symmetries."""
    pose = random_poses(count, dtype=torch.float32)
    category = torch.tensor([CATEGORIES.index("chair"), CATEGORIES.index("table")]).repeat(count // 2)
    order = torch.tensor([1, 2, 4, 36]).repeat(count // 4)
    return regions_of(pose, category), pose, order


def training(steps=200, **options):
    train = PredictorTrainConfig(steps=steps, pictures=8, learning_rate=3e-3, precision="fp32", ema=0.9)
    return Mask2CadTraining(TINY, train, noise=SENSOR_ONLY, views=2, **options)


@functools.cache
def trained():
    """A tiny network after 200 steps on the objects of eight pictures, and its losses."""
    seen = []
    trainer = make_mask2cad_trainer(training(), store(), furniture())
    trainer.run(seen.append)
    network = Mask2CadNet(TINY)
    network.load_state_dict(trainer.averaged)
    return network.eval(), seen


def truth_of(stored):
    known = stored.tensors
    boxes = RegionBoxes(known["boxes_xyxy"], known["intrinsics"], known["category"])
    return boxes, Pose(known["R"], known["T"], known["S"]), known["symmetry_order"]
