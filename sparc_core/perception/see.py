"""From an image to what the aligner needs: detections with masks, depth and normals, by the predictors that
were chosen. What a sensor or the caller brings is kept."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparc_core.geometry.floor import (
    FLOATING,
    floor_factor,
    level_below_m,
    standing_factors,
    told_height_m,
)
from sparc_core.perception.box_predictor import BoxPredictor
from sparc_core.perception.interfaces import DepthNormals, DepthPrediction, Detector, Estimates, Masker
from sparc_core.perception.judgement import UNSAID
from sparc_core.perception.rectify import rectifier_for
from sparc_core.types import Camera, Detection, PixelHints

SHIPPED = "shipped"  # the name of the weights that come with the package
WEIGHTS = Path(__file__).parents[1] / "weights"
MIN_SHARED_PIXELS = 200  # of sensor and prediction, to bring the prediction to the sensor's scale


@dataclass(frozen=True)
class PerceptionConfig:
    """Which predictors. detector: "shipped", a file of our weights (.safetensors), "coco:FILE" for
    torchvision's Mask R-CNN, "hf:NAME" for a model of transformers (a folder, or a name on the Hub), or ""
    for none. depth: "shipped", a file of our weights, "hf:NAME", or "". masks: "sam:FILE" for
    segment-anything, or "": the detector's own, or cut from the depth. min_score: of detections. fill_holes:
    predict the depth that a sensor leaves out. download: fetch models from the Hub. estimates: "shipped", a
    file of our weights, or "": where the objects are and which way they are turned, where our own network
    predicts the depth; our own detector's scores are weighed with what it makes of the categories, and its
    boxes corrected."""

    detector: str = ""
    depth: str = ""
    masks: str = ""
    min_score: float = 0.4
    fill_holes: bool = False
    download: bool = False
    estimates: str = SHIPPED

    def __post_init__(self):
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"perception min_score must be in [0, 1], got {self.min_score}")
        if self.masks and not self.masks.startswith("sam:"):
            raise ValueError(f"perception masks must be 'sam:FILE' or empty, got {self.masks!r}")
        if self.fill_holes and not self.depth:
            raise ValueError("perception fill_holes needs a depth predictor")

    @property
    def judges(self) -> bool:
        """Whether detections are judged by their category."""
        return bool(self.estimates) and _is_own(self.detector)


def _is_own(name: str) -> bool:
    """Whether a predictor is a network of ours."""
    return bool(name) and not name.startswith(("hf:", "coco:"))


@dataclass(frozen=True, eq=False)
class Seen:
    """What the aligner is given. depth_m (H, W) float32 or None; normals_cam (H, W, 3) float32 or None: from
    the depth; depth_predicted: nothing of the depth was measured. ran: which predictors did what; timing_ms
    of each. hints: of a depth network that gives them."""

    detections: tuple[Detection, ...]
    depth_m: np.ndarray | None
    normals_cam: np.ndarray | None
    depth_predicted: bool
    ran: dict[str, str] = field(default_factory=dict)
    timing_ms: dict[str, float] = field(default_factory=dict)
    hints: PixelHints | None = None


class Perception:
    """Runs the predictors on one image after another."""

    def __init__(
        self,
        detector: Detector | None = None,
        depth: DepthNormals | None = None,
        masker: Masker | None = None,
        fill_holes: bool = False,
        estimates: Estimates | None = None,
        judged_min_score: float | None = None,
    ):
        """judged_min_score: weigh the detector's scores with what `estimates` makes of the categories, and
        leave out what is below."""
        self.detector, self.depth, self.masker, self.fill_holes = detector, depth, masker, fill_holes
        self.estimates, self.judged_min_score = estimates, judged_min_score

    @classmethod
    def load(cls, config: PerceptionConfig, device="cpu") -> Perception:
        """The predictors of a configuration. Raises ValueError naming what cannot be loaded."""
        return cls(
            _load_detector(config, device),
            _load_depth(config, device),
            _load_masker(config, device),
            config.fill_holes,
            _load_estimates(config, device),
            config.min_score if config.judges else None,
        )

    def see(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection] | None = None,
        depth_m: np.ndarray | None = None,
    ) -> Seen:
        """Everything about one image; all arguments and results belong to its raw pixels.

        detections: from outside; None: the detector finds them. depth_m: of a sensor, 0 or NaN unknown; None:
        predicted, where there is a predictor. Raises ValueError without detections and without a detector.
        """
        ran, timing = {}, {}

        def timed(stage: str, function, *args):
            began = time.perf_counter()
            result = function(*args)
            timing[stage] = (time.perf_counter() - began) * 1e3
            return result

        if detections is None:
            if self.detector is None:
                raise ValueError("no detections were given, and there is no detector")
            detections = timed("detector", self.detector.detect, image_rgb)
            ran["detector"] = type(self.detector).__name__
            if self.judged_min_score is not None and len(detections):
                detections = timed(
                    "estimates", self.estimates.look, image_rgb, camera, detections, self.judged_min_score
                )
                ran["estimates"] = type(self.estimates).__name__
        predicted = depth_m is None and self.depth is not None
        if self.estimates is not None and predicted and len(detections) and "estimates" not in ran:
            detections = timed("estimates", self.estimates.look, image_rgb, camera, detections)
            ran["estimates"] = type(self.estimates).__name__
        depth, normals, hints = depth_m, None, None
        source = "sensor" if depth_m is not None else "none"
        if self.depth is not None and (depth_m is None or self.fill_holes):
            guess, scaled = timed("depth", self._predict_depth, image_rgb, camera, detections)
            name, hints = type(self.depth).__name__, guess.hints
            if depth_m is None:
                depth, normals, source = guess.depth_m, guess.normals_cam, name + scaled
            else:
                depth, filled = fill_holes(depth_m, guess.depth_m)
                source = (
                    f"sensor, holes by {name}" if filled else "sensor, too little of it to fill its holes"
                )
        ran["depth"] = source
        if self.masker is not None:
            detections = timed("masks", self._cut_out, image_rgb, detections)
            ran["masks"] = type(self.masker).__name__
        else:
            ran["masks"] = _masks_without_masker(detections, depth is not None)
        if predicted and camera.above_floor_m is not None:
            detections = estimates_on_floor(detections, camera)
        return Seen(tuple(detections), depth, normals, predicted, ran, timing, hints)

    def _predict_depth(
        self, image_rgb: np.ndarray, camera: Camera, detections: Sequence[Detection]
    ) -> tuple[DepthPrediction, str]:
        """Predictors know pinhole cameras: they see the rectified image. What they say is of raw pixels. And
        to what scale it was brought, in words: that of the floor, where the camera's height above it is known
        or detections with estimates tell it."""
        rectifier = rectifier_for(camera)
        found = self.depth.predict(rectifier.image(image_rgb), rectifier.camera)
        raw, hints, factor, scaled = rectifier.raw_values, found.hints, None, ""
        if camera.up_cam is not None:
            below = level_below_m(found.depth_m, found.normals_cam, rectifier.camera)
            told = told_height_m(*_estimated(detections), camera)
            factor = floor_factor(below, camera.above_floor_m, told)
        if factor is not None:
            scaled = (
                ", scaled to the floor" if camera.above_floor_m is not None else ", scaled to the objects"
            )
        if hints is not None:
            hints = PixelHints.unstacked(raw(hints.stacked()))
        depth = found.depth_m if factor is None else np.float32(factor) * found.depth_m
        return DepthPrediction(raw(depth), raw(found.normals_cam), hints=hints), scaled

    def _cut_out(self, image_rgb: np.ndarray, detections: Sequence[Detection]) -> list[Detection]:
        boxes = np.array([d.box_xyxy for d in detections], dtype=np.float32).reshape(-1, 4)
        masks = self.masker.masks(image_rgb, boxes)
        return [dataclasses.replace(d, mask=m > 0.5) for d, m in zip(detections, masks, strict=True)]


def _masks_without_masker(detections: Sequence[Detection], has_depth: bool) -> str:
    """Where the masks come from, in words."""
    own = sum(d.mask is not None for d in detections)
    other = "cut from the depth" if has_depth else "none"
    if own == len(detections) and own:
        return "those of the detections"
    return f"{own} of {len(detections)} those of the detections, else {other}" if own else other


def estimates_on_floor(detections: Sequence[Detection], camera: Camera) -> list[Detection]:
    """Detections whose estimates stand on the floor, the camera's height being known (`standing_factors`)."""
    factor = iter(standing_factors(*_estimated(detections), camera))
    return [d if d.estimate is None else _scaled(d, next(factor)) for d in detections]


