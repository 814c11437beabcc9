"""What Mask2CAD is made of: rotations along the viewing ray, bins by K-medoids, views of CAD models."""

import itertools
import math

import numpy as np
import pytest
import torch
from builders import furniture, posed_mesh, shapes
from scipy.spatial.transform import Rotation

from sparc_core.baselines.allocentric import ray_rotation, to_allocentric, to_camera
from sparc_core.baselines.medoids import SAME_RAD, bin_costs, k_medoids, nearest_turn, rotation_bins
from sparc_core.baselines.views import DARKEST, ViewRenderer
from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.camera import box_ray
from sparc_core.geometry.rotation import rotation_y, upright_rotation
from sparc_core.types import Camera
from sparc_core.visualise.zbuffer import rasterise


def rotations(count, seed=0, dtype=torch.float64):
    return torch.tensor(Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix(), dtype=dtype)


def orders(*values):
    return torch.tensor(values)


# --- along the ray ---------------------------------------------------------------------------------------


def test_the_ray_rotation_is_scipys_smallest_one():
    rays = torch.tensor(np.random.default_rng(0).uniform([-2, -2, 0.3], [2, 2, 3], (50, 3)))
    found = ray_rotation(rays).numpy()
    for ray, R in zip(rays.numpy(), found, strict=True):
        axis = np.cross([0.0, 0.0, 1.0], ray)
        angle = math.atan2(np.linalg.norm(axis), ray[2])
        expected = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
        np.testing.assert_allclose(R, expected, atol=1e-12)
    np.testing.assert_allclose(ray_rotation(torch.tensor([0.0, 0.0, 2.0])), np.eye(3))


def test_objects_that_stand_alike_to_their_rays_have_one_allocentric_rotation():
    """Walking an object round the camera leaves what is seen of it."""
    R, ray = rotations(1)[0], torch.tensor([0.2, -0.1, 1.0], dtype=torch.float64)
    walk = torch.tensor(Rotation.from_rotvec([0.1, -0.5, 0.0]).as_matrix())
    there = to_allocentric(walk @ R, walk @ ray)
    here = to_allocentric(R, ray)
    # the same up to a roll about the ray, which the smallest rotation leaves open
    between = Rotation.from_matrix((there @ here.T).numpy()).as_rotvec()
    np.testing.assert_allclose(between[:2], 0, atol=1e-12)
    assert abs(between[2]) < 0.1
    assert (to_allocentric(walk @ R, ray) - here).abs().max() > 0.2


def test_allocentric_and_back():
    R, ray = rotations(20), torch.tensor(np.random.default_rng(1).uniform([-1, -1, 0.5], [1, 1, 2], (20, 3)))
    torch.testing.assert_close(to_camera(to_allocentric(R, ray), ray), R)
    with pytest.raises(ValueError, match="ahead of the camera"):
        ray_rotation(torch.tensor([[0.0, 1.0, -0.1]]))


def test_the_ray_goes_through_the_middle_of_the_box():
    ray = box_ray(torch.tensor([[100.0, 50.0, 300.0, 150.0]]), torch.tensor([[400.0, 500.0, 160.0, 120.0]]))
    np.testing.assert_allclose(ray, [[(200 - 160) / 400, (100 - 120) / 500, 1.0]], atol=1e-6)


# --- bins ------------------------------------------------------------------------------------------------


def test_angles_to_bins_are_scipys_smallest_over_the_symmetry():
    R, bins, order = rotations(12), rotations(5, seed=1), orders(*[1, 2, 4, 36] * 3)
    angle, turned = nearest_turn(R, bins, order)
    for d, k in itertools.product(range(12), range(5)):
        turns = Rotation.from_rotvec(np.arange(int(order[d]))[:, None] * [0, 2 * np.pi / int(order[d]), 0])
        own = Rotation.from_matrix(R[d].numpy())
        every = (Rotation.from_matrix(bins[k].numpy()).inv() * own * turns).magnitude()
        assert float(angle[d, k]) == pytest.approx(every.min(), abs=1e-6)
        best = own * turns[int(every.argmin())]
        np.testing.assert_allclose(turned[d, k], best.as_matrix(), atol=1e-6)


