"""What a detector finds in stored pictures, right or wrong: examples for a network that judges detections."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import nms

from sparc_core.geometry.boxes import box_iou
from sparc_core.perception.judgement import SAME_BOX
from sparc_core.perception.mask_rcnn import MaskRcnnDetector
from sparc_core.synth.picture_set import PicturedObject, PictureFolder

PROPOSALS = "proposals.jsonl"  # in the folder of the pictures
LOWEST_SCORE = 0.05  # of boxes that are asked for
RIGHT, WRONG = 0.5, 0.4  # IoU with an object from which a box shows it, and below which it shows none


def write_proposals(
    pictures: PictureFolder, detector: MaskRcnnDetector, count: int, report: Callable[[int], None]
) -> int:
    """Add the boxes of the first `count` pictures to the folder's `PROPOSALS`; those that are there stay.
    report(pictures done so far). Returns how many pictures are new."""
    there = read_proposals(pictures.folder) if (pictures.folder / PROPOSALS).is_file() else {}
    new = 0
    with (pictures.folder / PROPOSALS).open("a") as file:
        for position in range(min(count, len(pictures))):
            number = pictures.entries[position]["number"]
            if number not in there:
                boxes = distinct(*detector.detect_boxes(pictures.read(position, ()).rgb))
                file.write(json.dumps({"number": number, "boxes_xyxy": boxes.round(2).tolist()}) + "\n")
                new += 1
            report(position + 1)
    return new


def read_proposals(folder: Path) -> dict[int, np.ndarray]:
    """Boxes (D, 4), the best first, by the pictures' numbers. Raises ValueError naming file and line."""
    path = Path(folder) / PROPOSALS
    if not path.is_file():
        raise ValueError(f"{path}: no such file; write it with sparc train-perception proposals")
    found = {}
    for row, line in enumerate(path.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            found[int(entry["number"])] = np.array(entry["boxes_xyxy"], dtype=np.float64).reshape(-1, 4)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {row}: not a picture's number and boxes_xyxy: {error}") from error
    return found


def distinct(boxes_xyxy: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Boxes (K, 4), the best first, without those that a better one is."""
    boxes = torch.from_numpy(boxes_xyxy)
    return boxes[nms(boxes, torch.from_numpy(scores).to(boxes.dtype), SAME_BOX)].numpy()


def labelled(
    boxes_xyxy: np.ndarray, objects: tuple[PicturedObject, ...]
) -> list[tuple[np.ndarray, PicturedObject | None]]:
    """Boxes (D, 4), each with the object it shows or None, without those that show an object by halves (an
    IoU between `WRONG` and `RIGHT`)."""
    if not objects:
        return [(box, None) for box in boxes_xyxy]
    found = []
    for box, overlap in zip(boxes_xyxy, box_iou(boxes_xyxy, [o.box_xyxy for o in objects]), strict=True):
        best = int(overlap.argmax())
        if overlap[best] >= RIGHT:
            found.append((box, objects[best]))
        elif overlap[best] < WRONG:
            found.append((box, None))
    return found
