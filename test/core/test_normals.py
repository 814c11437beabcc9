"""Normals from depth against analytic surfaces, with a structured-light sensor's noise."""

import numpy as np
import pytest
import torch

from sparc_core.perception.normals import TILE, DepthNormals, NormalsConfig, normals_from_depth

HEIGHT, WIDTH = 120, 160
INTRINSICS = torch.tensor([[130.0, 132.0, 79.0, 60.5]])
V, U = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
RAYS = np.stack([(U - 79.0) / 130, (V - 60.5) / 132, np.ones_like(U)], -1)


def plane(normal, through):
    """(H, W) z-depth of the plane through a point, 0 where no ray meets it; its normal towards the camera."""
    normal = np.array(normal, float) / np.linalg.norm(normal)
    offset = normal @ np.array(through, float)
    with np.errstate(divide="ignore"):
        z = offset / (RAYS @ normal)
    return np.where((z > 0) & (z < 8), z, 0), -normal * np.sign(offset)


def sphere(centre, radius, behind_m):
    b, a, c = RAYS @ centre, (RAYS**2).sum(-1), centre @ centre - radius**2
    inside = b**2 - a * c
    hit = inside > 0
    z = np.where(hit, (b - np.sqrt(np.maximum(inside, 0))) / a, behind_m)
    normal = np.where(hit[..., None], (RAYS * z[..., None] - centre) / radius, [0, 0, -1.0])
    return z, normal, hit


def fit(depth, **kwargs):
    normals, valid = normals_from_depth(
        torch.from_numpy(depth.astype(np.float32))[None], INTRINSICS, **kwargs
    )
    assert normals.dtype == torch.float32 and valid.dtype == torch.bool
    return normals[0].numpy(), valid[0].numpy()


def error_deg(normals, truth):
    return np.rad2deg(np.arccos(np.clip((normals * truth).sum(-1), -1, 1)))


def noisy(depth, level, seed=0):
    return np.where(
        depth > 0, depth + np.random.default_rng(seed).normal(size=depth.shape) * level * depth**2, 0
    )


PLANES = {
    "wall": ((0, 0, 1), (0, 0, 2)),
    "floor": ((0, 1, 0.1), (0, 1.2, 0)),
    "side": ((1, 0.1, 0.4), (0.5, 0, 1.5)),
    "steep": ((0.95, 0, 0.3), (0, 0, 1.5)),
}


@pytest.mark.parametrize("name", PLANES)
def test_planes_are_exact_without_noise(name):
    depth, truth = plane(*PLANES[name])
    normals, valid = fit(depth)
    seen = depth > 0
    assert valid[seen].mean() > 0.97
    assert not valid[~seen].any()
    assert np.quantile(error_deg(normals, truth)[valid], 0.99) < 1.0
    np.testing.assert_allclose(np.linalg.norm(normals[valid], axis=-1), 1, atol=1e-5)
    assert not normals[~valid].any()
    assert ((normals * RAYS).sum(-1)[valid] < 0).all()


@pytest.mark.parametrize("name", PLANES)
def test_planes_with_noise_that_grows_with_depth_squared(name):
    depth, truth = plane(*PLANES[name])
    normals, valid = fit(noisy(depth, 0.0015))
    assert valid[depth > 0].mean() > 0.95
    assert np.median(error_deg(normals, truth)[valid]) < 2.5
    # Least squares over 10×10 pixels, not a difference of two neighbours: that would be tens of degrees off.
    with np.errstate(all="ignore"):
        points = RAYS * noisy(depth, 0.0015)[..., None]
        cross = np.cross(points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1])
        cross *= -np.sign((cross * RAYS[:-1, :-1]).sum(-1, keepdims=True)) / np.linalg.norm(
            cross, axis=-1, keepdims=True
        )
    naive = error_deg(cross, truth)[valid[:-1, :-1]]
    assert np.median(error_deg(normals, truth)[valid]) < 0.25 * np.nanmedian(naive)


def test_a_sphere_before_a_wall():
    centre = np.array([0.05, -0.02, 1.3])
    depth, truth, hit = sphere(centre, 0.4, behind_m=3.0)
    facing = -(truth * RAYS / np.linalg.norm(RAYS, axis=-1, keepdims=True)).sum(-1)
    for level, limit in ((0.0, 1.5), (0.0015, 3.0)):
        normals, valid = fit(noisy(depth, level))
        error = error_deg(normals, truth)
        front = hit & valid & (facing > 0.5)
        assert front.sum() > 0.95 * (hit & (facing > 0.5)).sum()
        assert np.median(error[front]) < limit
        # Neither side bleeds into the other at the silhouette.
        wall = ~hit & valid
        assert wall.sum() > 0.97 * (~hit).sum()
        assert np.quantile(error[wall], 0.95) < (0.5 if level == 0 else 20)


