"""Ray casting against trimesh's own ray casting, and planes by hand."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from builders import posed_mesh, random_poses, scene_of, shape_caster, shapes

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.pose import Pose
from sparc_core.synth.raycast import NOTHING, RayCaster

FLOOR = ((0.0, -1.0, 0.0), -1.5)  # 1.5 m below the camera
WALL = ((0.0, 0.0, -1.0), -4.0)  # 4 m in front of it
INTRINSICS = (500.0, 500.0, 320.0, 240.0)


def cast(scene, *pixels):
    uv = torch.from_numpy(np.array(pixels, dtype=np.float32)).reshape(len(scene.model), -1, 2)
    return shape_caster().cast(scene, uv)


def rays_through(uv):
    """(K, 3) rays with z = 1."""
    return np.concatenate([(uv - INTRINSICS[2:]) / INTRINSICS[:2], np.ones((len(uv), 1))], 1)


def first_hits_by_trimesh(meshes, uv):
    """z-depth (0 = nothing), unit normal facing the camera, and number of the mesh hit first."""
    together = trimesh.util.concatenate(meshes)
    owner = np.repeat(np.arange(len(meshes)), [len(m.faces) for m in meshes])
    rays = rays_through(uv)
    where, ray, face = together.ray.intersects_location(np.zeros_like(rays), rays, multiple_hits=True)
    depth, normal, slot = np.full(len(uv), np.inf), np.zeros((len(uv), 3)), np.full(len(uv), NOTHING)
    for point, r, f in zip(where, ray, face, strict=True):
        if point[2] < depth[r]:
            n = together.face_normals[f]
            depth[r], slot[r], normal[r] = point[2], owner[f], -n if n @ rays[r] > 0 else n
    return np.where(np.isinf(depth), 0, depth), normal, slot


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_turned_and_stretched_models_as_trimesh_sees_them(seed):
    model = [0, 2]
    pose = random_poses(2, seed=seed, dtype=torch.float32)
    pose = Pose(
        pose.R,
        torch.tensor([[-0.2, 0.0, 2.5], [0.4, 0.2, 3.0]]),
        torch.tensor([[0.6, 1.4, 0.9], [1.8, 0.5, 1.1]]),
    )
    uv = np.random.default_rng(seed).uniform([150, 90], [530, 430], (400, 2)).astype(np.float32)
    meshes = [posed_mesh(shapes().models[m], pose.R[i], pose.T[i], pose.S[i]) for i, m in enumerate(model)]
    depth, normal, slot = first_hits_by_trimesh(meshes, uv)
    assert all((slot == s).sum() > 20 for s in (NOTHING, 0, 1)), (
        "the picture should show both models and nothing"
    )
    hits = cast(scene_of(model, pose, intrinsics=INTRINSICS), *uv)
    np.testing.assert_array_equal(hits.slot[0], slot)
    np.testing.assert_allclose(hits.depth_m[0], depth, atol=2e-4)
    np.testing.assert_allclose(hits.normal_cam[0], normal, atol=1e-3)
    assert (hits.face[0].numpy() >= 0).tolist() == (slot >= 0).tolist()


def test_depth_is_z_depth_and_not_distance_along_the_ray():
    scene = scene_of([1], random_poses(1), planes=[WALL], present=[False], intrinsics=INTRINSICS)
    hits = cast(scene, (320.0, 240.0), (320.0 + 375, 240.0), (-180.0, 740.0))
    # 4 m everywhere, although the second ray is 5 m long
    np.testing.assert_allclose(hits.depth_m, [[4, 4, 4]], atol=1e-5)
    box = Pose(torch.eye(3)[None], torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[4.0, 4.0, 1.0]]))
    hits = cast(scene_of([1], box, intrinsics=INTRINSICS), (320.0, 240.0), (570.0, 340.0))
    np.testing.assert_allclose(hits.depth_m, [[2.5, 2.5]], atol=1e-4)
    np.testing.assert_allclose(hits.normal_cam, [[[0, 0, -1]] * 2], atol=1e-5)


def test_planes_by_hand():
    scene = scene_of([1], random_poses(1), planes=[FLOOR, WALL], present=[False], intrinsics=INTRINSICS)
    # straight ahead; 26.6° down meets the floor at z = 3; a little down meets the wall first
    hits = cast(scene, (320.0, 240.0), (320.0, 490.0), (420.0, 290.0))
    np.testing.assert_allclose(hits.depth_m, [[4, 3, 4]], atol=1e-5)
    assert hits.slot.tolist() == [[2, 1, 2]]  # one object slot, then floor and wall
    np.testing.assert_allclose(hits.normal_cam[0], [[0, 0, -1], [0, -1, 0], [0, 0, -1]], atol=1e-6)
    assert hits.face.tolist() == [[-1, -1, -1]]


def test_nothing_hit_is_zero_depth():
    hits = cast(
        scene_of([1], random_poses(1), planes=[FLOOR], present=[False], intrinsics=INTRINSICS), (320.0, 100.0)
    )
    assert hits.slot.item() == NOTHING and hits.depth_m.item() == 0
    assert (hits.normal_cam == 0).all()


def test_objects_in_front_hide_planes_and_other_objects_whatever_their_slot():
    T = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 2.0]])
    pose = Pose(torch.eye(3).expand(2, 3, 3), T, torch.full((2, 3), 0.5))
    scene = scene_of([1, 1], pose, planes=[WALL], intrinsics=INTRINSICS)
    near_last = cast(scene, (320.0, 240.0))
    assert near_last.slot.item() == 1 and near_last.depth_m.item() == pytest.approx(1.75, abs=1e-4)
    near_first = cast(dataclasses.replace(scene, pose=scene.pose.map(lambda x: x.flip(1))), (320.0, 240.0))
    assert near_first.slot.item() == 0 and near_first.depth_m.item() == pytest.approx(1.75, abs=1e-4)


def test_colours_are_those_of_the_models_faces_of_recoloured_objects_and_of_planes():
    ball, box = shapes().models[3], shapes().models[1]
    library = CadLibrary([
        dataclasses.replace(ball, face_colors=np.arange(3 * len(ball.faces)).reshape(-1, 3).astype(np.uint8)),
        dataclasses.replace(box, face_colors=np.full((len(box.faces), 3), 255, np.uint8)),
    ])  # fmt: skip
    caster = RayCaster(library)
    T = torch.tensor([[-1.0, 0.0, 3.0], [0.0, 0.0, 3.0], [1.0, 0.0, 3.0]])
    pose = Pose(torch.eye(3).expand(3, 3, 3), T, torch.full((3, 3), 0.6))
    scene = scene_of([1, 0, 0], pose, planes=[((0.0, 0.0, -1.0), -6.0)])
    albedo = torch.tensor([[[0.2] * 3, [0.3] * 3, [0.4, 0.5, 0.6], [1.0, 0.0, 0.5]]])
    scene = dataclasses.replace(scene, albedo=albedo, recoloured=torch.tensor([[False, False, True]]))
    x = torch.tensor([-1.0, -0.05, 0.05, 1.0]) * 500 / 3 + 319.5
    uv = torch.stack((x, torch.full((4,), 239.5)), -1)[None]
    uv = torch.cat((uv, torch.tensor([[[319.5, 5.0]]])), 1)
    hits = caster.cast(scene, uv)
    assert hits.slot[0].tolist() == [0, 1, 1, 2, 3]
    found = caster.albedo(scene, hits)[0].numpy()
    np.testing.assert_allclose(found[0], 1.0)
    np.testing.assert_allclose(found[1:3], library.models[0].face_colors[hits.face[0, 1:3]] / 255, atol=1e-6)
    assert not np.array_equal(found[1], found[2])
    ratio = found[3] / albedo[0, 2].numpy()  # one patch: brighter or darker, of the same hue
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert 0.7 <= ratio[0] <= 1.3
    np.testing.assert_allclose(found[4], [0.9, 0.55, 0.725], atol=1e-6)


def test_absent_objects_are_not_hit():
    T = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    pose = Pose(torch.eye(3).expand(2, 3, 3), T, torch.full((2, 3), 0.5))
    hits = cast(scene_of([1, 1], pose, present=[False, True], intrinsics=INTRINSICS), (320.0, 240.0))
    assert hits.slot.item() == 1 and hits.depth_m.item() == pytest.approx(2.75, abs=1e-4)
    nothing = cast(scene_of([1, 1], pose, present=[False, False], intrinsics=INTRINSICS), (320.0, 240.0))
    assert nothing.slot.item() == NOTHING


def test_objects_behind_the_camera_are_not_hit():
    pose = Pose(torch.eye(3)[None], torch.tensor([[0.0, 0.0, -2.0]]), torch.ones(1, 3))
    assert cast(scene_of([1], pose, intrinsics=INTRINSICS), (320.0, 240.0)).slot.item() == NOTHING


def test_each_scene_of_a_batch_is_seen_by_its_own_camera():
    pose = Pose(torch.eye(3)[None], torch.tensor([[0.0, 0.0, 2.0]]), torch.full((1, 3), 0.5))
    one, two = (scene_of([1], pose, intrinsics=(500.0, 500.0, cx, 240.0)) for cx in (320.0, 600.0))
    joined = {
        f.name: torch.cat((getattr(one, f.name), getattr(two, f.name)))
        for f in dataclasses.fields(one) if isinstance(getattr(one, f.name), torch.Tensor)
    }  # fmt: skip
    pose = Pose(*(torch.cat((getattr(one.pose, n), getattr(two.pose, n))) for n in ("R", "T", "S")))
    both = dataclasses.replace(one, pose=pose, **joined)
    hits = cast(both, (320.0, 240.0), (320.0, 240.0))
    assert hits.slot.tolist() == [[0], [NOTHING]]
