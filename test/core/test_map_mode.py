"""Map mode: overlap of boxes, fusion over a whole video, ids that return, what moved, and what is refused."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_tracker import CAMERA, camera_at, placed

from sparc_core.mapping.live_map import LiveMap, LiveMapConfig
from sparc_core.mapping.overlap import box_overlap
from sparc_core.mapping.sighting import Sighting
from sparc_core.tracking.config import TrackerConfig
from sparc_core.tracking.tracker import Tracker
from sparc_core.tracking.video import VideoAligner
from sparc_core.types import AlignmentResult, Detection

FPS = 30
SHORT = TrackerConfig(max_age_s=0.3, max_hidden_s=0.3)


class World:
    """Objects at fixed places, seen with noise from a camera; the aligner of a `VideoAligner`."""

    def __init__(self, objects, seed=0, noise_m=0.015, noise_deg=4.0):
        self.objects, self.noise_m, self.noise_deg = dict(objects), noise_m, noise_deg
        self.rng = np.random.default_rng(seed)
        models = [SimpleNamespace(model_id=o.model_id, symmetry="none") for o in self.objects.values()]
        self.cad_library = SimpleNamespace(models=models)
        self.config = SHORT  # any dataclass
        self.T, self.shown = camera_at(0.0), ()

    def detections(self):
        return [Detection(self._seen(name)[0], self.objects[name].category) for name in self.shown]

    def align(self, image_rgb, camera, detections, depth_m, normals_cam, **more):
        found = []
        for d, name in enumerate(self.shown):
            box, R, T_m = self._seen(name)
            times = self.rng.uniform(0.7, 1.4)  # the surer, the nearer
            turn = self.rng.normal(0, times * self.noise_deg, 3)
            found.append(dataclasses.replace(
                self.objects[name], detection=d, box_xyxy=box, score=1 - 0.2 * times,
                R=R @ Rotation.from_rotvec(np.radians(turn)).as_matrix(),
                T_m=T_m + self.rng.normal(0, times * self.noise_m, 3),
                S_m=self.objects[name].S_m * np.exp(self.rng.normal(0, 0.03, 3)),
            ))  # fmt: skip
        return AlignmentResult(camera, tuple(found))

    def _seen(self, name):
        item, R = self.objects[name], self.T[:3, :3]
        T_m = R.T @ (item.T_m - self.T[:3, 3])
        box = placed(T_m[0], T_m[2], item.category, float(item.S_m[0])).box_xyxy
        return box, R.T @ item.R, T_m

    def play(self, video, steps):
        """steps: (camera pose, names that are detected) for each image; [{name: (id, object)}]."""
        results = []
        for i, (T, shown) in enumerate(steps, start=getattr(self, "played", 0)):
            self.T, self.shown, self.played = T, tuple(shown), i + 1
            found = video.align(None, CAMERA, self.detections(), i / FPS, T_fixed_cam=T)
            results.append({
                self.shown[o.detection]: (track_id, o)
                for o, track_id in zip(found.result.objects, found.track_ids, strict=True)
            })  # fmt: skip
            self.update = found.update
        return results


def in_room(obj, T):
    return T[:3, :3] @ obj.T_m + T[:3, 3]


def mapped(world, config=SHORT, **options):
    return VideoAligner(world, config, live_map=LiveMapConfig(**options))


def ways(count, shown, x=0.0, yaw=0.0):
    return [(camera_at(x + 0.01 * i, yaw), shown) for i in range(count)]


# the overlap of boxes


def box(T=(0, 0, 0), S=(1, 1, 1), yaw=0.0):
    R = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    return SimpleNamespace(R=R, T_m=np.array(T, float), S_m=np.array(S, float))


def test_overlap_by_hand():
    assert box_overlap(box(), box()) == pytest.approx(1)
    assert box_overlap(box(), box((0.5, 0, 0))) == pytest.approx(1 / 3)  # 0.5 of 1.5
    assert box_overlap(box(), box((0.5, 0.5, 0))) == pytest.approx(0.25 / 1.75)
    assert box_overlap(box(S=(2, 1, 1)), box(S=(1, 1, 1))) == pytest.approx(0.5)
    assert box_overlap(box(S=(2, 1, 1)), box(S=(1, 1, 2), yaw=90)) == pytest.approx(1)
    assert box_overlap(box(), box((1.01, 0, 0))) == 0 and box_overlap(box(), box((9, 0, 0))) == 0
    octagon = 2 * (np.sqrt(2) - 1)  # of two unit squares turned by 45°
    assert box_overlap(box(), box(yaw=45)) == pytest.approx(octagon / (2 - octagon), abs=0.05)


# the map of one object


def sighting(frame, T, yaw=0.0, score=0.9):
    R = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    return Sighting(frame, "chair", "a", "none", R, np.array(T, float), np.ones(3), score, np.zeros(3))


def test_sightings_are_thinned_evenly_over_all_the_time():
    live = LiveMap(LiveMapConfig(memory=8))
    for i in range(1000):
        live.add(1, sighting(i, (0, 0, 3)), box((0, 0, 3)), doubtful=False, moving=False)
    frames = [s.frame for s in live.objects[1].sightings]
    assert live.counts() == {1: 1000} and 3 <= len(frames) <= 8
    assert frames[0] == 0 and frames[-1] > 700 and len(set(np.diff(frames))) == 1


def test_what_has_moved_begins_anew_and_a_doubtful_pose_does_not_show_that():
    for doubtful in (False, True):
        live = LiveMap(LiveMapConfig(patience=4))
        for i in range(10):
            assert live.add(1, sighting(i, (0, 0, 3)), box((0, 0, 3)), False, False) is not None
        answers = [
            live.add(1, sighting(10 + i, (1, 0, 3)), box((1, 0, 3)), doubtful, False) for i in range(6)
        ]
        assert answers[:4] == [None] * 4  # its own pose counts meanwhile
        moved = live.objects[1].T_m[0]
        assert moved == pytest.approx(0 if doubtful else 1, abs=0.02)
        assert (answers[5] is None) is doubtful


def test_what_moves_has_no_fused_pose():
    live = LiveMap(LiveMapConfig(patience=4))
    for i in range(9):
        assert live.add(1, sighting(i, (0.02 * i, 0, 3)), box((0.02 * i, 0, 3)), False, True) is None
    assert [s.frame for s in live.objects[1].sightings] == [7, 8]
    assert live.add(1, sighting(9, (0.18, 0, 3)), box((0.18, 0, 3)), False, False) is not None


def test_of_turns_that_look_the_same_the_first_one_stays():
    rng = np.random.default_rng(0)
    live, turns = LiveMap(), []
    for i in range(60):
        yaw = 180 * rng.integers(2) + rng.normal(0, 5)
        seen = dataclasses.replace(sighting(i, (0, 0, 3), yaw, score=rng.uniform(0.5, 0.99)), symmetry="c2")
        fused = live.add(1, seen, seen, doubtful=False, moving=False)
        turns.append(fused.R[0, 0])
    assert min(np.array(turns) * np.sign(turns[0])) > 0.9


def test_what_should_be_seen_and_is_not_is_given_up_in_time():
    live = LiveMap(LiveMapConfig(forget_s=1.0))
    for number in (1, 2):
        live.add(number, sighting(0, (number, 0, 3)), box((number, 0, 3)), False, False)
    assert live.miss({1: 0.6}) == () and live.miss({1: 0.6}) == (1,)
    assert list(live.objects) == [2]


# with a tracker


def test_the_fused_pose_is_better_than_the_best_single_one_and_steadier():
    fused, best, turns = [], [], []
    for seed in range(6):
        world = World({"chair": placed(0.2)}, seed=seed)
        last = world.play(mapped(world), ways(60, ["chair"], x=-0.3))[-1]["chair"][1]
        fused.append(np.linalg.norm(in_room(last, camera_at(0.29)) - (0.2, 0, 3.0)))
        turns.append(np.degrees(Rotation.from_matrix(last.R).magnitude()))
        raw = World({"chair": placed(0.2)}, seed=seed)
        single = raw.play(VideoAligner(raw, TrackerConfig(smoothing=None)), ways(60, ["chair"], x=-0.3))
        scored = max((r["chair"][1].score, i) for i, r in enumerate(single))[1]
        place = in_room(single[scored]["chair"][1], camera_at(-0.3 + 0.01 * scored))
        best.append(np.linalg.norm(place - (0.2, 0, 3.0)))
    assert np.mean(fused) < 0.6 * np.mean(best) and np.max(fused) < 0.01
    assert np.mean(turns) < 2.0  # single ones are 7° off


def test_the_fused_pose_is_given_in_the_frame_of_a_turned_camera():
    turned = Rotation.from_euler("y", 50, degrees=True).as_matrix()
    world = World({"chair": placed(0.2, R=turned)}, noise_m=0.0, noise_deg=0.0)
    last = world.play(mapped(world), ways(12, ["chair"], yaw=0.3))[-1]["chair"][1]
    T = camera_at(0.11, 0.3)
    np.testing.assert_allclose(in_room(last, T), (0.2, 0, 3.0), atol=0.01)
    np.testing.assert_allclose(T[:3, :3] @ last.R, turned, atol=0.01)


@pytest.mark.parametrize("live", [False, True])
def test_ids_return_after_leaving_the_view_only_with_a_map(live):
    world = World({"chair": placed(0.0), "table": placed(1.0, category="table")})
    video = mapped(world) if live else VideoAligner(world, SHORT)
    first = world.play(video, ways(10, ["chair", "table"]))
    away = world.play(video, [(camera_at(0.0, np.pi), [])] * 60)
    assert away == [{}] * 60 and not video.tracker.tracks  # they ended long ago
    again = world.play(video, ways(10, ["table", "chair"], x=0.2))
    same = all(again[0][name][0] == first[-1][name][0] for name in ("chair", "table"))
    assert same is live
    assert {t.track_id for t in video.tracker.tracks} == {i for i, _ in again[-1].values()}


def test_two_equal_chairs_do_not_swap():
    for order in (["left", "right"], ["right", "left"]):
        world = World({"left": placed(-0.5), "right": placed(0.5)}, seed=3)
        video = mapped(world)
        first = world.play(video, ways(10, ["left", "right"]))[-1]
        world.play(video, [(camera_at(0.0, np.pi), [])] * 30)
        again = world.play(video, ways(3, order[:1]) + ways(5, order))
        for name in order:
            assert again[-1][name][0] == first[name][0]
        assert again[0][order[0]][0] == first[order[0]][0]
        assert len(video.map_mode.objects) == 2


def test_a_bad_first_glimpse_gets_its_id_back_once_it_is_right_and_its_own_ends():
    world = World({"chair": placed(0.0)}, noise_m=0.005)
    video = mapped(world)
    first = world.play(video, ways(10, ["chair"]))[-1]["chair"][0]
    world.play(video, [(camera_at(0.0, np.pi), [])] * 30)
    right = world.objects["chair"]
    world.objects["chair"] = placed(0.75)  # beside the truth, but near enough to be followed to it
    wrong = world.play(video, ways(2, ["chair"]))[-1]["chair"][0]
    world.objects["chair"] = placed(0.35)
    world.play(video, ways(1, ["chair"]))
    world.objects["chair"] = right
    ids = []
    ended = []
    for _ in range(12):
        ids.append(world.play(video, ways(1, ["chair"]))[-1]["chair"][0])
        ended += [t.track_id for t in world.update.ended]
    assert wrong != first and ids[-1] == first and wrong in ended and first not in ended
    assert list(video.map_mode.objects) == [first]


def test_the_cad_model_is_the_one_that_most_sightings_agree_on():
    world = World({"chair": placed(0.0)})
    video = mapped(world)
    world.play(video, ways(8, ["chair"]))
    world.objects["chair"] = dataclasses.replace(placed(0.0), model_id="chair_7")
    assert world.play(video, ways(3, ["chair"]))[-1]["chair"][1].model_id == "chair_0"
    assert video.map_mode.objects[1].model_id == "chair_0"


def test_another_category_in_the_place_is_another_object():
    world = World({"chair": placed(0.0), "bin": placed(0.0, category="bin")})
    video = mapped(world)
    first = world.play(video, ways(5, ["chair"]))[-1]["chair"][0]
    world.play(video, [(camera_at(0.0, np.pi), [])] * 30)
    assert world.play(video, ways(5, ["bin"]))[-1]["bin"][0] != first


def test_what_was_taken_away_leaves_the_map_and_what_is_out_of_view_stays():
    world = World({"chair": placed(0.0)})
    video = mapped(world, forget_s=1.0)
    first = world.play(video, ways(5, ["chair"]))[-1]["chair"][0]
    world.play(video, [(camera_at(0.0, np.pi), [])] * 120)
    assert list(video.map_mode.objects) == [first]
    world.play(video, [(camera_at(0.0), [])] * 60)
    assert not video.map_mode.objects


def test_without_a_fixed_frame_it_is_refused_and_a_gap_is_left_out():
    world = World({"chair": placed(0.0)})
    video = mapped(world)
    with pytest.raises(ValueError, match="map mode needs T_fixed_cam, the camera's pose in a frame"):
        video.align(None, CAMERA, [], 0.0)
    world.play(video, ways(5, ["chair"]))
    world.shown = ("chair",)
    found = video.align(None, CAMERA, world.detections(), 0.2)
    assert len(found.result.objects) == 1 and video.map_mode.images == 5
    with pytest.raises(ValueError, match="no map: map mode is off"):
        VideoAligner(world, SHORT).write_map("x")


def test_the_map_is_written_with_ids_and_reset_forgets_it(tmp_path):
    world = World({"chair": placed(0.0), "glimpse": placed(1.0, category="table")})
    video = mapped(world)
    world.play(video, ways(2, ["chair", "glimpse"]) + ways(6, ["chair"]))
    assert video.write_map(tmp_path / "map.json", fixed_frame="map") == 1
    content = json.loads((tmp_path / "map.json").read_text())
    (entry,) = content["objects"]
    assert entry["id"] == 1 and entry["category"] == "chair" and content["frames"] == 8
    assert content["config"]["fixed_frame"] == "map" and content["config"]["live_map"]["memory"] == 48
    np.testing.assert_allclose(entry["T_m"], (0, 0, 3), atol=0.05)
    assert video.reset() >= 1
    assert not video.map_mode.objects and not video.tracker.tracks


def test_a_track_is_renamed_only_to_an_id_that_is_free():
    tracker = Tracker()
    tracker.update([placed(-1.0), placed(1.0)], 0.0, CAMERA)
    with pytest.raises(ValueError, match=r"track 2 cannot go on as 1; alive are \[1, 2\]"):
        tracker.rename(2, 1)
    with pytest.raises(ValueError, match="track 9 cannot go on"):
        tracker.rename(9, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"memory": 2}, "memory must be at least 4"),
        ({"patience": 0}, "patience at least 1"),
        ({"min_overlap": 0.0}, r"min_overlap must be in \(0, 1\]"),
        ({"moved_m": 0.0}, "moved_m must be positive"),
        ({"forget_s": -1.0}, "forget_s must be positive"),
    ],
)
def test_options_out_of_range_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        LiveMapConfig(**values)
