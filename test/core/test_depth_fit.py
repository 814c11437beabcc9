"""The fit to sensor depth: derivatives, poses that get better, and what it must leave alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import furniture, scene_of

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.errors import pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_x, rotation_y
from sparc_core.perception.observe import ImageChannels
from sparc_core.refine import depth_fit
from sparc_core.refine.depth_fit import PREDICTED, SENSOR, DepthPoints, fit_to_depth, masked_depth_points
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.render import pixel_grid
from sparc_core.types import CATEGORIES, SCALE_MODES

INTRINSICS = torch.tensor([500.0, 500.0, 320.0, 240.0])
SIZE_PX = torch.tensor([640.0, 480.0])


def modes(name, count):
    return torch.full((count,), SCALE_MODES.index(name))


@pytest.fixture(scope="module")
def seen():
    """One model of every category, alone in front of the camera, and what an exact sensor sees of it."""
    library = furniture()
    cad, caster = CadTensors.from_library(library), RayCaster(library)
    models, truths, rays, depths, normals, boxes = [], [], [], [], [], []
    uv = pixel_grid(640, 480)
    for c in range(len(CATEGORIES)):
        model = int((cad.category == c).nonzero()[0, 0])
        half_turn = rotation_x(torch.tensor(math.pi))  # y up, towards the camera
        R = rotation_x(torch.tensor(0.4)) @ half_turn @ rotation_y(torch.tensor(0.5))
        S = cad.extents_m[model]
        truth = Pose(R[None], torch.tensor([[0.1, 0.1, 2.0 + float(S.norm())]]), S[None])
        hits = caster.cast(scene_of([model], truth, intrinsics=INTRINSICS.tolist()), uv)
        found = (hits.slot[0] == 0).nonzero()[:, 0]
        chosen = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(c))[:256]]
        all_rays = torch.cat(((uv[0] - INTRINSICS[2:]) / INTRINSICS[:2], torch.ones(len(uv[0]), 1)), -1)
        models.append(model)
        truths.append(truth)
        rays.append(all_rays[chosen])
        depths.append(hits.depth_m[0][chosen])
        normals.append(hits.normal_cam[0][chosen])
        boxes.append(torch.cat((uv[0][found].amin(0), uv[0][found].amax(0))))
    pose = Pose(*(torch.cat([getattr(t, n) for t in truths]) for n in ("R", "T", "S")))
    rays, depths, normals = (torch.stack(x) for x in (rays, depths, normals))
    observed = DepthPoints(rays, depths, normals, torch.ones(depths.shape))
    return cad, models, pose, observed, torch.stack(boxes)


def disturbed(pose, seed=0):
    """As far from the truth as the network leaves them."""
    gen = torch.Generator().manual_seed(seed)
    turn = 0.03 * torch.randn(len(pose.T), 2, generator=gen)
    R = pose.R @ rotation_y(turn[:, 0]) @ rotation_x(turn[:, 1])
    T = pose.T + 0.03 * torch.randn(pose.T.shape, generator=gen)
    return Pose(R, T, pose.S * (0.04 * torch.randn(pose.S.shape, generator=gen)).exp())


def fitted(seen, start, observed=None, mode="free", depth=SENSOR):
    cad, models, _, exact, boxes = seen
    observed = exact if observed is None else observed
    return fit_to_depth(
        start, observed, cad.points[models], cad.normals[models], cad.extents_m[models], boxes, INTRINSICS,
        SIZE_PX, modes(mode, len(models)), depth,
    )  # fmt: skip


def errors(pose, truth):
    return pose_errors(pose, truth, torch.ones(len(truth.T), dtype=torch.long))


def test_poses_near_the_truth_come_closer_to_it(seen):
    truth = seen[2]
    before, after = [], []
    for seed in range(4):
        start = disturbed(truth, seed)
        before.append(errors(start, truth))
        after.append(errors(fitted(seen, start), truth))
    for name, factor in (("translation_m", 0.5), ("rotation_deg", 0.5), ("scale", 0.7)):
        was, now = (torch.cat([getattr(e, name) for e in found]).median() for found in (before, after))
        assert now < factor * was, (name, float(was), float(now))
    # and what is right already stays right
    still = errors(fitted(seen, truth), truth)
    assert float(still.translation_m.max()) < 0.02 and float(still.rotation_deg.max()) < 1.5


def test_pixels_of_something_else_in_the_mask_hardly_matter(seen):
    truth, exact = seen[2], seen[3]
    stray = exact.depth_m.clone()
    stray[:, ::4] *= 1.4  # a quarter lies on what is behind
    observed = dataclasses.replace(exact, depth_m=stray)
    start = disturbed(truth)
    before, after = (errors(p, truth).translation_m.median() for p in (start, fitted(seen, start, observed)))
    assert float(after) < 0.4 * float(before)


def test_what_no_pose_explains_counts_as_noise(seen):
    """A CAD model of another shape leaves distances everywhere: its pixels get less weight each."""
    cad, models, truth, exact, _ = seen
    y, normals = cad.points[models] * truth.S[:, None], truth.normals_in_object_axes(cad.normals[models])

    def weights(blur_m):
        noise = blur_m * torch.randn(exact.depth_m.shape, generator=torch.Generator().manual_seed(0))
        seen_so = dataclasses.replace(exact, depth_m=exact.depth_m + noise)
        return depth_fit._depth_terms(truth, seen_so, y, normals, torch.zeros(2), SENSOR)[2].sum(-1)

    near = exact.depth_m.median(-1).values < 3  # farther away a sensor's own noise is as large
    assert (weights(0.1)[near] < 0.3 * weights(0.0)[near]).all()
    assert (weights(0.0) > 0).all()


@pytest.mark.parametrize("mode", SCALE_MODES)
def test_scale_modes_are_obeyed(seen, mode):
    truth = seen[2]
    start = Pose(*(getattr(disturbed(truth), n) for n in ("R", "T")), truth.S)
    ratio = fitted(seen, start, mode=mode).S / start.S
    if mode == "fixed":
        assert torch.equal(ratio, torch.ones_like(ratio))
    elif mode == "uniform":
        np.testing.assert_allclose(ratio, ratio[:, :1].expand(-1, 3), rtol=1e-5)
    else:
        assert float((ratio - ratio[:, :1]).abs().max()) > 1e-3


def test_objects_without_observed_points_stay_where_they_are(seen):
    truth, exact = seen[2], seen[3]
    weight = exact.weight.clone()
    weight[2] = 0
    start = disturbed(truth)
    out = fitted(seen, start, dataclasses.replace(exact, weight=weight))
    assert torch.equal(out.T[2], start.T[2]) and not torch.equal(out.T[1], start.T[1])


@pytest.mark.parametrize("mode", ["free", "fixed"])
def test_a_wrong_scale_of_predicted_depth_is_found_from_the_sizes_of_all_objects(seen, mode):
    truth, exact = seen[2], seen[3]
    # everything 10 % too far and 5 cm beyond, as depth and network believe it
    wrong = dataclasses.replace(exact, depth_m=1.1 * exact.depth_m + 0.05)
    start = Pose(
        truth.R, truth.T * (1.1 + 0.05 / truth.T[:, 2:]), truth.S if mode == "fixed" else truth.S * 1.1
    )
    before = errors(start, truth)
    trusting, doubting = (
        errors(fitted(seen, start, wrong, mode, depth), truth) for depth in (SENSOR, PREDICTED)
    )
    assert float(trusting.translation_m.median()) > 0.5 * float(before.translation_m.median())
    assert float(doubting.translation_m.median()) < 0.5 * float(before.translation_m.median())
    if mode == "free":
        assert float(doubting.scale.median()) < 0.6 * float(before.scale.median())


def derivative(function, pose):
    """Of function(pose after a step) by the step, at no step."""
    return torch.autograd.functional.jacobian(
        lambda step: function(depth_fit._stepped(pose, step)), torch.zeros(1, 9, dtype=torch.float64)
    )


def one_pose():
    turn = torch.tensor([0.3, 0.7], dtype=torch.float64)
    R = rotation_x(turn[:1]) @ rotation_y(turn[1:])
    return Pose(R, torch.tensor([[0.2, -0.1, 2.0]]).double(), torch.tensor([[0.5, 0.9, 0.7]]).double())


def test_the_derivative_of_the_distances_is_autograds():
    pose = one_pose()
    gen = torch.Generator().manual_seed(0)
    cube = torch.rand(1, 40, 3, generator=gen, dtype=torch.float64) - 0.5
    normals = F.normalize(torch.randn(1, 40, 3, generator=gen, dtype=torch.float64), dim=-1)
    # seen exactly on the surface: there the direction of the normal does not matter
    points = pose.transform(cube)
    depth = points[..., 2]
    observed = DepthPoints(
        points / depth[..., None], depth, torch.zeros_like(points), torch.ones(1, 40).double()
    )

    def terms(moved, common):
        return depth_fit._depth_terms(
            moved, observed, cube * moved.S[:, None], moved.normals_in_object_axes(normals), common, SENSOR
        )

    nothing = torch.zeros(2, dtype=torch.float64)
    jacobian, by_common, weight, residual = terms(pose, nothing)
    np.testing.assert_allclose(residual, 0, atol=1e-12)
    assert (weight > 0).all()
    expected = derivative(lambda moved: terms(moved, nothing)[3][0], pose)[:, 0]
    np.testing.assert_allclose(jacobian[0], expected, atol=1e-9)
    expected = torch.autograd.functional.jacobian(lambda common: terms(pose, common)[3][0], nothing)
    np.testing.assert_allclose(by_common[0], expected, atol=1e-9)


def test_the_step_solves_all_objects_and_what_they_share_at_once():
    gen = torch.Generator().manual_seed(0)
    D = 3
    jacobian = torch.randn(D, 20, 9, generator=gen, dtype=torch.float64)
    shared = torch.randn(D, 20, 2, generator=gen, dtype=torch.float64)
    residual = torch.randn(D, 20, generator=gen, dtype=torch.float64)
    turned = jacobian.transpose(1, 2)
    flat = shared.flatten(0, 1)
    step, common = depth_fit._solve(
        turned @ jacobian, (turned @ residual[..., None])[..., 0], turned @ shared,
        flat.T @ flat, flat.T @ residual.flatten(),
    )  # fmt: skip
    together = np.concatenate([np.zeros((D * 20, D * 9)), flat.numpy()], 1)
    for d in range(D):
        together[d * 20 : d * 20 + 20, d * 9 : d * 9 + 9] = jacobian[d].numpy()
    expected = np.linalg.lstsq(together, -residual.flatten().numpy(), rcond=None)[0]
    np.testing.assert_allclose(np.concatenate([step.flatten(), common]), expected, atol=1e-8)


def test_the_derivative_of_the_box_is_autograds():
    pose, boxes = one_pose(), torch.tensor([[200.0, 150.0, 420.0, 300.0]]).double()
    gen = torch.Generator().manual_seed(1)
    cube = torch.rand(1, 40, 3, generator=gen, dtype=torch.float64) - 0.5
    arguments = (boxes, INTRINSICS.double(), SIZE_PX.double())

    def residual(moved):
        return depth_fit._box_terms(moved, cube * moved.S[:, None], *arguments)[2][0]

    expected = derivative(residual, pose)[:, 0]
    jacobian, weight, pixels = depth_fit._box_terms(pose, cube * pose.S[:, None], *arguments)
    np.testing.assert_allclose(jacobian[0], expected, rtol=1e-6, atol=1e-6)
    uv = pose.transform(cube)[0]
    uv = uv[:, :2] / uv[:, 2:] * 500 + torch.tensor([320.0, 240.0])
    np.testing.assert_allclose(pixels[0], torch.cat((uv.amin(0), uv.amax(0))) - boxes[0], atol=1e-9)
    assert (weight > 0).all()
    cut = torch.tensor([[0.0, 150.0, 639.0, 300.0]]).double()
    weight = depth_fit._box_terms(pose, cube * pose.S[:, None], cut, *arguments[1:])[1]
    assert (weight[0] > 0).tolist() == [False, True, False, True]  # sides on the border say nothing


def test_depth_points_are_those_of_the_masks():
    depth = torch.zeros(48, 64)
    depth[10:20, 10:30] = 2.0
    masks = torch.zeros(3, 48, 64, dtype=torch.bool)
    masks[0, 8:16, 5:40] = True  # in part without depth
    masks[1, 40:44, 2:6] = True  # without any
    masks[2, 10:20, 10:30] = True
    normals = F.normalize(torch.rand(48, 64, 3), dim=-1)
    rgb = torch.zeros(48, 64, 3, dtype=torch.uint8)
    channels = ImageChannels(rgb, depth, normals, masks, torch.tensor([True, True, False]))
    intrinsics = torch.tensor([50.0, 60.0, 31.5, 23.5])
    points = masked_depth_points(channels, intrinsics, torch.Generator().manual_seed(0), count=200)
    assert points.weight.sum(-1).tolist() == [200, 0, 0]  # the last detection has no mask of its own
    uv = points.rays[0, :, :2] * intrinsics[:2] + intrinsics[2:]
    assert (points.depth_m[0] == 2).all() and (points.rays[0, :, 2] == 1).all()
    u, v = uv.round().long().unbind(-1)
    assert ((u >= 10) & (u < 30) & (v >= 10) & (v < 16)).all() and len(torch.unique(u)) > 15
    assert torch.equal(points.normals_cam[0], normals[v, u])
