"""The benchmark from RGB alone: its pictures, its matching by hand, and what its tracks give away."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from builders import furniture

from sparc_core.baselines.roca import RocaConfig, RocaNet
from sparc_core.baselines.single_shot import Estimate
from sparc_core.evaluation import methods
from sparc_core.evaluation.methods import MethodSpec, Setting
from sparc_core.evaluation.pictured_rooms import TRACKS, PicturedRooms, match_boxes
from sparc_core.evaluation.rgb_bench import RgbBenchConfig, RgbBenchRunner
from sparc_core.evaluation.rgb_report import markdown, summarise
from sparc_core.evaluation.synthetic import RoomRenderer
from sparc_core.perception.interfaces import DepthPrediction
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.perception.see import Perception, PerceptionConfig
from sparc_core.pipeline import Aligner
from sparc_core.synth.scenes import SceneConfig
from sparc_core.types import Detection
from sparc_core.weights_file import write_weights

LAYOUT = SceneConfig(objects=3, clutter=1, free_share=0.0, width_px=160, height_px=120)
CONFIG = RgbBenchConfig(images=2, layout=LAYOUT)


@pytest.fixture(scope="module")
def library():
    return furniture()


def rooms_of(library):
    return PicturedRooms(library, LAYOUT, CONFIG.seed, CONFIG.min_visible)


class TrueEyes:
    """Predictors that know the truth of the picture they are shown."""

    def __init__(self, library):
        self.rooms, self.number, self.missed = rooms_of(library), 0, 0

    def detect(self, image_rgb):
        taken = self.rooms.take(self.number)
        np.testing.assert_array_equal(image_rgb, taken.picture.rgb)
        return [Detection(o.box_xyxy, o.category, 0.9) for o in taken.objects][self.missed :]

    def predict(self, image_rgb, camera):
        picture = self.rooms.take(self.number).picture
        return DepthPrediction(picture.depth_m, picture.normal_cam)


def test_the_rooms_are_those_of_the_benchmark_with_walls_all_round(library):
    taken = rooms_of(library).take(1)
    assert taken.picture.rgb.shape == (120, 160, 3) and (taken.picture.depth_m > 0).all()
    plain = RoomRenderer(library, LAYOUT, CONFIG.seed).room(1)
    np.testing.assert_array_equal(taken.room.scene.pose.T.numpy(), plain.scene.pose.T.numpy())
    assert plain.scene.plane_normal.shape[1] == 3 and taken.room.scene.plane_normal.shape[1] == 6
    again = rooms_of(library).take(1)
    np.testing.assert_array_equal(taken.picture.rgb, again.picture.rgb)


def test_predictions_that_are_the_truth_make_perfect_figures(library):
    eyes = TrueEyes(library)
    runner = RgbBenchRunner(CONFIG, Perception(eyes, eyes), Aligner.load(None, library, device="cpu"))
    rooms = []
    for number in range(CONFIG.images):
        eyes.number = number
        rooms.append(json.loads(json.dumps(runner.run(number))))
    summary = summarise(rooms, CONFIG.tracks)
    assert summary["boxes"] == {"box_ap50": 1.0, "box_ap": 1.0}
    assert summary["depth"]["abs_rel"] == 0 and summary["depth"]["normals_11.25"] == 1
    tracks = {track["track"]: track["well_visible"] for track in summary["tracks"]}
    assert list(tracks) == [track.name for track in TRACKS]
    given = tracks["RGB, right model"]
    assert given["right_model"] == given["detected"] == 100
    assert given["accuracy"]["20cm/20deg/20%"] >= 50
    assert "| RGB alone (all) |" in markdown(summary)


class FarSighted(TrueEyes):
    """Sees everything, and a quarter too far away."""

    def predict(self, image_rgb, camera):
        found = super().predict(image_rgb, camera)
        return dataclasses.replace(found, depth_m=1.25 * found.depth_m)


def test_the_height_of_the_camera_is_given_in_its_tracks_alone(library):
    eyes, cameras = FarSighted(library), {}
    aligner = Aligner.load(None, library, device="cpu")
    runner = RgbBenchRunner(CONFIG, Perception(eyes, eyes), aligner)

    def align(image_rgb, camera, detections, depth_m, *more, **named):
        cameras[current].append((camera.above_floor_m, depth_m))
        return Aligner.align(aligner, image_rgb, camera, detections, depth_m, *more, **named)

    aligner.align, run_track = align, runner._run_track

    def watched(track, *more):
        nonlocal current
        current = track
        cameras.setdefault(track, [])
        return run_track(track, *more)

    runner._run_track, current, rooms = watched, None, []
    for number in range(CONFIG.images):
        eyes.number = number
        rooms.append(runner.run(number))
    for track, given in cameras.items():
        for number, (height, depth) in enumerate(given):
            taken = rooms_of(library).take(number)
            floor = taken.picture.normal_cam @ np.array(taken.room.camera.up_cam) > 0.999
            assert floor.any()
            if track.height:
                assert height == pytest.approx(-float(taken.room.scene.plane_offset[0, 0]))
                np.testing.assert_allclose(depth, taken.picture.depth_m, rtol=0.02)
            else:
                assert height is None
    summary = summarise(rooms, CONFIG.tracks)
    assert summary["depth"]["abs_rel"] == pytest.approx(0.25) and summary["depth"]["abs_rel_scaled"] < 1e-6
    assert summary["depth_on_floor"]["abs_rel"] < 0.02
    assert "With the camera's height above the floor depth AbsRel 0.0" in markdown(summary)
    plain = RgbBenchRunner(
        dataclasses.replace(CONFIG, tracks=("RGB alone",)), Perception(eyes, eyes), aligner
    )
    assert summarise([plain.run(number)], ("RGB alone",))["depth_on_floor"] is None


def test_what_was_not_detected_counts_as_wrong(library):
    eyes = TrueEyes(library)
    eyes.missed = 100
    runner = RgbBenchRunner(CONFIG, Perception(eyes, eyes), Aligner.load(None, library, device="cpu"))
    summary = summarise([runner.run(0)], CONFIG.tracks)
    alone, boxes = (next(t["all"] for t in summary["tracks"] if t["track"] == name)
                    for name in ("RGB alone", "RGB, true boxes, right model"))  # fmt: skip
    assert alone["detected"] == 0 and set(alone["accuracy"].values()) == {0.0}
    assert boxes["detected"] == 100 and alone["objects"] == boxes["objects"]
    assert summary["boxes"]["box_ap50"] == 0


def test_doubtful_detections_count_for_average_precision_alone(library):
    eyes, blind = TrueEyes(library), TrueEyes(library)
    blind.missed = 100
    aligner = Aligner.load(None, library, device="cpu")
    runner = RgbBenchRunner(CONFIG, Perception(blind, eyes), aligner, Perception(eyes))
    summary = summarise([runner.run(0)], CONFIG.tracks)
    assert summary["boxes"]["box_ap50"] == 1
    assert summary["tracks"][0]["all"]["detected"] == 0
    shipped = PerceptionConfig("shipped", "shipped", min_score=0.4)
    runner = RgbBenchRunner.load(dataclasses.replace(CONFIG, cad_library="procedural:0-1"), shipped)
    assert (runner.perception.judged_min_score, runner.everything.judged_min_score) == (0.4, 0.05)
    assert runner.everything.detector.min_score < 0.05 and runner.everything.depth is None


class TrueRegions:
    """A baseline's network that knows the true pose of every region, by its box."""

    name = "planned"

    def __init__(self, library):
        self.rooms, self.number = rooms_of(library), 0

    def estimate(self, regions):
        room = self.rooms.take(self.number).room
        nearest = torch.cdist(regions.boxes_xyxy, room.boxes_xyxy.float()).argmin(1)
        return Estimate(room.truth.map(lambda x: x[nearest]), torch.ones(len(nearest), dtype=torch.bool))


