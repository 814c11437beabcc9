"""Random rooms: where things stand, what the camera sees from, and that a seed fixes it all."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from builders import furniture, shapes
from scipy.optimize import linprog

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.rotation import rotation_angle_rad
from sparc_core.synth.scenes import BACKED, SceneConfig, SceneSampler, rectangles_overlap
from sparc_core.types import CATEGORIES

DISPLAY = CATEGORIES.index("display")


def sample(batch, seed=0, library=None, **config):
    cad = CadTensors.from_library(library or furniture())
    scene = SceneSampler(cad, SceneConfig(**config)).sample(batch, torch.Generator().manual_seed(seed))
    return scene, cad


def corners(centre, half, yaw):
    """(4, 2) corners x, z of a rectangle turned about +y (x towards −z)."""
    local = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * np.asarray(half)
    c, s = math.cos(yaw), math.sin(yaw)
    return np.asarray(centre) + local @ np.array([[c, -s], [s, c]])


def convex_hulls_meet(a, b):
    """Whether two (4, 2) corner sets have a common point, by linear programming."""
    equal = np.zeros((4, 8))
    equal[:2, :4], equal[:2, 4:] = a.T, -b.T
    equal[2, :4] = equal[3, 4:] = 1
    return linprog(np.zeros(8), A_eq=equal, b_eq=[0, 0, 1, 1], bounds=(0, None)).status == 0


def test_rectangles_overlap_agrees_with_linear_programming():
    rng = np.random.default_rng(0)
    count = 300
    centre = rng.uniform(-1, 1, (2, count, 2))
    half = rng.uniform(0.05, 0.8, (2, count, 2))
    yaw = rng.uniform(-4, 4, (2, count))
    arguments = [torch.tensor(x[k]) for k in (0, 1) for x in (centre, half, yaw)]
    found = rectangles_overlap(*arguments).numpy()
    expected = [
        convex_hulls_meet(*(corners(centre[k, i], half[k, i], yaw[k, i]) for k in (0, 1)))
        for i in range(count)
    ]
    assert 50 < sum(expected) < 250
    np.testing.assert_array_equal(found, expected)


def test_a_thin_rectangle_turned_by_yaw_reaches_where_the_object_does():
    # a bar 2 m long in x, turned by 45° about +y: its +x end goes towards −z
    def meets(x, z):
        point = (torch.tensor([x, z]), torch.tensor([0.01, 0.01]), torch.tensor(0.0))
        return bool(
            rectangles_overlap(torch.zeros(2), torch.tensor([1.0, 0.02]), torch.tensor(math.pi / 4), *point)
        )

    assert meets(0.6, -0.6) and meets(-0.6, 0.6)
    assert not meets(0.6, 0.6)


def test_the_same_seed_gives_the_same_scenes():
    one, same, other = (sample(8, seed)[0] for seed in (5, 5, 6))
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(same, field.name)
        if field.name == "pose":
            assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("R", "T", "S"))
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b), field.name
    assert not torch.equal(one.pose.T, other.pose.T)


def test_camera_height_pitch_roll_and_field_of_view_are_within_their_ranges():
    scene, _ = sample(600, free_share=0.0)
    up = scene.up_cam.numpy()
    np.testing.assert_allclose(np.linalg.norm(up, axis=1), 1, atol=1e-5)
    height = -scene.plane_offset[:, 0].numpy()
    np.testing.assert_allclose(scene.plane_normal[:, 0], up, atol=1e-6)  # the floor
    pitch = np.degrees(np.arcsin(up[:, 2]))  # looking up is positive
    roll = np.degrees(np.arctan2(up[:, 0], -up[:, 1]))
    view = np.degrees(2 * np.arctan(320 / scene.intrinsics[:, 0].numpy()))
    for values, low, high in ((height, 0.4, 2.2), (pitch, -60, 10), (roll, -5, 5), (view, 40, 90)):
        assert values.min() >= low - 1e-3 and values.max() <= high + 1e-3
    # and the ranges of height, roll and view are used to their ends
    for values, low, high in ((height, 0.4, 2.2), (np.abs(roll), 0, 5), (view, 40, 90)):
        assert values.min() < low + 0.1 * (high - low) and values.max() > high - 0.1 * (high - low)
    assert pitch.std() > 8
    assert torch.equal(scene.intrinsics[:, 0], scene.intrinsics[:, 1])


def test_a_cameras_own_ranges_are_kept():
    scene, _ = sample(50, free_share=0.0, camera_height_m=(1.0, 1.1), pitch_deg=(-20.0, -15.0))
    assert (-scene.plane_offset[:, 0]).min() >= 1.0 and (-scene.plane_offset[:, 0]).max() <= 1.1
    pitch = torch.rad2deg(torch.asin(scene.up_cam[:, 2]))
    assert pitch.min() >= -20.01 and pitch.max() <= -14.99


def heights_above_floor(scene, cad_library):
    """For each present object of each scene: (scene, slot, lowest, highest) of its vertices, metres."""
    for b in range(len(scene.model)):
        for o in range(scene.model.shape[1]):
            if scene.present[b, o]:
                model = cad_library.models[int(scene.model[b, o])]
                vertices = torch.from_numpy(model.vertices[np.unique(model.faces)])
                cam = scene.pose.map(lambda x, b=b, o=o: x[b, o]).transform(vertices)
                above = cam @ scene.plane_normal[b, 0] - scene.plane_offset[b, 0]
                yield b, o, float(above.min()), float(above.max())


def test_objects_stand_on_the_floor_and_displays_not_below_it():
    scene, cad = sample(60, seed=1, free_share=0.0)
    standing = 0
    for b, o, lowest, highest in heights_above_floor(scene, furniture()):
        if cad.category[scene.model[b, o]] == DISPLAY:
            assert lowest > -1e-4
        else:
            standing += 1
            assert abs(lowest) < 1e-4
        assert highest - lowest == pytest.approx(float(scene.pose.S[b, o, 1]), abs=1e-4)  # upright
    assert standing > 100


def test_a_display_often_stands_on_the_table_beside_it():
    scene, cad = sample(300, seed=2, free_share=0.0)
    category = cad.category[scene.model]
    on_top = 0
    for b, o, lowest, _ in heights_above_floor(scene, furniture()):
        if o and category[b, o] == DISPLAY and category[b, o - 1] == CATEGORIES.index("table"):
            on_top += abs(lowest - float(scene.pose.S[b, o - 1, 1])) < 1e-4
    assert on_top > 10


def footprint(scene, b, o):
    """(4, 2) ground corners from the pose alone: the camera's axes projected on the floor."""
    up = scene.up_cam[b].double().numpy()
    right = np.cross(up, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    axes = np.stack((right, np.cross(right, up)))
    R, T, S = (getattr(scene.pose, n)[b, o].double().numpy() for n in ("R", "T", "S"))
    local = np.array([[1, 0, 1], [1, 0, -1], [-1, 0, -1], [-1, 0, 1]]) / 2
    return ((local * S) @ R.T + T) @ axes.T


def test_footprints_do_not_intersect():
    scene, cad = sample(40, seed=3, free_share=0.0, distance_m=(1.0, 3.0))
    pairs = 0
    for b in range(40):
        slots = [o for o in range(6) if scene.present[b, o] and cad.category[scene.model[b, o]] != DISPLAY]
        for i, j in ((i, j) for i in slots for j in slots if i < j):
            pairs += 1
            assert not convex_hulls_meet(footprint(scene, b, i), footprint(scene, b, j)), (b, i, j)
    assert pairs > 100


def test_walls_stand_behind_every_object_and_face_the_camera():
    scene, _ = sample(100, seed=4, free_share=0.0)
    assert (scene.plane_offset < 0).all()  # normal · x = offset < 0: the camera is on the side of the normal
    corner = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    box = scene.pose.transform(corner.expand(*scene.model.shape, 8, 3))
    above = torch.einsum("bokj,bpj->bokp", box, scene.plane_normal) - scene.plane_offset[:, None, None]
    assert above[scene.present].min() > -1e-3
    level = torch.einsum("bpj,bj->bp", scene.plane_normal[:, 1:], scene.up_cam)
    np.testing.assert_allclose(level, 0, atol=1e-5)


def test_extents_stay_near_the_models_own_and_quarter_turn_symmetric_models_keep_a_square_foot():
    scene, cad = sample(300, seed=5, library=furniture().merged(shapes()))
    factor = scene.pose.S / cad.extents_m[scene.model]
    assert factor.min() >= 0.85 * 0.92 - 1e-4 and factor.max() <= 1.15 * 1.08 + 1e-4
    order = cad.symmetry_order[scene.model]
    assert set(order.unique().tolist()) == {1, 2, 4, 36}
    difference = (factor[..., 0] / factor[..., 2] - 1).abs()
    assert difference[order >= 4].max() < 1e-5
    assert difference[order < 4].max() > 0.1


def test_categories_are_drawn_evenly_and_every_model_is_used():
    scene, cad = sample(600, seed=6)
    share = torch.bincount(cad.category[scene.model].flatten(), minlength=9) / scene.model.numel()
    assert share.min() > 0.07 and share.max() < 0.2  # tables are also put under displays
    assert len(scene.model.unique()) == len(furniture())


def test_free_scenes_have_any_rotation_no_floor_in_view_and_no_gravity():
    scene, _ = sample(200, seed=7, free_share=1.0)
    assert scene.present[:, 0].all() and not scene.has_up.any()
    uv = (
        scene.pose.T[..., :2] / scene.pose.T[..., 2:] * scene.intrinsics[:, None, :2]
        + scene.intrinsics[:, None, 2:]
    )
    share = uv / torch.tensor([640.0, 480.0])
    assert share.min() > 0.099 and share.max() < 0.901
    assert scene.pose.T[..., 2].min() > 1
    assert (-scene.plane_offset).min() > 20
    # the angle of uniformly random rotations is above a right angle more often than not
    assert (rotation_angle_rad(scene.pose.R) > math.pi / 2).float().mean() > 0.7


def test_shares_of_free_scenes_and_known_gravity():
    scene, _ = sample(1000, seed=8, free_share=0.2, known_gravity_share=0.5)
    free = scene.plane_offset[:, 0] < -10
    assert 0.15 < free.float().mean() < 0.25
    assert not scene.has_up[free].any()
    assert 0.44 < scene.has_up[~free].float().mean() < 0.56


def test_recolouring_changes_nothing_else_and_keeps_its_share():
    plain, recoloured = sample(500, seed=8)[0], sample(500, seed=8, recoloured_share=0.3)[0]
    assert not plain.recoloured.any()
    assert 0.26 < recoloured.recoloured.float().mean() < 0.34
    assert torch.equal(plain.pose.T, recoloured.pose.T) and torch.equal(plain.albedo, recoloured.albedo)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objects": 0}, "scene objects must be >= 1"),
        ({"clutter": -1}, "clutter >= 0, got 4, -1"),
        ({"pitch_deg": (10.0, -60.0)}, r"scene pitch_deg must be \(low, high\)"),
        ({"facing_share": 1.5}, r"scene facing_share must be in \[0, 1\], got 1.5"),
        ({"recoloured_share": -0.1}, r"scene recoloured_share must be in \[0, 1\], got -0.1"),
        ({"distance_m": (3.0, 1.0)}, r"scene distance_m must be \(low, high\)"),
    ],
)
def test_a_config_names_the_field_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        SceneConfig(**arguments)


