"""Masks from depth and box on small rendered rooms whose true masks are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparc_core.perception.background import background_planes
from sparc_core.perception.masks import depth_masks
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


def masks_of(depth, boxes, diagonals=1.1):
    return depth_masks(depth, CAMERA, boxes, np.broadcast_to(diagonals, len(boxes)))


def in_box(mask, box):
    inside = np.zeros_like(mask)
    inside[int(np.ceil(box[1])) : int(box[3]) + 1, int(np.ceil(box[0])) : int(box[2]) + 1] = True
    return mask & inside


@pytest.mark.parametrize(
    "jitter", [(0, 0, 0, 0), (-8, -6, 9, 5), (4, 3, -4, -3)], ids=["tight", "loose", "cut"]
)
def test_an_object_on_the_floor_is_cut_out(jitter):
    depth, owner = room([CHAIR, TABLE_BEHIND])
    box = box_around(owner == 0, jitter)
    (mask,) = masks_of(depth, [box])
    assert overlap(mask, in_box(owner == 0, box)) > 0.9


def test_neither_floor_nor_wall_is_part_of_an_object():
    depth, owner = room([CHAIR, (-0.9, 3.9, (0.8, 1.6, 0.2))])  # the second stands against the wall
    boxes = [box_around(owner == n, (-15, -10, 15, 15)) for n in (0, 1)]
    for n, mask in enumerate(masks_of(depth, boxes, [1.1, 1.8])):
        assert mask.sum() > 0.7 * (owner == n).sum()
        assert (mask & (owner == -1)).sum() < 0.03 * mask.sum()


def test_where_it_is_known_which_pixels_are_objects_planes_are_not_looked_for():
    """A depth that a network guessed has no planes; cut along its jumps, what is of objects is enough."""
    depth, owner = room([CHAIR, TABLE_BEHIND])
    bent = depth * (1 + 0.15 * np.sin(np.arange(CAMERA.width) / 25)).astype(np.float32)
    box = box_around(owner == 0, (-8, -6, 9, 5))
    (told,) = depth_masks(bent, CAMERA, [box], [1.1], on_object=owner >= 0)
    (alone,) = depth_masks(bent, CAMERA, [box], [1.1])
    assert overlap(told, owner == 0) > 0.9
    assert not (told & (owner == -1)).any()
    assert alone is None or overlap(alone, owner == 0) < overlap(told, owner == 0)
    with pytest.raises(ValueError, match=r"on_object: expected \(240, 320\), got \(5, 5\)"):
        depth_masks(depth, CAMERA, [box], [1.1], on_object=np.ones((5, 5), bool))


def test_the_planes_found_are_floor_and_wall():
    depth, owner = room([CHAIR])
    planes = background_planes(depth, CAMERA, [box_around(owner == 0)])
    normals = [plane / np.linalg.norm(plane) for plane in planes]
    offsets = [1 / np.linalg.norm(plane) for plane in planes]
    floor, wall = -np.array(UP_CAM), PITCH.inv().apply([0, 0, 1])
    for expected, distance in ((floor, CAMERA_HEIGHT_M), (wall, 4.0)):
        best = max(range(len(planes)), key=lambda i: normals[i] @ expected)
        assert normals[best] @ expected > np.cos(np.deg2rad(2))
        assert offsets[best] == pytest.approx(distance, abs=0.05)
    assert len(planes) == 2


def test_the_front_of_a_wardrobe_is_no_wall_although_nothing_is_seen_behind_it():
    depth, owner = room([(0.0, 2.2, (1.6, 2.0, 0.6))])
    depth[owner == -1] = np.where(np.arange(CAMERA.height)[:, None] > 150, depth, 0)[owner == -1]
    box = box_around(owner == 0)
    (mask,) = masks_of(depth, [box], 2.6)
    assert overlap(mask, owner == 0) > 0.9


def test_what_stands_in_front_of_an_object_belongs_to_its_own_box():
    depth, owner = room([CHAIR, TABLE_BEHIND])
    boxes = [box_around(owner == 1, (0, 0, 0, 10)), box_around(owner == 0)]
    assert in_box(owner == 0, boxes[0]).sum() > 1000  # the chair covers a part of the table's box
    table, chair = masks_of(depth, boxes, [1.85, 1.1])
    assert overlap(table, owner == 1) > 0.85 and overlap(chair, owner == 0) > 0.9
    assert not (table & chair).any()


def test_a_piece_far_too_near_for_an_object_of_the_boxs_size_is_not_the_object():
    # without a detection of its own, what hides the table is told apart by its size alone
    depth, owner = room([TABLE_BEHIND])
    box = box_around(owner == 0)
    hidden = np.zeros_like(owner, bool)
    hidden[
        int(box[1]) : int(box[3]) + 1, int(box[0] * 0.7 + box[2] * 0.3) : int(box[0] * 0.1 + box[2] * 0.9)
    ] = True
    depth[hidden] = 0.7
    (table,) = masks_of(depth, [box], 1.85)
    assert not (table & hidden).any()
    assert overlap(table, (owner == 0) & ~hidden) > 0.9


def test_a_piece_belongs_to_the_box_it_fits_even_if_it_would_fill_another_best():
    depth, owner = room([TABLE_BEHIND])
    box = box_around(owner == 0)
    in_front = np.array([140.0, 49.0, 228.0, 115.0])  # most of the table's box, at a plausible distance
    patch = in_box(np.ones_like(owner, bool), in_front)
    depth[patch] = 1.4
    table, other = masks_of(depth, [box, in_front], [1.85, 0.9])
    assert overlap(other, patch) > 0.9
    assert overlap(table, (owner == 0) & ~patch) > 0.9


def test_what_runs_on_beyond_the_box_is_not_the_object():
    depth, owner = room([(0.1, 2.2, (0.3, 0.4, 0.3)), (0.0, 3.0, (1.8, 1.9, 0.5))])  # a bin before a wardrobe
    box = box_around(owner == 0, (-14, -24, 14, 0))
    assert in_box(owner == 1, box).sum() > 300
    (mask,) = masks_of(depth, [box], 1.0)
    assert overlap(mask, owner == 0) > 0.9


def test_an_object_behind_another_is_not_taken_for_it():
    depth, owner = room([CHAIR, (0.55, 2.9, (0.5, 0.8, 0.5))])
    box = box_around(owner == 0, (-3, -3, 12, 3))  # the other one reaches into the box from the right
    assert in_box(owner == 1, box).sum() > 200
    (mask,) = masks_of(depth, [box])
    assert (mask & (owner == 1)).sum() < 0.02 * mask.sum()


def test_a_table_top_that_fills_the_box_is_the_object_and_not_the_background():
    depth, owner = room([(0.0, 1.5, (1.4, 0.7, 0.9))])
    box = box_around(owner == 0)
    box[3] = 200  # the box ends above the table's lower edge
    (mask,) = masks_of(depth, [box], 1.8)
    assert overlap(mask, in_box(owner == 0, box)) > 0.85


def test_without_depth_or_outside_the_image_there_is_no_mask():
    depth, owner = room([CHAIR])
    box = box_around(owner == 0)
    for nothing in (0, np.nan):
        assert masks_of(np.full_like(depth, nothing), [box]) == [None]
    assert masks_of(depth, [(400, 10, 500, 60), (50, 50, 40, 60)]) == [None, None]
    found = masks_of(depth, [(400, 10, 500, 60), box])
    assert found[0] is None and overlap(found[1], owner == 0) > 0.9
    assert masks_of(depth, []) == []


def test_dropped_pixels_neither_break_an_object_nor_enter_its_mask():
    depth, owner = room([CHAIR])
    holes = np.random.default_rng(0).random(depth.shape) < 0.2
    holes[::4] = holes[:, ::4] = True  # nothing but patches of nine pixels, and fewer, is left
    depth[holes] = np.nan
    (mask,) = masks_of(depth, [box_around(owner == 0)])
    assert not mask[holes].any()
    assert overlap(mask, (owner == 0) & ~holes) > 0.85


def test_the_same_input_gives_the_same_mask():
    depth, owner = room([CHAIR, TABLE_BEHIND])
    boxes = [box_around(owner == 0), box_around(owner == 1)]
    for first, second in zip(masks_of(depth, boxes), masks_of(depth, boxes), strict=True):
        np.testing.assert_array_equal(first, second)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"depth_m: expected \(240, 320\), got \(10, 10\)"):
        depth_masks(np.ones((10, 10)), CAMERA, [(0, 0, 5, 5)], [1.0])
    with pytest.raises(ValueError, match=r"diagonals_m: expected positive lengths, got \[0.0\]"):
        depth_masks(np.ones((240, 320)), CAMERA, [(0, 0, 5, 5)], [0.0])
    with pytest.raises(ValueError, match="boxes_xyxy: expected finite numbers"):
        depth_masks(np.ones((240, 320)), CAMERA, [(0, 0, np.nan, 5)], [1.0])
