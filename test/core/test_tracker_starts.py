"""What a track gives to the next image: starts, motion, hidden objects, smoothing, tracks that become one."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tracked_objects import CAMERA, camera_at, placed, seen_from

from sparc_core.tracking.config import TrackerConfig
from sparc_core.tracking.depth_distance import depth_distances
from sparc_core.tracking.track import expect
from sparc_core.tracking.tracker import Tracker
from sparc_core.tracking.view import View
from sparc_core.types import Detection


def detected(obj, **changes):
    return Detection(obj.box_xyxy, obj.category, **changes)


def wall(z, patches=()):
    """A depth image of a wall, with rectangles (x0, y0, x1, y1, z) before it."""
    depth_m = np.full((480, 640), z, np.float32)
    for x0, y0, x1, y1, near in patches:
        depth_m[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = near
    return depth_m


def test_a_detection_starts_from_its_track_moved_by_the_cameras_motion():
    tracker = Tracker()
    R = Rotation.from_euler("y", 0.7).as_matrix()
    in_room = placed(0.2, R=R)
    first, second = camera_at(0.0), camera_at(0.4, yaw_rad=0.2)
    tracker.update([seen_from(first, in_room)], 0.0, CAMERA, first)
    view = seen_from(second, in_room)
    new = Detection((10, 10, 60, 60), "sofa")
    starts = tracker.starts([new, detected(view)], 0.1, CAMERA, second)
    assert starts[0] is None
    np.testing.assert_allclose(starts[1].R, view.R, atol=1e-12)
    np.testing.assert_allclose(starts[1].T_m, view.T_m, atol=1e-12)
    np.testing.assert_allclose(starts[1].S_m, view.S_m)
    assert starts[1].model_id == "chair_0" and not starts[1].search
    assert len(tracker.tracks) == 1  # asking changes nothing


def test_without_a_camera_pose_no_motion_is_assumed():
    tracker = Tracker()
    tracker.update([placed(0.2)], 0.0, CAMERA)
    (start,) = tracker.starts([detected(placed(0.25))], 0.1, CAMERA)
    np.testing.assert_allclose(start.T_m, (0.2, 0, 3))


def test_losing_the_camera_pose_keeps_it_where_it_was_last_known():
    tracker = Tracker()
    T = camera_at(1.0, yaw_rad=0.3)
    tracker.update([seen_from(T, placed(1.2))], 0.0, CAMERA, T)
    (start,) = tracker.starts([detected(seen_from(T, placed(1.2)))], 0.1, CAMERA, None)
    np.testing.assert_allclose(start.T_m, seen_from(T, placed(1.2)).T_m, atol=1e-12)


def test_a_model_that_the_detection_names_replaces_the_tracks():
    tracker = Tracker()
    tracker.update([placed(0.0)], 0.0, CAMERA)
    (start,) = tracker.starts([detected(placed(0.0), model_id="chair_7")], 0.1, CAMERA)
    assert start.model_id == "chair_7"


def test_a_doubtful_track_is_searched_too_but_not_in_every_image():
    tracker = Tracker(TrackerConfig(reinit_score=0.5, reinit_pause_s=0.5))
    weak = dataclasses.replace(placed(0.0), score=0.2, start="track")
    asked = []
    for i in range(12):
        stamp_s = 0.1 * i
        starts = tracker.starts([detected(weak)], stamp_s, CAMERA)
        searched = starts[0] is None or starts[0].search
        asked.append(searched)
        tracker.update([weak], stamp_s, CAMERA, searched=frozenset({0} if searched else ()))
    assert asked == [True] + [False] * 4 + [True] + [False] * 4 + [True, False]


def test_one_weak_look_does_not_make_a_good_track_doubtful():
    tracker = Tracker(TrackerConfig(reinit_score=0.4))
    scores = [0.9, 0.9, 0.05, 0.9]
    for i, score in enumerate(scores):
        tracker.update([dataclasses.replace(placed(0.0), score=score)], 0.1 * i, CAMERA)
        assert not tracker.starts([detected(placed(0.0))], 0.1 * i + 0.05, CAMERA)[0].search
    for i in range(4, 8):
        tracker.update([dataclasses.replace(placed(0.0), score=0.05)], 0.1 * i, CAMERA)
    assert tracker.starts([detected(placed(0.0))], 0.8, CAMERA)[0].search


def test_a_doubtful_pose_does_not_cost_the_id_when_it_is_repaired():
    # The first pose is 1.4 m too far away; the box was right. The search finds the right one.
    tracker = Tracker()
    wrong = dataclasses.replace(placed(0.0), T_m=np.array([0.0, 0.0, 4.4]), score=0.1)
    tracker.update([wrong], 0.0, CAMERA)
    update = tracker.update([placed(0.0)], 0.1, CAMERA)
    assert update.track_ids == (1,)
    np.testing.assert_allclose(update.objects[0].T_m, (0, 0, 3))  # believed at once


def test_positions_before_the_alignment_by_hand():
    near, far = placed(0.0, z=2.0, size=0.5), placed(0.5, z=3.0, size=0.5)
    tracker = Tracker()
    tracker.update([near, far], 0.0, CAMERA)
    expected = [expect(track, View.of(CAMERA, None), 0.1, 0.5) for track in tracker.tracks]
    depth_m = wall(5.0, [(*near.box_xyxy, 1.75), (*far.box_xyxy, 2.75)])
    found = depth_distances(expected, [detected(near), detected(far)], depth_m, CAMERA)
    # the surfaces are within the radius of 0.35 m; from the far track at 3 m to depths of 1.75 m are 0.9 m
    # along the ray, and the ray through the other's middle passes 0.5 m and 0.33 m aside
    reach = 0.5 / np.sqrt(2)
    np.testing.assert_allclose(np.diag(found), 0, atol=1e-6)
    assert found[1, 0] == pytest.approx(np.hypot(0.5, 1.25 - reach), abs=1e-6)
    assert found[0, 1] == pytest.approx(np.hypot(0.5 / 3 * 2, 0.75 - reach), abs=1e-6)
    assert np.isnan(depth_distances(expected, [detected(near)], None, CAMERA)).all()
    assert np.isnan(depth_distances(expected, [detected(near)], np.zeros((480, 640)), CAMERA)).all()
    masked = detected(near, mask=depth_m == np.float32(2.75))
    assert depth_distances(expected, [masked], depth_m, CAMERA)[0, 0] == pytest.approx(0.75 - reach, abs=1e-6)


def test_a_hidden_object_does_not_age_and_one_that_is_gone_does():
    chair = placed(0.0)
    for depth_m, over in ((wall(5.0, [(200, 100, 440, 380, 1.5)]), False), (wall(5.0), True)):
        tracker = Tracker(TrackerConfig(max_age_s=1.0))
        tracker.update([chair], 0.0, CAMERA, camera_at(0.0), wall(2.7))
        ended = tracker.update([], 1.5, CAMERA, camera_at(0.0), depth_m).ended
        assert bool(ended) is over


def two_chairs(share):
    """Chair A stands at 3 m; B passes behind it from left to right at 4 m, by share 0 to 1."""
    return placed(0.0, z=3.0), placed(2.4 * share - 1.2, z=4.0)


def chairs_depth(chairs):
    """Depth of both, seen as boxes' fronts, with a wall behind."""
    return wall(6.0, [(*c.box_xyxy, c.T_m[2] - 0.4) for c in sorted(chairs, key=lambda c: -c.T_m[2])])