def test_a_baseline_takes_the_aligners_place_and_starts_its_refinement(library, tmp_path, monkeypatch):
    true_boxes = "RGB-D, true boxes, right model"
    eyes, planned = TrueEyes(library), TrueRegions(library)
    monkeypatch.setattr(methods.Roca, "load", lambda file, device: planned)
    weights = tmp_path / "roca.safetensors"
    write_weights(weights, {}, {"kind": "RocaConfig"})
    config = dataclasses.replace(CONFIG, tracks=(true_boxes,))
    figures, seen, align = {}, [], Aligner.align
    monkeypatch.setattr(
        Aligner, "align",
        lambda self, *a, starts=None, **n: seen.append(starts) or align(self, *a, starts=starts, **n),
    )  # fmt: skip
    texts = {
        "alone": f"{weights}", "start": f"{weights}+shipped", "beside": f"{weights}+search+shipped",
        "ours": "shipped",
    }  # fmt: skip
    for name, text in texts.items():
        method = MethodSpec.parse(text).load(Setting(library))
        runner = RgbBenchRunner(config, Perception(eyes, eyes), method)
        rooms = []
        for number in range(CONFIG.images):
            eyes.number = planned.number = number
            rooms.append(runner.run(number))
        figures[name] = summarise(rooms, config.tracks)["tracks"][0]
    assert figures["alone"]["all"]["accuracy"]["5/5/5"] == 100
    assert figures["start"]["well_visible"]["accuracy"]["20cm/20deg/20%"] >= 50
    assert all(track["align_ms"] > 0 for track in figures.values())
    count = len(seen) // 3
    assert count == CONFIG.images and seen[-count:] == [None] * count
    assert not any(s.search for starts in seen[:count] for s in starts)
    assert all(s.search for starts in seen[count : 2 * count] for s in starts)


def test_the_methods_that_take_the_aligners_place_choose_models_as_told(library, tmp_path):
    config = RocaConfig(code=16, hidden=16)
    save_predictor(tmp_path / "r.safetensors", RocaNet(config).state_dict(), config)
    for text in ("shipped", f"{tmp_path}/r.safetensors"):
        spec = MethodSpec.parse(text)
        assert spec.load(Setting(library)).retriever is None
        assert spec.load(Setting(library, retrieval="shipped")).retriever is not None
        with pytest.raises(ValueError, match="gone.safetensors: no such file"):
            spec.load(Setting(library, retrieval="gone.safetensors"))


def test_each_object_is_found_once_by_its_best_detection_of_the_category():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    found = [
        Detection((0, 0, 10, 8), "chair", 0.5),
        Detection((0, 0, 10, 10), "chair", 0.9),
        Detection((20, 0, 30, 10), "table", 0.9),  # not a chair
        Detection((40, 0, 50, 4), "chair", 0.9),  # less than half
    ]
    np.testing.assert_array_equal(match_boxes(found, boxes, ["chair"] * 3), [1, -1, -1])
    np.testing.assert_array_equal(match_boxes([], boxes, ["chair"] * 3), [-1, -1, -1])


def test_wrong_options_are_named(library):
    with pytest.raises(ValueError, match="unknown track 'x'"):
        RgbBenchConfig(tracks=("x",))
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        RgbBenchConfig(images=0)
    with pytest.raises(ValueError, match="needs a detector and a depth predictor"):
        RgbBenchRunner(CONFIG, Perception(), Aligner.load(None, library, device="cpu"))
