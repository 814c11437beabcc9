"""One frame from messages to tracked objects, with an aligner that answers what it was asked."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from message_stand_ins import camera_info, detection, detections, image  # noqa: E402

from sparc_core.perception.interfaces import DepthPrediction  # noqa: E402
from sparc_core.perception.see import Perception  # noqa: E402
from sparc_core.pipeline import AlignerConfig  # noqa: E402
from sparc_core.types import AlignedObject, AlignmentResult, Detection, PixelHints, SkippedDetection  # noqa: E402
from sparc_ros.frame import CameraPlace, FrameMessages, FrameProcessor, InputError, Topics  # noqa: E402
from sparc_ros.parameters import NodeParameters  # noqa: E402

TOPICS = Topics("/cam/image", "/cam/info", "/cam/depth", "/dets")
WIDTH, HEIGHT = 64, 48


class EchoAligner:
    """Puts each detection 2 m away; skips boxes without area. Keeps what it was called with."""

    def __init__(self):
        self.cad_library = SimpleNamespace(models=(SimpleNamespace(model_id="chair_1", symmetry="none"),))
        self.config = AlignerConfig()
        self.calls = []

    def align(
        self, image_rgb, camera, found, depth_m, normals_cam=None, *, depth_predicted, hints=None, starts=None
    ):
        self.hints = hints
        self.calls.append((image_rgb, camera, found, depth_m))
        self.normals_cam, self.depth_predicted, self.starts = normals_cam, depth_predicted, starts
        objects, skipped = [], []
        for index, item in enumerate(found):
            if item.box_xyxy[2] <= item.box_xyxy[0]:
                skipped.append(SkippedDetection(index, "the box is empty"))
                continue
            objects.append(
                AlignedObject(
                    index, item.category, "chair_1", item.box_xyxy, np.eye(3), np.array([index, 0.0, 2.0]),
                    np.ones(3), item.score, "azimuth_0",
                )
            )  # fmt: skip
        return AlignmentResult(camera, tuple(objects), tuple(skipped), {"total": 1.5})


def messages(stamp_s=1, **changes):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp_s, nanosec=0), frame_id="optical")
    picture = image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb8")
    picture.header = header
    info = camera_info(width=WIDTH, height=HEIGHT)
    depth = image(np.full((HEIGHT, WIDTH), 2000, np.uint16), "16UC1")
    fields = {
        "image": picture,
        "info": info,
        "depth": depth,
        "detections": detections(detection((5, 5, 20, 30), ("chair", 0.9))),
        "arrived_s": 0.0,
    }
    changed = FrameMessages(**(fields | changes))
    changed.image.header = header
    return changed


@pytest.fixture
def aligner():
    return EchoAligner()


@pytest.fixture
def processor(aligner):
    return FrameProcessor(aligner, TOPICS, NodeParameters())


def test_a_good_frame(processor, aligner):
    place = CameraPlace(np.eye(4), (0.0, -1.0, 0.0), above_floor_m=1.2)
    result = processor.process(messages(), place)
    (image_rgb, camera, found, depth_m) = aligner.calls[0]
    assert image_rgb.shape == (HEIGHT, WIDTH, 3) and camera.up_cam == (0, -1, 0)
    assert camera.above_floor_m == 1.2
    assert found[0].category == "chair" and (depth_m == 2.0).all()
    assert result.header.frame_id == "optical" and result.track_ids == (1,)
    assert result.timing_ms["align/total"] == 1.5 and {"decode", "align", "track"} <= set(result.timing_ms)
    assert result.warnings == ()


def test_detection_numbers_are_those_of_the_message(processor):
    dets = detections(
        detection((5, 5, 20, 30), ("person", 0.9)),
        detection((5, 5, 5, 30), ("chair", 0.8)),
        detection((30, 5, 50, 30), ("chair", 0.7)),
    )
    result = processor.process(messages(detections=dets), CameraPlace())
    assert [obj.detection for obj in result.objects] == [2]
    texts = {warning.kind: warning.text for warning in result.warnings}
    assert "/dets" in texts["detections"] and "1 (the box is empty)" in texts["detections"]
    assert "'person'" in texts["category"]


def test_the_aligner_is_told_when_the_depth_is_a_guess(aligner):
    for guess in (False, True):
        FrameProcessor(aligner, TOPICS, NodeParameters(depth_predicted=guess)).process(
            messages(), CameraPlace()
        )
        assert aligner.depth_predicted is guess


class Eyes:
    """A detector that finds a table and two chairs, and a depth predictor that sees a wall."""

    looked = 0

    def detect(self, image_rgb):
        self.looked += 1
        return [Detection((5, 5, 20, 30), "table", 0.9), Detection((30, 5, 50, 30), "chair", 0.8),
                Detection((1, 1, 9, 9), "chair", 0.45)]  # fmt: skip

    def predict(self, image_rgb, camera):
        self.looked += 1
        shape = image_rgb.shape[:2]
        normals = np.tile(np.float32([0, 0, -1]), (*shape, 1))
        ones = np.ones(shape, np.float32)
        return DepthPrediction(3 * ones, normals, hints=PixelHints(ones, 0.1 * ones))


def test_the_nodes_own_predictors_take_the_place_of_messages(aligner):
    eyes = Eyes()
    values = NodeParameters(detections_source="detector", categories=("chair",), min_detection_score=0.5)
    processor = FrameProcessor(aligner, TOPICS, values, perception=Perception(eyes, eyes))
    result = processor.process(messages(detections=None, depth=None), CameraPlace())
    assert [(obj.detection, obj.category) for obj in result.objects] == [(1, "chair")]
    assert (aligner.calls[0][3] == 3.0).all() and aligner.depth_predicted
    assert (aligner.normals_cam[..., 2] == -1).all() and (aligner.hints.object_share == 1).all()
    assert {"see", "see/detector", "see/depth"} <= set(result.timing_ms)
    processor.process(messages(detections=None), CameraPlace())  # with a sensor's depth
    assert (aligner.calls[1][3] == 2.0).all() and not aligner.depth_predicted and aligner.hints is None


def test_depth_is_predicted_for_detections_from_outside_and_only_where_there_are_any(aligner):
    eyes = Eyes()
    processor = FrameProcessor(aligner, TOPICS, NodeParameters(), perception=Perception(depth=eyes))
    processor.process(messages(depth=None), CameraPlace())
    assert (aligner.calls[0][3] == 3.0).all() and aligner.depth_predicted and eyes.looked == 1
    processor.process(messages(depth=None, detections=detections()), CameraPlace())
    assert eyes.looked == 1


def test_no_detections_give_no_objects_and_do_not_run_the_network(processor, aligner):
    result = processor.process(messages(detections=detections()), CameraPlace())
    assert result.objects == () and result.track_ids == () and not aligner.calls


def test_hundreds_of_detections_are_capped_with_a_warning_that_names_the_parameter(processor, aligner):
    dets = detections(*(detection((5, 5, 20, 30), ("chair", 0.5)) for _ in range(300)))
    result = processor.process(messages(detections=dets), CameraPlace())
    assert len(aligner.calls[0][2]) == 50
    (warning,) = [w for w in result.warnings if w.kind == "capped"]
    assert "250 detections on /dets" in warning.text and "max_detections" in warning.text


def test_weak_objects_are_not_published(processor):
    dets = detections(*(detection((x, 5, x + 9, 30), ("chair", x / 100)) for x in (10, 40)))
    processor.configure(NodeParameters(min_score=0.3))
    result = processor.process(messages(detections=dets), CameraPlace())
    assert [obj.detection for obj in result.objects] == [1] and result.track_ids == (2,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "nv21")}, "/cam/image.*nv21"),
        ({"info": camera_info(width=WIDTH, height=HEIGHT, k=[0.0] * 9)}, "/cam/info.*not calibrated"),
        ({"info": camera_info(width=320, height=240)}, "/cam/info.*320x240.*/cam/image.*64x48"),
        ({"depth": image(np.zeros((24, 32), np.uint16), "16UC1")}, "/cam/depth has 32x24.*64x48.*aligned"),
        ({"depth": image(np.zeros((HEIGHT, WIDTH), np.uint8), "mono8")}, "/cam/depth.*mono8"),
    ],
)
def test_bad_inputs_name_their_topic(processor, changes, words):
    with pytest.raises(InputError, match=words):
        processor.process(messages(**changes), CameraPlace())


def test_depth_without_a_value_is_told_and_used_as_none(processor):
    nothing = image(np.full((HEIGHT, WIDTH), np.nan, np.float32), "32FC1")
    result = processor.process(messages(depth=nothing), CameraPlace())
    assert len(result.objects) == 1
    assert [warning.kind for warning in result.warnings] == ["depth"]


def test_missing_place_is_told(processor):
    result = processor.process(messages(), CameraPlace(problem="no transform"))
    assert [(w.kind, w.text) for w in result.warnings] == [("place", "no transform")]
    result = processor.process(messages(), CameraPlace(floor_problem="no transform to the floor"))
    assert [(w.kind, w.text) for w in result.warnings] == [("floor", "no transform to the floor")]


def test_an_unknown_camera_motion_is_told_once(processor):
    place = CameraPlace(motion_problem="the camera is taken not to move: no transform")
    (warning,) = processor.process(messages(), place).warnings
    assert (warning.kind, warning.once) == ("motion", True) and "no transform" in warning.text


def test_a_track_starts_from_its_pose_unless_every_image_is_searched(aligner):
    for video_mode, explained in ((True, True), (False, False)):
        processor = FrameProcessor(aligner, TOPICS, NodeParameters(video_mode=video_mode))
        processor.process(messages(stamp_s=1, depth=None), CameraPlace())
        again = messages(stamp_s=1, depth=None)
        again.image.header.stamp.nanosec = 100_000_000
        processor.process(again, CameraPlace())
        assert bool(aligner.starts and aligner.starts[0]) is explained


def test_what_scores_too_low_is_tracked_all_the_same(aligner):
    processor = FrameProcessor(aligner, TOPICS, NodeParameters(min_score=0.95))
    result = processor.process(messages(), CameraPlace())
    assert result.objects == () and result.track_ids == () and len(result.update.tracks) == 1


def test_stamps_that_jump_back_are_told(processor):
    processor.process(messages(stamp_s=100), CameraPlace())
    result = processor.process(messages(stamp_s=1), CameraPlace())
    assert [warning.kind for warning in result.warnings] == ["time"] and result.track_ids == (2,)


def test_detections_from_a_file(aligner):
    processor = FrameProcessor(
        aligner, TOPICS, NodeParameters(), file_detections=(Detection((5, 5, 20, 30), "chair"),)
    )
    result = processor.process(messages(detections=None, depth=None), CameraPlace())
    assert [obj.detection for obj in result.objects] == [0]
    assert aligner.calls[0][3] is None


def test_map_mode_waits_for_the_fixed_frame_and_saves_what_it_saw(aligner, tmp_path):
    file = tmp_path / "map.json"
    values = NodeParameters(map_mode=True, map_file=str(file))
    processor = FrameProcessor(aligner, TOPICS, values)
    with pytest.raises(InputError, match=r"where the camera is in fixed_frame \('map'\): no transform"):
        processor.process(messages(), CameraPlace(motion_problem="no transform"))
    T = np.eye(4)
    T[:3, 3] = (5, 0, 0)
    for stamp_s in range(1, 5):
        result = processor.process(messages(stamp_s), CameraPlace(T_fixed_cam=T))
    assert processor.save_map() == f"1 objects in {file}"
    content = json.loads(file.read_text())
    assert content["objects"][0]["T_m"] == pytest.approx([5, 0, 2])
    assert content["objects"][0]["id"] == result.track_ids[0]
    assert content["config"]["fixed_frame"] == "map"
    assert processor.reset_tracks() == 1 and "0 objects in" in processor.save_map()


def test_a_map_that_cannot_be_saved_is_told(aligner):
    off = FrameProcessor(aligner, TOPICS, NodeParameters(map_file="map.json"))
    with pytest.raises(ValueError, match="map_mode is false"):
        off.save_map()
    nowhere = FrameProcessor(aligner, TOPICS, NodeParameters(map_mode=True))
    with pytest.raises(ValueError, match="parameter map_file: must name a file"):
        nowhere.save_map()
    with pytest.raises(ValueError, match="parameter fixed_frame: must name a frame when map_mode is on"):
        NodeParameters(map_mode=True, fixed_frame="", up_source="none")
