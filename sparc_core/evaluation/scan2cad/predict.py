"""Predictions for a prepared tree: of our aligner from ROCA's detections, or ROCA's own.

In: `PreparedScannet` and `per_frame_preds.json`. Out: `FramePrediction`s, poses of CAD files in the camera
frame.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparc_core.cad.library import CadLibrary
from sparc_core.datasets.poses import CadPose
from sparc_core.datasets.prepared import PreparedFrame, PreparedScannet, decode_mask
from sparc_core.datasets.roca import RocaPrediction
from sparc_core.datasets.scannet import HEIGHT, WIDTH
from sparc_core.datasets.shapenet import load_library
from sparc_core.evaluation.scan2cad.predictions import FramePrediction
from sparc_core.perception.see import Perception, PerceptionConfig
from sparc_core.pipeline import SHIPPED_HINTED, SHIPPED_WEIGHTS, Aligner, AlignerConfig
from sparc_core.types import AlignedObject, Detection

Detections = dict[tuple[str, str], tuple[RocaPrediction, ...]]
UP_SCAN = np.array([0.0, 0.0, 1.0])  # ScanNet's scans stand on their floor


@dataclass(frozen=True)
class PredictConfig:
    """detections: ROCA's file. weights: of the alignment network, None for the shipped ones. depth: "none",
    "sensor" (ScanNet's own: no longer a method for single RGB images), or a predictor as in
    `PerceptionConfig`. masks: "detections" (as the file has them), "none", or "sam:FILE". gravity: tell the
    aligner which way is up, from the camera's pose. min_detection_score: of detections that are aligned.
    """

    detections: Path
    weights: Path | None = None
    depth: str = "none"
    masks: str = "detections"
    gravity: bool = False
    min_detection_score: float = 0.5
    download: bool = False
    aligner: AlignerConfig = field(default_factory=lambda: AlignerConfig(initial_scale="category"))

    def __post_init__(self):
        if not 0 <= self.min_detection_score <= 1:
            raise ValueError(f"min_detection_score must be in [0, 1], got {self.min_detection_score}")
        if self.masks not in ("detections", "none") and not self.masks.startswith("sam:"):
            raise ValueError(f"masks must be 'detections', 'none' or 'sam:FILE', got {self.masks!r}")

    def perception(self) -> PerceptionConfig:
        """The predictors that are wanted beside the detections."""
        return PerceptionConfig(
            depth="" if self.depth in ("none", "sensor") else self.depth,
            masks=self.masks if self.masks.startswith("sam:") else "",
            download=self.download,
        )

    def settings(self, dataset: PreparedScannet) -> dict:
        """Everything the predictions depend on, files by their content."""
        return {
            "method": "sparc",
            "dataset": dataset.sources,
            "scenes": len(dataset.scenes),
            "detections": file_digest(self.detections),
            "weights": file_digest(self.weights or SHIPPED_WEIGHTS),
            "hinted": None if self.weights else file_digest(SHIPPED_HINTED),
            "depth": predictor_identity(self.depth),
            "masks": predictor_identity(self.masks),
            "gravity": self.gravity,
            "min_detection_score": self.min_detection_score,
            "aligner": dataclasses.asdict(self.aligner),
        }


class FramePredictor:
    """Runs the aligner over prepared frames. Loads the network and the CAD models once.

    skipped: CAD files that could not be read, as (path, reason).
    """

    def __init__(
        self, dataset: PreparedScannet, detections: Detections, config: PredictConfig, device="auto"
    ):
        if config.depth == "sensor" and not dataset.has_depth:
            raise ValueError(f"depth is 'sensor', but {dataset.folder} was prepared without depth images")
        self.dataset, self.detections, self.config = dataset, detections, config
        library = self._library()
        self.skipped = library.skipped
        self.aligner = Aligner.load(config.weights, library, device=device, config=config.aligner)
        self.perception = Perception.load(config.perception(), self.aligner.device)

    def predict_scene(self, scene: str) -> list[FramePrediction]:
        """The predictions of all frames of a scene."""
        return [p for frame in self.dataset.frames(scene) for p in self.predict_frame(frame)]

    def predict_frame(self, frame: PreparedFrame) -> list[FramePrediction]:
        """One prediction for every detection that scores enough; without a pose where it was skipped."""
        found = wanted(self.detections, frame, self.config.min_detection_score)
        if not found:
            return []
        camera, detections = frame.camera, [self._detection(d) for d in found]
        if self.config.gravity:
            camera = dataclasses.replace(camera, up_cam=tuple(frame.T_scan_cam[:3, :3].T @ UP_SCAN))
        sensor = self.dataset.depth_m(frame) if self.config.depth == "sensor" else None
        image = self.dataset.image(frame)
        seen = self.perception.see(image, camera, detections, sensor)
        result = self.aligner.align(
            image, camera, seen.detections, seen.depth_m, seen.normals_cam,
            depth_predicted=seen.depth_predicted, hints=seen.hints,
        )  # fmt: skip
        aligned = {item.detection: item for item in result.objects}
        return [self._prediction(frame, d, aligned.get(i)) for i, d in enumerate(found)]

    def _detection(self, found: RocaPrediction) -> Detection:
        use_mask = self.config.masks == "detections" and found.segmentation is not None
        return Detection(
            _inside(found.box_xyxy), found.category, found.score,
            model_id=None if found.cad is None else "_".join(found.cad),
            mask=decode_mask(found.segmentation) if use_mask else None,
        )  # fmt: skip

    def _prediction(
        self, frame: PreparedFrame, found: RocaPrediction, item: AlignedObject | None
    ) -> FramePrediction:
        if item is None:
            synset, cad_id = found.cad or ("", "")
            pose, score = None, 0.0
        else:
            synset, cad_id = item.model_id.split("_", 1)
            R, T, S = (np.asarray(x, dtype=np.float64) for x in (item.R, item.T_m, item.S_m))
            pose = self.dataset.cad[synset, cad_id].box.to_file_pose(CadPose(R, T, S))
            score = float(item.score)
        return FramePrediction(
            frame.scene, frame.name, synset, cad_id, found.category, found.box_xyxy, pose, score,
            found.score, found.segmentation,
        )  # fmt: skip

    def _library(self) -> CadLibrary:
        """The CAD models that detections name; all of a category that a detection without a model has."""
        named = {d.cad for found in self.detections.values() for d in found}
        free = {d.category for found in self.detections.values() for d in found if d.cad is None}
        files = [f for key, f in self.dataset.cad.items() if key in named or f.category in free]
        if not files:
            raise ValueError(
                f"{self.config.detections}: none of its CAD models is in {self.dataset.folder}; were they "
                "retrieved from the CAD models of these scenes?"
            )
        return load_library(files)


def roca_predictions(
    dataset: PreparedScannet, detections: Detections, scene: str, min_score: float
) -> list[FramePrediction]:
    """ROCA's own poses for a scene, ranked by its detection score; those without a CAD model are left out."""
    return [
        FramePrediction(
            scene, frame.name, *d.cad, d.category, d.box_xyxy, d.pose, d.score, d.score, d.segmentation
        )
        for frame in dataset.frames(scene)
        for d in wanted(detections, frame, min_score)
        if d.cad is not None
    ]


def wanted(detections: Detections, frame: PreparedFrame, min_score: float) -> list[RocaPrediction]:
    """The detections of a frame that score enough; a frame the file does not have has none."""
    return [d for d in detections.get((frame.scene, frame.name), ()) if d.score >= min_score]


def predictor_identity(name: str) -> str:
    """A predictor's name, with the content of the file where it is one ("sam:FILE", a file of weights)."""
    path = Path(name.removeprefix("sam:"))
    return f"{name} ({file_digest(path)})" if path.is_file() else name


def file_digest(path: Path) -> str:
    """The first 16 digits of a file's SHA-256. Raises FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _inside(box) -> tuple[float, float, float, float]:
    """The box cut at the image's edges."""
    return (
        max(box[0], -0.5), max(box[1], -0.5), min(box[2], WIDTH - 0.5), min(box[3], HEIGHT - 0.5)
    )  # fmt: skip
