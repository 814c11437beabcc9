"""Depth that is made to agree with normals, against planes whose depth is known exactly."""

import numpy as np
import pytest

from sparc_core.perception.surface_fit import fit_to_normals, upright_room

HEIGHT, WIDTH = 36, 48
UP = np.array([0.0, -0.8, -0.6])


def camera_rays(height=HEIGHT, width=WIDTH):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(((x - width / 2) / 40, (y - height / 2) / 40, np.ones_like(x)), -1)


def plane(rays, normal, through):
    """(H, W) depth of a plane, and its (H, W, 3) normals, unit."""
    normal = np.array(normal) / np.linalg.norm(normal)
    with np.errstate(divide="ignore"):  # rays along the plane
        depth = (normal @ through) / (rays @ normal)
    return depth, np.broadcast_to(normal, rays.shape).copy()


def wavering(depth, size, seed=0):
    """The logarithm of the depth with smooth waves of that size, whose mean is 0."""
    y, x = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]]
    phase = np.random.default_rng(seed).uniform(0, 6, 4)
    waves = sum(np.sin(k * x / 7 + phase[k]) + np.sin(k * y / 6 - phase[k]) for k in (1, 2, 3))
    return np.log(depth) + size * (waves - waves.mean())


def fitted(log_depth, normals, rays, sigma=0.12, kappa=20.0):
    return fit_to_normals(
        log_depth, np.full_like(log_depth, np.log(sigma)), normals, np.full_like(log_depth, kappa), rays
    )


def spread(log_depth, depth):
    """How far off the depth is, but for its scale."""
    off = log_depth - np.log(depth)
    return np.abs(off - np.median(off)).mean()


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.4, -0.2, -1), (0, -0.95, -0.3), (1, 0.1, -0.6)])
def test_depth_that_wavers_becomes_the_plane_that_the_normals_tell(normal):
    rays = camera_rays()
    depth, normals = plane(rays, normal, np.array([0.0, 0.0, 3.0]))
    if normal[1] < -0.9 or normal[0] == 1:  # of such planes only what is seen before the horizon
        seen = np.s_[22:] if normal[1] < -0.9 else np.s_[:, :40]
        rays, depth, normals = rays[seen], depth[seen], normals[seen]
    assert (depth > 0).all()
    told = wavering(depth, 0.02)
    found = fitted(told, normals, rays)
    assert spread(found, depth) < 0.2 * spread(told, depth)
    assert np.mean(found - told) == pytest.approx(0, abs=0.01)  # the scale is the network's


def test_depth_that_agrees_with_its_normals_stays():
    rays = camera_rays()
    depth, normals = plane(rays, (0.4, -0.2, -1), np.array([0.0, 0.0, 3.0]))
    np.testing.assert_allclose(fitted(np.log(depth), normals, rays), np.log(depth), atol=1e-6)


def test_a_step_between_two_surfaces_stays():
    rays = camera_rays()
    behind, normals = plane(rays, (0, 0, -1), np.array([0.0, 0.0, 4.0]))
    inside = np.s_[10:26, 14:34]
    depth = behind.copy()
    depth[inside] = 2.5
    told = wavering(depth, 0.01)
    found = fitted(told, normals, rays)
    assert np.exp(found[inside]).std() < 0.3 * np.exp(told[inside]).std()
    assert np.median(np.exp(found[inside])) == pytest.approx(2.5, rel=0.03)
    outside = np.ones_like(depth, bool)
    outside[inside] = False
    assert np.median(np.exp(found[outside])) == pytest.approx(4, rel=0.03)
    # not a pixel is left in the air between them
    assert (np.abs(np.exp(found) / depth - 1) < 0.1).all()


def test_uncertain_normals_and_certain_depth_move_it_less():
    rays = camera_rays()
    depth, normals = plane(rays, (0.4, -0.2, -1), np.array([0.0, 0.0, 3.0]))
    told = wavering(depth, 0.01)
    usual, vague, sure = (
        spread(fitted(told, normals, rays, sigma, kappa), depth)
        for sigma, kappa in ((0.12, 20), (0.12, 0.05), (0.005, 20))
    )
    assert usual < 0.5 * vague < 0.5 * spread(told, depth) and usual < 0.5 * sure


def test_the_room_is_made_level_and_plumb_and_objects_stay():
    side = np.cross(UP, (1.0, 0.0, 0.0))
    normals = np.array([
        [UP + 0.1 * side, side + 0.15 * UP, UP + 0.9 * side, -side - 0.1 * UP, 0.2 * side - UP]
    ])  # fmt: skip
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    nothing = np.zeros((1, 5), bool)
    room = upright_room(normals, nothing, UP)
    np.testing.assert_allclose(room[0], [UP, side, normals[0, 2], -side, -UP], atol=1e-12)
    objects = upright_room(normals, ~nothing, UP)
    np.testing.assert_array_equal(objects, normals)