def brute_force(costs, count):
    return min(costs[:, list(c)].min(1).sum() for c in itertools.combinations(range(costs.shape[1]), count))


def test_k_medoids_against_trying_everything():
    """No exchange of one bin helps, and what is found is mostly the best there is, never far from it."""
    ratios = []
    for seed in range(8):
        costs = bin_costs(rotations(14, seed), orders(*[1, 2, 4, 1, 36, 1, 2] * 2))
        for count in (1, 2, 3, 4):
            found = k_medoids(costs, count)
            assert len(found) == len(set(found.tolist())) == count
            reached = costs[:, found].min(1).sum()
            exchanged = [
                costs[:, [*found[:i], column, *found[i + 1 :]]].min(1).sum()
                for i in range(count) for column in range(14)
            ]  # fmt: skip
            assert reached <= min(exchanged) + 1e-9
            ratios.append(reached / brute_force(costs, count))
            np.testing.assert_array_equal(found, k_medoids(costs, count))
    assert min(ratios) > 1 - 1e-9 and max(ratios) < 1.1
    assert np.mean(np.array(ratios) < 1 + 1e-9) > 0.6, ratios


def test_clusters_that_lie_apart_are_found_as_they_are():
    middles = torch.tensor(Rotation.from_euler("y", [[0], [80], [160], [250]], degrees=True).as_matrix())
    rng = np.random.default_rng(3)
    jitter = torch.tensor(Rotation.from_rotvec(rng.normal(size=(40, 3)) * 0.05).as_matrix())
    R = jitter @ middles[torch.arange(40) % 4]
    bins = rotation_bins(R, torch.ones(40, dtype=torch.int64), 4)
    angle, _ = nearest_turn(R.float(), bins, torch.ones(40, dtype=torch.int64))
    assert float(angle.min(1).values.max()) < 0.4
    assert torch.bincount(angle.argmin(1), minlength=4).tolist() == [10] * 4


def test_a_round_table_needs_one_bin_for_all_its_turns():
    R = rotation_y(torch.linspace(0, 6, 50, dtype=torch.float64))
    bins = rotation_bins(R, torch.full((50,), 36), 16)
    angle, _ = nearest_turn(R.float(), bins[:1], torch.full((50,), 36))
    assert float(angle.max()) < math.radians(5.1)
    assert len(rotation_bins(R, torch.ones(50, dtype=torch.int64), 16)) == 16
    same = rotation_bins(R[:1].expand(30, 3, 3), torch.ones(30, dtype=torch.int64), 16)
    assert same.shape == (1, 3, 3)  # no second bin at the same place
    assert SAME_RAD < 1e-3


def test_bins_of_many_rotations_are_some_of_them():
    R = rotations(100)
    bins = rotation_bins(R, torch.ones(100, dtype=torch.int64), 5, most=30)
    assert float((bins[:, None] - R.float()[None]).abs().amax((-2, -1)).amin(1).max()) < 1e-6


def test_wrong_costs_are_refused():
    with pytest.raises(ValueError, match="matrix of finite numbers"):
        k_medoids(np.array([[0.0, np.nan]]), 1)
    with pytest.raises(ValueError, match="at least 1"):
        k_medoids(np.zeros((3, 3)), 0)
    with pytest.raises(ValueError, match="no rotations"):
        rotation_bins(torch.zeros(0, 3, 3), torch.zeros(0, dtype=torch.int64), 4)


# --- views -----------------------------------------------------------------------------------------------


