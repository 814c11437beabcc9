"""Start poses by hand: where the object is put, how large, and turned how."""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from builders import box_estimate

from sparc_core.geometry.rotation import azimuth_rad, level_frame, rotation_angle_rad
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.refine.initial import (
    AZIMUTH_STEPS,
    DEFAULT_DEPTH_M,
    START_AZIMUTHS_DEG,
    start_poses,
    start_rotations,
    start_translation,
)
from sparc_core.types import HINT_CHANNELS

# the box centre (420, 190) is at bearing (0.2, −0.1, 1)
FRAME = Frame(
    torch.tensor([[500.0, 500.0, 320.0, 240.0]]), torch.tensor([[640.0, 480.0]]),
    torch.tensor([[[380.0, 150.0, 460.0, 230.0]]]), torch.tensor([[True]]), torch.tensor([[0.0, -1.0, 0.0]]),
    torch.tensor([True]),
)  # fmt: skip
EXTENTS = torch.tensor([[[0.4, 3.0, 0.8]]])  # half the mean horizontal extent: 0.3 m


def samples(uv, depth, mask=None, has_depth=None):
    """Pixel samples of one object; mask None means that there is none."""
    uv, depth = torch.tensor([[uv]], dtype=torch.float32), torch.tensor([[depth]], dtype=torch.float32)
    yes = torch.ones_like(depth, dtype=torch.bool)
    flags = yes if has_depth is None else torch.tensor([[has_depth]])
    has_mask = yes if mask is not None else ~yes
    mask = torch.zeros_like(depth) if mask is None else torch.tensor([[mask]], dtype=torch.float32)
    colour = torch.zeros(*depth.shape, 3)
    hints = torch.zeros(*depth.shape, HINT_CHANNELS)
    return PixelSamples(uv, colour, colour, depth, mask, flags, yes, has_mask, yes, hints)


def expected(z):
    return [[[0.2 * z, -0.1 * z, z]]]


CENTRE, CORNER = [420.0, 190.0], [385.0, 155.0]


