"""The whole method on one page: `Aligner.align` takes an image and returns aligned CAD models.

rectify → channels (normals, masks) → candidates → batch (blocks × candidates × starts) → refine → best σ →
fit to the depth, or stand on the floor.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.device import find_device
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.perception.prepare import PreparedImage, prepare_image
from sparc_core.refine.batch import build_search
from sparc_core.refine.depth_fit import PREDICTED, SENSOR, fit_search_results
from sparc_core.refine.loop import StageClock
from sparc_core.refine.model import ModelConfig, load_network
from sparc_core.refine.search import Search
from sparc_core.refine.standing import stand_on_floor
from sparc_core.retrieval.extents import extents_likelihood
from sparc_core.retrieval.retriever import Retriever
from sparc_core.types import (
    SCALE_MODES,
    AlignedObject,
    AlignmentResult,
    Camera,
    Detection,
    PixelHints,
    SkippedDetection,
    StartPose,
)

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "sparse.safetensors"
SHIPPED_HINTED = Path(__file__).parent / "weights" / "hinted.safetensors"
SHIPPED_RETRIEVAL = Path(__file__).parent / "weights" / "retrieval.safetensors"


@dataclass(frozen=True)
class AlignerConfig:
    """Run-time choices. scale_mode: free (9-DoF), uniform (7-DoF) or fixed (6-DoF, the CAD model's true
    size); scale_modes: (name, mode) pairs that differ from it, a name being a category or a CAD model's id.
    max_candidates: CAD models tried for a detection that names none. refinements: pose updates before the
    scoring pass. n_bbox, n_cad: pixels and CAD points looked at per object; tokens are a set, so there may be
    more of them than in training; 0: as in training. finalists: how many rows (candidates and starts) of each
    object are looked at again after the first score; second_looks: how often, each time with other pixels; σ
    is the mean. initial_scale: start from the CAD "model"'s extents or the "category"'s median.
    estimate_gravity: find the up direction in the depth image when the camera does not tell it. depth_masks:
    cut masks from depth and boxes for detections without one. depth_fit: fit the chosen poses to the depth at
    the end, but for those of a network that reads the hints which came with it. stand_on_floor: without a
    sensor's depth, make them stand on the floor, where the camera's height is known, and on one floor, where
    gravity is and the network reads hints. max_rows: how many rows
    (blocks × candidates × starts) go through the network at once, bounding memory. retrieved: CAD models
    tried that a retrieval finds most alike, in place of max_candidates; retrieved_unmeasured: the same where
    no sensor measures the depth, and trying more tells no better; retrieval_weight: what a likeness of 1
    counts beside σ's logit when they are compared; extents_weight: the same of how well a model's extents fit
    to those expected of the box, where depth is predicted (`extents_likelihood`). seed: of the pixel and
    point sampling: the same input gives the same answer.

    Raises ValueError naming the field out of range.
    """

    scale_mode: str = "free"
    scale_modes: tuple[tuple[str, str], ...] = ()
    max_candidates: int = 12
    refinements: int = 3
    n_bbox: int = 96
    n_cad: int = 64
    finalists: int = 2
    second_looks: int = 2
    initial_scale: str = "model"
    estimate_gravity: bool = True
    depth_masks: bool = True
    depth_fit: bool = True
    stand_on_floor: bool = True
    max_rows: int = 256
    retrieved: int = 5
    retrieved_unmeasured: int = 1
    retrieval_weight: float = 5.0
    extents_weight: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if self.scale_mode not in SCALE_MODES:
            raise ValueError(f"scale_mode must be one of {SCALE_MODES}, got {self.scale_mode!r}")
        for name, mode in self.scale_modes:
            if mode not in SCALE_MODES:
                raise ValueError(f"scale_modes of {name!r} must be one of {SCALE_MODES}, got {mode!r}")
        if self.initial_scale not in ("model", "category"):
            raise ValueError(f"initial_scale must be 'model' or 'category', got {self.initial_scale!r}")
        for name in (
            "max_candidates", "refinements", "finalists", "max_rows", "retrieved", "retrieved_unmeasured",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("n_bbox", "n_cad", "second_looks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class Aligner:
    """Aligns CAD models to detected objects. Build one with `Aligner.load`, then call `align`."""

    def __init__(
        self,
        network,
        model_config,
        library: CadLibrary,
        device: torch.device,
        config: AlignerConfig,
        retriever: Retriever | None = None,
    ):
        self.network, self.config = network, config
        self.model_config = _with_token_counts(model_config, config)
        self.hinted: tuple[MultiSparcNet, ModelConfig] | None = None
        self.cad_library, self.device = library, device
        known = {*library.categories, *(model.model_id for model in library.models)}
        for name, _ in config.scale_modes:
            if name not in known:
                raise ValueError(
                    f"scale_modes names {name!r}, which is no category or model of the CAD library"
                )
        self.cad = CadTensors.from_library(library, device)
        self.retriever = retriever

    @classmethod
    def load(
        cls,
        weights: Path | str | None = None,
        cad_library: CadLibrary | None = None,
        *,
        device: str = "auto",
        config: AlignerConfig | None = None,
        retrieval: Path | str = "size",
    ) -> Aligner:
        """An aligner from a weights file (None: the shipped ones) and a CAD library (None: procedural).

        retrieval: how CAD models are chosen for detections that name none: by "size", or by their look, with
        the "shipped" weights or a file of `sparc train-perception retrieval`. device: "auto" (CUDA where
        there is one), "cpu", "cuda" or "cuda:N". Raises ValueError for weights that cannot be read or do not
        fit their config, and for a GPU that is not there.
        """
        chosen = find_device(device)
        network, model_config = load_network(Path(weights) if weights else SHIPPED_WEIGHTS, chosen)
        library = cad_library if cad_library is not None else CadLibrary.open("procedural")
        aligner = cls(network, model_config, library, torch.device(chosen), config or AlignerConfig())
        aligner.choose_models_by(retrieval)
        if not weights:
            aligner.take_hinted(SHIPPED_HINTED)
        return aligner

    def take_hinted(self, weights: Path) -> None:
        """Use another network, of `sparc finetune pictures`, for images whose depth was predicted by a
        network that gives hints as well. Raises ValueError naming a file that cannot be read."""
        network, model = load_network(weights, str(self.device))
        self.hinted = network, _with_token_counts(model, self.config)

    def choose_models_by(self, retrieval: Path | str) -> None:
        """See `load`. Raises ValueError naming a file that cannot be read."""
        file = retrieval_file(retrieval)
        self.retriever = Retriever.load(file, self.cad) if file else None

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
        starts: Sequence[StartPose | None] | None = None,
    ) -> AlignmentResult:
        """Align a CAD model to every detection.

        image_rgb: (H, W, 3) uint8. detections: boxes in pixels of this image. depth_m: (H, W) float32 z-depth
        in metres registered to the image, 0 or NaN where unknown, or None. normals_cam: (H, W, 3) float unit
        normals facing the camera, zero where unknown; None: from the depth. depth_predicted: the depth is a
        guess from the image, whose scale and shift are not to be trusted. hints: what a network says of the
        objects at every pixel. starts: of every detection the pose
        it is refined from, None for a search (video mode, `tracking`); by default all are searched. Poses are
        in the camera frame; boxes of the result are those that came in. A detection that cannot be aligned is
        in `skipped` with its reason. Raises ValueError when image or depth do not fit the camera, or starts
        not the detections.
        """
        if starts is not None and len(starts) != len(detections):
            raise ValueError(
                f"starts: expected one for each of {len(detections)} detections, got {len(starts)}"
            )
        began = time.perf_counter()
        clock = StageClock(self.device)
        prepared = clock.measure(
            "observe", prepare_image, image_rgb, camera, detections, depth_m, self.cad_library, self.config,
            self.device, normals_cam, depth_predicted, hints,
        )  # fmt: skip
        objects: list[AlignedObject] = []
        if self.retriever is not None and prepared.kept:
            prepared = clock.measure("retrieve", self._retrieved, prepared, detections)
        if prepared.kept:
            starts = starts or [None] * len(detections)
            objects = self._search(prepared, camera, detections, starts, clock)
        timing = {
            "observe": 0.0,
            "assemble": 0.0,
            "network": 0.0,
            "update": 0.0,
            "fit": 0.0,
            **clock.total_ms,
        }
        timing["total"] = (time.perf_counter() - began) * 1e3
        skipped = tuple(SkippedDetection(index, reason) for index, reason in prepared.skipped)
        return AlignmentResult(camera, tuple(objects), skipped, timing)

    def _retrieved(self, prepared: PreparedImage, detections) -> PreparedImage:
        """The image with the most similar CAD models as candidates of the detections that name none."""
        kept, config = [detections[i] for i in prepared.kept], self.config
        beside = None
        if prepared.depth_source == "predicted" and config.retrieval_weight > 0:
            estimate = torch.from_numpy(prepared.estimate).to(self.device)
            beside = extents_likelihood(estimate, self.cad.extents_m)
            beside = beside * (config.extents_weight / config.retrieval_weight)
        measured = prepared.depth_source == "sensor"
        count = config.retrieved if measured else config.retrieved_unmeasured
        ranked = self.retriever.rank(prepared, [d.category for d in kept], count, config.seed, beside)
        candidates, likeness = list(prepared.candidates), list(prepared.likeness)
        for i, (detection, (models, values)) in enumerate(zip(kept, ranked, strict=True)):
            if detection.model_id is None and len(models):
                candidates[i], likeness[i] = models.cpu().numpy(), values.double().cpu().numpy()
        return replace(prepared, candidates=tuple(candidates), likeness=tuple(likeness))

    def _search(
        self, prepared: PreparedImage, camera: Camera, detections, starts, clock: StageClock
    ) -> list[AlignedObject]:
        """Refine every candidate from four rotations, and every given start, all in one batch, and keep the
        best σ. camera: as it was given, with gravity only where that was told."""
        network, model_config = self._network_for(prepared)
        starts = [starts[i] for i in prepared.kept]
        hinted = model_config.inputs.hints
        batch = build_search(
            prepared,
            self.cad,
            model_config.n_mul,
            self.config,
            self.cad_library,
            starts,
            from_estimates=hinted,
        )
        search = Search(network, model_config, self.cad, batch, self.config, clock, prepared.depth_source)
        found = search.run()
        # who has learnt from the very depth network that gave the hints knows better how far to believe it
        knows = hinted and prepared.channels.hints is not None
        if self.config.depth_fit and prepared.depth_source != "none" and not knows:
            depth = SENSOR if prepared.depth_source == "sensor" else PREDICTED
            found = clock.measure(
                "fit", fit_search_results, found, prepared, self.cad, depth, self.config.seed
            )
        told = knows or camera.above_floor_m is not None
        if self.config.stand_on_floor and prepared.depth_source != "sensor" and told:
            found = stand_on_floor(found, camera, self.cad_library)
        objects = []
        for best in found:
            index = prepared.kept[best.detection]
            detection, model = detections[index], self.cad_library.models[best.model]
            score = best.score if model_config.score_of == "pose" else detection.score
            objects.append(AlignedObject(
                index, detection.category, model.model_id, tuple(float(v) for v in detection.box_xyxy),
                best.R, best.T_m, best.S_m, score, best.start,
            ))  # fmt: skip
        return objects

    def _network_for(self, prepared: PreparedImage) -> tuple[MultiSparcNet, ModelConfig]:
        """(network, its `ModelConfig`): that for hints where depth was predicted and there are some."""
        if self.hinted and prepared.depth_source == "predicted" and prepared.channels.hints is not None:
            return self.hinted
        return self.network, self.model_config


def _with_token_counts(model: ModelConfig, config: AlignerConfig) -> ModelConfig:
    """The model with the numbers of tokens at run time."""
    inputs = model.inputs
    inputs = replace(inputs, n_bbox=config.n_bbox or inputs.n_bbox, n_cad=config.n_cad or inputs.n_cad)
    return replace(model, inputs=inputs)


def retrieval_file(retrieval: Path | str) -> Path | None:
    """The weights that choose CAD models: of a file, the "shipped" ones, None for "size"."""
    if retrieval == "size":
        return None
    return SHIPPED_RETRIEVAL if retrieval == "shipped" else Path(retrieval)
