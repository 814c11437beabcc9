"""Multi-SPARC's protocol per image: every prediction against the annotated object its box overlaps most.

Section 4 of the paper: an object counts when its centre is in the image and half of its pixels are seen by
the sensor (`truth.py`). Alignment accuracy is the share of predictions that are right; AP^mesh is the area
under precision and recall of F1 between the two posed surfaces.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparc_core.cad.sampling import sample_surface
from sparc_core.datasets.poses import CadPose
from sparc_core.datasets.scan2cad import AnnotatedObject, CadInfo, CadKey
from sparc_core.datasets.shapenet import CadFile, read_arrays
from sparc_core.datasets.truth import FrameObject
from sparc_core.evaluation.mesh_score import F1_LIMITS, RADII, average_precision, surface_f1
from sparc_core.evaluation.scan2cad.errors import errors_to
from sparc_core.evaluation.scan2cad.predictions import FramePrediction, in_convention
from sparc_core.geometry.boxes import box_iou
from sparc_core.types import CATEGORIES

KEPT_MESHES = 64  # in memory: the CAD models of a scene come again and again
MESH_POINTS = 10_000  # as in Mesh R-CNN: with fewer, points lie farther apart than the smallest radius


@dataclass(frozen=True, eq=False)
class TrueObject:
    """One annotated object in a frame; pose: of its CAD file in the camera frame."""

    annotated: AnnotatedObject
    pose: CadPose
    in_frame: FrameObject


@dataclass(eq=False)
class _Rows:
    """One entry a prediction that counts: score, category, right by either scale error, F1 at each radius and
    the object it belongs to (−1: none)."""

    score: list[float] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    right_strict: list[bool] = field(default_factory=list)
    f1: list[list[float]] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)


class ImageFigures:
    """Collects frames, then sums them up. files: the CAD models that have a mesh; cad: what the annotations
    know of them; thresholds: metres, degrees, fraction."""

    def __init__(
        self,
        files: Mapping[CadKey, CadFile],
        cad: Mapping[CadKey, CadInfo],
        *,
        ranked_by: str = "pose",
        convention: str = "file",
        thresholds: tuple[float, float, float] = (0.20, 20.0, 0.20),
        mesh_points: int = MESH_POINTS,
        seed: int = 0,
    ):
        self.files, self.cad, self.ranked_by, self.convention = files, cad, ranked_by, convention
        self.thresholds, self.mesh_points = thresholds, mesh_points
        self.generator = np.random.default_rng(seed)
        self._mesh = functools.lru_cache(maxsize=KEPT_MESHES)(read_arrays)
        self.rows = _Rows()
        self.truth: dict[str, int] = defaultdict(int)
        self.without_object = self.hidden = self.without_mesh = self.objects = 0

    def add(self, predictions: Sequence[FramePrediction], objects: Sequence[TrueObject]) -> None:
        """One frame: its predictions (those without a pose count as wrong) and all annotated objects in view,
        also those that are hidden: a prediction that belongs to a hidden one is left out."""
        for item in objects:
            if item.in_frame.visible:
                self.truth[item.annotated.category] += 1
        first, self.objects = self.objects, self.objects + len(objects)
        for p in predictions:
            index = associate(p, objects)
            if index is None:
                self.without_object += 1
                self._append(p, (False, False), [0.0] * len(RADII), -1)
            elif objects[index].in_frame.visible:
                item = objects[index]
                self._append(p, self._right(p, item), self._f1(p, item), first + index)
            else:
                self.hidden += 1

    def summary(self) -> dict:
        """All figures in percent: `accuracy` is the share of predictions with an object that are right,
        `found` the share of visible objects that a prediction is right about; both for Scan2CAD's scale
        error and the stricter one. Per category, mean over the categories, and over all instances."""
        rows = self.rows
        arrays = {name: np.array(getattr(rows, name)) for name in vars(rows)}
        matched = arrays["owner"].astype(int) >= 0
        figures = {
            "objects": dict(self.truth), "predictions": int(matched.sum()),
            "predictions_without_object": self.without_object, "predictions_of_hidden_objects": self.hidden,
            "predictions_without_mesh": self.without_mesh,
        }  # fmt: skip
        for name in ("right", "right_strict"):
            right = arrays[name].astype(bool)
            figures["accuracy" if name == "right" else "accuracy_strict"] = _shares(
                {c: right[matched & (arrays["category"] == c)] for c in CATEGORIES}
            )
            owners = {c: set(arrays["owner"][right & (arrays["category"] == c)]) for c in CATEGORIES}
            figures["found" if name == "right" else "found_strict"] = _averages(
                {c: (len(owners[c]), self.truth[c]) for c in CATEGORIES if self.truth[c]}
            )
        figures["ap_mesh"] = {str(radius): self._mesh_ap(arrays, k) for k, radius in enumerate(RADII)}
        return figures

    def _append(self, p: FramePrediction, right: tuple[bool, bool], f1: list[float], owner: int) -> None:
        rows = self.rows
        rows.score.append(p.score(self.ranked_by))
        rows.category.append(p.category)
        rows.right.append(right[0])
        rows.right_strict.append(right[1])
        rows.f1.append(f1)
        rows.owner.append(owner)

    def _right(self, p: FramePrediction, item: TrueObject) -> tuple[bool, bool]:
        """By Scan2CAD's scale error, and by the stricter one."""
        if p.pose is None or (self.convention == "box" and p.key not in self.cad):
            return False, False
        own = self.cad[p.key].symmetry if p.key in self.cad else "none"
        symmetry = own if own == item.annotated.symmetry else "none"
        pose = p.pose if self.convention == "file" else in_convention(p.pose, self.cad[p.key].box, "box")
        true = in_convention(item.pose, item.annotated.box, self.convention)
        errors = errors_to(pose, [true], [symmetry])
        metres, degrees, fraction = self.thresholds
        near = errors.translation_m[0] <= metres and errors.rotation_deg[0] <= degrees
        return bool(near and errors.scale(False)[0] <= fraction), bool(
            near and errors.scale(True)[0] <= fraction
        )

    def _f1(self, p: FramePrediction, item: TrueObject) -> list[float]:
        """F1 at each radius; 0 for a prediction without a pose or a CAD model without a mesh."""
        if p.pose is None or p.key not in self.files:
            self.without_mesh += p.pose is not None
            return [0.0] * len(RADII)
        longest = float(item.annotated.box.to_box_pose(item.pose).s.max())
        points, true_points = self._surface(p.key, p.pose), self._surface(item.annotated.key, item.pose)
        return surface_f1(points, true_points, longest)

    def _surface(self, key: CadKey, pose: CadPose) -> np.ndarray:
        """Points spread evenly over the posed surface, so after scaling."""
        mesh = self._mesh(self.files[key].path)
        return sample_surface(pose.transform(mesh.vertices), mesh.faces, self.mesh_points, self.generator)[0]

    def _mesh_ap(self, arrays: dict[str, np.ndarray], k: int) -> dict:
        """AP50 and the mean of AP50 … AP95 in percent: by category, their mean, and over all instances."""
        curves = {}
        present = [c for c in CATEGORIES if self.truth[c]]
        for limit in F1_LIMITS:
            correct = first_hits(arrays, k, limit)
            for c in present:
                of = arrays["category"] == c
                curves.setdefault(c, []).append(
                    average_precision(arrays["score"][of], correct[of], self.truth[c])
                )
            curves.setdefault("instance", []).append(
                average_precision(arrays["score"], correct, sum(self.truth.values()))
            )
        figures = {}
        for name, pick in (("AP50", lambda values: values[0]), ("AP", np.mean)):
            found = {c: 100 * float(pick(curves[c])) for c in present}
            figures[name] = {
                "by_category": found,
                "class": float(np.mean(list(found.values()))) if found else float("nan"),
                "instance": 100 * float(pick(curves["instance"])),
            }
        return figures