def test_with_a_mask_the_start_is_behind_the_median_masked_depth_on_the_ray_through_the_box_centre():
    given = samples([CORNER] * 3 + [CENTRE] * 4, [2.0, 2.2, 9.0, 7, 7, 7, 7], mask=[1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(start_translation(FRAME, given, EXTENTS), expected(2.2 + 0.3), atol=1e-5)


def test_without_a_mask_the_central_half_of_the_box_is_used():
    edge = [400.0, 170.0]  # a quarter of the box from its centre: still central
    given = samples([CORNER] * 5 + [CENTRE, CENTRE, edge], [7.0] * 5 + [3.0, 1.0, 2.0])
    np.testing.assert_allclose(start_translation(FRAME, given, EXTENTS), expected(2.0 + 0.3), atol=1e-5)


def test_masked_pixels_without_depth_do_not_count_and_too_few_fall_back_to_the_centre():
    uv, mask = [CORNER] * 4 + [CENTRE], [1, 1, 1, 1, 0]
    depth = [2.0, 2.0, 2.0, 0.0, 5.0]
    three = samples(uv, depth, mask, has_depth=[True, True, True, False, True])
    np.testing.assert_allclose(start_translation(FRAME, three, EXTENTS), expected(2.3), atol=1e-5)
    two = samples(uv, depth, mask, has_depth=[True, True, False, False, True])
    np.testing.assert_allclose(start_translation(FRAME, two, EXTENTS), expected(5.3), atol=1e-5)


def test_without_depth_the_start_is_three_metres_away():
    given = samples([CENTRE] * 3, [0.0] * 3, mask=[1, 1, 1], has_depth=[False] * 3)
    assert DEFAULT_DEPTH_M == 3.0
    np.testing.assert_allclose(start_translation(FRAME, given, EXTENTS), expected(3.0), atol=1e-5)


def test_each_object_uses_its_own_pixels():
    one, far = (
        samples([CENTRE] * 3, [1.0] * 3, mask=[1, 1, 1]),
        samples([CENTRE] * 3, [4.0] * 3, mask=[1, 1, 1]),
    )
    both = PixelSamples(*(
        torch.cat((getattr(one, f.name), getattr(far, f.name)), 1) for f in dataclasses.fields(one)
    ))  # fmt: skip
    frame = dataclasses.replace(FRAME, boxes_xyxy=FRAME.boxes_xyxy.repeat(1, 2, 1))
    T = start_translation(frame, both, EXTENTS.repeat(1, 2, 1))
    np.testing.assert_allclose(T[0, :, 2], [1.3, 4.3], atol=1e-5)


def test_four_starts_are_upright_and_a_quarter_turn_apart():
    up = torch.nn.functional.normalize(torch.tensor([[0.1, -0.9, -0.3]]), dim=-1)
    R = start_rotations(dataclasses.replace(FRAME, up_cam=up), 2)
    assert R.shape == (4, 1, 2, 3, 3) and START_AZIMUTHS_DEG == (0, 90, 180, 270)
    np.testing.assert_allclose(R[..., :, 1], up.expand(4, 1, 2, 3), atol=1e-6)
    for k, degrees in ((1, 90), (2, 180), (3, 90)):
        angle = rotation_angle_rad(R[0].transpose(-1, -2) @ R[k])
        np.testing.assert_allclose(torch.rad2deg(angle), degrees, atol=1e-2)
    assert torch.equal(R[:, :, 0], R[:, :, 1])
    towards_camera = -R[:, 0, 0, 2, 2]
    assert int(towards_camera.argmax()) == 0 and int(towards_camera.argmin()) == 2


def test_without_gravity_the_camera_is_taken_to_look_thirty_degrees_down():
    frame = dataclasses.replace(FRAME, has_up=torch.tensor([False]), up_cam=torch.tensor([[1.0, 0.0, 0.0]]))
    up = start_rotations(frame, 1)[0, 0, 0, :, 1]
    # 30° down: the optical axis is 120° from up, and up has no sideways part
    np.testing.assert_allclose(up, [0, -math.cos(math.radians(30)), -0.5], atol=1e-6)


def test_images_with_and_without_gravity_share_a_batch():
    frame = dataclasses.replace(
        FRAME, has_up=torch.tensor([True, False]), up_cam=torch.tensor([[0.0, -1.0, 0.0]] * 2),
        intrinsics=FRAME.intrinsics.repeat(2, 1), boxes_xyxy=FRAME.boxes_xyxy.repeat(2, 1, 1),
    )  # fmt: skip
    up = start_rotations(frame, 1)[0, :, 0, :, 1]
    np.testing.assert_allclose(up, [[0, -1, 0], [0, -math.sqrt(0.75), -0.5]], atol=1e-6)


def test_start_poses_have_the_given_extents_and_one_position():
    given = samples([CENTRE] * 3, [2.0] * 3, mask=[1, 1, 1])
    poses = start_poses(FRAME, given, EXTENTS)
    assert poses.shape == (4, 1, 1)
    assert torch.equal(poses.S, EXTENTS.expand(4, 1, 1, 3))
    np.testing.assert_allclose(poses.T, np.broadcast_to(expected(2.3), (4, 1, 1, 3)), atol=1e-5)


def test_starts_are_where_an_object_is_expected():
    given = samples([CENTRE] * 3, [2.0] * 3, mask=[1, 1, 1])
    there = (0.3, -0.1, 2.5)
    told = dataclasses.replace(FRAME, estimate=torch.tensor([[box_estimate(T_m=there).packed()]]))
    nothing = dataclasses.replace(FRAME, estimate=torch.zeros(1, 1, 14))
    for frame, place in ((told, there), (nothing, expected(2.3)), (FRAME, expected(2.3))):
        poses = start_poses(frame, given, EXTENTS, from_estimates=True)
        np.testing.assert_allclose(poses.T, np.broadcast_to(place, (4, 1, 1, 3)), atol=1e-5)
    np.testing.assert_allclose(start_poses(told, given, EXTENTS).T[0], expected(2.3), atol=1e-5)


def test_starts_begin_where_the_predicted_azimuth_says():
    up = torch.nn.functional.normalize(torch.tensor([[0.1, -0.9, -0.3]]), dim=-1)
    corners = [100.0, 80, 180, 200], [400.0, 100, 500, 200], [300.0, 200, 340, 280]
    boxes = torch.tensor([corners])
    frame = dataclasses.replace(FRAME, up_cam=up, boxes_xyxy=boxes)
    theta = 0.7
    sure = [f(k * theta) for k in (1, 2, 4) for f in (math.cos, math.sin)]
    either = [0.0, 0.0, *sure[2:]]  # the front may be the back
    told = dataclasses.replace(frame, estimate=F.pad(torch.tensor([[sure, either, [0.0] * 6]]), (0, 8)))
    R, plain = start_rotations(told, 3), start_rotations(frame, 3)
    assert torch.equal(R[:, :, 2], plain[:, :, 2])  # nothing was predicted
    for n in (0, 1):
        fx, fy, cx, cy = frame.intrinsics[0].tolist()
        x0, y0, x1, y1 = corners[n]
        ray = torch.tensor([((x0 + x1) / 2 - cx) / fx, ((y0 + y1) / 2 - cy) / fy, 1.0])
        ray = ray / ray.norm()
        found = azimuth_rad(R[:, 0, n], level_frame(up[0], ray)).numpy()
        turns = np.angle(np.exp(1j * (found - theta - np.radians(START_AZIMUTHS_DEG))))
        if n == 1:
            turns = np.angle(np.exp(2j * turns)) / 2
        np.testing.assert_allclose(turns, 0, atol=np.pi / AZIMUTH_STEPS + 1e-4)
        np.testing.assert_allclose(R[:, 0, n, :, 1], up.expand(4, 3), atol=1e-6)
        np.testing.assert_allclose(torch.linalg.det(R[:, 0, n]), 1, atol=1e-5)
