"""How well the demo's objects were aligned: errors against the truth, and the table that shows them.

Knows nothing about ROS nodes: messages (AlignedObject) in, numbers and text out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from sparc_core.cad.symmetry import turn_angles_rad
from sparc_core.geometry.boxes import box_iou
from sparc_ros.transform_adapter import matrix_from_pose

# Scan2CAD's thresholds for a right alignment: centimetres, degrees, per cent.
RIGHT = (20.0, 20.0, 20.0)
SAME_BOX_IOU = 0.4


@dataclass(frozen=True)
class Score:
    """One object in one image. scale_percent: mean over the axes of |s / s_true - 1|."""

    place: int
    category: str
    track_id: int
    model_id: str
    true_model_id: str
    score: float
    translation_cm: float
    rotation_deg: float
    scale_percent: float

    @property
    def right(self) -> bool:
        """Within 20 cm, 20 degrees and 20 %."""
        errors = (self.translation_cm, self.rotation_deg, self.scale_percent)
        return all(error <= limit for error, limit in zip(errors, RIGHT, strict=True))


def score_object(found, truth) -> Score:
    """Errors of an AlignedObject message against the true one; rotation is symmetry-aware.

    A model that looks the same after some turns about its y axis is right in any of them.
    """
    T_found, T_true = matrix_from_pose(found.pose), matrix_from_pose(truth.pose)
    turns = Rotation.from_euler("y", turn_angles_rad(truth.symmetry)[:, None]).as_matrix()
    between = Rotation.from_matrix(T_found[:3, :3].T @ T_true[:3, :3] @ turns)
    ratios = [getattr(found.scale, axis) / getattr(truth.scale, axis) for axis in "xyz"]
    return Score(
        place=truth.track_id,
        category=truth.category,
        track_id=found.track_id,
        model_id=found.model_id,
        true_model_id=truth.model_id,
        score=found.score,
        translation_cm=100 * float(np.linalg.norm(T_found[:3, 3] - T_true[:3, 3])),
        rotation_deg=math.degrees(float(between.magnitude().min())),
        scale_percent=100 * float(np.mean([abs(ratio - 1) for ratio in ratios])),
    )


def score_frame(objects: Sequence, truths: Sequence) -> list[Score]:
    """Scores of the objects of one image. Object and truth belong together when they are of one category and
    their boxes overlap by `SAME_BOX_IOU`; each belongs to one other at most."""
    if not objects or not truths:
        return []
    overlap = box_iou(np.array([o.box_xyxy for o in objects]), np.array([t.box_xyxy for t in truths]))
    same = np.array([[o.category == t.category for t in truths] for o in objects])
    overlap = np.where(same, overlap, 0.0)
    return [
        score_object(objects[i], truths[j])
        for i, j in zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
        if overlap[i, j] >= SAME_BOX_IOU
    ]


def format_table(
    frames: Sequence[Sequence[Score]], expected: Sequence[int], latencies_ms: Sequence[float]
) -> str:
    """The demo's table: one line an object with medians over the frames, then a summary.

    expected: how many objects there were to find in each frame.
    """
    scores = [score for frame in frames for score in frame]
    by_place: dict[int, list[Score]] = {}
    for score in scores:
        by_place.setdefault(score.place, []).append(score)
    title = (
        f"{'object':<14}{'CAD model':<24}{'score':>6}{'position':>11}{'rotation':>10}{'size':>8}"
        f"{'right':>8}{'tracks':>8}"
    )
    lines = [title, "-" * len(title)]
    for place in sorted(by_place):
        lines.append(_line(by_place[place]))
    right, total = sum(score.right for score in scores), sum(expected)
    share = 100 * right / max(total, 1)
    lines += [
        "-" * len(title),
        f"within {RIGHT[0]:.0f} cm, {RIGHT[1]:.0f} deg, {RIGHT[2]:.0f} %: {right} of {total} object views "
        f"({share:.0f} %) in {len(frames)} images",
        f"latency, image stamp to objects received: median {median(latencies_ms):.0f} ms, "
        f"largest {max(latencies_ms):.0f} ms",
    ]
    return "\n".join(lines)


def _line(scores: list[Score]) -> str:
    first = scores[0]
    models = {score.model_id for score in scores}
    model = first.model_id if len(models) == 1 else f"{len(models)} different ones"
    wrong = "" if models == {first.true_model_id} else " *"
    tracks = ",".join(str(track) for track in sorted({score.track_id for score in scores}))
    right = f"{sum(score.right for score in scores)}/{len(scores)}"
    return (
        f"{first.category:<14}{model + wrong:<24}"
        f"{median(score.score for score in scores):>6.2f}"
        f"{median(score.translation_cm for score in scores):>8.1f} cm"
        f"{median(score.rotation_deg for score in scores):>6.1f} deg"
        f"{median(score.scale_percent for score in scores):>6.1f} %"
        f"{right:>8}{tracks:>8}"
    )


def as_json(
    frames: Sequence[Sequence[Score]], expected: Sequence[int], latencies_ms: Sequence[float]
) -> dict[str, object]:
    """The same as plain data: every score of every frame."""
    return {
        "frames": [[asdict(score) | {"right": score.right} for score in frame] for frame in frames],
        "expected": list(expected),
        "latency_ms": list(latencies_ms),
    }
