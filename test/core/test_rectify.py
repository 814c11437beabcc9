"""Rectification against OpenCV's projection: rays, images, depth, masks and boxes."""

import cv2
import numpy as np
import pytest

from sparc_core.perception.rectify import rectifier_for, undistorted_rays
from sparc_core.types import Camera

PINHOLE = Camera(160, 120, 150.0, 150.0, 79.5, 59.5, up_cam=(0.0, -1.0, 0.0))
LENSES = {
    "barrel": Camera(320, 240, 220.0, 224.0, 156.0, 122.0, (-0.25, 0.06, 0.001, -0.002, 0.0), "plumb_bob"),
    "pincushion": Camera(320, 240, 260.0, 260.0, 159.5, 119.5, (0.12, 0.02, 0.0, 0.0), "plumb_bob"),
    "rational": Camera(
        320,
        240,
        220.0,
        220.0,
        160.0,
        118.0,
        (0.5, 0.05, 0.0005, 0.0002, 0.0, 0.8, 0.1, 0.0),
        "rational_polynomial",
    ),
    "equidistant": Camera(320, 240, 150.0, 150.0, 159.5, 119.5, (0.02, -0.01, 0.002, 0.0), "equidistant"),
}
each_lens = pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES)


def project(points, camera):
    """(N, 3) points by OpenCV's own projection."""
    zero, coefficients = np.zeros(3), np.array(camera.distortion)
    function = cv2.fisheye.projectPoints if camera.distortion_model == "equidistant" else cv2.projectPoints
    return function(points[:, None], zero, zero, camera.K, coefficients)[0][:, 0]


def points_in_view(count=200):
    rng = np.random.default_rng(0)
    rays = np.stack([rng.uniform(-0.55, 0.55, count), rng.uniform(-0.4, 0.4, count), np.ones(count)], -1)
    return rays * rng.uniform(0.5, 5, (count, 1))


@each_lens
def test_a_point_is_where_the_pinhole_sees_it(camera):
    points = points_in_view()
    raw = project(points, camera)
    rectifier = rectifier_for(camera)
    ideal = rectifier.camera
    expected = points[:, :2] / points[:, 2:] * (ideal.fx, ideal.fy) + (ideal.cx, ideal.cy)
    assert np.abs(raw - expected).max() > 2  # the lens does something
    np.testing.assert_allclose(rectifier.points(raw), expected, atol=0.01)
    np.testing.assert_allclose(rectifier.raw_points(expected), raw, atol=1e-6)
    np.testing.assert_allclose(undistorted_rays(raw, camera), points[:, :2] / points[:, 2:], atol=1e-4)
    assert ideal.distortion_model == "none" and (ideal.width, ideal.height) == (camera.width, camera.height)


@each_lens
def test_the_whole_raw_image_fits_into_the_rectified_one(camera):
    uv = (
        rectifier_for(camera)
        .points(np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), -1))
        .reshape(-1, 2)
    )
    found = np.isfinite(uv).all(-1)
    assert found.mean() > (0.9 if camera.distortion_model == "equidistant" else 0.9999)
    uv = uv[found]
    slack = 3 if camera.distortion_model == "equidistant" else 0.6  # a corner at 75° is a steep stretch
    assert (uv > -0.5 - slack).all() and (uv < np.array([319.5, 239.5]) + slack).all()
    # It just fits: in one of the two directions nothing is given away.
    span = uv.max(0) - uv.min(0)
    assert max(span / (320, 240)) > 0.9


@each_lens
def test_images_depth_and_masks_move_with_the_pixels(camera):
    """A picture whose pixel values are a smooth function of the ray direction, drawn through the lens."""
    rectifier = rectifier_for(camera)

    def shade(rays):
        return 128 + 100 * np.sin(rays[..., 0] * 5) * np.cos(rays[..., 1] * 4)

    raw_uv = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), -1)
    raw_rays = np.nan_to_num(undistorted_rays(raw_uv, camera))
    image = np.repeat(np.rint(shade(raw_rays))[..., None], 3, -1).astype(np.uint8)
    ideal = rectifier.camera
    rays = (raw_uv - (ideal.cx, ideal.cy)) / (ideal.fx, ideal.fy)
    back = rectifier.points(rectifier.raw_points(raw_uv))
    raw_of = rectifier.raw_points(raw_uv)
    seen = (np.abs(back - raw_uv).max(-1) < 0.1) & (raw_of > 1).all(-1) & (raw_of < (318, 238)).all(-1)
    seen &= np.abs(rays).max(-1) < 0.6  # farther out a pixel of a wide lens is a large angle
    assert seen.sum() > 3000
    rectified = rectifier.image(image)
    assert np.abs(rectified[seen][:, 0] - shade(rays)[seen]).max() < 6
    depth = (image[..., 0] / 50).astype(np.float32)
    moved = rectifier.depth(depth)
    assert moved.dtype == np.float32
    assert set(np.unique(moved)) <= set(np.unique(depth)) | {0.0}  # never a mixture of two depths
    assert np.abs(moved[seen] - shade(rays)[seen] / 50).max() < 0.15
    normals = np.stack([depth, -depth, 0 * depth], -1)
    np.testing.assert_array_equal(rectifier.normals(normals), np.stack([moved, -moved, 0 * moved], -1))
    mask = image[..., 0] > 128
    clear = seen & (np.abs(shade(rays) - 128) > 12)
    np.testing.assert_array_equal(rectifier.mask(mask)[clear], (shade(rays) > 128)[clear])