@pytest.mark.parametrize("jump_m", [0.15, 0.5])
def test_normals_stop_at_a_depth_edge(jump_m):
    near, near_normal = plane((0.3, 0, 1), (0, 0, 1.5))
    far, far_normal = plane((-0.3, 0.2, 1), (0, 0, 1.5 + jump_m))
    left = U < 80
    depth, truth = np.where(left, near, far), np.where(left[..., None], near_normal, far_normal)
    normals, valid = fit(depth)
    beside = np.abs(U - 79.5) < 4
    assert valid[beside].mean() > 0.9
    error = error_deg(normals, truth)[beside & valid]
    assert np.median(error) < 0.5
    # The normals of the two sides are 36° apart: hardly any pixel may lie in between.
    assert (error > 5).mean() < 0.12


def test_a_crease_between_floor_and_wall_stays_sharp():
    wall, wall_normal = plane((0, 0, 1), (0, 0, 2.0))
    floor, floor_normal = plane((0, 1, 0), (0, 0.5, 0))
    on_floor = (floor > 0) & (floor < wall)
    depth, truth = np.where(on_floor, floor, wall), np.where(on_floor[..., None], floor_normal, wall_normal)
    normals, valid = fit(depth)
    border = np.abs(V - V[on_floor].min()) < 20
    assert (error_deg(normals, truth)[valid & border] < 10).mean() > 0.8


def test_holes_are_invalid_and_do_not_disturb_their_surroundings():
    depth, truth = plane((0.2, 0.3, 1), (0, 0, 2))
    rng = np.random.default_rng(0)
    holes = rng.random(depth.shape) < 0.2
    holes[40:70, 50:90] = True
    nothing = rng.choice([0.0, np.nan, np.inf, -1.0], depth.shape)
    normals, valid = fit(np.where(holes, nothing, depth))
    assert not valid[holes].any()
    assert valid[~holes].mean() > 0.95
    assert np.isfinite(normals).all()
    assert np.quantile(error_deg(normals, truth)[valid], 0.99) < 1
    speck = np.zeros_like(depth)
    speck[60, 80] = 2.0
    assert not fit(speck)[1].any()  # one pixel makes no plane


def test_each_image_of_a_batch_has_its_own_camera():
    first, first_normal = plane((0, 0.2, 1), (0, 0, 2))
    rays = RAYS * (1, 1, 1)
    rays[..., 0] = (U - 60) / 90
    normal = np.array([0.3, 0, 1]) / np.linalg.norm([0.3, 0, 1])
    second = 1.5 / (rays @ normal)
    depth = torch.from_numpy(np.stack([first, second]).astype(np.float32))
    intrinsics = torch.cat([INTRINSICS, torch.tensor([[90.0, 132.0, 60.0, 60.5]])])
    normals, valid = normals_from_depth(depth, intrinsics)
    for index, truth in enumerate((first_normal, -normal)):
        assert error_deg(normals[index].numpy(), truth)[valid[index].numpy()].max() < 1
    alone, _ = normals_from_depth(depth[1:], intrinsics[1:])
    np.testing.assert_allclose(alone[0], normals[1], atol=1e-5)


def cluttered(height=HEIGHT, width=WIDTH):
    """(1, height, width) depth as a sensor gives it: edges, creases, noise, holes small and large."""
    ball = sphere(np.array([0.0, 0, 1.3]), 0.4, 3.0)[0]
    floor = plane((0, 1, 0.1), (0, 0.5, 0))[0]
    depth = noisy(np.where((floor > 0) & (floor < ball), floor, ball), 0.0015)
    depth[:, :30] = np.where(U[:, :30] % 9 < 4, 1.0, depth[:, :30])  # bars of four pixels
    rng = np.random.default_rng(1)
    depth[rng.random(depth.shape) < 0.05] = 0
    depth[20:33, 90:121] = np.nan
    depth[100:, 60:64] = np.inf
    return torch.from_numpy(depth[:height, :width].astype(np.float32))[None]


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (119, 159), (113, 144), (17, 33), (3, 5), (1, 1)])
def test_pixels_read_one_after_another_have_the_normals_of_the_whole_image(size):
    depth = cluttered(*size)
    whole, valid = normals_from_depth(depth, INTRINSICS)
    assert whole.shape == (1, *size, 3) and torch.equal(valid, whole.norm(dim=-1) > 0.5)
    if min(size) > 100:
        assert 0.7 < valid.float().mean() < 0.97
    height, width = size
    corners = torch.tensor([0, width - 1, (height - 1) * width, height * width - 1])
    order = torch.cat((corners, torch.randperm(height * width, generator=torch.Generator().manual_seed(0))))
    reader = DepthNormals(depth, INTRINSICS)
    for few in (*order[:20], order[20:60].view(-1, 4), order[60:]):
        torch.testing.assert_close(reader.at(few), whole.view(-1, 3)[few], atol=1e-5, rtol=0)
    assert reader.at(order[:0]).shape == (0, 3)


