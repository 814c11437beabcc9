"""Nine-degree-of-freedom poses: points, normals, and the box centre as origin."""

import math

import numpy as np
import torch
import trimesh
from builders import model_of, posed_mesh, random_poses, shapes

from sparc_core.geometry.pose import Pose, concatenate, where
from sparc_core.geometry.rotation import rotation_z


def test_transform_scales_then_rotates_then_shifts():
    pose = Pose(
        rotation_z(torch.tensor(math.pi / 2)), torch.tensor([10.0, 20, 30]), torch.tensor([2.0, 4, 6])
    )
    corner = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]])
    # (1, 2, 3) turned by 90° about z is (-2, 1, 3)
    np.testing.assert_allclose(pose.transform(corner), [[8, 21, 33], [10, 20, 30]], atol=1e-5)


def test_to_object_undoes_transform_in_any_batch_shape():
    pose = random_poses(2, 3, seed=1)
    points = torch.tensor(np.random.default_rng(0).normal(size=(2, 3, 20, 3)))
    assert pose.shape == (2, 3)
    np.testing.assert_allclose(pose.to_object(pose.transform(points)), points, atol=1e-12)
    np.testing.assert_allclose(
        pose.transform(points)[1, 2, 7],
        pose.R[1, 2].numpy() @ (pose.S[1, 2].numpy() * points[1, 2, 7].numpy()) + pose.T[1, 2].numpy(),
        atol=1e-12,
    )


def test_normals_of_a_scaled_ball_are_those_of_the_ellipsoid():
    pose = random_poses(4, seed=2)
    direction = np.random.default_rng(1).normal(size=(4, 50, 3))
    ball = torch.tensor(direction / np.linalg.norm(direction, axis=-1, keepdims=True))
    normals = pose.transform_normals(ball)
    for i in range(4):
        R, S = pose.R[i].numpy(), pose.S[i].numpy()
        # gradient of |x / (S/2)|² at the ellipsoid's point ball · S/2
        gradient = (ball[i].numpy() * S / 2) / (S / 2) ** 2
        expected = gradient / np.linalg.norm(gradient, axis=1, keepdims=True) @ R.T
        np.testing.assert_allclose(normals[i], expected, atol=1e-12)


def test_normals_of_a_posed_mesh_are_its_face_normals():
    model = shapes().models[0]
    pose = random_poses(seed=3)
    cube = trimesh.Trimesh(model.vertices, model.faces, process=False)
    mesh = posed_mesh(model, pose.R, pose.T, pose.S)
    np.testing.assert_allclose(
        pose.transform_normals(torch.tensor(cube.face_normals)), mesh.face_normals, atol=1e-6
    )


def test_normals_along_the_objects_axes_are_the_camera_normals_turned_back():
    pose = random_poses(5, seed=4)
    normals = torch.nn.functional.normalize(
        torch.tensor(np.random.default_rng(2).normal(size=(5, 9, 3))), dim=-1
    )
    np.testing.assert_allclose(
        pose.rotate_normals_to_object(pose.transform_normals(normals)),
        pose.normals_in_object_axes(normals),
        atol=1e-12,
    )


def test_t_is_the_centre_of_the_box_wherever_the_files_origin_is():
    mesh = trimesh.creation.box([0.4, 0.8, 1.2])
    mesh.apply_translation([5.0, -3.0, 2.0])
    model = model_of(mesh, "far-off", "cabinet")
    np.testing.assert_allclose(model.extents_m, [0.4, 0.8, 1.2], rtol=1e-6)
    pose = random_poses(seed=5)
    pose = Pose(pose.R, pose.T, torch.tensor(model.extents_m, dtype=torch.float64))
    corners = pose.transform(torch.tensor(model.vertices, dtype=torch.float64))
    np.testing.assert_allclose(corners.mean(0), pose.T, atol=1e-6)
    np.testing.assert_allclose(((corners - pose.T) @ pose.R).abs().amax(0) * 2, [0.4, 0.8, 1.2], atol=1e-6)
    sampled = pose.transform(torch.tensor(model.points, dtype=torch.float64))
    np.testing.assert_allclose(sampled.mean(0), pose.T, atol=0.05)


def test_where_and_concatenate_pick_whole_poses():
    a, b = random_poses(3, seed=6), random_poses(3, seed=7)
    mixed = where(torch.tensor([True, False, True]), a, b)
    for name in ("R", "T", "S"):
        assert torch.equal(getattr(mixed, name)[1], getattr(b, name)[1])
        assert torch.equal(getattr(mixed, name)[[0, 2]], getattr(a, name)[[0, 2]])
        assert torch.equal(getattr(concatenate([a, b]), name)[3:], getattr(b, name))