def test_views_show_what_a_far_camera_sees():
    """Against the rasteriser of the silhouettes, which knows nothing of Warp: 500 m away, perspective is
    gone."""
    renderer, library, size = ViewRenderer(furniture()), furniture(), 64
    R = rotations(len(library), seed=4).float()
    views = renderer.render(torch.arange(len(library)), R, size)
    assert views.shape == (len(library), size, size) and views.dtype == torch.uint8
    for number, model in enumerate(library.models):
        mesh = posed_mesh(model, R[number], np.zeros(3), model.extents_m)
        flat = (model.points * model.extents_m) @ R[number].numpy()[:2].T
        low, high = flat.min(0), flat.max(0)
        step = 1.06 * (high - low).max() / size
        far = 500.0
        corner = (low + high) / 2 - step * size / 2
        focal = far / step
        camera = Camera(size, size, focal, focal, *(-corner / step - 0.5))
        z = rasterise((mesh.vertices + [0, 0, far])[model.faces], camera)
        differ = (views[number].numpy() > 0) != np.isfinite(z)
        assert differ.mean() < 0.02, model.model_id
        assert (views[number] > 0).float().mean() > 0.02


def test_surfaces_that_face_the_viewer_are_bright():
    """A cube seen straight on and from a corner, shading worked by hand."""
    renderer = ViewRenderer(shapes())
    corner = torch.tensor(Rotation.from_euler("y", 45, degrees=True).as_matrix()).float()
    straight, turned = renderer.render(torch.tensor([1, 1]), torch.stack((torch.eye(3), corner)), 32)
    assert int(straight[16, 16]) == 255 and straight.max() == 255
    assert float(turned[16, 8]) == pytest.approx(DARKEST + (255 - DARKEST) / math.sqrt(2), abs=1.5)
    assert straight[0].max() == 0  # the margin
    # 0.5 m wide and 0.6 m high: the longer side fills the picture but for the margin
    rows = (straight > 0).any(1).sum().item()
    columns = (straight > 0).any(0).sum().item()
    assert rows == pytest.approx(32 / 1.06, abs=1.1) and columns == pytest.approx(rows * 0.5 / 0.6, abs=1.1)


def test_shading_is_that_of_the_model_at_its_true_size():
    """An ellipsoid, 2 m wide, 0.8 m high and 1 m deep, 0.7 m beside its middle: normal ∝ (x/a², z/c²)."""
    size = 64
    view = ViewRenderer(shapes()).render(torch.tensor([3]), torch.eye(3)[None], size)[0].double()
    column = 0.7 / (2 * 1.06 / size)
    bright = torch.cat([view[30:34, round(31.5 + side * column) + d] for side in (-1, 1) for d in (-1, 0, 1)])
    x, z = 0.7, 0.5 * math.sqrt(1 - 0.7**2)
    normal_z = (z / 0.25) / math.hypot(x / 1.0, z / 0.25)
    assert float(bright.mean()) == pytest.approx(DARKEST + (255 - DARKEST) * normal_z, abs=12)  # facets


def test_up_is_up_in_views():
    """A wedge's top is narrow: seen upright its upper half has fewer pixels than its lower half."""
    R = upright_rotation(torch.tensor([0.0, -1.0, 0.0]), torch.tensor(0.0))
    upright, fallen = ViewRenderer(shapes()).render(
        torch.tensor([0, 0]), torch.stack((R, torch.diag(torch.tensor([-1.0, -1.0, 1.0])) @ R)), 32
    )
    assert (upright[:16] > 0).sum() < 0.7 * (upright[16:] > 0).sum()
    assert (fallen[:16] > 0).sum() > (fallen[16:] > 0).sum()


def test_wrong_views_are_refused():
    renderer = ViewRenderer(shapes())
    with pytest.raises(ValueError, match=r"in \[0, 4\), got 4 to 4"):
        renderer.render(torch.tensor([4]), torch.eye(3)[None], 32)
    with pytest.raises(ValueError, match="size_px must be at least 2"):
        renderer.render(torch.tensor([0]), torch.eye(3)[None], 1)
    with pytest.raises(ValueError, match="holds no models"):
        ViewRenderer(CadLibrary([]))
