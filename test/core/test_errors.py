"""Pose errors: angles against scipy, symmetry, thresholds and both scale errors by hand."""

import math

import numpy as np
import pytest
import torch
from builders import random_poses
from scipy.spatial.transform import Rotation

from sparc_core.geometry.errors import (
    THRESHOLDS,
    azimuth_error_deg,
    pose_errors,
    rotation_error_deg,
    symmetric_turns,
)
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_y

COARSE = THRESHOLDS["20cm/20deg/20%"]


def turned(pose, degrees):
    """The pose with its rotation turned about the object's y axis."""
    return Pose(pose.R @ rotation_y(torch.tensor(math.radians(degrees), dtype=pose.R.dtype)), pose.T, pose.S)


def test_rotation_error_without_symmetry_is_scipys_angle():
    a, b = random_poses(200, seed=1).R, random_poses(200, seed=2).R
    expected = (Rotation.from_matrix(a.numpy()).inv() * Rotation.from_matrix(b.numpy())).magnitude()
    errors = rotation_error_deg(a, b, torch.ones(200, dtype=torch.long))
    np.testing.assert_allclose(errors, np.degrees(expected), atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rotations_are_zero_degrees_apart_and_not_nan(dtype):
    # products of rounded matrices have traces just above 3, where acos gives NaN (or is clipped to 0)
    R = random_poses(2000, seed=3, dtype=dtype).R
    errors = rotation_error_deg(R, R, torch.ones(2000, dtype=torch.long))
    assert torch.isfinite(errors).all()
    assert float(errors.max()) < 1e-4


def test_a_wrong_rotation_is_never_counted_as_right_by_clipping():
    R = torch.eye(3).expand(3, 3, 3)
    wrong = torch.stack([rotation_y(torch.tensor(math.radians(a))) for a in (90.0, 179.9, 180.0)])
    np.testing.assert_allclose(
        rotation_error_deg(wrong, R, torch.ones(3, dtype=torch.long)), [90, 179.9, 180], atol=1e-3
    )


@pytest.mark.parametrize(
    ("order", "turn_deg", "expected_deg"),
    [
        (1, 180, 180), (1, 90, 90), (2, 180, 0), (2, 90, 90), (2, 170, 10), (4, 90, 0), (4, 270, 0),
        (4, 45, 45), (4, 100, 10), (36, 10, 0), (36, 133, 3), (36, 355, 5),
    ],
)  # fmt: skip
def test_rotation_error_is_the_smallest_over_the_symmetric_turns(order, turn_deg, expected_deg):
    truth = random_poses(1, seed=4)
    error = rotation_error_deg(turned(truth, turn_deg).R, truth.R, torch.tensor([order]))
    assert float(error) == pytest.approx(expected_deg, abs=1e-4)


@pytest.mark.parametrize(
    ("order", "turn_deg", "expected_deg"),
    [(1, 180, 180), (1, -130, 130), (2, 170, 10), (2, 90, 90), (4, 100, 10), (4, -44, 44), (36, 133, 3)],
)
def test_azimuth_error_is_the_turn_about_the_vertical_however_the_object_is_tilted(
    order, turn_deg, expected_deg
):
    truth = random_poses(1, seed=4)
    tilt = torch.from_numpy(Rotation.from_euler("z", 20, degrees=True).as_matrix())
    R = turned(truth, turn_deg).R
    assert float(azimuth_error_deg(R, truth.R, torch.tensor([order]))) == pytest.approx(
        expected_deg, abs=1e-4
    )
    # tilted about its own front the object still faces the same way
    assert float(azimuth_error_deg(R @ tilt, truth.R, torch.tensor([order]))) == pytest.approx(
        expected_deg, abs=1e-4
    )


def test_symmetry_excuses_turns_about_y_only():
    truth = torch.eye(3).expand(4, 3, 3)
    tilted = torch.tensor(Rotation.from_rotvec([np.pi / 2, 0, 0]).as_matrix()).float().expand(4, 3, 3)
    np.testing.assert_allclose(rotation_error_deg(tilted, truth, torch.tensor([1, 2, 4, 36])), 90, atol=1e-3)


def test_symmetries_do_not_mix_within_a_batch():
    truth = random_poses(2, 2, seed=5)
    orders = torch.tensor([[1, 2], [4, 36]])
    errors = rotation_error_deg(turned(truth, 90).R, truth.R, orders)
    np.testing.assert_allclose(errors, [[90, 90], [0, 0]], atol=1e-4)
    angles, exists = symmetric_turns(torch.tensor([1, 2, 4]))
    assert exists.sum(-1).tolist() == [1, 2, 4]
    np.testing.assert_allclose(angles[2], [0, math.pi / 2, math.pi, 3 * math.pi / 2], atol=1e-6)


def test_translation_and_both_scale_errors_by_hand():
    truth = Pose(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 0.5]))
    pose = Pose(torch.eye(3), torch.tensor([1.0, 2.3, 3.4]), torch.tensor([1.3, 1.4, 0.5]))
    errors = pose_errors(pose, truth, torch.tensor(1))
    assert float(errors.translation_m) == pytest.approx(0.5, abs=1e-6)
    # ratios 1.3, 0.7 and 1: Scan2CAD's mean ratio is off by nothing, the axes by 0.6/3
    assert float(errors.scale_mean) == pytest.approx(0.0, abs=1e-6)
    assert float(errors.scale) == pytest.approx(0.2, abs=1e-6)
    assert float(errors.rotation_deg) == 0


@pytest.mark.parametrize(
    ("shift_m", "turn_deg", "scale", "right"),
    [
        (0.19, 19.0, 1.19, True), (0.0, 0.0, 0.81, True), (0.21, 0.0, 1.0, False), (0.0, 21.0, 1.0, False),
        (0.0, 0.0, 1.21, False), (0.0, 0.0, 0.79, False),
    ],
)  # fmt: skip
def test_a_pose_is_right_when_all_three_errors_are_within_the_threshold(shift_m, turn_deg, scale, right):
    truth = random_poses(1, seed=6)
    near = turned(Pose(truth.R, truth.T + torch.tensor([0.0, shift_m, 0.0]), truth.S * scale), turn_deg)
    errors = pose_errors(near, truth, torch.tensor([1]))
    assert bool(errors.within(COARSE)) is right
    assert not errors.within(THRESHOLDS["5/5/5"])[0]


def test_the_stricter_scale_error_decides():
    truth = Pose(torch.eye(3), torch.zeros(3), torch.ones(3))
    pose = Pose(torch.eye(3), torch.zeros(3), torch.tensor([1.5, 0.5, 1.0]))
    errors = pose_errors(pose, truth, torch.tensor(1))
    assert float(errors.scale_mean) < 1e-6
    assert not errors.within(COARSE)


def test_infinitely_distant_poses_are_wrong_and_not_nan():
    truth = random_poses(1, seed=8)
    pose = Pose(truth.R, torch.full((1, 3), torch.inf, dtype=torch.float64), truth.S)
    assert not pose_errors(pose, truth, torch.tensor([1])).within(COARSE)[0]
