"""Perception as a whole: who sees what, what is kept of what was given, and how it is told."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import box_estimate

from sparc_core.perception.depth_net import DepthNet, DepthNetConfig, OurDepthNormals
from sparc_core.perception.interfaces import DepthPrediction
from sparc_core.perception.mask_rcnn import MaskRcnnConfig, MaskRcnnDetector, build_mask_rcnn
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.perception.rectify import rectifier_for
from sparc_core.perception.see import Perception, PerceptionConfig
from sparc_core.types import Camera, Detection, PixelHints

CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
BOX = Detection((5.0, 6.0, 30.0, 40.0), "bed", 0.9)


class FixedDetector:
    def detect(self, image_rgb):
        assert image_rgb is IMAGE
        return [BOX]


class PlaneDepth:
    """A wall 2 m away, and where the camera's pixels lie: normals tell the column."""

    def predict(self, image_rgb, camera):
        self.image, self.camera = image_rgb, camera
        height, width = image_rgb.shape[:2]
        column = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
        normals = np.stack((column, 0 * column, -np.ones_like(column)), -1)
        depth = np.full((height, width), 2.0, np.float32)
        hints = PixelHints(column / width, depth / 10)
        return DepthPrediction(depth, normals, hints=hints)


class HalfMasker:
    def masks(self, image_rgb, boxes_xyxy):
        self.boxes = boxes_xyxy
        found = np.zeros((len(boxes_xyxy), *image_rgb.shape[:2]), np.float32)
        found[:, :, :32] = 0.8
        return found


def test_everything_predicted():
    depth, masker = PlaneDepth(), HalfMasker()
    seen = Perception(FixedDetector(), depth, masker).see(IMAGE, CAMERA)
    (found,) = seen.detections
    assert found.box_xyxy == BOX.box_xyxy and found.mask[:, :32].all() and not found.mask[:, 32:].any()
    np.testing.assert_array_equal(masker.boxes, [BOX.box_xyxy])
    assert (seen.depth_m == 2).all() and seen.depth_predicted and seen.normals_cam[0, 7, 0] == 7
    assert seen.hints.object_share[3, 7] == pytest.approx(7 / 64)
    assert (seen.hints.depth_sigma_log == pytest.approx(0.2)) and seen.hints.stacked().shape == (48, 64, 2)
    assert seen.ran == {"detector": "FixedDetector", "depth": "PlaneDepth", "masks": "HalfMasker"}
    assert set(seen.timing_ms) == {"detector", "depth", "masks"} and min(seen.timing_ms.values()) >= 0


QUARTER_TURN = box_estimate((0, 1, -1, 0, 1, 0))


class QuarterTurns:
    """Every object is turned by a quarter."""

    def look(self, image_rgb, camera, detections, judged_min_score=None):
        self.image, self.judged_min_score = image_rgb, judged_min_score
        return [dataclasses.replace(d, estimate=QUARTER_TURN) for d in detections]


def test_estimates_are_told_where_depth_is_predicted():
    estimates = QuarterTurns()
    everything = Perception(FixedDetector(), PlaneDepth(), estimates=estimates)
    seen = everything.see(IMAGE, CAMERA)
    assert [d.estimate for d in seen.detections] == [QUARTER_TURN] and estimates.image is IMAGE
    assert seen.ran["estimates"] == "QuarterTurns" and seen.timing_ms["estimates"] >= 0
    sensor = np.full((48, 64), 3.0, np.float32)
    for found in (
        everything.see(IMAGE, CAMERA, depth_m=sensor), everything.see(IMAGE, CAMERA, []),
        Perception(FixedDetector(), estimates=estimates).see(IMAGE, CAMERA),
    ):  # fmt: skip
        assert all(d.estimate is None for d in found.detections) and "estimates" not in found.ran
    assert Perception.load(PerceptionConfig(depth="shipped")).estimates is not None
    for config in (PerceptionConfig(), PerceptionConfig(depth="shipped", estimates="")):
        assert Perception.load(config).estimates is None


def test_the_detectors_scores_are_judged_where_that_is_asked_for():
    class Several:
        def detect(self, image_rgb):
            boxes = [(5.0, 6.0, 30.0, 40.0), (1.0, 1.0, 20.0, 20.0), (30.0, 6.0, 60.0, 40.0)]
            scores, names = (0.9, 0.7, 0.6), ("sofa", "sofa", "bed")
            return [Detection(*found) for found in zip(boxes, names, scores, strict=True)]

    judge = QuarterTurns()
    seen = Perception(Several(), estimates=judge, judged_min_score=0.4).see(IMAGE, CAMERA)
    assert judge.judged_min_score == 0.4 and len(seen.detections) == 3
    assert seen.ran["estimates"] == "QuarterTurns" and all(d.estimate for d in seen.detections)
    given = Perception(estimates=QuarterTurns(), judged_min_score=0.4).see(IMAGE, CAMERA, [BOX])
    assert given.detections == (BOX,)  # scores from outside are left alone
    own = PerceptionConfig("shipped", min_score=0.4)
    assert own.judges and not PerceptionConfig("shipped", estimates="").judges
    assert not PerceptionConfig("coco:x.pth").judges and not PerceptionConfig(depth="shipped").judges
    perception = Perception.load(own)
    assert perception.judged_min_score == 0.4
    assert perception.detector.min_score == 0.01  # a box is judged by all its scores
    plain = Perception.load(dataclasses.replace(own, estimates=""))
    assert plain.judged_min_score is None and plain.detector.min_score == 0.4