def test_a_library_without_furniture_is_refused():
    lamp = dataclasses.replace(shapes().models[0], category="other")
    with pytest.raises(ValueError, match="no model in any of the nine categories"):
        SceneSampler(CadTensors.from_library(CadLibrary([lamp])), SceneConfig())


def test_models_without_a_category_stand_about_as_clutter_and_are_never_detected():
    cad = CadTensors.from_library(furniture())
    category = cad.category.clone()
    category[3] = -1
    cad = dataclasses.replace(cad, category=category)
    sampler = SceneSampler(cad, SceneConfig(objects=3, clutter=2))
    model = sampler.sample(200, torch.Generator().manual_seed(0)).model
    assert not (model[:, :3] == 3).any()
    assert 0.3 < (model[:, 3:] == 3).float().mean() < 0.7


def test_furniture_with_a_back_mostly_turns_its_front_to_the_camera():
    scene, cad = sample(300, library=shapes(), free_share=0.0, roll_deg=(0.0, 0.0))
    front = scene.pose.R[..., 2]  # the CAD z axis in the camera frame
    horizontal_z = front[..., 2] + scene.up_cam[:, None, 2] * -(front * scene.up_cam[:, None]).sum(-1)
    away = horizontal_z > 0
    backed = torch.isin(cad.category, torch.tensor([CATEGORIES.index(name) for name in BACKED]))[scene.model]
    assert 0.1 < away[backed].float().mean() < 0.2 and backed.any()
    assert 0.45 < away[~backed].float().mean() < 0.55
    anyhow, _ = sample(600, library=shapes(), free_share=0.0, facing_share=0.0, roll_deg=(0.0, 0.0))
    sofas = torch.isin(cad.category[anyhow.model], torch.tensor([CATEGORIES.index("sofa")]))
    assert 0.45 < (anyhow.pose.R[..., 2, 2][sofas] > 0).float().mean() < 0.55
