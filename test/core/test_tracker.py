"""Track ids: association by hand-worked cases, the moving camera, ageing, starts, and what begins anew."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tracked_objects import CAMERA, camera_at, placed, seen_from

from sparc_core.tracking.association import UNMATCHED_COST, association_cost, inside_share, match
from sparc_core.tracking.config import TrackerConfig
from sparc_core.tracking.tracker import Tracker


def test_the_share_inside_by_hand():
    a = [(0, 0, 10, 10), (np.nan,) * 4]
    b = [(5, 0, 15, 10), (2, 2, 4, 4), (20, 20, 30, 30)]
    np.testing.assert_allclose(inside_share(np.array(a), np.array(b)), [[0.5, 1, 0], [0, 0, 0]])


def test_match_agrees_with_trying_every_assignment():
    rng = np.random.default_rng(0)
    for _ in range(50):
        cost = np.where(rng.random((3, 4)) < 0.3, UNMATCHED_COST, rng.random((3, 4)))
        best = min(
            sum(cost[n, m] for n, m in enumerate(columns)) for columns in itertools.permutations(range(4), 3)
        )
        pairs = match(cost)
        total = sum(cost[n, m] for n, m in pairs) + UNMATCHED_COST * (3 - len(pairs))
        assert total == pytest.approx(best)


def test_a_good_match_is_not_given_up_for_two_poor_ones():
    # Track 0 sits on object 0; track 1 has gone; object 1 is new. Two poor matches (0.9 + 0.9) would
    # swap the ids; one perfect match and two unmatched is right.
    assert match(np.array([[0.0, 0.9], [0.9, UNMATCHED_COST]])) == ((0, 0),)


def test_cost_by_hand():
    cost = association_cost(
        iou=np.array([[0.5, 0.0, 0.4, 0.4, 0.9]]),
        distance_m=np.array([[0.25, 0.6, 0.6, np.nan, 1.1]]),
        same_category=np.array([[True] * 5]),
        max_distance_m=0.5,
        min_iou=0.3,
    )
    # near: half of each; too far without overlap; too far but overlapping; overlap alone; overlapping, but
    # more than twice too far
    np.testing.assert_allclose(cost, [[0.25 + 0.25, UNMATCHED_COST, 0.3 + 0.5, 0.6, UNMATCHED_COST]])


def test_ids_stay_when_the_order_of_objects_changes():
    tracker = Tracker()
    first = tracker.update([placed(-1.0), placed(0.0), placed(1.0)], 0.0, CAMERA)
    second = tracker.update([placed(1.02), placed(-1.02), placed(0.02)], 0.1, CAMERA)
    assert first.track_ids == (1, 2, 3)
    assert second.track_ids == (3, 1, 2)
    assert [track.sightings for track in second.tracks] == [2, 2, 2]


def test_another_category_in_the_same_place_is_another_object():
    tracker = Tracker()
    tracker.update([placed(0.0, category="chair")], 0.0, CAMERA)
    assert tracker.update([placed(0.0, category="table")], 0.1, CAMERA).track_ids == (2,)


def test_a_turning_camera_keeps_ids_only_because_its_pose_is_known():
    in_room = [placed(-0.8), placed(0.0), placed(0.8)]
    start, turned = camera_at(0.0), camera_at(0.3, yaw_rad=np.deg2rad(15))
    with_pose, without_pose = Tracker(), Tracker()
    for tracker, known in ((with_pose, True), (without_pose, False)):
        tracker.update(in_room, 0.0, CAMERA, start if known else None)
    view = [seen_from(turned, obj) for obj in in_room]
    assert with_pose.update(view, 0.5, CAMERA, turned).track_ids == (1, 2, 3)
    assert without_pose.update(view, 0.5, CAMERA).track_ids != (1, 2, 3)


def test_poses_are_kept_in_the_fixed_frame():
    T = camera_at(0.5, yaw_rad=0.4)
    obj = placed(0.2, R=Rotation.from_euler("xyz", (0.1, 0.5, -0.2)).as_matrix())
    tracker = Tracker()
    track = tracker.update([seen_from(T, obj)], 0.0, CAMERA, T).tracks[0]
    np.testing.assert_allclose(track.T_m, obj.T_m, atol=1e-12)
    np.testing.assert_allclose(track.R, obj.R, atol=1e-12)


def test_losing_tf_for_an_image_keeps_the_id_by_the_box():
    tracker = Tracker()
    T = camera_at(5.0, yaw_rad=1.0)  # far from the camera frame's origin: distances would not agree
    obj = placed(0.0)
    tracker.update([obj], 0.0, CAMERA, T)
    assert tracker.update([obj], 0.1, CAMERA, None).track_ids == (1,)
    assert tracker.update([obj], 0.2, CAMERA, T).track_ids == (1,)


def test_positions_of_different_frames_are_never_compared():
    # In the fixed frame the first track stands at x = 1.343, just where the second object is in the
    # camera frame once TF is lost: taken for a distance, that would swap the ids.
    tracker = Tracker()
    tracker.update([placed(0.0), placed(1.0)], 0.0, CAMERA, camera_at(1.343))
    assert tracker.update([placed(0.343), placed(1.343)], 0.1, CAMERA, None).track_ids == (1, 2)


def test_a_track_ends_after_its_age_in_view_and_its_id_is_not_used_again():
    tracker = Tracker(TrackerConfig(max_age_s=1.0))
    tracker.update([placed(0.0)], 10.0, CAMERA)
    assert tracker.update([], 10.9, CAMERA).ended == ()
    ended = tracker.update([], 11.1, CAMERA).ended
    assert [track.track_id for track in ended] == [1]
    assert tracker.update([placed(0.0)], 11.2, CAMERA).track_ids == (2,)


def test_being_seen_again_starts_the_age_anew():
    tracker = Tracker(TrackerConfig(max_age_s=1.0))
    for stamp_s, objects in ((0.0, [placed(0.0)]), (0.9, []), (1.0, [placed(0.0)]), (1.9, [])):
        assert tracker.update(objects, stamp_s, CAMERA).ended == ()


def test_out_of_view_does_not_age_but_ends_in_the_end():
    tracker = Tracker(TrackerConfig(max_age_s=1.0, max_hidden_s=5.0))
    tracker.update([placed(0.0)], 0.0, CAMERA, camera_at(0.0))
    away = camera_at(0.0, yaw_rad=np.pi / 2)
    assert tracker.update([], 4.0, CAMERA, away).ended == ()
    assert tracker.update([placed(0.0)], 4.5, CAMERA, camera_at(0.0)).track_ids == (1,)
    tracker.update([], 5.0, CAMERA, away)
    assert [track.track_id for track in tracker.update([], 10.5, CAMERA, away).ended] == [1]


def test_time_that_jumps_back_ends_every_track():
    tracker = Tracker()
    tracker.update([placed(0.0)], 100.0, CAMERA)
    update = tracker.update([placed(0.0)], 1.0, CAMERA)
    assert update.time_jumped_back
    assert [track.track_id for track in update.ended] == [1]
    assert update.track_ids == (2,)


def test_hundreds_of_objects_keep_their_ids():
    rng = np.random.default_rng(1)
    objects = [placed(rng.uniform(-20, 20), rng.uniform(2, 40)) for _ in range(300)]
    tracker = Tracker()
    first = tracker.update(objects, 0.0, CAMERA)
    order = rng.permutation(300)
    second = tracker.update([objects[i] for i in order], 0.1, CAMERA)
    assert second.track_ids == tuple(first.track_ids[i] for i in order)


def test_no_objects_and_no_tracks():
    update = Tracker().update([], 0.0, CAMERA)
    assert update.track_ids == () and update.tracks == () and update.ended == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_age_s", -1),
        ("max_hidden_s", -1),
        ("max_distance_m", 0),
        ("min_iou", 0),
        ("reinit_score", 1.5),
        ("reinit_pause_s", -1),
    ],  # fmt: skip
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises(ValueError, match=field):
        TrackerConfig(**{field: value})


def test_pose_of_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="T_fixed_cam"):
        Tracker().update([], 0.0, CAMERA, np.eye(3))
