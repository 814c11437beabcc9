"""What the network is told of a pose beside the tokens: about the object, its box and what was expected."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from token_inputs import (
    cube_samples,
    frame_for,
    random_inputs,
)

from sparc_core.geometry.pose import Pose
from sparc_core.inputs.assemble import (
    estimate_context,
    floor_context,
    pose_context,
)


def test_the_context_says_how_far_the_azimuth_is_from_the_predicted_one():
    frame, pose, *_ = random_inputs(seed=6)
    up = frame.up_cam[0].double().numpy()
    middle = np.array([200.0, 180.0, 1.0])
    ray = np.linalg.inv([[500.0, 0, 320], [0, 480.0, 240], [0, 0, 1]]) @ middle
    towards = -ray + (ray @ up) * up  # horizontal, to the camera
    predicted = np.array([0.4, -2.0])
    for off in (0.0, 0.3, np.pi):
        # the true rotation is upright and has the predicted azimuth; the pose is turned beyond it by `off`
        turned = [Rotation.from_rotvec(angle * up).apply(towards / np.linalg.norm(towards))
                  for angle in predicted + off]  # fmt: skip
        R = np.stack([np.stack((np.cross(up, z), up, z), -1) for z in turned])
        now = Pose(torch.tensor(R)[None].float(), pose.T, pose.S)
        harmonics = [[f(k * a) for k in (1, 2, 4) for f in (np.cos, np.sin)] for a in predicted]
        told = dataclasses.replace(frame, estimate=F.pad(torch.tensor([harmonics]).float(), (0, 8)))
        expected = [f(-k * off) for k in (1, 2, 4) for f in (np.cos, np.sin)]
        np.testing.assert_allclose(estimate_context(told, now)[0, :, :6], [expected] * 2, atol=1e-5)
    doubtful = dataclasses.replace(told, estimate=told.estimate * 0.5)
    half = estimate_context(told, now)[..., :6] / 2
    np.testing.assert_allclose(estimate_context(doubtful, now)[..., :6], half, atol=1e-6)


def test_the_context_says_how_far_place_and_size_are_from_what_was_expected():
    frame, pose, *_ = random_inputs(seed=7)
    R, T, S = (getattr(pose, name)[0].double().numpy() for name in ("R", "T", "S"))
    shift = np.array([[0.1, -0.2, 0.15], [0.0, 0.3, -0.1]])  # in object axes and mean extents
    wished = T + np.einsum("nij,nj->ni", R, shift * np.sqrt((S**2).mean(-1, keepdims=True)))
    numbers = np.concatenate(
        (np.zeros((2, 6)), wished, [[0.1], [0.2]], S * [1.2, 0.9, 1.0], [[0.3], [0.4]]), -1
    )
    numbers = np.stack((numbers[0], np.zeros(14)))  # of the second nothing is expected
    context = estimate_context(dataclasses.replace(frame, estimate=torch.tensor(numbers[None]).float()), pose)
    assert context.shape == (1, 2, 16) and (context[0, 1] == 0).all()
    ratio = np.log(np.linalg.norm(wished[0]) / np.linalg.norm(T[0]))
    expected = [0] * 6 + [*shift[0], ratio, 0.1, *np.log([1.2, 0.9, 1.0]), 0.3, 1]
    np.testing.assert_allclose(context[0, 0], expected, atol=1e-5)


def test_the_context_says_how_far_an_object_is_from_standing_on_the_floor():
    frame, pose, *_ = random_inputs(seed=8)
    up = frame.up_cam[0].double().numpy()
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
    R, T, S = (getattr(pose, name)[0].double().numpy() for name in ("R", "T", "S"))
    T = T - np.outer(2 + T @ up, up)  # the centres lie two metres below the camera
    pose = Pose(pose.R, torch.tensor(T)[None].float(), pose.S)
    lowest = [-min((S[n] * corners @ R[n].T + T[n]) @ up) for n in range(2)]
    told = dataclasses.replace(frame, above_floor_m=torch.tensor([lowest[0]]).float())
    context = floor_context(told, pose)[0]
    np.testing.assert_allclose(context, [[0, 1], [math.log(lowest[1] / lowest[0]), 1]], atol=1e-5)
    unknown = dataclasses.replace(frame, above_floor_m=torch.zeros(1))
    for other in (frame, unknown, dataclasses.replace(told, has_up=torch.tensor([False]))):
        assert (floor_context(other, pose) == 0).all()


def test_pose_context_by_hand():
    R = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a quarter turn about y
    pose = Pose(R[None, None], torch.tensor([[[0.0, 0.0, 4.0]]]), torch.tensor([[[1.0, math.e, 1.0]]]))
    frame = frame_for(1, boxes_xyxy=torch.tensor([[[1.0, 80.0, 300.0, 479.0]]]))
    context = pose_context(frame, pose, cube_samples([1.0, 1.0, 0.5]))[0, 0]
    np.testing.assert_allclose(context[:3], [0, 1, 0], atol=1e-6)  # log S
    assert float(context[3]) == pytest.approx(math.log(4))
    np.testing.assert_allclose(context[4:7], [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(context[7:10], R.T @ torch.tensor([0.0, 0, 1]), atol=1e-6)
    np.testing.assert_allclose(context[10:13], R.T @ torch.tensor([0.0, -0.8, -0.6]), atol=1e-6)
    assert context[13] == 1
    assert context[14:18].tolist() == [1, 0, 0, 1]  # touches left and bottom, not top and right
    np.testing.assert_allclose(context[18:21], [0, 1, math.log(2)], atol=1e-6)  # against what is expected


def test_context_says_how_far_the_projected_box_is_from_the_detected_one():
    pose = Pose(torch.eye(3)[None, None], torch.tensor([[[0.0, 0.0, 2.5]]]), torch.ones(1, 1, 3))
    # the near face at 2 m spans 500 · 0.5 / 2 = 125 pixels either side of 320, 480 · 0.25 = 120 of 240
    frame = frame_for(1, boxes_xyxy=torch.tensor([[[195.0, 60.0, 545.0, 360.0]]]))
    residual = pose_context(frame, pose, cube_samples([1.0, 1.0, 1.0]))[0, 0, 21:25]
    np.testing.assert_allclose(residual, [0, 60 / 300, -100 / 350, 0], atol=1e-5)
    # cut at the image like the detected box, and clamped
    near = Pose(pose.R, pose.T / 2.5 * 0.7, pose.S)
    tiny = frame_for(1, boxes_xyxy=torch.tensor([[[600.0, 470.0, 639.0, 479.0]]]))
    residual = pose_context(tiny, near, cube_samples([1.0, 1.0, 1.0]))[0, 0, 21:25]
    np.testing.assert_allclose(residual, [-2, -2, 0, 0], atol=1e-5)


def test_context_says_whether_the_extents_are_the_true_ones():
    pose = Pose(torch.eye(3)[None, None], torch.tensor([[[0.0, 0.0, 2.5]]]), torch.ones(1, 1, 3))
    told = [pose_context(frame_for(1), pose, cube_samples([1.0] * 3, known))[0, 0] for known in (False, True)]
    assert told[0][25] == 0 and told[1][25] == 1 and torch.equal(told[0][:25], told[1][:25])


def test_gravity_that_is_not_known_leaves_no_trace_in_the_context():
    _, pose, _, _, _, cad = random_inputs(seed=3)
    unknown = {"has_up": torch.tensor([False])}
    one = pose_context(frame_for(2, **unknown), pose, cad)
    other = pose_context(frame_for(2, up_cam=torch.tensor([[1.0, 0.0, 0.0]]), **unknown), pose, cad)
    assert torch.equal(one, other) and (one[..., 10:14] == 0).all()