def test_what_is_given_is_kept():
    sensor = np.full((48, 64), 3.0, np.float32)
    depth = PlaneDepth()
    seen = Perception(FixedDetector(), depth).see(IMAGE, CAMERA, [], sensor)
    assert seen.detections == () and seen.depth_m is sensor and not seen.depth_predicted
    assert seen.normals_cam is None and not hasattr(depth, "camera")  # not asked
    assert seen.ran == {"depth": "sensor", "masks": "cut from the depth"}
    masked = dataclasses.replace(BOX, mask=np.ones((48, 64), bool))
    ran = Perception().see(IMAGE, CAMERA, [masked]).ran
    assert ran == {"depth": "none", "masks": "those of the detections"}
    with pytest.raises(ValueError, match="no detections were given, and there is no detector"):
        Perception().see(IMAGE, CAMERA)


def test_holes_are_filled_at_the_sensors_scale():
    sensor = np.full((48, 64), 3.0, np.float32)
    sensor[:10], sensor[10] = 0, np.nan
    seen = Perception(FixedDetector(), PlaneDepth(), fill_holes=True).see(IMAGE, CAMERA, None, sensor)
    np.testing.assert_allclose(seen.depth_m, 3.0)
    assert not seen.depth_predicted and seen.normals_cam is None
    assert seen.ran["depth"] == "sensor, holes by PlaneDepth"
    few = np.zeros((48, 64), np.float32)
    few[0, :50] = 3.0
    seen = Perception(FixedDetector(), PlaneDepth(), fill_holes=True).see(IMAGE, CAMERA, None, few)
    np.testing.assert_array_equal(seen.depth_m, few)
    assert seen.ran["depth"] == "sensor, too little of it to fill its holes"


def test_it_is_said_where_each_mask_comes_from():
    masked = dataclasses.replace(BOX, mask=np.ones((48, 64), dtype=bool))
    for depth_m, found, said in (
        (None, [BOX], "none"),
        (np.ones((48, 64), np.float32), [BOX], "cut from the depth"),
        (None, [masked, masked], "those of the detections"),
        (
            np.ones((48, 64), np.float32),
            [masked, BOX],
            "1 of 2 those of the detections, else cut from the depth",
        ),
    ):
        assert Perception().see(IMAGE, CAMERA, found, depth_m).ran["masks"] == said


def test_predictors_of_depth_see_the_rectified_image_and_answer_for_the_raw_one():
    lens = dataclasses.replace(CAMERA, distortion=(-0.3, 0.1, 0, 0, 0), distortion_model="plumb_bob")
    depth = PlaneDepth()
    seen = Perception(FixedDetector(), depth).see(IMAGE, lens)
    pinhole = rectifier_for(lens).camera
    assert depth.camera == pinhole
    np.testing.assert_array_equal(depth.image, rectifier_for(lens).image(IMAGE))
    for v, u in ((24, 32), (10, 50), (40, 12)):
        expected = rectifier_for(lens).points(np.array([[u, v]], float))[0, 0]
        assert abs(seen.normals_cam[v, u, 0] - expected) < 0.51
        assert abs(seen.hints.object_share[v, u] * 64 - expected) < 0.51
    assert abs(rectifier_for(lens).points(np.array([[60.0, 24.0]]))[0, 0] - 60) > 1  # it does bend


def test_our_own_predictors_are_loaded_and_work_together(tmp_path):
    torch.manual_seed(0)
    small = MaskRcnnConfig(short_px=48, long_px=64, channels=8, box_features=16, mask_channels=8)
    save_predictor(tmp_path / "detector.safetensors", build_mask_rcnn(small).state_dict(), small, half=True)
    net = DepthNetConfig(64, 48, (8, 8, 8))
    save_predictor(tmp_path / "depth.safetensors", DepthNet(net).state_dict(), net, half=True)
    files = (str(tmp_path / f"{name}.safetensors") for name in ("detector", "depth"))
    perception = Perception.load(PerceptionConfig(*files, min_score=0.0))
    assert isinstance(perception.detector, MaskRcnnDetector) and isinstance(perception.depth, OurDepthNormals)
    for shape in ((48, 64), (200, 90)):
        image = np.zeros((*shape, 3), np.uint8)
        seen = perception.see(image, Camera(shape[1], shape[0], 60.0, 60.0, shape[1] / 2, shape[0] / 2))
        assert seen.depth_m.shape == shape and seen.depth_predicted
        assert all(d.mask.shape == shape for d in seen.detections)
    assert Perception.load(PerceptionConfig()).detector is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_score": 1.5}, "min_score must be in"), ({"masks": "m.pth"}, "masks must be 'sam:FILE'"),
        ({"fill_holes": True}, "fill_holes needs a depth predictor"),
    ],
)  # fmt: skip
def test_wrong_configurations_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PerceptionConfig(**arguments)


@pytest.mark.parametrize("name", ["coco:gone.pth", "gone.safetensors"])
def test_detectors_that_are_not_there_are_named(name):
    with pytest.raises(ValueError, match=r"gone\..*: no such file"):
        Perception.load(PerceptionConfig(detector=name))
