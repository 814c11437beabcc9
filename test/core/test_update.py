"""Pose updates: identity at zero, by hand in every parametrisation, and the exact inverse."""

import math

import numpy as np
import pytest
import torch
from builders import random_poses

from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_angle_rad, rotation_y
from sparc_core.refine.loop import keep_plausible
from sparc_core.refine.update import PARAMETRISATIONS, apply_update, from_polar, to_polar, update_between
from sparc_core.types import SCALE_MODES

LOG3 = math.log(3)  # 2 · sigmoid(log 3) = 1.5


def same_pose(a: Pose, b: Pose, atol: float):
    for name in ("R", "T", "S"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol, err_msg=name)


def raw(translation=(0, 0, 0), scale=(0, 0, 0), quaternion=(0, 0, 0, 0)):
    return torch.tensor([*translation, *scale, *quaternion], dtype=torch.float64)


def one_pose(R=None, T=(0.0, 0.0, 2.0), S=(1.0, 1.0, 1.0)):
    R = torch.eye(3, dtype=torch.float64) if R is None else R
    return Pose(R, torch.tensor(T, dtype=torch.float64), torch.tensor(S, dtype=torch.float64))


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("scale_mode", ["free", "uniform", "fixed"])
def test_zero_output_is_the_identity(parametrisation, scale_mode):
    pose = random_poses(4, 5, seed=1)
    zero = torch.zeros(4, 5, 10, dtype=torch.float64)
    same_pose(apply_update(pose, zero, parametrisation, scale_mode), pose, atol=1e-12)


def within_reach(seed):
    """Start and end poses whose extents and distances differ by less than a factor of two."""
    start, other = random_poses(50, seed=seed), random_poses(50, seed=seed + 1)
    rng = np.random.default_rng(seed)
    S = start.S * torch.tensor(rng.uniform(0.2, 1.9, (50, 3)))
    T = torch.nn.functional.normalize(other.T, dim=-1) * start.T.norm(dim=-1, keepdim=True)
    return start, Pose(other.R, T * torch.tensor(rng.uniform(0.2, 1.9, (50, 1))), S)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_update_between_is_the_inverse_of_apply_update(parametrisation):
    start, end = within_reach(seed=3)
    update = update_between(start, end, parametrisation)
    same_pose(apply_update(start, update, parametrisation), end, atol=1e-9)
    # and the other way round, for outputs whose quaternion is of unit length
    rng = np.random.default_rng(4)
    quaternion = rng.normal(size=(50, 4))
    quaternion[:, 0] = np.abs(quaternion[:, 0])
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    given = torch.tensor(np.concatenate([rng.uniform(-0.4, 0.4, (50, 6)), quaternion - [1, 0, 0, 0]], 1))
    moved = apply_update(start, given, parametrisation)
    np.testing.assert_allclose(update_between(start, moved, parametrisation), given, atol=1e-9)


def test_polar_inverse_takes_the_short_way_round_behind_the_camera():
    start, end = one_pose(T=(0.1, 0.0, -2.0)), one_pose(T=(-0.1, 0.0, -2.0))
    update = update_between(start, end, "polar")
    assert abs(float(update[1])) == pytest.approx(2 * math.atan(0.05), abs=1e-9)
    same_pose(apply_update(start, update, "polar"), end, atol=1e-9)


@pytest.mark.parametrize("parametrisation", ["object", "polar"])
def test_an_unreachable_change_of_size_is_clipped_to_a_factor_of_two(parametrisation):
    start, end = one_pose(S=(1.0, 1.0, 1.0)), one_pose(S=(5.0, 1.0, 1e-9))
    update = update_between(start, end, parametrisation)
    assert torch.isfinite(update).all()
    np.testing.assert_allclose(apply_update(start, update, parametrisation).S, [2, 1, 0], atol=1e-5)


def test_extents_can_grow_and_shrink_but_at_most_double():
    S = apply_update(one_pose(S=(0.4, 0.4, 0.4)), raw(scale=(LOG3, -LOG3, 0)), "object").S
    np.testing.assert_allclose(S, [0.6, 0.2, 0.4])
    extreme = apply_update(one_pose(S=(0.4, 0.4, 0.4)), raw(scale=(15, -15, 3)), "object").S
    assert 0.79 < float(extreme[0]) < 0.8
    assert 0 < float(extreme[1]) < 1e-6


