"""Rotations against scipy, and their gradients where textbook formulas divide by zero."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sparc_core.geometry.rotation import (
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotation_angle_rad,
    rotation_x,
    rotation_y,
    rotation_z,
    upright_rotation,
)

AXES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (1, 1, 0), (0, 1, -1), (1, 1, 1), (-1, 2, 0.5)]


def about(axis, angle_rad) -> torch.Tensor:
    """(3, 3) float64 rotation from scipy."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    return torch.tensor(Rotation.from_rotvec(axis * angle_rad).as_matrix())


def half_turn(axis) -> torch.Tensor:
    """(3, 3) the half turn 2aaᵀ − 1, symmetric to the last bit."""
    a = np.asarray(axis, float) / np.linalg.norm(axis)
    return torch.tensor(2 * np.outer(a, a) - np.eye(3))


def test_quaternion_to_matrix_agrees_with_scipy_whatever_the_quaternion_length():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(5, 7, 4)) * rng.uniform(0.1, 10, (5, 7, 1))
    expected = Rotation.from_quat(q.reshape(-1, 4)[:, [1, 2, 3, 0]]).as_matrix().reshape(5, 7, 3, 3)
    np.testing.assert_allclose(quaternion_to_matrix(torch.tensor(q)), expected, atol=1e-12)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])
def test_matrix_to_quaternion_agrees_with_scipy(dtype, atol):
    rotations = Rotation.from_quat(np.random.default_rng(1).normal(size=(500, 4)))
    expected = rotations.as_quat(canonical=True)[:, [3, 0, 1, 2]]
    expected = np.where(expected[:, :1] < 0, -expected, expected)
    q = matrix_to_quaternion(torch.tensor(rotations.as_matrix(), dtype=dtype))
    assert q.dtype == dtype
    np.testing.assert_allclose(q, expected, atol=atol)
    np.testing.assert_allclose(quaternion_to_matrix(q), rotations.as_matrix(), atol=atol)


@pytest.mark.parametrize("axis", AXES)
def test_half_turns_survive_the_way_to_a_quaternion_and_back(axis):
    q = matrix_to_quaternion(half_turn(axis))
    unit = np.asarray(axis, float) / np.linalg.norm(axis)
    assert abs(abs(float(q[1:].numpy() @ unit)) - 1) < 1e-9
    assert abs(float(q[0])) < 1e-7
    np.testing.assert_allclose(quaternion_to_matrix(q), half_turn(axis), atol=1e-9)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("angle_rad", [0.0, 1e-6, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-6, math.pi])
def test_rotation_angle_is_exact_near_zero_and_half_turns(axis, angle_rad):
    R = about(axis, angle_rad)
    assert float(rotation_angle_rad(R)) == pytest.approx(angle_rad, abs=1e-9)
    assert float(rotation_angle_rad(R)) == pytest.approx(
        Rotation.from_matrix(R.numpy()).magnitude(), abs=1e-9
    )
    # acos of the trace would be off by 3e-4 here
    assert float(rotation_angle_rad(R.float())) == pytest.approx(angle_rad, abs=2e-6)


def turned(R):
    """`v` -> R · exp(v) to first order, a smooth way through SO(3) at v = 0."""
    return lambda v: R @ quaternion_to_matrix(torch.cat((torch.ones_like(v[:1]), v)))


@pytest.mark.parametrize(
    "R", [torch.eye(3, dtype=torch.float64), *map(half_turn, AXES), about((1, 2, 3), 2.0)]
)
def test_quaternions_have_the_right_gradient_at_identity_and_half_turns(R):
    def outer(v):  # q and -q are the same rotation, so only their products are smooth at half turns
        q = matrix_to_quaternion(turned(R)(v))
        return q[:, None] * q[None, :]

    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(outer, zero)
    assert torch.autograd.gradcheck(turned(R), zero)


@pytest.mark.parametrize("angle_rad", [1e-3, 1.0, math.pi - 1e-3])
def test_rotation_angle_has_the_right_gradient_near_both_ends(angle_rad):
    v = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: rotation_angle_rad(turned(about((1, -2, 1), angle_rad))(v)), v)


@pytest.mark.parametrize("R", [torch.eye(3, dtype=torch.float64), *map(half_turn, AXES)])
def test_rotation_angle_has_a_finite_gradient_at_the_ends(R):
    v = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    rotation_angle_rad(turned(R)(v)).backward()
    assert torch.isfinite(v.grad).all()


@pytest.mark.parametrize(("function", "name"), [(rotation_x, "x"), (rotation_y, "y"), (rotation_z, "z")])
def test_axis_rotations_agree_with_scipy(function, name):
    angles = np.linspace(-4, 4, 12).reshape(3, 4)
    unit = np.eye(3)["xyz".index(name)]
    expected = Rotation.from_rotvec(angles.reshape(-1, 1) * unit).as_matrix().reshape(3, 4, 3, 3)
    np.testing.assert_allclose(function(torch.tensor(angles)), expected, atol=1e-12)
    assert torch.autograd.gradcheck(
        function, torch.tensor([0.0, math.pi, 0.7], dtype=torch.float64, requires_grad=True)
    )


def test_rotation_y_turns_the_front_towards_x():
    front = rotation_y(torch.tensor(math.pi / 2)) @ torch.tensor([0.0, 0.0, 1.0])
    np.testing.assert_allclose(front, [1, 0, 0], atol=1e-6)


def test_upright_object_faces_a_level_camera_at_azimuth_zero():
    R = upright_rotation(torch.tensor([0.0, -1.0, 0.0]), torch.tensor(0.0))
    # columns are the object's x, y and z in the camera frame: to the left in the image, up, to the camera
    np.testing.assert_allclose(R, [[1, 0, 0], [0, -1, 0], [0, 0, -1]], atol=1e-6)


def test_upright_object_of_a_tilted_camera_has_y_up_and_its_front_as_near_the_camera_as_it_can():
    up = torch.nn.functional.normalize(torch.tensor([0.1, -0.8, -0.5], dtype=torch.float64), dim=0)
    azimuths = torch.linspace(-math.pi, math.pi, 73, dtype=torch.float64)
    R = upright_rotation(up.expand(73, 3), azimuths)
    np.testing.assert_allclose(R[:, :, 1], up.expand(73, 3), atol=1e-12)
    np.testing.assert_allclose(R.transpose(-1, -2) @ R, np.tile(np.eye(3), (73, 1, 1)), atol=1e-12)
    assert torch.linalg.det(R).min() > 0.999
    towards_camera = -R[:, 2, 2]
    assert int(towards_camera.argmax()) == 36  # azimuth 0
    # an azimuth of 90° about the object's up axis
    relative = R[36].T @ R[54]
    np.testing.assert_allclose(relative, about((0, 1, 0), math.pi / 2), atol=1e-12)


@pytest.mark.parametrize("up", [(0.0, 0.0, -1.0), (0.0, 0.0, 1.0)])
def test_upright_rotation_of_a_camera_looking_straight_down_or_up_is_a_rotation(up):
    R = upright_rotation(torch.tensor(up, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-12)
    assert float(torch.linalg.det(R)) == pytest.approx(1)
    np.testing.assert_allclose(R[:, 1], up, atol=1e-12)
