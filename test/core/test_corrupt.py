"""The noise models: depth levels, their statistics by hand, normals, boxes and shares."""

import dataclasses

import numpy as np
import pytest
import torch

from sparc_core.synth.corrupt import (
    MONOCULAR,
    NONE,
    PERFECT,
    SENSOR,
    NoiseConfig,
    corrupt_depth,
    corrupt_normals,
    draw_noise,
    jitter_boxes,
)

PIXELS = 4000
ONLY = {
    PERFECT: NoiseConfig(perfect=1, sensor=0, monocular=0, none=0),
    SENSOR: NoiseConfig(perfect=0, sensor=1, monocular=0, none=0),
    MONOCULAR: NoiseConfig(perfect=0, sensor=0, monocular=1, none=0),
    NONE: NoiseConfig(perfect=0, sensor=0, monocular=0, none=1),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_of(level, **values):
    """Noise of one image of two objects with chosen parameters; a quiet sensor unless told otherwise."""
    quiet = {
        "axial": 1.0, "quantisation": 0.0, "grazing": 0.0, "speckle": 0.0, "blob": 9.0, "max_range_m": 20.0,
        "normal_missing": 0.0, "warp": 0.0, "dark": 0.0,
    }  # fmt: skip
    drawn = draw_noise(ONLY[level], 1, 2, generator())
    return dataclasses.replace(
        drawn, **{n: torch.full_like(getattr(drawn, n), v) for n, v in {**quiet, **values}.items()}
    )


def read(noise, depth, shifted=None, cosine=1.0, slot=0):
    """Corrupt (1, K) depth; numbers are filled in for every pixel."""
    depth = torch.as_tensor(depth, dtype=torch.float32).expand(1, PIXELS)
    shifted = depth if shifted is None else torch.as_tensor(shifted, dtype=torch.float32).expand(1, PIXELS)
    uv = torch.rand(1, PIXELS, 2, generator=generator(1)) * torch.tensor([640.0, 480.0])
    cosine = torch.full((1, PIXELS), cosine)
    return corrupt_depth(noise, uv, depth, shifted, cosine, torch.full((1, PIXELS), slot), generator(2))


def test_perfect_depth_is_left_alone_even_at_edges():
    depth = torch.rand(1, PIXELS, generator=generator()) * 5 + 0.5
    depth[0, :10] = 0  # nothing there
    out, valid = read(
        noise_of(PERFECT, grazing=1.0, speckle=0.5, dark=0.9), depth, shifted=depth + 1, cosine=0.01
    )
    assert torch.equal(out, depth)
    assert torch.equal(valid, depth > 0)


def test_without_depth_there_is_none():
    out, valid = read(noise_of(NONE), 2.0)
    assert not valid.any() and (out == 0).all()


def test_axial_noise_of_a_sensor_grows_with_the_square_of_depth():
    # Nguyen et al.: 1.2 mm + 1.9 mm · (z − 0.4)²
    for z, sigma in ((1.0, 0.0012 + 0.0019 * 0.36), (4.0, 0.0012 + 0.0019 * 12.96)):
        out, valid = read(noise_of(SENSOR), z)
        assert valid.all()
        assert float(out.std()) == pytest.approx(sigma, rel=0.06)
        assert float(out.mean()) == pytest.approx(z, abs=sigma / 10)
    doubled, _ = read(noise_of(SENSOR, axial=2.0), 4.0)
    assert float(doubled.std()) == pytest.approx(2 * 0.025824, rel=0.06)


def test_quantisation_of_a_sensor_is_off_by_up_to_half_a_step_that_grows_with_the_square_of_depth():
    for z in (1.0, 4.0):
        exact = z + 0.2 * torch.rand(1, PIXELS, generator=generator(4))
        out, _ = read(noise_of(SENSOR, axial=0.0, quantisation=0.003), exact)
        steps = (out - exact) / (0.003 * exact.square())
        assert float(steps.abs().max()) == pytest.approx(0.5, abs=0.02)
        assert float(steps.std()) == pytest.approx(1 / 12**0.5, abs=0.04)
        # whole steps of disparity, so a few dozen different values
        disparity = 1 / (out * 0.003)
        np.testing.assert_allclose(disparity, disparity.round(), atol=1e-3)
    fine, _ = read(noise_of(SENSOR, axial=0.0), 2.00034)
    np.testing.assert_allclose(fine, 2.00034, atol=1e-4)


def test_at_edges_a_sensor_sees_either_side_something_between_or_nothing():
    out, valid = read(noise_of(SENSOR, axial=0.0), 1.0, shifted=3.0)
    assert 0.25 < (~valid).float().mean() < 0.35
    seen = out[valid]
    between = (seen > 1.01) & (seen < 2.99)
    assert 0.25 < between.float().mean() < 0.35
    assert seen.min() >= 0.99 and seen.max() <= 3.01


@pytest.mark.parametrize(
    ("values", "arguments", "missing"),
    [
        ({"max_range_m": 3.5}, {"depth": 4.0}, 1.0),
        ({}, {"depth": 0.25}, 1.0),
        ({"dark": 1.0}, {"depth": 2.0}, 1.0),
        ({"dark": 1.0}, {"depth": 2.0, "slot": 2}, 0.0),
        ({"dark": 1.0}, {"depth": 2.0, "slot": -1}, 0.0),
        ({"grazing": 0.2}, {"depth": 2.0, "cosine": 0.1}, 0.7),
        ({"grazing": 0.2}, {"depth": 2.0, "cosine": 0.3}, 0.0),
        ({"speckle": 0.1}, {"depth": 2.0}, 0.1),
        ({}, {"depth": 2.0}, 0.0),
    ],
)
def test_holes_of_a_sensor(values, arguments, missing):
    out, valid = read(noise_of(SENSOR, **values), **arguments)
    assert float((~valid).float().mean()) == pytest.approx(missing, abs=0.03)
    assert (out[~valid] == 0).all() and (out[valid] > 0).all()


def test_monocular_depth_is_scaled_shifted_and_bleeds_over_edges():
    out, valid = read(noise_of(MONOCULAR, scale=1.1, shift_m=-0.05), 1.0, shifted=2.0)
    assert valid.all()
    np.testing.assert_allclose(out, 2.0 * 1.1 - 0.05, atol=1e-5)
    warped, _ = read(noise_of(MONOCULAR, scale=1.0, shift_m=0.0, warp=0.04), 2.0)
    assert 0.02 < float(warped.std()) < 0.2


def test_depth_that_would_be_at_or_behind_the_camera_is_missing():
    _, valid = read(noise_of(MONOCULAR, scale=1.0, shift_m=-3.0), 2.0)
    assert not valid.any()


def test_levels_are_drawn_in_their_shares():
    noise = draw_noise(NoiseConfig(perfect=0.1, sensor=0.6, monocular=0.2, none=0.1), 4000, 3, generator())
    share = torch.bincount(noise.level, minlength=4) / 4000
    np.testing.assert_allclose(share, [0.1, 0.6, 0.2, 0.1], atol=0.03)
    mono = noise.level == MONOCULAR
    assert noise.edge_px[mono].mean() > 2 * noise.edge_px[noise.level == SENSOR].mean() > 0
    assert (noise.edge_px[noise.level == PERFECT] == 0).all()


def test_displays_lose_depth_more_often():
    is_display = torch.tensor([[True, False]]).expand(3000, 2)
    dark = draw_noise(NoiseConfig(), 3000, 2, generator(), is_display).dark > 0
    np.testing.assert_allclose(dark.float().mean(0), [0.3, 0.05], atol=0.03)


def test_a_share_of_the_images_has_no_normals():
    shares = {"perfect": 0.5, "sensor": 0.5, "monocular": 0.0, "none": 0.0}
    noise = draw_noise(NoiseConfig(**shares, normals_missing=0.2), 4000, 1, generator())
    assert float((noise.normal_missing == 1).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert (noise.normal_missing[noise.level == PERFECT] % 1 == 0).all()  # all or none


def test_normals_are_exact_at_the_perfect_level_tilted_at_others_and_unit_or_zero():
    normal = torch.nn.functional.normalize(torch.randn(1, PIXELS, 3, generator=generator(3)), dim=-1)
    has_depth = torch.arange(PIXELS)[None] >= 100
    exact, valid = corrupt_normals(noise_of(PERFECT), normal, has_depth, generator())
    np.testing.assert_allclose(exact[0, 100:], normal[0, 100:], atol=1e-6)
    assert torch.equal(valid, has_depth) and (exact[0, :100] == 0).all()
    noisy, valid = corrupt_normals(
        noise_of(SENSOR, normal_rad=0.1, normal_missing=0.2), normal, has_depth, generator()
    )
    assert float(valid[0, 100:].float().mean()) == pytest.approx(0.8, abs=0.03)
    angle = torch.acos((noisy * normal).sum(-1)[valid].clamp(-1, 1))
    # two tangential components of 0.1 rad each
    assert float(angle.square().mean().sqrt()) == pytest.approx(0.1 * 2**0.5, rel=0.05)
    np.testing.assert_allclose(noisy.norm(dim=-1), valid.float(), atol=1e-5)
    nothing, valid = corrupt_normals(noise_of(PERFECT), normal * 0, has_depth, generator())
    assert not valid.any() and (nothing == 0).all()


def test_jittered_boxes_move_by_no_more_than_the_amount_and_stay_on_the_image():
    boxes = torch.tensor([[[100.0, 50.0, 200.0, 250.0], [600.0, 400.0, 639.0, 479.0]]]).repeat(500, 1, 1)
    size = torch.tensor([[640.0, 480.0]]).expand(500, 2)
    moved = jitter_boxes(boxes, size, 0.05, generator())
    shift = (moved - boxes)[:, 0].abs()
    np.testing.assert_array_less(shift.amax(0), [5.0001, 10.0001, 5.0001, 10.0001])
    assert (shift.amax(0) > torch.tensor([4.5, 9.0, 4.5, 9.0])).all()  # and it does use that amount
    assert moved.amin() >= 0 and (moved[..., 2] <= 639).all() and (moved[..., 3] <= 479).all()
    assert torch.equal(jitter_boxes(boxes, size, 0.0, generator()), boxes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"perfect": 0.5}, "'perfect'.*add up to 1, got 1.4"),
        ({"sensor": 1.0, "perfect": -0.15}, "'sensor'.*must be >= 0"),
        ({"masks_exact": 0.9}, "'masks_exact'.*add up to 1"),
    ],
)
def test_shares_that_do_not_add_up_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseConfig(**arguments)
