"""Synthetic videos: poses, boxes and depth that fit each other, dropouts, and the chair that moves."""

import dataclasses

import numpy as np
import pytest
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.camera import project
from sparc_core.synth.sequence import SequenceWorld
from sparc_core.synth.sequence_room import SequenceConfig, look_at

CONFIG = SequenceConfig(frames=3, objects=(5, 5), clutter=1, dropout=0.0, gap_every_s=1e9, width_px=320,
                        height_px=240, focal_px=250.0)  # fmt: skip


@pytest.fixture(scope="module")
def library():
    return CadLibrary.open("procedural:1000000-1000001")


@pytest.fixture(scope="module")
def world(library):
    return SequenceWorld(library, CONFIG, seed=3)


@pytest.fixture(scope="module")
def frames(world):
    return list(world.frames())


def test_the_camera_looks_where_it_should():
    T = look_at(np.array([1.0, 1.5, 3.0]), np.array([0.0, 0.5, 0.0]))
    ahead = T[:3, :3].T @ (np.array([0.0, 0.5, 0.0]) - T[:3, 3])
    np.testing.assert_allclose(ahead[:2], 0, atol=1e-12)
    assert ahead[2] == pytest.approx(np.sqrt(1 + 1 + 9))
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) > 0 and T[1, 1] < 0  # y of the image points down, y of the room up


def test_everything_stands_on_the_floor_without_standing_in_something_else(world):
    R, T, S, _ = world.room.object_poses(0.0)
    np.testing.assert_allclose(T[:, 1], S[:, 1] / 2)
    np.testing.assert_allclose(R[:, :, 1], np.tile((0, 1, 0), (len(R), 1)), atol=1e-12)
    radius = S[:, [0, 2]].min(1) / 2  # of the circles inside the footprints
    for i in range(len(T)):
        for j in range(i):
            assert np.linalg.norm((T[i] - T[j])[[0, 2]]) > radius[i] + radius[j]


def test_the_second_chair_is_the_firsts_equal_and_passes_behind_it_and_back(world):
    assert world.models[0] == world.models[1]
    places = np.array([world.room.object_poses(t)[1] for t in np.arange(0, 18, 0.1)])
    first, second = places[:, 0], places[:, 1]
    assert np.ptp(first, axis=0).max() == 0 and np.ptp(places[:, 2:], axis=0).max() == 0
    beside = (second - first) @ world.room.along
    assert beside.min() == pytest.approx(-1.1) and beside.max() == pytest.approx(1.1)
    assert (second[:, 2] < first[:, 2] - 0.5).all()  # always behind, seen from the camera's side
    step = np.linalg.norm(np.diff(second, axis=0), axis=1)
    assert step.max() / 0.1 < 0.8
    moving = np.array([world.room.object_poses(t)[3][1] for t in np.arange(0, 18, 0.1)])
    assert (step[~moving[:-1] & ~moving[1:]] < 1e-9).all()


def test_truth_boxes_and_depth_agree(world, frames):
    frame = frames[0]
    assert len(frame.detections) >= 3
    for number, detection in zip(frame.objects, frame.detections, strict=True):
        assert detection.model_id == world.library.models[world.models[number]].model_id
        pose = frame.truth.map(lambda x, n=number: x[n])
        uv, _ = project(pose.transform(world.cad.points[world.models[number]])[None],
                        torch.tensor([[250.0, 250.0, 159.5, 119.5]]))  # fmt: skip
        low, high = uv[0].amin(0).numpy(), uv[0].amax(0).numpy()
        x0, y0, x1, y1 = detection.box_xyxy
        slack = 0.07 * (high - low).max() + 2  # boxes jitter, and are those of the visible part
        assert x0 > low[0] - slack and y0 > low[1] - slack and x1 < high[0] + slack and y1 < high[1] + slack
    known = frame.depth_m[frame.depth_m > 0]
    assert known.size > 0.5 * frame.depth_m.size and 0.3 < known.min() and known.max() < 9


def test_poses_in_the_room_are_the_same_from_every_camera(world, frames):
    for frame in frames:
        T = frame.T_room_cam
        in_room = frame.truth.T.numpy() @ T[:3, :3].T + T[:3, 3]
        np.testing.assert_allclose(
            in_room, world.room.object_poses(frame.stamp_s)[1][: world.count], atol=1e-5
        )
        np.testing.assert_allclose(T[:3, :3].T @ (0, 1, 0), frame.camera.up_cam, atol=1e-6)


def test_the_seed_fixes_the_room(library, world):
    again = SequenceWorld(library, CONFIG, seed=3)
    assert again.models == world.models
    np.testing.assert_array_equal(again.room.object_poses(5.0)[1], world.room.object_poses(5.0)[1])
    other = SequenceWorld(library, CONFIG, seed=4)
    assert np.abs(other.room.object_poses(5.0)[1] - world.room.object_poses(5.0)[1]).max() > 0.1


def test_dropouts_leave_detections_out(library):
    config = dataclasses.replace(CONFIG, dropout=0.9, frames=2)
    few = sum(len(f.objects) for f in SequenceWorld(library, config, seed=3).frames())
    all_of_them = sum(len(f.objects) for f in SequenceWorld(library, CONFIG, seed=3).frames())
    assert few < all_of_them / 2
    world = SequenceWorld(library, dataclasses.replace(CONFIG, frames=3000, gap_every_s=5.0), seed=3)
    lengths = [end - begin for gaps in world._gaps for begin, end in gaps]
    assert len(lengths) > 20 and min(lengths) >= 0.3 and max(lengths) <= 1.5


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"frames": 0}, "frames"), ({"objects": (1, 3)}, "objects"), ({"dropout": 1.0}, "dropout")],
)
def test_config_names_the_wrong_field(changes, named):
    with pytest.raises(ValueError, match=named):
        SequenceConfig(**changes)


def test_a_library_without_chairs_is_refused(library):
    rest = library.subset([i for i, m in enumerate(library.models) if m.category != "chair"])
    with pytest.raises(ValueError, match="chairs"):
        SequenceWorld(rest, CONFIG, seed=0)