@each_lens
def test_what_the_raw_image_does_not_show_is_empty(camera):
    rectifier = rectifier_for(camera)
    uv = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), -1)
    raw = rectifier.raw_points(uv)
    # Outside the raw image, or on a ray that the lens folds back into it.
    folded = ~(np.abs(rectifier.points(raw) - uv).max(-1) < 1)
    hidden = (raw < -1).any(-1) | (raw > (320, 240)).any(-1) | folded
    if camera.distortion_model != "plumb_bob" or camera.distortion[0] < 0:
        assert hidden.any()
    assert not rectifier.depth(np.ones((240, 320), np.float32))[hidden].any()


def test_rays_folded_back_by_the_polynomial_do_not_show_the_image_twice():
    # Strong barrel: r (1 - 0.5 r²) grows only up to r = 0.82, where it is 0.54; the image ends at 0.4.
    camera = Camera(200, 200, 250.0, 250.0, 99.5, 99.5, (-0.5, 0.0, 0.0, 0.0), "plumb_bob")
    assert not np.isfinite(undistorted_rays(np.array([99.5 + 250 * 0.6, 99.5]), camera)).any()
    ones = rectifier_for(camera).depth(np.ones((200, 200), np.float32))
    ideal = rectifier_for(camera).camera
    rays = (np.stack(np.meshgrid(np.arange(200.0), np.arange(200.0)), -1) - (ideal.cx, ideal.cy)) / ideal.fx
    assert not ones[np.linalg.norm(rays, axis=-1) > 0.85].any()


@each_lens
def test_a_mask_comes_back_to_the_raw_image(camera):
    rectifier = rectifier_for(camera)
    disc = np.hypot(*(np.indices((240, 320)) - np.array([[[110]], [[150]]]))) < 60
    back = rectifier.raw_mask(rectifier.mask(disc))
    assert (back ^ disc).sum() < 0.08 * disc.sum()
    # The same mask at twice the resolution of the rectified image.
    double = (
        cv2.resize(rectifier.mask(disc).astype(np.uint8), (640, 480), interpolation=cv2.INTER_NEAREST) > 0
    )
    assert (rectifier.raw_mask(double) ^ back).sum() < 0.03 * disc.sum()


@each_lens
def test_a_rectified_box_holds_the_objects_points(camera):
    rectifier = rectifier_for(camera)
    ideal = rectifier.camera
    points = points_in_view()
    raw = project(points, camera)
    inside = (raw > 0).all(-1) & (raw < (319, 239)).all(-1)
    points, raw = points[inside], raw[inside]
    box = np.array([*raw.min(0), *raw.max(0)])
    (found,) = rectifier.boxes([box])
    uv = points[:, :2] / points[:, 2:] * (ideal.fx, ideal.fy) + (ideal.cx, ideal.cy)
    assert (uv >= found[:2] - 0.1).all() and (uv <= found[2:] + 0.1).all()
    # Tight: every side of the raw box touches its side of the rectified box somewhere.
    for side in range(4):
        t = np.linspace(0, 1, 1001)
        x = box[0] + t * (box[2] - box[0]) if side % 2 else np.full(1001, box[side])
        y = np.full(1001, box[side]) if side % 2 else box[1] + t * (box[3] - box[1])
        mapped = rectifier.points(np.stack([x, y], -1))[:, side % 2]
        extreme = np.nanmin(mapped) if side < 2 else np.nanmax(mapped)
        assert abs(extreme - found[side]) < 0.3


def test_a_pinhole_is_handed_through():
    rectifier = rectifier_for(PINHOLE)
    assert rectifier.is_identity and rectifier.camera == PINHOLE
    depth = np.random.default_rng(0).random((120, 160), dtype=np.float32)
    assert rectifier.depth(depth) is depth
    np.testing.assert_array_equal(rectifier.boxes([[1, 2, 3, 4]]), [[1, 2, 3, 4]])
    np.testing.assert_array_equal(rectifier.raw_mask(depth > 0.5), depth > 0.5)
    zeros = Camera(160, 120, 150.0, 150.0, 79.5, 59.5, (0.0,) * 5, "plumb_bob")
    assert rectifier_for(zeros).is_identity
    assert rectifier_for(zeros).camera.distortion_model == "none"
    # An equidistant lens without coefficients is no pinhole.
    assert not rectifier_for(
        Camera(160, 120, 150.0, 150.0, 79.5, 59.5, (0.0,) * 4, "equidistant")
    ).is_identity


def test_rectifiers_are_made_once_and_keep_gravity():
    camera = Camera(160, 120, 90.0, 90.0, 79.5, 59.5, (-0.1, 0, 0, 0), "plumb_bob", (0.0, -3.0, 4.0))
    assert rectifier_for(camera) is rectifier_for(Camera(**vars(camera)))
    assert rectifier_for(camera).camera.up_cam == camera.up_cam


def test_images_of_another_size_are_refused():
    rectifier = rectifier_for(LENSES["barrel"])
    with pytest.raises(
        ValueError, match=r"depth: expected the camera's size .*\(240, 320\), got \(120, 160\)"
    ):
        rectifier.depth(np.ones((120, 160), np.float32))
