"""A baseline in the place of the aligner: image, detections and depth in, poses out, or starts for the
refinement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from sparc_core.baselines.reader import RegionReader
from sparc_core.baselines.regions import Regions
from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.perception.prepare import PreparedImage, prepare_image
from sparc_core.retrieval.retriever import Retriever
from sparc_core.types import (
    CATEGORIES,
    SCALE_MODES,
    AlignedObject,
    AlignmentResult,
    Camera,
    Detection,
    PixelHints,
    SkippedDetection,
    StartPose,
)

NO_ESTIMATE = "too few pixels with mask and depth for an estimate"


@dataclass(frozen=True, eq=False)
class Estimate:
    """pose (D,) in the camera frame; enough (D,) bool: False where the pose means nothing."""

    pose: Pose
    enough: torch.Tensor


class PoseEstimator(Protocol):
    """A baseline's network. name: what its poses are called in results."""

    name: str

    def estimate(self, regions: Regions) -> Estimate:
        """One pose for each of D objects."""
        ...


@dataclass(frozen=True)
class SingleShotConfig:
    """scale_mode, estimate_gravity: as in `AlignerConfig`. depth_masks: cut masks from the depth for
    detections without one, where False has the detector's mask head do it."""

    scale_mode: str = "free"
    estimate_gravity: bool = True
    depth_masks: bool = False
    max_candidates: int = 1

    def __post_init__(self):
        if self.scale_mode not in SCALE_MODES:
            raise ValueError(f"scale_mode must be one of {SCALE_MODES}, got {self.scale_mode!r}")


class SingleShotAligner:
    """Gives every detection the estimator's pose, and a CAD model: the one it names, else the one most alike
    by the retriever, else the one whose size fits best. σ is the detector's score, as in ROCA."""

    no_estimate = NO_ESTIMATE  # why a detection is skipped that there is no estimate for

    def __init__(
        self,
        estimator: PoseEstimator,
        reader: RegionReader,
        library: CadLibrary,
        device: torch.device | str = "cpu",
        config: SingleShotConfig | None = None,
        retrieval: Path | str | None = None,
    ):
        """retrieval: a file of `sparc train-perception retrieval`, None: by size. Raises ValueError naming
        it."""
        self.estimator, self.reader, self.cad_library = estimator, reader, library
        self.device, self.config = torch.device(device), config or SingleShotConfig()
        self.cad = CadTensors.from_library(library, self.device)
        self.retriever = Retriever.load(Path(retrieval), self.cad) if retrieval else None

    @torch.no_grad()
    def align(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        depth_m: np.ndarray | None = None,
        normals_cam: np.ndarray | None = None,
        *,
        depth_predicted: bool = False,
        hints: PixelHints | None = None,
    ) -> AlignmentResult:
        """As `Aligner.align`. What has too little depth is in `skipped`; without a depth image, all."""
        began = time.perf_counter()
        known = [i for i, d in enumerate(detections) if d.category in CATEGORIES]
        skipped = {
            i: f"category {d.category!r} is none of the nine"
            for i, d in enumerate(detections) if d.category not in CATEGORIES
        }  # fmt: skip
        prepared = prepare_image(
            image_rgb, camera, [detections[i] for i in known], depth_m, self.cad_library, self.config,
            self.device, normals_cam, depth_predicted, hints,
        )  # fmt: skip
        observed = time.perf_counter()
        skipped |= {known[i]: reason for i, reason in prepared.skipped}
        objects = []
        if prepared.kept:
            numbers = [known[i] for i in prepared.kept]
            objects = self._place(prepared, numbers, [detections[i] for i in numbers])
            skipped |= {i: self.no_estimate for i in set(numbers) - {o.detection for o in objects}}
        reasons = tuple(SkippedDetection(i, skipped[i]) for i in sorted(skipped))
        timing = {"observe": (observed - began) * 1e3, "total": (time.perf_counter() - began) * 1e3}
        return AlignmentResult(camera, tuple(objects), reasons, timing)

    def starts(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        depth_m: np.ndarray | None = None,
        normals_cam: np.ndarray | None = None,
        *,
        depth_predicted: bool = False,
        hints: PixelHints | None = None,
        search_beside: bool = False,
    ) -> list[StartPose | None]:
        """For every detection the pose that `Aligner.align(starts=…)` refines; None, a search, for what was
        skipped. search_beside: the four rotations are tried as well."""
        result = self.align(
            image_rgb, camera, detections, depth_m, normals_cam,
            depth_predicted=depth_predicted, hints=hints,
        )  # fmt: skip
        return self.starts_of(result, len(detections), search_beside)

    @staticmethod
    def starts_of(result: AlignmentResult, count: int, search_beside: bool) -> list[StartPose | None]:
        """The objects of a result as the starts of its `count` detections."""
        starts: list[StartPose | None] = [None] * count
        for o in result.objects:
            starts[o.detection] = StartPose(o.model_id, o.R, o.T_m, o.S_m, search=search_beside)
        return starts

    def _place(self, prepared: PreparedImage, numbers, kept: list[Detection]) -> list[AlignedObject]:
        """The kept detections that there is an estimate for; numbers: theirs among all detections."""
        regions = self.reader.read(prepared, [d.category for d in kept])
        found = self.estimator.estimate(regions)
        models = self._models(prepared, kept, regions, found)
        objects = []
        for n, (number, detection) in enumerate(zip(numbers, kept, strict=True)):
            if found.enough[n]:
                R, T, S = (x[n].double().cpu().numpy() for x in (found.pose.R, found.pose.T, found.pose.S))
                S = self._bound(S, models[n])
                objects.append(AlignedObject(
                    number, detection.category, models[n], tuple(float(v) for v in detection.box_xyxy),
                    R, T, S, detection.score, self.estimator.name,
                ))  # fmt: skip
        return objects

    def _bound(self, S_m: np.ndarray, model_id: str) -> np.ndarray:
        """The scale as the mode lets it be: free, the CAD model's proportions, or its extents."""
        extents = self.cad_library.models[self.cad_library.index_of(model_id)].extents_m.astype(np.float64)
        factor = {"free": S_m / extents, "uniform": np.exp(np.log(S_m / extents).mean()), "fixed": 1.0}
        return factor[self.config.scale_mode] * extents

    def _models(
        self, prepared: PreparedImage, kept: list[Detection], regions: Regions, found: Estimate
    ) -> list[str]:
        """The CAD model's id of every kept detection."""
        best = [int(candidates[0]) for candidates in prepared.candidates]
        if self.retriever is not None:
            ranked = self.retriever.ranking(prepared, [d.category for d in kept], 1)
            best = [r[0] if r else b for r, b in zip(ranked, best, strict=True)]
        names = [self.cad_library.models[b].model_id for b in best]
        return [d.model_id or name for d, name in zip(kept, names, strict=True)]
