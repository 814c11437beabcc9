"""Start poses for training and poses to be classified: their ranges, and their labels."""

import math

import numpy as np
import pytest
import torch
from builders import random_poses
from scipy.spatial.transform import Rotation

from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_angle_rad, rotation_y, upright_rotation
from sparc_core.perception.samples import Frame
from sparc_core.training.perturb import (
    REGIONS,
    Region,
    classifier_poses,
    paper_starts,
    small_rotation,
    upright_starts,
)

COARSE = THRESHOLDS["20cm/20deg/20%"]
COUNT = 400


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def truth(seed=0):
    return random_poses(1, COUNT, seed=seed, dtype=torch.float32)


def frame(has_up=True, up=(0.0, -0.8, -0.6)):
    low = torch.rand(1, COUNT, 2, generator=generator(5)) * 300
    return Frame(
        torch.tensor([[500.0, 480.0, 320.0, 240.0]]), torch.tensor([[640.0, 480.0]]),
        torch.cat((low, low + 100), -1), torch.ones(1, COUNT, dtype=torch.bool), torch.tensor([up]),
        torch.tensor([has_up]),
    )  # fmt: skip


def angles_deg(R):
    """(K, 3) azimuth (y), elevation (x) and tilt (z) of rotations that are y, then x, then z."""
    return Rotation.from_matrix(R.reshape(-1, 3, 3).double().numpy()).as_euler("YXZ", degrees=True)


def right(poses, true, order):
    return pose_errors(poses, true, torch.full(true.shape, order)).within(COARSE)


def test_small_rotations_use_their_ranges_axis_by_axis():
    found = np.abs(angles_deg(small_rotation((1, COUNT), 10, 45, 20, generator())))
    for column, half in enumerate((45, 20, 10)):
        assert 0.95 * half < found[:, column].max() <= half + 1e-3
        assert found[:, column].mean() == pytest.approx(half / 2, rel=0.1)  # uniform


def test_the_papers_starts_lie_in_the_box_one_to_five_metres_away_with_the_categorys_size():
    true, low, high = truth(), torch.full((1, COUNT, 3), 0.4), torch.full((1, COUNT, 3), 0.9)
    start = paper_starts(true, frame(), low, high, generator())
    z = start.T[..., 2]
    assert 1 <= z.min() < 1.1 and 4.9 < z.max() <= 5 and float(z.mean()) == pytest.approx(3, abs=0.2)
    uv = start.T[..., :2] / z[..., None] * torch.tensor([500.0, 480.0]) + torch.tensor([320.0, 240.0])
    place = (uv - frame().boxes_xyxy[..., :2]) / 100
    assert -1e-3 <= place.min() < 0.05 and 0.95 < place.max() <= 1.001
    assert 0.4 <= start.S.min() < 0.42 and 0.88 < start.S.max() <= 0.9
    turn = np.abs(angles_deg(true.R.transpose(-1, -2) @ start.R))
    assert (turn.max(0) <= [45.01, 20.01, 10.01]).all() and (turn.max(0) > [42, 19, 9.5]).all()


def test_starts_with_gravity_are_upright_and_within_45_degrees_of_the_true_azimuth():
    up = torch.tensor([0.0, -0.8, -0.6])
    azimuth = torch.rand(1, COUNT, generator=generator(7)) * 6 - 3
    true = Pose(upright_rotation(up.expand(1, COUNT, 3), azimuth), truth().T, truth().S)
    R = upright_starts(true, frame(), generator())
    np.testing.assert_allclose(R[..., :, 1], up.expand(1, COUNT, 3), atol=1e-5)
    angle = torch.rad2deg(rotation_angle_rad(true.R.transpose(-1, -2) @ R))
    assert angle.max() <= 45.01 and angle.max() > 43 and angle.mean() > 20


def test_starts_without_gravity_are_drawn_about_the_truth():
    true = truth()
    R = upright_starts(true, frame(has_up=False), generator())
    turn = np.abs(angles_deg(true.R.transpose(-1, -2) @ R))
    assert (turn.max(0) <= [45.01, 20.01, 10.01]).all() and (turn.max(0) > [42, 19, 9.5]).all()


@pytest.mark.parametrize(("order", "share_right"), [(1, 0.25), (2, 0.5), (4, 1.0), (36, 1.0)])
def test_a_symmetric_object_turned_by_its_symmetry_is_labelled_right(order, share_right):
    quarter_turns = Region("turned", 0, 0, 0, 0, 0, turned=True, share=1.0)
    true = truth()
    poses = classifier_poses(true, generator(), (quarter_turns,))
    assert float(right(poses, true, order).float().mean()) == pytest.approx(share_right, abs=0.08)
    turns = torch.rad2deg(rotation_angle_rad(true.R.transpose(-1, -2) @ poses.R)).round()
    assert set(turns.unique().tolist()) == {0, 90, 180}


def test_a_symmetric_object_turned_by_anything_else_is_labelled_wrong():
    true = truth()
    eighth = Pose(true.R @ rotation_y(torch.tensor(math.pi / 4)), true.T, true.S)
    assert [bool(right(eighth, true, order).any()) for order in (1, 2, 4)] == [False, False, False]
    assert right(eighth, true, 36).all()  # within 5° of a multiple of 10°


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.name)
def test_regions_stay_within_their_ranges(region):
    true = truth()
    poses = classifier_poses(true, generator(), (region,))
    for offset, half in ((poses.T - true.T, region.translation_m), (poses.S / true.S - 1, region.scale)):
        for signed in (offset, -offset):  # both ways
            assert 0.95 * half < signed.max() <= half + 1e-5
    assert (poses.S > 0).all()
    if not region.turned:
        turn = np.abs(angles_deg(true.R.transpose(-1, -2) @ poses.R))
        assert (
            turn.max(0) <= np.array([region.azimuth_deg, region.elevation_deg, region.tilt_deg]) + 1e-2
        ).all()


def test_what_is_near_exact_is_right_and_what_is_clearly_wrong_is_wrong():
    true, shares = truth(), {}
    for region in REGIONS:
        poses = classifier_poses(true, generator(), (region,))
        shares[region.name] = float(right(poses, true, 1).float().mean())
    assert shares["near-exact"] == 1
    assert 0.3 < shares["border"] < 0.95
    assert shares["wrong T, S"] < 0.1 and shares["anything"] < 0.05
    assert shares["turned"] == pytest.approx(0.25, abs=0.08)


def test_right_and_wrong_are_about_as_frequent():
    true = random_poses(1, 4000, dtype=torch.float32)
    poses = classifier_poses(true, generator())
    assert 0.4 < float(right(poses, true, 1).float().mean()) < 0.65
    assert sum(region.share for region in REGIONS) == pytest.approx(1)
