"""What a detector and the box network make of a box together: its score in every category.

A detector gives some boxes in several categories. Each box is judged once, in all categories: the detector's
scores there, its highest score for whether there is an object at all, and the box network's probabilities are
multiplied, each to a power. The powers and `SOFTNESS` were chosen among a few by the average precision on
pictures of unseen models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torchvision.ops import box_iou

from sparc_core.types import Detection

DETECTOR, OBJECT, CATEGORY = 0.2, 0.2, 0.6  # exponents in a judged score
UNSAID = 0.01  # score of a category that the detector does not give a box
SAME_BOX = 0.85  # IoU from which two boxes are one
SOFTNESS = 0.3  # a box whose overlap with a better one has the IoU x loses its score by exp(−x² / SOFTNESS)


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


def distinct_objects(detections: Sequence[Detection], min_score: float) -> list[Detection]:
    """The best first, with scores of `min_score` or more that are lowered, category by category, by the
    overlap with every better one: Soft-NMS with a Gaussian (Bodla et al., ICCV 2017). Two things that stand
    close together stay two, and a second box of one thing loses its score."""
    found, promising = [], [d for d in detections if d.score >= min_score]
    for category in sorted({d.category for d in promising}):
        group = [d for d in promising if d.category == category]
        boxes, scores = _boxes(group), torch.tensor([d.score for d in group], dtype=torch.float64)
        factor = torch.exp(-box_iou(boxes, boxes).square() / SOFTNESS)
        for _ in group:
            best = int(scores.argmax())
            if scores[best] < min_score:
                break
            found.append(replace(group[best], score=float(scores[best])))
            scores = scores * factor[best]
            scores[best] = -1.0  # is taken
    return sorted(found, key=lambda d: -d.score)


def _boxes(detections: Sequence[Detection]) -> torch.Tensor:
    return torch.tensor([d.box_xyxy for d in detections], dtype=torch.float32).reshape(-1, 4)
