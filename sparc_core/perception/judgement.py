"""What a detector and the box network make of a box together: its score in every category.

A detector gives some boxes in several categories. Each box is judged once, in all categories: the detector's
scores there, its highest score for whether there is an object at all, and the box network's probabilities are
multiplied, each to a power. The powers were chosen among a few by the average precision on pictures of unseen
models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision.ops import batched_nms, box_iou

from sparc_core.types import Detection

DETECTOR, OBJECT, CATEGORY = 0.2, 0.2, 0.6  # exponents in a judged score
UNSAID = 0.01  # score of a category that the detector does not give a box
SAME_BOX = 0.85  # IoU from which two boxes are one
SAME_OBJECT = 0.5  # IoU from which two corrected boxes of a category show the same object


def leads_of(detections: Sequence[Detection], categories: Sequence[str]) -> tuple[list[int], torch.Tensor]:
    """Indices (L,) of the detections that are the best of their box, and the scores (L, C) that the box has
    in all categories. The detections are of these categories."""
    order = sorted(range(len(detections)), key=lambda i: -detections[i].score)
    boxes = _boxes(detections)
    overlap = box_iou(boxes, boxes)
    leads, rows = [], []
    for i in order:
        own = next((n for n, lead in enumerate(leads) if overlap[i, lead] >= SAME_BOX), len(leads))
        if own == len(leads):
            leads.append(i)
            rows.append([UNSAID] * len(categories))
        place = categories.index(detections[i].category)
        rows[own][place] = max(rows[own][place], detections[i].score)
    return leads, torch.tensor(rows).reshape(-1, len(categories))


def weigh(scores: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """(L, C) judged scores of boxes, from their scores (L, C) and the box network's logits (L, ≥ C)."""
    share = logits.softmax(1)[:, : scores.shape[1]]
    return scores**DETECTOR * scores.amax(1, keepdim=True) ** OBJECT * share**CATEGORY


def lowest_score(judged: float) -> float:
    """The detector's score of a box below which no category can lift it above a judged score."""
    return judged ** (1 / (DETECTOR + OBJECT))


def distinct_objects(detections: Sequence[Detection]) -> list[Detection]:
    """The best first, without those that a better one of the same category is."""
    names = sorted({d.category for d in detections})
    scores = torch.tensor([d.score for d in detections], dtype=torch.float32)
    groups = torch.tensor([names.index(d.category) for d in detections], dtype=torch.int64)
    return [detections[i] for i in batched_nms(_boxes(detections), scores, groups, SAME_OBJECT).tolist()]


def _boxes(detections: Sequence[Detection]) -> torch.Tensor:
    return torch.tensor([d.box_xyxy for d in detections], dtype=torch.float32).reshape(-1, 4)