def test_a_pixel_on_the_border_of_a_tile_needs_no_other_read():
    depth = cluttered()
    whole, _ = normals_from_depth(depth, INTRINSICS)
    # in front of bars four pixels wide a plane of the neighbouring tile is often the better one
    pixels = [row * WIDTH + column for row in (31, 32, 63, 64, 95) for column in (*range(28, 36), 63, 96)]
    for pixel in torch.tensor(pixels):
        alone = DepthNormals(depth, INTRINSICS).at(pixel)
        torch.testing.assert_close(alone, whole.view(-1, 3)[pixel], atol=1e-5, rtol=0)


def test_only_what_is_read_is_fitted_and_boxes_ahead_of_it():
    depth = cluttered()
    whole, _ = normals_from_depth(depth, INTRINSICS)
    reader = DepthNormals(depth, INTRINSICS)
    pixel = torch.tensor(60 * WIDTH + 80)
    reader.at(pixel)
    assert 0 < (~reader.finish_waits).sum() <= 4 and (~reader.fit_waits).sum() <= 16
    reader.expect(
        torch.tensor([[31.0, 20.0, 61.0, 50.0], [150.5, 100.0, 159.0, 119.0], [0.0, 0.0, 9.0, 9.0]])
    )
    for row, column in ((20, 31), (50, 61), (100, 150), (119, 159), (0, 0), (9, 9)):
        assert not reader.finish_waits[0, row // (2 * TILE), column // (2 * TILE)]
    for row, column in ((119, 0), (100, 60), (0, 120)):  # far from all of them
        assert reader.finish_waits[0, row // (2 * TILE), column // (2 * TILE)]
    pixels = torch.arange(HEIGHT * WIDTH)
    torch.testing.assert_close(reader.at(pixels), whole.view(-1, 3), atol=1e-5, rtol=0)


def test_a_cut_image_has_the_normals_of_the_whole_away_from_the_cut():
    depth = cluttered()
    whole, _ = normals_from_depth(depth, INTRINSICS)
    top, left, margin = 34, 18, 12  # even: the same blocks, in other tiles
    moved = INTRINSICS - torch.tensor([0.0, 0, left, top])
    part, _ = normals_from_depth(depth[:, top:, left:].contiguous(), moved)
    # Rounding decides a tie between two planes differently at a pixel or two.
    off = (part[:, margin:, margin:] - whole[:, top + margin :, left + margin :]).abs().amax(-1)
    assert (off > 1e-3).float().mean() < 2e-3


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"depth_m: expected \(B, H, W\) floats, got \(4, 4\)"):
        normals_from_depth(torch.ones(4, 4), INTRINSICS)
    with pytest.raises(ValueError, match=r"intrinsics: expected \(2, 4\), got \(1, 4\)"):
        normals_from_depth(torch.ones(2, 4, 4), INTRINSICS)
    with pytest.raises(ValueError, match="max_slope: expected a positive number, got 0"):
        NormalsConfig(max_slope=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_normals():
    depth = torch.from_numpy(noisy(sphere(np.array([0.0, 0, 1.3]), 0.4, 3.0)[0], 0.001).astype(np.float32))[
        None
    ]
    cpu, cpu_valid = normals_from_depth(depth, INTRINSICS)
    gpu, gpu_valid = normals_from_depth(depth.cuda(), INTRINSICS.cuda())
    assert (cpu_valid == gpu_valid.cpu()).float().mean() > 0.999
    both = cpu_valid & gpu_valid.cpu()
    assert (cpu[both] - gpu.cpu()[both]).abs().quantile(0.99) < 1e-2
