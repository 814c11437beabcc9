"""Projection with and without lens distortion, and what a Camera refuses."""

import math

import cv2
import numpy as np
import pytest
import torch

from sparc_core.geometry.camera import MIN_DEPTH_M, bearing_z1, intrinsics_tensor, project, project_points
from sparc_core.types import Camera

PINHOLE = {"width": 640, "height": 480, "fx": 520.0, "fy": 515.0, "cx": 310.0, "cy": 245.0}
LENSES = [
    ("plumb_bob", (-0.28, 0.09, 0.001, -0.002)),
    ("plumb_bob", (-0.28, 0.09, 0.001, -0.002, -0.02)),
    ("rational_polynomial", (0.4, -0.2, 0.001, -0.0005, 0.05, 0.6, -0.1, 0.02)),
    ("equidistant", (0.05, -0.02, 0.01, -0.003)),
]


def points_in_front(count=200):
    rng = np.random.default_rng(0)
    return rng.uniform([-1.2, -0.9, 1.5], [1.2, 0.9, 4.0], (count, 3))


def distorted_by_formula(points, model, d):
    """OpenCV's documented lens models, written out."""
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    r2 = x * x + y * y
    if model == "equidistant":
        r = np.sqrt(r2)
        theta = np.arctan(r)
        bent = theta * (1 + d[0] * theta**2 + d[1] * theta**4 + d[2] * theta**6 + d[3] * theta**8)
        return np.stack((x * bent / r, y * bent / r), 1)
    k = np.zeros(8)
    k[: len(d)] = d
    radial = (1 + k[0] * r2 + k[1] * r2**2 + k[4] * r2**3) / (1 + k[5] * r2 + k[6] * r2**2 + k[7] * r2**3)
    bent_x = x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x)
    bent_y = y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y
    return np.stack((bent_x, bent_y), 1)


def test_project_agrees_with_opencv_with_intrinsics_of_their_own_per_image():
    points = points_in_front().reshape(2, 10, 10, 3)
    intrinsics = torch.tensor([[500.0, 510, 320, 240], [300.0, 310, 100, 90]], dtype=torch.float64)
    uv, in_front = project(torch.tensor(points), intrinsics)
    assert uv.shape == (2, 10, 10, 2) and in_front.all()
    for i, (fx, fy, cx, cy) in enumerate(intrinsics.tolist()):
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        expected = cv2.projectPoints(points[i].reshape(-1, 3), np.zeros(3), np.zeros(3), K, None)[0]
        np.testing.assert_allclose(uv[i].reshape(-1, 2), expected[:, 0], atol=1e-8)


def test_bearing_times_z_depth_is_the_point_not_bearing_times_ray_distance():
    camera = Camera(640, 480, 100.0, 200.0, 320.0, 240.0)
    intrinsics = intrinsics_tensor(camera)[None]
    # 3-4-5: the point is 5 m away at a z-depth of 4 m
    point = torch.tensor([[3.0, 0.0, 4.0]])
    uv, _ = project(point, intrinsics)
    np.testing.assert_allclose(uv, [[320 + 75, 240]], atol=1e-4)
    ray = bearing_z1(uv, intrinsics)
    np.testing.assert_allclose(ray, [[0.75, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(ray * 4, point, atol=1e-5)


def test_bearing_agrees_with_opencv_undistort_points():
    uv = np.random.default_rng(1).uniform(0, 480, (30, 1, 2))
    expected = cv2.undistortPoints(uv, Camera(**PINHOLE).K, None)[:, 0]
    ray = bearing_z1(torch.tensor(uv[None, :, 0]), intrinsics_tensor(Camera(**PINHOLE))[None].double())
    np.testing.assert_allclose(ray[0, :, :2], expected, atol=1e-8)


def test_points_at_or_behind_the_camera_are_flagged_and_finite():
    points = torch.tensor([[[0.1, 0.2, -1.0], [0.0, 0.0, 0.0], [0.1, 0, MIN_DEPTH_M / 2], [0.1, 0.2, 1.0]]])
    uv, in_front = project(points, torch.tensor([[500.0, 500, 320, 240]]))
    assert in_front.tolist() == [[False, False, False, True]]
    assert torch.isfinite(uv).all()


@pytest.mark.parametrize(("model", "distortion"), LENSES)
def test_project_points_follows_the_lens_model(model, distortion):
    points = points_in_front()
    camera = Camera(**PINHOLE, distortion=distortion, distortion_model=model)
    expected = distorted_by_formula(points, model, distortion) * (520, 515) + (310, 245)
    uv = project_points(points.reshape(10, 20, 3), camera)
    assert uv.shape == (10, 20, 2)
    np.testing.assert_allclose(uv.reshape(-1, 2), expected, atol=1e-6)
    # a lens that bends nothing would pass the line above if the formula were wrong in the same way
    straight = points[:, :2] / points[:, 2:] * (520, 515) + (310, 245)
    assert np.abs(expected - straight).max() > 1


@pytest.mark.parametrize(("model", "distortion"), [("none", ()), *LENSES])
def test_project_points_behind_the_camera_are_nan(model, distortion):
    camera = Camera(**PINHOLE, distortion=distortion, distortion_model=model)
    uv = project_points(np.array([[0.1, 0.1, 2.0], [0.1, 0.1, 0.0], [0.1, 0.1, -2.0]]), camera)
    assert np.isfinite(uv[0]).all()
    assert np.isnan(uv[1:]).all()
    assert np.isnan(project_points(np.array([0.0, 0.0, -1.0]), camera)).all()


def test_project_points_without_distortion_is_the_pinhole():
    uv = project_points(np.array([1.0, -2.0, 4.0]), Camera(**PINHOLE))
    np.testing.assert_allclose(uv, [310 + 130, 245 - 257.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be positive"),
        ({"height": -3}, "height must be positive"),
        ({"fx": 0.0}, "fx must be positive.*not calibrated"),
        ({"fy": -500.0}, "fy must be positive"),
        ({"cx": math.nan}, "cx must be finite"),
        ({"cy": math.inf}, "cy must be finite"),
        ({"distortion_model": "fov"}, "distortion_model must be one of .*'fov'"),
        ({"distortion_model": "plumb_bob", "distortion": (0.1,)}, r"plumb_bob takes \(4, 5\).*got 1"),
        ({"distortion": (0.1,) * 4}, "distortion model none takes"),
        (
            {"distortion_model": "equidistant", "distortion": (0.1, 0, 0, math.nan)},
            "distortion must be finite",
        ),
        ({"up_cam": (0.0, 0.0, 0.0)}, "up_cam must be a non-zero"),
        ({"up_cam": (0.0, math.nan, 0.0)}, "up_cam must be a non-zero"),
        ({"up_cam": (0, -1, 0), "above_floor_m": 0.0}, "above_floor_m must be positive metres, got 0.0"),
        ({"up_cam": (0, -1, 0), "above_floor_m": math.nan}, "above_floor_m must be positive"),
        ({"above_floor_m": 1.0}, "above_floor_m needs up_cam"),
    ],
)
def test_a_camera_names_the_field_that_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        Camera(**{**PINHOLE, **change})


def test_up_cam_is_normalised():
    np.testing.assert_allclose(Camera(**PINHOLE, up_cam=(0.0, -3.0, 4.0)).up_cam, (0, -0.6, 0.8))