@pytest.mark.parametrize("turned_rad", [0.0, 0.25])
@pytest.mark.parametrize("front_fails", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_two_equal_chairs_that_pass_behind_each_other_keep_their_ids(front_fails, turned_rad, seed):
    """The back one is not detected while it is mostly hidden; in half of the cases the front one's detection
    fails around that time. Boxes jitter and poses are noisy; in half of the cases the camera turns."""
    rng = np.random.default_rng(seed)
    tracker, seen_ids = Tracker(), {"A": set(), "B": set()}
    for i in range(91):
        share, T = i / 90, camera_at(0.3 * i / 90, yaw_rad=turned_rad * np.sin(i / 20))
        chairs = {name: seen_from(T, c) for name, c in zip("AB", two_chairs(share), strict=True)}
        gap_px = abs(chairs["A"].box_xyxy[0] - chairs["B"].box_xyxy[0])
        hidden = gap_px < 60
        visible = {"A": not (front_fails and 50 < gap_px < 90), "B": not hidden}
        names = [name for name in "BA" if visible[name] and rng.random() > 0.05]
        objects = []
        for number, name in enumerate(names):
            chair = chairs[name]
            box = np.array(chair.box_xyxy) + rng.uniform(-0.05, 0.05, 4) * 500 * 0.8 / chair.T_m[2]
            noisy = chair.T_m + rng.normal(0, 0.02, 3)
            objects.append(dataclasses.replace(chair, detection=number, box_xyxy=tuple(box), T_m=noisy))
        depth_m = chairs_depth(chairs.values())
        starts = tracker.starts([detected(o) for o in objects], i / 30, CAMERA, T, depth_m)
        for name, start in zip(names, starts, strict=True):
            if start is not None:  # the start comes from the chair's own track: the other is a metre away
                assert np.linalg.norm(start.T_m - chairs[name].T_m) < 0.5
        update = tracker.update(objects, i / 30, CAMERA, T, depth_m)
        for name, track_id in zip(names, update.track_ids, strict=True):
            seen_ids[name].add(track_id)
    assert len(seen_ids["A"]) == 1 and len(seen_ids["B"]) == 1
    assert seen_ids["A"].isdisjoint(seen_ids["B"])


def test_what_moved_steadily_is_expected_further_on():
    tracker = Tracker()
    for i in range(16):
        tracker.update([placed(0.5 * i / 30)], i / 30, CAMERA, camera_at(0.0))
    (track,) = tracker.tracks
    np.testing.assert_allclose(track.velocity_m_per_s, (0.5, 0, 0), atol=1e-9)
    expected = expect(track, View.of(CAMERA, camera_at(0.0)), 15 / 30 + 0.6, 0.5)
    assert expected.T_m[0] == pytest.approx(track.T_m[0] + 0.3)


def test_noise_is_no_motion():
    rng = np.random.default_rng(0)
    tracker = Tracker()
    for i in range(60):
        tracker.update(
            [placed(rng.normal(0, 0.02), z=3 + rng.normal(0, 0.02))], i / 30, CAMERA, camera_at(0.0)
        )
        assert not tracker.tracks[0].velocity_m_per_s.any()


def test_smoothing_is_what_is_published_and_can_be_left_out():
    rng = np.random.default_rng(0)
    spread = {}
    for name, config in (("smoothed", TrackerConfig()), ("measured", TrackerConfig(smoothing=None))):
        tracker, places = Tracker(config), []
        for i in range(90):
            T = camera_at(0.005 * i, yaw_rad=0.002 * i)
            view = seen_from(T, placed(rng.normal(0, 0.02)))
            (obj,) = tracker.update([view], i / 30, CAMERA, T).objects
            places.append(T[:3, :3] @ obj.T_m + T[:3, 3])
            if name == "measured":
                np.testing.assert_array_equal(obj.T_m, view.T_m)
        spread[name] = np.std(places[45:], axis=0)[0]
    assert spread["smoothed"] < spread["measured"] / 4


def test_somebody_can_correct_a_track():
    tracker = Tracker()
    tracker.update([placed(0.0)], 0.0, CAMERA)
    R = Rotation.from_euler("y", 1.0).as_matrix()
    tracker.correct(1, R, np.array([0.1, 0, 3.1]), np.full(3, 0.9))
    (start,) = tracker.starts([detected(placed(0.0))], 0.1, CAMERA)
    np.testing.assert_allclose(start.R, R)
    np.testing.assert_allclose(start.T_m, (0.1, 0, 3.1))
    with pytest.raises(ValueError, match="7 is not alive"):
        tracker.correct(7, R, np.zeros(3), np.ones(3))


def test_of_two_tracks_in_one_place_the_older_id_goes_on():
    # The chair hides; its first glimpse, aligned 0.8 m off, becomes a track of its own; then it is right.
    tracker, T = Tracker(), camera_at(0.0)
    hiding = wall(5.0, [(200, 100, 440, 380, 1.5)])
    tracker.update([placed(0.0)], 0.0, CAMERA, T)
    tracker.update([], 0.5, CAMERA, T, hiding)
    wrong = dataclasses.replace(placed(0.8), score=0.2)
    assert tracker.update([wrong], 1.0, CAMERA, T, hiding).track_ids == (2,)
    right = dataclasses.replace(placed(0.02), box_xyxy=wrong.box_xyxy)
    update = tracker.update([right], 1.1, CAMERA, T, hiding)
    assert update.track_ids == (1,) and [t.track_id for t in update.ended] == [2]
    assert [t.track_id for t in update.tracks] == [1] and update.tracks[0].first_seen_s == 0.0


def test_two_things_seen_in_one_place_stay_two():
    tracker = Tracker()
    tracker.update([placed(0.0), placed(0.9)], 0.0, CAMERA)
    assert tracker.update([placed(0.4), placed(0.45)], 0.1, CAMERA).track_ids == (1, 2)


def test_a_glimpse_of_a_part_belongs_to_the_track_that_is_hidden_there():
    tracker, T = Tracker(), camera_at(0.0)
    sofa = placed(0.0, category="sofa", size=2.0)
    x0, y0, x1, y1 = sofa.box_xyxy
    tracker.update([sofa], 0.0, CAMERA, T)
    tracker.update([], 0.5, CAMERA, T, wall(5.0, [(x0, y0, x1, y1, 1.5)]))
    end = Detection((x1 - 40, y0 + 20, x1 - 2, y1 - 20), "sofa")
    depth_m = wall(5.0, [(x0, y0, x1, y1, 2.2), (x0, y0, x1 - 42, y1, 1.5)])
    (start,) = tracker.starts([end], 1.0, CAMERA, T, depth_m)
    np.testing.assert_allclose(start.T_m, sofa.T_m)
    assert tracker.starts([end], 1.0, CAMERA, T, wall(5.0)) == (None,)  # what is seen there is far behind
