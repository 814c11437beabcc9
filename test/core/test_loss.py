"""The alignment loss by hand and over the symmetry group, and the score loss."""

import math

import numpy as np
import pytest
import torch
from builders import random_poses
from scipy.spatial.transform import Rotation

from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import quaternion_to_matrix, rotation_angle_rad, rotation_y
from sparc_core.training.loss import (
    LossConfig,
    alignment_loss,
    closest_symmetric_truth,
    score_label,
    score_loss,
)

CUBE = torch.tensor(
    [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], dtype=torch.float64
)
ONE = torch.tensor(1)


def square(pose):
    """The pose with equal x and z extents, as models with c4 and cinf have them."""
    return Pose(pose.R, pose.T, torch.stack((pose.S[..., 0], pose.S[..., 1], pose.S[..., 0]), -1))


def turned(pose, degrees):
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return Pose(pose.R @ rotation_y(angle), pose.T, pose.S)


def cloud(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).uniform(-0.5, 0.5, (*shape, 60, 3)))


def test_loss_of_a_shifted_cube_is_the_mean_shift_of_a_coordinate():
    truth = random_poses(seed=1)
    moved = Pose(truth.R, truth.T + torch.tensor([0.3, 0.0, -0.6]), truth.S)
    assert float(alignment_loss(moved, truth, ONE, CUBE)) == pytest.approx(0.9 / 3)


def test_loss_of_a_stretched_cube_by_hand():
    truth = Pose(torch.eye(3).double(), torch.zeros(3).double(), torch.ones(3).double())
    stretched = Pose(truth.R, truth.T, torch.tensor([1.2, 1.0, 1.0]).double())
    # every corner moves 0.1 m along x and nowhere else
    assert float(alignment_loss(stretched, truth, ONE, CUBE)) == pytest.approx(0.1 / 3)


def test_size_exponent_divides_by_a_power_of_the_mean_extent():
    truth = random_poses(seed=2)
    truth = Pose(truth.R, truth.T, torch.tensor([1.0, 3.0, 8.0]).double())  # mean 4
    moved = Pose(truth.R, truth.T + 0.3, truth.S)
    plain = alignment_loss(moved, truth, ONE, CUBE)
    assert float(alignment_loss(moved, truth, ONE, CUBE, size_exponent=0.5)) == pytest.approx(
        float(plain) / 2
    )
    assert float(alignment_loss(moved, truth, ONE, CUBE, size_exponent=1.0)) == pytest.approx(
        float(plain) / 4
    )


@pytest.mark.parametrize(
    ("order", "turn_deg", "is_zero"),
    [
        (1, 0.0, True), (1, 180.0, False), (2, 180.0, True), (2, 90.0, False), (4, 90.0, True),
        (4, 180.0, True), (4, 270.0, True), (4, 45.0, False), (36, 10.0, True),
        (36, 250.0, True), (36, 5.0, False),
    ],
)  # fmt: skip
def test_a_symmetric_turn_of_the_truth_costs_nothing(order, turn_deg, is_zero):
    truth = square(random_poses(3, seed=3))
    loss = alignment_loss(turned(truth, turn_deg), truth, torch.full((3,), order), cloud(3))
    assert (loss < 1e-6).all() if is_zero else (loss > 0.005).all()


def test_symmetries_do_not_mix_within_a_batch():
    truth = square(random_poses(4, seed=4))
    loss = alignment_loss(turned(truth, 90.0), truth, torch.tensor([1, 2, 4, 36]), cloud(4, seed=1))
    assert (loss[:2] > 0.01).all() and (loss[2:] < 1e-6).all()


