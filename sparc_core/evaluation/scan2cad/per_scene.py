"""Scan2CAD's protocol, per scene: which annotated objects a method found in a whole scan.

Predictions of all frames in scan coordinates → one of several for the same object (3D non-maximum
suppression) → no more of a category than there are → matched greedily, best score first. ROCA's
retrieval-aware accuracy asks for the annotated CAD model as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparc_core.datasets.poses import CadPose
from sparc_core.datasets.scan2cad import AnnotatedObject, Annotations, CadInfo, CadKey
from sparc_core.evaluation.scan2cad.errors import errors_to
from sparc_core.evaluation.scan2cad.predictions import ScenePrediction, in_convention
from sparc_core.types import CATEGORIES


@dataclass(frozen=True)
class SceneProtocol:
    """translation_m, rotation_deg, scale: a prediction is right within all three. nms_…: within all three of
    a better prediction of its category, a prediction is dropped. suppress, limit_counts: whether these steps
    are taken (predictions may have gone through them already). strict_scale: mean|s/s_true − 1| in place of
    Scan2CAD's |mean(s/s_true) − 1|. retrieval: the CAD model must be the annotated one. convention: "file"
    as published, or "box" (see `errors.py`).

    Raises ValueError naming the field out of range.
    """

    translation_m: float = 0.20
    rotation_deg: float = 20.0
    scale: float = 0.20
    nms_translation_m: float = 0.40
    nms_rotation_deg: float = 60.0
    nms_scale: float = 0.60
    suppress: bool = True
    limit_counts: bool = True
    strict_scale: bool = False
    retrieval: bool = False
    convention: str = "file"

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, float) and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.convention not in ("file", "box"):
            raise ValueError(f"convention must be 'file' or 'box', got {self.convention!r}")


@dataclass(frozen=True, eq=False)
class SceneScore:
    """right and truth: objects by category, over all scenes; by_scene: (right, truth) of each; considered:
    predictions left after suppression and limits; unknown_cad: how many of all name a CAD model that no
    annotation knows."""

    right: Counter[str]
    truth: Counter[str]
    by_scene: dict[str, tuple[int, int]]
    considered: int
    unknown_cad: int

    @property
    def by_category(self) -> dict[str, float]:
        """Percent found of each category that occurs."""
        return {c: 100 * self.right[c] / self.truth[c] for c in CATEGORIES if self.truth[c]}

    @property
    def class_mean(self) -> float:
        """Mean of the categories' percentages; NaN when nothing is annotated."""
        values = self.by_category.values()
        return sum(values) / len(values) if values else float("nan")

    @property
    def instance(self) -> float:
        """Percent of all objects found; NaN when nothing is annotated."""
        total = sum(self.truth.values())
        return 100 * sum(self.right.values()) / total if total else float("nan")


def score_scenes(
    predictions: Sequence[ScenePrediction], annotations: Annotations, protocol: SceneProtocol
) -> SceneScore:
    """The score over all scenes of `annotations`; a scene without predictions counts with its truth.

    Predictions of scenes that are not among them are ignored.
    """
    by_scene = defaultdict(list)
    for p in predictions:
        by_scene[p.scene].append(p)
    right, truth, table, considered = Counter(), annotations.counts(), {}, 0
    for scene, objects in annotations.scenes.items():
        kept = consider(by_scene[scene], objects, annotations.cad, protocol)
        matches = match(kept, objects, annotations.cad, protocol)
        right.update(objects[m].category for m in matches if m is not None)
        table[scene] = (sum(m is not None for m in matches), len(objects))
        considered += len(kept)
    unknown = sum(p.key not in annotations.cad for p in predictions if p.scene in annotations.scenes)
    return SceneScore(right, truth, table, considered, unknown)


