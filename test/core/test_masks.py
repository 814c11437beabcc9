"""Masks from depth and box on small rendered rooms whose true masks are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparc_core.perception.masks import depth_box_mask, separate_masks
from sparc_core.perception.support import SupportPlane, find_support
from sparc_core.types import Camera

PITCH = Rotation.from_euler("x", -25, degrees=True)  # looking down by 25°
UP_CAM = tuple(PITCH.inv().apply([0, -1, 0]))
CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
CAMERA_HEIGHT_M = 1.3


def room(boxes, noise=0.002, seed=0):
    """Depth of boxes (centre x, z on the floor ahead, size x, y, z) standing on a floor before a wall at 4 m.

    Ray casting in a frame with y down and z level, the camera at its origin. Returns depth (H, W) and the
    index (H, W) of the box seen, -1 for the room.
    """
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width].astype(float)
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones_like(u)], -1)
    level = PITCH.apply(rays.reshape(-1, 3)).reshape(rays.shape)
    with np.errstate(divide="ignore"):
        to_floor = np.where(level[..., 1] > 0, CAMERA_HEIGHT_M / level[..., 1], np.inf)
        to_wall = np.where(level[..., 2] > 0, 4 / level[..., 2], np.inf)
    depth, owner = np.minimum(to_floor, to_wall), np.full(u.shape, -1)
    for index, (x, z, size) in enumerate(boxes):
        centre = np.array([x, CAMERA_HEIGHT_M - size[1] / 2, z])
        with np.errstate(divide="ignore"):
            t = np.sort(np.stack([(centre + s * np.array(size) / 2) / level for s in (-1, 1)]), axis=0)
        enter, leave = t[0].max(-1), t[1].min(-1)
        hit = (enter < leave) & (enter > 0) & (enter < depth)
        depth[hit], owner[hit] = enter[hit], index
    depth = depth + np.random.default_rng(seed).normal(size=depth.shape) * noise * depth**2
    return depth.astype(np.float32), owner


def box_around(mask, jitter=(0, 0, 0, 0)):
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()], float) + jitter


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


CHAIR = (0.1, 2.0, (0.5, 0.9, 0.5))
TABLE_BEHIND = (0.3, 3.2, (1.6, 0.7, 0.6))


@pytest.mark.parametrize("up_cam", [None, UP_CAM], ids=["gravity unknown", "gravity known"])
@pytest.mark.parametrize(
    "jitter", [(0, 0, 0, 0), (-8, -6, 9, 5), (4, 3, -4, -3)], ids=["tight", "loose", "cut"]
)
def test_an_object_on_the_floor_is_cut_out(up_cam, jitter):
    depth, owner = room([CHAIR, TABLE_BEHIND])
    truth = owner == 0
    box = box_around(truth, jitter)
    found = depth_box_mask(depth, CAMERA, box, half_diagonal_m=0.6, up_cam=up_cam)
    inside = np.zeros_like(truth)
    inside[int(box[1]) : int(box[3]) + 1, int(box[0]) : int(box[2]) + 1] = True
    assert overlap(found.mask, truth & inside) > 0.9
    assert found.depth_m == pytest.approx(np.median(depth[truth]), abs=0.05)
    assert found.confidence > 0.6
    assert found.reason is None
    assert np.dot(found.support.up_cam, UP_CAM) > np.cos(np.deg2rad(3))
    assert -found.support.offset_m == pytest.approx(CAMERA_HEIGHT_M, abs=0.05)


def test_the_floor_is_not_part_of_the_object():
    depth, owner = room([CHAIR])
    box = box_around(owner == 0, (-15, -10, 15, 15))
    mask = depth_box_mask(depth, CAMERA, box).mask
    assert (mask & (owner == -1)).sum() < 0.05 * mask.sum()


def test_an_object_behind_another_is_not_taken_for_it():
    depth, owner = room([CHAIR, (0.55, 2.9, (0.5, 0.8, 0.5))])
    box = box_around(owner == 0, (-3, -3, 12, 3))  # the other one reaches into the box from the right
    assert ((owner == 1)[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])]).sum() > 200
    mask = depth_box_mask(depth, CAMERA, box, half_diagonal_m=0.6).mask
    assert (mask & (owner == 1)).sum() < 0.02 * mask.sum()


def test_a_table_top_that_fills_the_box_is_the_object_not_the_support():
    depth, owner = room([(0.0, 1.5, (1.4, 0.7, 0.9))])
    truth = owner == 0
    box = box_around(truth)
    box[3] = 200  # the box ends above the table's lower edge: its lower border lies on the table itself
    mask = depth_box_mask(depth, CAMERA, box, half_diagonal_m=0.9).mask
    inside = np.zeros_like(truth)
    inside[int(box[1]) : 201, int(box[0]) : int(box[2]) + 1] = True
    assert overlap(mask, truth & inside) > 0.85


def test_missing_depth_gives_a_reason_instead_of_a_mask():
    depth, owner = room([CHAIR])
    box = box_around(owner == 0)
    for nothing in (0, np.nan):
        found = depth_box_mask(np.full_like(depth, nothing), CAMERA, box)
        assert found.mask is None and found.confidence == 0
        assert "pixels have depth" in found.reason
    outside = depth_box_mask(depth, CAMERA, (400, 10, 500, 60))
    assert outside.mask is None and "holds no pixel" in outside.reason
    assert depth_box_mask(depth, CAMERA, (10, 10, np.nan, 60)).mask is None
    assert depth_box_mask(depth, CAMERA, (50, 50, 40, 60)).mask is None


def test_holes_lower_the_confidence_and_stay_out_of_the_mask():
    depth, owner = room([CHAIR])
    box = box_around(owner == 0)
    full = depth_box_mask(depth, CAMERA, box)
    holes = np.random.default_rng(0).random(depth.shape) < 0.3
    depth[holes] = np.nan
    found = depth_box_mask(depth, CAMERA, box)
    assert not found.mask[holes].any()
    assert found.confidence < 0.8 * full.confidence
    assert overlap(found.mask, (owner == 0) & ~holes) > 0.85


def test_the_same_input_gives_the_same_mask():
    depth, owner = room([CHAIR, TABLE_BEHIND])
    box = box_around(owner == 0)
    first, second = (depth_box_mask(depth, CAMERA, box) for _ in range(2))
    np.testing.assert_array_equal(first.mask, second.mask)


def test_known_gravity_refuses_a_wall_as_support():
    depth, _ = room([])
    wall = (60, 0, 260, 20)  # its lower border lies on the wall
    assert depth[40, 160] == pytest.approx(depth[30, 160], rel=0.1)
    assert find_support(depth, CAMERA, wall, UP_CAM, np.random.default_rng(0)) is None
    floor = find_support(depth, CAMERA, (60, 100, 260, 200), UP_CAM, np.random.default_rng(0))
    np.testing.assert_allclose(floor.up_cam, UP_CAM, atol=0.03)


def test_heights_above_a_plane_by_hand():
    # A level camera 1 m above the floor; the pixel 100 below the centre sees it at z = f / 100 = 2 m.
    camera = Camera(3, 201, 200.0, 200.0, 1.0, 100.0)
    plane = SupportPlane((0.0, -1.0, 0.0), -1.0)
    depth = np.full((201, 3), 2.0, np.float32)
    heights = plane.height_m(depth, camera)
    np.testing.assert_allclose([heights[200, 1], heights[100, 1], heights[0, 1]], [0.0, 1.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(plane.height_m(depth[150:, 1:], camera, 1, 150), heights[150:, 1:])
    assert not plane.is_above(depth, camera)[200].any() and plane.is_above(depth, camera)[100].all()


def test_shared_pixels_go_to_the_smallest_mask():
    table, monitor = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    table[1:], monitor[:3, 1] = True, True
    separated = separate_masks([table, None, monitor])
    np.testing.assert_array_equal(separated[2], monitor)
    np.testing.assert_array_equal(separated[0], table & ~monitor)
    assert separated[1] is None
    assert table[1:].all()  # the input is left alone


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"depth_m: expected \(240, 320\), got \(10, 10\)"):
        depth_box_mask(np.ones((10, 10)), CAMERA, (0, 0, 5, 5))
    with pytest.raises(ValueError, match="half_diagonal_m: expected a positive length, got 0"):
        depth_box_mask(np.ones((240, 320)), CAMERA, (0, 0, 5, 5), half_diagonal_m=0)