@pytest.mark.parametrize(("order", "turns"), [(1, 1), (2, 2), (4, 4), (36, 36)])
def test_loss_is_the_minimum_over_all_turns(order, turns):
    truth, pose, points = square(random_poses(5, seed=5)), random_poses(5, seed=6), cloud(5, seed=2)
    loss = alignment_loss(pose, truth, torch.full((5,), order), points, choose_with=60)
    for i in range(5):
        R, T, S = (np.asarray(getattr(truth, n)[i]) for n in ("R", "T", "S"))
        ours = (np.asarray(points[i]) * np.asarray(pose.S[i])) @ np.asarray(pose.R[i]).T + np.asarray(
            pose.T[i]
        )
        errors = []
        for k in range(turns):
            turn = Rotation.from_rotvec([0, 2 * np.pi * k / turns, 0]).as_matrix()
            errors.append(np.abs(ours - ((np.asarray(points[i]) * S) @ (R @ turn).T + T)).mean())
        assert float(loss[i]) == pytest.approx(min(errors), abs=1e-6)


def test_closest_symmetric_truth_is_the_turn_nearest_to_the_pose():
    truth = square(random_poses(2, seed=7))
    truth = Pose(truth.R, torch.zeros(2, 3).double(), truth.S)
    pose = turned(truth, 100.0)
    nearest = closest_symmetric_truth(pose, truth, torch.tensor([4, 1]), cloud(2))
    angle = rotation_angle_rad(truth.R.transpose(-1, -2) @ nearest.R)
    np.testing.assert_allclose(torch.rad2deg(angle), [90, 0], atol=1e-4)
    assert torch.equal(nearest.T, truth.T) and torch.equal(nearest.S, truth.S)


def test_gradient_is_finite_at_an_exact_match_and_pulls_towards_the_truth_elsewhere():
    truth = random_poses(2, seed=8)
    # four numbers a quaternion, three a position, three an extent
    given = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] * 2, dtype=torch.float64, requires_grad=True)

    def loss(offset):
        q, t, s = offset.split((4, 3, 3), -1)
        pose = Pose(truth.R @ quaternion_to_matrix(q), truth.T + t, truth.S * (1 + s))
        return alignment_loss(pose, truth, torch.tensor([1, 4]), cloud(2)).sum()

    loss(given).backward()
    assert torch.isfinite(given.grad).all()
    shifted = given.detach().clone()
    shifted[:, 4] = 0.2
    shifted.requires_grad_()
    loss(shifted).backward()
    assert (shifted.grad[:, 4] > 0.2).all()


def test_score_loss_is_binary_cross_entropy_of_the_sigmoid():
    logit = torch.tensor([-3.0, 0.0, 2.0, 5.0])
    correct = torch.tensor([True, False, True, False])
    expected = torch.nn.functional.binary_cross_entropy(logit.sigmoid(), correct.float(), reduction="none")
    np.testing.assert_allclose(score_loss(logit, correct), expected, rtol=1e-4)
    assert float(score_loss(torch.tensor(0.0), torch.tensor(True))) == pytest.approx(math.log(2))
    assert torch.isfinite(score_loss(torch.tensor([1e4, -1e4]), torch.tensor([False, True]))).all()


def test_the_label_is_a_right_pose_or_a_start_that_faces_the_right_way():
    truth = random_poses(4, seed=3)
    turns = torch.deg2rad(torch.tensor([0.0, 44.0, 46.0, 180.0], dtype=torch.float64))
    pose = Pose(truth.R @ rotation_y(turns), truth.T, truth.S)
    far = Pose(pose.R, pose.T + 1, pose.S * 2)
    plain, twofold = torch.ones(4, dtype=torch.long), torch.full((4,), 2)
    assert score_label(pose, truth, plain, "pose").tolist() == [True, False, False, False]
    assert not score_label(far, truth, plain, "pose").any()
    assert score_label(far, truth, plain, "start").tolist() == [True, True, False, False]
    assert score_label(far, truth, twofold, "start").tolist() == [True, True, False, True]


def test_loss_config_refuses_no_points():
    with pytest.raises(ValueError, match="loss points must be at least 1, got 0"):
        LossConfig(points=0)