def associate(p: FramePrediction, objects: Sequence[TrueObject]) -> int | None:
    """The object of the prediction's category whose box overlaps its box most, None without any overlap."""
    rivals = [i for i, item in enumerate(objects) if item.annotated.category == p.category]
    if not rivals:
        return None
    overlap = box_iou(p.box_xyxy, [objects[i].in_frame.box_xyxy for i in rivals])[0]
    return rivals[overlap.argmax()] if overlap.max() > 0 else None


def first_hits(arrays: dict[str, np.ndarray], k: int, limit: float) -> np.ndarray:
    """(D,) bool: F1 at radius k above the limit, for the best-scored such prediction of every object; the
    others found an object that was found already."""
    correct = np.zeros(len(arrays["score"]), dtype=bool)
    taken = set()
    for i in np.argsort(-arrays["score"], kind="stable"):
        owner = int(arrays["owner"][i])
        if owner >= 0 and owner not in taken and arrays["f1"][i][k] > limit:
            correct[i] = True
            taken.add(owner)
    return correct


def _shares(right: dict[str, np.ndarray]) -> dict:
    return _averages({c: (int(values.sum()), len(values)) for c, values in right.items() if len(values)})


def _averages(counts: dict[str, tuple[int, int]]) -> dict:
    """Percent of each category, their mean, and of all together, from (right, of) pairs."""
    found = {c: 100 * right / of for c, (right, of) in counts.items()}
    total = sum(of for _, of in counts.values())
    return {
        "by_category": found,
        "class": float(np.mean(list(found.values()))) if found else float("nan"),
        "instance": 100 * sum(right for right, _ in counts.values()) / total if total else float("nan"),
    }