def _estimated(detections: Sequence[Detection]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 3) centres and (N,) heights of the N detections with estimates, and (N,) which of them stand."""
    known = [d for d in detections if d.estimate is not None]
    T, S = (np.array([getattr(d.estimate, n) for d in known]).reshape(-1, 3) for n in ("T_m", "S_m"))
    return T, S[:, 1], np.array([d.category not in FLOATING for d in known], dtype=bool)


def _scaled(detection: Detection, factor: float) -> Detection:
    T_m, S_m = (
        tuple(factor * v for v in vector) for vector in (detection.estimate.T_m, detection.estimate.S_m)
    )
    return dataclasses.replace(detection, estimate=dataclasses.replace(detection.estimate, T_m=T_m, S_m=S_m))


def fill_holes(sensor_m: np.ndarray, predicted_m: np.ndarray) -> tuple[np.ndarray, bool]:
    """(H, W) the sensor's depth, and where it has none the prediction, brought to the sensor's scale; and
    whether that could be done.

    The factor is the median ratio of the pixels that both have; with fewer than `MIN_SHARED_PIXELS` of them
    the holes stay.
    """
    sensor = np.nan_to_num(sensor_m, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    shared = (sensor > 0) & (predicted_m > 0)
    if shared.sum() < MIN_SHARED_PIXELS:
        return sensor, False
    factor = np.median(sensor[shared] / predicted_m[shared])
    return np.where(sensor > 0, sensor, factor * predicted_m).astype(np.float32), True


def _load_detector(config: PerceptionConfig, device):
    name = config.detector
    if not name:
        return None
    if name.startswith("hf:"):
        from sparc_core.perception.hf_detector import detector_of

        return detector_of(name.removeprefix("hf:"), device, config.min_score, download=config.download)
    from sparc_core.perception.mask_rcnn import MaskRcnnDetector

    if name.startswith("coco:"):
        return MaskRcnnDetector.load_coco(Path(name.removeprefix("coco:")), device, config.min_score)
    path = WEIGHTS / "detector.safetensors" if name == SHIPPED else Path(name)
    lowest = UNSAID if config.judges else config.min_score  # a box is judged by its scores in all categories
    return MaskRcnnDetector.load(path, device, lowest)


def _load_depth(config: PerceptionConfig, device):
    name = config.depth
    if not name:
        return None
    if name.startswith("hf:"):
        from sparc_core.perception.hf_depth import HuggingFaceDepth

        return HuggingFaceDepth.load(name.removeprefix("hf:"), device, download=config.download)
    from sparc_core.perception.depth_net import OurDepthNormals

    path = WEIGHTS / "depth.safetensors" if name == SHIPPED else Path(name)
    return OurDepthNormals.load(path, device)


def _load_estimates(config: PerceptionConfig, device):
    if not config.estimates or not (_is_own(config.depth) or _is_own(config.detector)):
        return None
    name = config.estimates
    return BoxPredictor.load(WEIGHTS / "boxes.safetensors" if name == SHIPPED else Path(name), device)


def _load_masker(config: PerceptionConfig, device):
    if not config.masks:
        return None
    from sparc_core.perception.sam_masks import SamMasker

    return SamMasker.load(Path(config.masks.removeprefix("sam:")), device)
