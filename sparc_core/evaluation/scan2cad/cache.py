"""Predictions kept on disk, scene by scene, with the settings they were made with.

Predictions come first and cost hours, scores come second and cost minutes. A folder belongs to one set of
settings: asked to go on with others, it refuses and names what differs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sparc_core.datasets.poses import CadPose
from sparc_core.datasets.prepare import write_json
from sparc_core.evaluation.scan2cad.predictions import FramePrediction
from sparc_core.files.fields import load_json


class PredictionCache:
    """One folder of predictions. settings: plain JSON values that decide what is predicted; facts: kept
    beside them, not compared (machine, commit, date).

    Raises ValueError naming the settings that differ from those the folder was begun with.
    """

    def __init__(self, folder: Path, settings: dict, facts: dict | None = None):
        self.folder = folder
        self.settings = json.loads(json.dumps(settings))  # as they will be read back: lists for tuples
        self.scenes_folder = folder / "scenes"
        self.scenes_folder.mkdir(parents=True, exist_ok=True)
        path = folder / "settings.json"
        if not path.exists():
            write_json(path, {"settings": self.settings, "made_with": facts or {}})
        stored = load_json(path, dict, "settings of predictions")
        before = stored["settings"]
        self.facts: dict = stored["made_with"]
        if before != self.settings:
            differ = sorted(k for k in {*before, *self.settings} if before.get(k) != self.settings.get(k))
            raise ValueError(
                f"{folder} holds predictions made with other settings ({', '.join(differ)} differ): "
                "choose another folder, or remove it to predict again"
            )

    def has(self, scene: str) -> bool:
        """Whether the scene was predicted already."""
        return self._path(scene).exists()

    def write(self, scene: str, predictions: list[FramePrediction]) -> None:
        """Keep the predictions of all frames of a scene."""
        write_json(self._path(scene), [prediction_to_json(p) for p in predictions])

    def read(self, scene: str) -> list[FramePrediction]:
        """The predictions of a scene. Raises FileNotFoundError when there are none yet."""
        return [prediction_from_json(scene, e) for e in load_json(self._path(scene), list, "predictions")]

    def _path(self, scene: str) -> Path:
        return self.scenes_folder / f"{scene}.json"


def prediction_to_json(p: FramePrediction) -> dict:
    """The fields that `prediction_from_json` reads."""
    pose = p.pose and {"t": p.pose.t.tolist(), "R": p.pose.R.tolist(), "s": p.pose.s.tolist()}
    return {
        "frame": p.frame, "synset": p.synset, "cad_id": p.cad_id, "category": p.category,
        "box_xyxy": [float(v) for v in p.box_xyxy], "pose": pose, "pose_score": p.pose_score,
        "detection_score": p.detection_score, "segmentation": p.segmentation,
    }  # fmt: skip


def prediction_from_json(scene: str, entry: dict) -> FramePrediction:
    """The inverse of `prediction_to_json`."""
    pose = entry["pose"] and CadPose(*(np.array(entry["pose"][name]) for name in ("R", "t", "s")))
    return FramePrediction(
        scene, entry["frame"], entry["synset"], entry["cad_id"], entry["category"],
        tuple(entry["box_xyxy"]), pose, entry["pose_score"], entry["detection_score"], entry["segmentation"],
    )  # fmt: skip