def consider(
    predictions: Sequence[ScenePrediction],
    objects: Sequence[AnnotatedObject],
    cad: dict[CadKey, CadInfo],
    protocol: SceneProtocol,
) -> list[ScenePrediction]:
    """The predictions of one scene that take part in the matching, best score first.

    The convention "box" needs the box of the CAD file: models that no annotation knows fall out.
    """
    ranked = sorted(predictions, key=lambda p: -p.score)
    if protocol.convention == "box":
        ranked = [p for p in ranked if p.key in cad]
    if protocol.suppress:
        ranked = suppress(ranked, cad, protocol)
    if not protocol.limit_counts:
        return ranked
    left = Counter(item.category for item in objects)
    kept = []
    for p in ranked:
        if left[p.category] > 0:
            left[p.category] -= 1
            kept.append(p)
    return kept


def suppress(
    ranked: Sequence[ScenePrediction], cad: dict[CadKey, CadInfo], protocol: SceneProtocol
) -> list[ScenePrediction]:
    """3D non-maximum suppression: a prediction falls to one of its category that ranks higher, is kept
    itself, and is close in all three errors. Turns count by the symmetry of the one that is kept, and the
    scale is that of the kept one over the other's."""
    kept: list[ScenePrediction] = []
    for p in ranked:
        rivals = [k for k in kept if k.category == p.category]
        if rivals and _is_duplicate(p, rivals, cad, protocol):
            continue
        kept.append(p)
    return kept


def _is_duplicate(
    p: ScenePrediction, rivals: list[ScenePrediction], cad: dict[CadKey, CadInfo], protocol
) -> bool:
    pose = _pose(p, cad, protocol)
    for rival in rivals:
        better = _pose(rival, cad, protocol)
        if np.linalg.norm(better.t - pose.t) > protocol.nms_translation_m:
            continue
        # the better one over the other: the mean of ratios is not that of their inverses
        found = errors_to(better, [pose], [_symmetry(rival, cad)])
        if (
            found.rotation_deg[0] <= protocol.nms_rotation_deg
            and found.scale_of_mean[0] <= protocol.nms_scale
        ):
            return True
    return False


def match(
    ranked: Sequence[ScenePrediction],
    objects: Sequence[AnnotatedObject],
    cad: dict[CadKey, CadInfo],
    protocol: SceneProtocol,
) -> list[int | None]:
    """For every prediction the object it is right about, or None; every object is found once.

    The first object in the annotations' order that is within the limits is taken, as published. Turns are
    forgiven when the predicted CAD model has the symmetry of the annotated one.
    """
    taken: set[int] = set()
    found = []
    for p in ranked:
        free = [i for i, item in enumerate(objects) if i not in taken and item.category == p.category]
        index = _first_right(p, [objects[i] for i in free], cad, protocol) if free else None
        found.append(None if index is None else free[index])
        if index is not None:
            taken.add(free[index])
    return found


def _first_right(
    p: ScenePrediction, objects: list[AnnotatedObject], cad: dict[CadKey, CadInfo], protocol
) -> int | None:
    own = _symmetry(p, cad)
    symmetries = [own if own == item.symmetry else "none" for item in objects]
    true_poses = [in_convention(item.pose, item.box, protocol.convention) for item in objects]
    errors = errors_to(_pose(p, cad, protocol), true_poses, symmetries)
    right = (
        (errors.translation_m <= protocol.translation_m)
        & (errors.rotation_deg <= protocol.rotation_deg)
        & (errors.scale(protocol.strict_scale) <= protocol.scale)
    )
    if protocol.retrieval:
        right &= [item.key == p.key for item in objects]
    return int(right.argmax()) if right.any() else None


def _pose(p: ScenePrediction, cad: dict[CadKey, CadInfo], protocol: SceneProtocol) -> CadPose:
    return p.pose if protocol.convention == "file" else in_convention(p.pose, cad[p.key].box, "box")


def _symmetry(p: ScenePrediction, cad: dict[CadKey, CadInfo]) -> str:
    """A CAD model that no annotation knows has no symmetry that could be forgiven."""
    return cad[p.key].symmetry if p.key in cad else "none"
