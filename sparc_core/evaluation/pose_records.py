"""What is counted of the poses a method found in one room: a record for every object of the room, and one for
every prediction, those of nothing included."""

from __future__ import annotations

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.evaluation.mesh_score import RADII, surface_f1
from sparc_core.evaluation.pictured_rooms import GivenInputs
from sparc_core.evaluation.synthetic import LabelledView
from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.types import AlignedObject, AlignmentResult

SURFACE_POINTS = 1000
LOST = {"translation_m": np.inf, "rotation_deg": 180.0, "scale": np.inf}


def records_of(
    named: dict,
    room: LabelledView,
    given: GivenInputs,
    result: AlignmentResult,
    library: CadLibrary,
    cad: CadTensors,
    well_visible: float,
) -> tuple[list[dict], list[dict]]:
    """Objects and predictions of a room. named: what both kinds of record begin with.

    An object has its errors (infinite where it was not detected or aligned), the score and the detection's
    score, F1 of the surfaces at every radius, distance, share seen, the aligned pose ("aligned", None without
    one) and the true one. A prediction has both scores, the objects for which it is right within 20 cm, 20°
    and 20 % ("right_for": numbers in the room) and the F1 with the object that it was detected for, 0 where
    that is none. Predictions for things that stand in the picture but are no objects of the room are left
    out. library: of the room and of the result, cad: its tensors.
    """
    judge = _Judge(room, library, cad)
    timing = {"align_ms": result.timing_ms["total"]}
    aligned = {found.detection: found for found in result.objects}
    objects = [
        named | timing | judge.about_object(i, aligned.get(int(d)), given, well_visible)
        for i, d in enumerate(given.own)
    ]
    owner = {int(d): i for i, d in enumerate(given.own) if d >= 0}
    predictions = []
    for d, found in aligned.items():
        if given.other[d]:
            continue
        predictions.append(named | {
            "category": found.category, "score": float(found.score),
            "detection_score": float(given.detections[d].score),
            "right_for": judge.right_for(found),
            "f1": objects[owner[d]]["f1"] if d in owner else [0.0] * len(RADII),
        })  # fmt: skip
    return objects, predictions


class _Judge:
    """Compares poses with the truth of one room."""

    def __init__(self, room: LabelledView, library: CadLibrary, cad: CadTensors):
        self.room, self.library, self.cad = room, library, cad

    def about_object(self, i: int, found: AlignedObject | None, given: GivenInputs, well_visible: float):
        room, d = self.room, int(given.own[i])
        true_model = self.library.models[int(room.models[i])]
        truth = room.truth.map(lambda x: x[i])
        return {
            "category": true_model.category,
            "detected": d >= 0,
            "right_model": found is not None and found.model_id == true_model.model_id,
            "well_visible": bool(room.on_image[i] and room.seen[i] >= well_visible),
            "score": 0.0 if found is None else float(found.score),
            "detection_score": float(given.detections[d].score) if d >= 0 else 0.0,
            **self.errors(i, found),
            "f1": [0.0] * len(RADII) if found is None else self.f1(i, found),
            "distance_m": float(truth.T.norm()),
            "seen": float(room.seen[i]),
            "box_xyxy": room.boxes_xyxy[i].tolist(),
            "aligned": None if found is None else _described(found.model_id, found.R, found.T_m, found.S_m),
            "truth": _described(true_model.model_id, truth.R, truth.T, truth.S),
        }

    def errors(self, i: int, found: AlignedObject | None) -> dict[str, float]:
        """Of a pose for object i; a model given for another one cannot be turned wrongly where either has a
        symmetry."""
        if found is None:
            return dict(LOST)
        model = self.library.index_of(found.model_id)
        order = torch.maximum(self.room.symmetry_order[i], self.cad.symmetry_order[model].cpu())
        off = pose_errors(_pose_of(found), self.room.truth.map(lambda x: x[i]), order)
        return {name: float(getattr(off, name)) for name in LOST}

    def right_for(self, found: AlignedObject) -> list[int]:
        limits = next(iter(THRESHOLDS.values()))
        right = []
        for i, model in enumerate(self.room.models.tolist()):
            if self.library.models[model].category == found.category:
                errors = self.errors(i, found)
                if all(e <= limit for e, limit in zip(errors.values(), limits, strict=True)):
                    right.append(i)
        return right

    def f1(self, i: int, found: AlignedObject) -> list[float]:
        few = slice(0, SURFACE_POINTS)
        truth = self.room.truth.map(lambda x: x[i])
        there = self.cad.points[int(self.room.models[i]), few].cpu()
        points = self.cad.points[self.library.index_of(found.model_id), few].cpu()
        return surface_f1(
            _pose_of(found).transform(points).numpy(), truth.transform(there).numpy(), float(truth.S.max())
        )


def _pose_of(found: AlignedObject) -> Pose:
    return Pose(*(torch.from_numpy(np.asarray(x)).float() for x in (found.R, found.T_m, found.S_m)))


def _described(model_id: str, R, T, S) -> dict:
    rounded = (np.round(np.asarray(x, dtype=np.float64), 5).tolist() for x in (R, T, S))
    return {"model_id": model_id, **dict(zip(("R", "T_m", "S_m"), rounded, strict=True))}