def test_object_frame_shift_is_measured_in_mean_extents_along_the_objects_axes():
    pose = one_pose(
        rotation_y(torch.tensor(math.pi / 2, dtype=torch.float64)), T=(1.0, 2.0, 3.0), S=(2.0, 2.0, 10.0)
    )
    moved = apply_update(pose, raw(translation=(0.5, 0.25, 0.25)), "object")
    # the mean extent is √(108 / 3) = 6; a quarter turn about y brings x to −z and z to x
    np.testing.assert_allclose(moved.T, [2.5, 3.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(moved.S, pose.S)


def test_polar_update_by_hand():
    pose = one_pose(T=(0.0, 0.0, 2.0))
    sideways = apply_update(pose, raw(translation=(LOG3, math.pi / 2, 0)), "polar")
    np.testing.assert_allclose(sideways.T, [3, 0, 0], atol=1e-12)
    downwards = apply_update(pose, raw(translation=(0, 0, math.pi / 6)), "polar")
    np.testing.assert_allclose(downwards.T, [0, 1, math.sqrt(3)], atol=1e-12)


def test_additive_update_by_hand():
    quarter = rotation_y(torch.tensor(math.pi / 2, dtype=torch.float64))
    pose = one_pose(quarter, T=(1.0, 2.0, 3.0), S=(0.5, 1.0, 2.0))
    moved = apply_update(pose, raw(translation=(0.1, -0.2, 0.3), scale=(0.25, -0.5, 4.0)), "additive")
    # metres along the camera's axes, whichever way the object faces and however large it is
    np.testing.assert_allclose(moved.T, [1.1, 1.8, 3.3], atol=1e-12)
    np.testing.assert_allclose(moved.S, [0.75, 0.5, 6.0], atol=1e-12)
    uniform = apply_update(pose, raw(scale=(0.25, -0.5, 4.0)), "additive", "uniform").S
    np.testing.assert_allclose(uniform, np.array([0.5, 1, 2]) * (1.5 * 0.5 * 3) ** (1 / 3), rtol=1e-12)
    half = math.pi / 12
    turned = apply_update(pose, raw(quaternion=(math.cos(half) - 1, 0, math.sin(half), 0)), "additive")
    expected = quarter @ rotation_y(torch.tensor(2 * half, dtype=torch.float64))
    np.testing.assert_allclose(turned.R, expected, atol=1e-9)


def test_an_additive_change_of_size_has_no_bound_until_it_is_kept_plausible():
    start, end = one_pose(S=(1.0, 1.0, 1.0)), one_pose(S=(5.0, 1.0, 1e-9))
    same_pose(apply_update(start, update_between(start, end, "additive"), "additive"), end, atol=1e-12)
    negative = apply_update(start, raw(scale=(-3.0, 0, 0)), "additive")
    assert float(negative.S[0]) == pytest.approx(-2)
    assert float(keep_plausible(negative).S[0]) == 0.01


def test_polar_poles_are_away_from_the_viewing_direction():
    def moved(angles):
        return apply_update(one_pose(T=(0.0, 0.0, 2.0)), torch.cat((raw()[:1], angles, raw()[:7])), "polar").T

    jacobian = torch.autograd.functional.jacobian(moved, torch.zeros(2, dtype=torch.float64))
    # on the optical axis both angles move the object by its distance: azimuth sideways, elevation down
    np.testing.assert_allclose(jacobian, [[2, 0], [0, 2], [0, 0]], atol=1e-9)
    assert [float(v) for v in to_polar(torch.tensor([0.0, 0.0, 2.0]))] == pytest.approx([2, 0, 0])


def test_polar_form_and_back_also_at_the_pole():
    T = torch.cat(
        (random_poses(40, seed=9).T, torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64))
    )
    np.testing.assert_allclose(from_polar(*to_polar(T)), T, atol=1e-5)


def test_rotation_update_turns_in_the_objects_own_axes():
    start = random_poses(seed=5)
    half = math.pi / 12
    turned = apply_update(start, raw(quaternion=(math.cos(half) - 1, 0, math.sin(half), 0)), "object")
    np.testing.assert_allclose(
        turned.R, start.R @ rotation_y(torch.tensor(2 * half, dtype=torch.float64)), atol=1e-9
    )
    long_quaternion = apply_update(start, raw(quaternion=(2, 1, -1, 3)), "object")
    np.testing.assert_allclose(long_quaternion.R @ long_quaternion.R.T, np.eye(3), atol=1e-12)
    assert float(rotation_angle_rad(start.R.T @ long_quaternion.R)) > 0.1


def test_uniform_scale_mode_multiplies_by_the_geometric_mean():
    pose = one_pose(S=(0.5, 1.0, 2.0))
    S = apply_update(pose, raw(scale=(LOG3, LOG3, -LOG3)), "object", "uniform").S
    factor = (1.5 * 1.5 * 0.5) ** (1 / 3)
    np.testing.assert_allclose(S, [0.5 * factor, factor, 2 * factor], rtol=1e-12)


def test_fixed_scale_mode_keeps_the_extents_but_still_moves():
    pose = one_pose(S=(0.5, 1.0, 2.0))
    moved = apply_update(pose, raw(translation=(0.1, 0, 0), scale=(3, -2, 1)), "object", "fixed")
    assert torch.equal(moved.S, pose.S)
    np.testing.assert_allclose(moved.T, [0.1 * math.sqrt(1.75), 0, 2], atol=1e-12)


def test_scale_modes_can_differ_from_object_to_object():
    pose = random_poses(2, 3, seed=11)
    given = torch.tensor(np.random.default_rng(12).normal(size=(2, 3, 10)))
    modes = torch.tensor([[0, 1, 2], [2, 0, 1]])
    mixed = apply_update(pose, given, "object", modes)
    for i in range(2):
        for j in range(3):
            alone = apply_update(
                pose.map(lambda x, i=i, j=j: x[i, j]), given[i, j], "object", SCALE_MODES[modes[i, j]]
            )
            same_pose(mixed.map(lambda x, i=i, j=j: x[i, j]), alone, atol=1e-12)


@pytest.mark.parametrize("extreme", [-300.0, 300.0])
def test_gradients_stay_finite_for_extreme_outputs(extreme):
    pose = random_poses(seed=13, dtype=torch.float32)
    given = torch.full((10,), extreme, requires_grad=True)
    for parametrisation in PARAMETRISATIONS:
        moved = apply_update(pose, given, parametrisation)
        (moved.R.sum() + moved.T.sum() + moved.S.sum()).backward()
        assert torch.isfinite(given.grad).all()


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_gradients_of_an_update_are_right(parametrisation):
    pose = random_poses(3, seed=6)
    given = torch.tensor(np.random.default_rng(7).normal(size=(3, 10)) * 0.2, requires_grad=True)

    def flat(update):
        moved = apply_update(pose, update, parametrisation)
        return torch.cat([moved.R.flatten(), moved.T.flatten(), moved.S.flatten()])

    assert torch.autograd.gradcheck(flat, given)
    assert torch.autograd.gradcheck(flat, torch.zeros(3, 10, dtype=torch.float64, requires_grad=True))


def test_unknown_names_are_refused_with_the_known_ones():
    pose = one_pose()
    with pytest.raises(
        ValueError, match=r"parametrisation must be one of \('object', 'polar', 'additive'\), got 'cartesian'"
    ):
        apply_update(pose, raw(), "cartesian")
    with pytest.raises(ValueError, match="parametrisation.*'cartesian'"):
        update_between(pose, pose, "cartesian")
    with pytest.raises(ValueError, match="scale_mode must be one of.*got 'loose'"):
        apply_update(pose, raw(), "object", "loose")


def test_implausible_poses_are_brought_back_into_range_without_turning():
    pose = keep_plausible(one_pose(T=(0.0, 60.0, 80.0), S=(1e-6, 1.0, 1e6)))
    np.testing.assert_allclose(pose.T, [0, 18, 24])
    np.testing.assert_allclose(pose.S, [0.01, 1, 10])
    same_pose(keep_plausible(one_pose()), one_pose(), atol=1e-12)
