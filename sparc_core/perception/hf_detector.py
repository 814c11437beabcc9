"""Detectors of Hugging Face's transformers: closed-set (RT-DETR, DETR, …) and open-vocabulary (Grounding
DINO)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from transformers import (
    MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)

from sparc_core.cad.names import exact_category
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.types import CATEGORIES, Detection

#: What an open-vocabulary detector is asked for, and which category of ours that is.
PROMPTS = {
    "bathtub": "bathtub", "bed": "bed", "trash can": "bin", "bookshelf": "bookshelf", "cabinet": "cabinet",
    "chair": "chair", "monitor": "display", "sofa": "sofa", "table": "table",
}  # fmt: skip


class ClosedSetDetector:
    """A `Detector` with fixed classes. classes: which category each of the model's class names is; None: by
    their names."""

    def __init__(
        self, model, processor, device="cpu", min_score: float = 0.3, classes: Mapping[str, str] | None = None
    ):
        self.network = MovableNetwork(model, device, type(model).__name__)
        self.processor, self.min_score = processor, min_score
        names = model.config.id2label
        self.categories = {
            int(i): classes.get(name) if classes is not None else exact_category(name)
            for i, name in names.items()
        }
        if not any(self.categories.values()):
            raise ValueError(
                f"none of the detector's classes is one of {CATEGORIES}: {sorted(names.values())[:20]}"
            )

    @classmethod
    def load(
        cls, name: str, device="cpu", min_score: float = 0.3, classes: Mapping[str, str] | None = None,
        *, download: bool = False,
    ) -> ClosedSetDetector:  # fmt: skip
        """name: a local folder, or a model's name on the Hub, which is only fetched where `download` allows
        it. Raises ValueError naming it when it is not there or no detector."""
        model = _load(AutoModelForObjectDetection, name, download)
        return cls(model, _load(AutoImageProcessor, name, download), device, min_score, classes)

    def detect(self, image_rgb: np.ndarray) -> list[Detection]:
        """See `Detector`."""

        def predict(model, device):
            inputs = self.processor(images=image_rgb, return_tensors="pt").to(device)
            return self.processor.post_process_object_detection(
                model(**inputs), threshold=self.min_score, target_sizes=[image_rgb.shape[:2]]
            )[0]

        found = self.network.run(predict)
        named = [(self.categories.get(int(label)), i) for i, label in enumerate(found["labels"])]
        return _detections(found["boxes"], found["scores"], named)


class OpenVocabularyDetector:
    """A `Detector` that is asked for things by name. prompts: what is asked for, and its category."""

    def __init__(
        self, model, processor, device="cpu", min_score: float = 0.3, prompts: Mapping[str, str] | None = None
    ):
        self.network = MovableNetwork(model, device, type(model).__name__)
        self.processor, self.min_score, self.prompts = processor, min_score, dict(prompts or PROMPTS)

    @classmethod
    def load(
        cls, name: str, device="cpu", min_score: float = 0.3, prompts: Mapping[str, str] | None = None,
        *, download: bool = False,
    ) -> OpenVocabularyDetector:  # fmt: skip
        """See `ClosedSetDetector.load`."""
        model = _load(AutoModelForZeroShotObjectDetection, name, download)
        return cls(model, _load(AutoProcessor, name, download), device, min_score, prompts)

    def detect(self, image_rgb: np.ndarray) -> list[Detection]:
        """See `Detector`."""
        text = " ".join(f"{name}." for name in self.prompts)

        def predict(model, device):
            inputs = self.processor(images=image_rgb, text=text, return_tensors="pt").to(device)
            return self.processor.post_process_grounded_object_detection(
                model(**inputs), inputs["input_ids"], threshold=self.min_score, text_threshold=self.min_score,
                target_sizes=[image_rgb.shape[:2]],
            )[0]  # fmt: skip

        found = self.network.run(predict)
        named = [(self._category(phrase), i) for i, phrase in enumerate(found["text_labels"])]
        return _detections(found["boxes"], found["scores"], named)

    def _category(self, phrase: str) -> str | None:
        """The category of the phrase the model points at, which may hold pieces of several prompts."""
        inside = [name for name in self.prompts if name in phrase]
        return self.prompts[max(inside, key=len)] if inside else None


def detector_of(name: str, device="cpu", min_score: float = 0.3, *, download: bool = False):
    """The detector that a model's own configuration says it is. Raises ValueError as
    `ClosedSetDetector.load`."""
    config = _load(AutoConfig, name, download)
    is_open = type(config) in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING
    kind = OpenVocabularyDetector if is_open else ClosedSetDetector
    return kind.load(name, device, min_score, download=download)


def _load(kind, name: str, download: bool):
    try:
        return kind.from_pretrained(name, local_files_only=not download)
    except (OSError, ValueError, KeyError) as error:
        hint = "" if download else " (nothing is downloaded unless it is allowed)"
        raise ValueError(f"model {name}: cannot be loaded{hint}: {str(error).splitlines()[0]}") from error


def _detections(boxes: torch.Tensor, scores: torch.Tensor, named) -> list[Detection]:
    """The best first; boxes of these models end at pixel corners, ours count from pixel centres."""
    found = [
        Detection(tuple(float(v) - 0.5 for v in boxes[i]), category, float(scores[i]))
        for category, i in named
        if category is not None
    ]
    return sorted(found, key=lambda d: -d.score)
