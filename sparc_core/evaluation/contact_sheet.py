"""A picture of best, median and worst cases: what a method aligned, over what stands there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.errors import THRESHOLDS
from sparc_core.types import AlignedObject, Camera
from sparc_core.visualise.overlay import draw_overlay

CASES = 6
TILE_PX = (300, 225)  # width, height
MARGIN = 0.35  # of the box's size, seen on every side of it
TEXT_PX = 18
LIMITS = next(iter(THRESHOLDS.values()))


def hardness(record: dict) -> float:
    """How many times the largest of an object's three errors exceeds its limit of 20 cm, 20° or 20 %."""
    errors = (record["translation_m"], record["rotation_deg"], record["scale"])
    return max(error / limit for error, limit in zip(errors, LIMITS, strict=True))


def choose_cases(objects: list[dict], count: int = CASES) -> dict[str, list[dict]]:
    """Records of the best, the median and the worst aligned well-visible objects, at most `count` of each and
    none twice. objects: of `records_of`."""
    seen = sorted((o for o in objects if o["aligned"] and o["well_visible"]), key=hardness)
    count = min(count, len(seen) // 3)
    middle = (len(seen) - count) // 2
    return {
        "best": seen[:count],
        "median": seen[middle : middle + count],
        "worst": seen[len(seen) - count :][::-1],
    }


def draw_contact_sheet(
    cases: dict[str, list[dict]],
    picture_of: Callable[[int], tuple[np.ndarray, Camera]],
    library: CadLibrary,
) -> np.ndarray:
    """(H, W, 3) uint8: for every kind of case a row of pairs, what was aligned above what is true.

    picture_of: RGB image (H, W, 3) uint8 and camera of the number in a record's "image". Raises ValueError
    without cases.
    """
    rows = [
        np.hstack([_pair(kind, record, *picture_of(record["image"]), library) for record in records])
        for kind, records in cases.items()
        if records
    ]
    if not rows:
        raise ValueError("there is no aligned, well visible object to show")
    return np.vstack(rows)


def _pair(kind: str, record: dict, image_rgb: np.ndarray, camera: Camera, library: CadLibrary) -> np.ndarray:
    text = (
        f"{kind}: {record['translation_m'] * 100:.0f} cm, {record['rotation_deg']:.0f} deg, "
        f"{record['scale'] * 100:.0f} %"
    )
    truth = f"truth ({record['category']})"
    shown = (
        _tile(record, record["aligned"], record["score"], image_rgb, camera, library, text),
        _tile(record, record["truth"], 1.0, image_rgb, camera, library, truth),
    )
    return np.pad(np.vstack(shown), ((3, 3), (3, 3), (0, 0)))


def _tile(record, described: dict, score: float, image_rgb, camera, library, text: str) -> np.ndarray:
    """The overlay of one CAD model, cut out round the object's box, with a line of text above."""
    item = AlignedObject(
        0, record["category"], described["model_id"], tuple(record["box_xyxy"]),
        *(np.array(described[name]) for name in ("R", "T_m", "S_m")), score, "",
    )  # fmt: skip
    left, top, right, bottom = _window(record["box_xyxy"], image_rgb.shape)
    width, height = TILE_PX
    # enlarged first: lines stay thin
    factor = width / (right - left)
    shift = np.float32([[factor, 0, -factor * left], [0, factor, -factor * top]])
    cut = cv2.warpAffine(image_rgb, shift, TILE_PX, borderMode=cv2.BORDER_REPLICATE)
    seen_by = replace(
        camera, width=width, height=height, fx=camera.fx * factor, fy=camera.fy * factor,
        cx=(camera.cx - left) * factor, cy=(camera.cy - top) * factor,
    )  # fmt: skip
    box = (np.array(record["box_xyxy"]) - np.array([left, top, left, top])) * factor
    tile = draw_overlay(cut, seen_by, [replace(item, box_xyxy=tuple(box.tolist()))], library)
    head = np.full((TEXT_PX, width, 3), 255, np.uint8)
    cv2.putText(head, text, (4, TEXT_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack((head, tile))


def _window(box_xyxy, shape) -> tuple[float, float, float, float]:
    """A window of the tile's proportions round a box, with a margin, within reach of the image."""
    x0, y0, x1, y1 = np.clip(box_xyxy, 0, [shape[1], shape[0]] * 2)
    aspect = TILE_PX[0] / TILE_PX[1]
    width = max((x1 - x0) * (1 + 2 * MARGIN), (y1 - y0) * (1 + 2 * MARGIN) * aspect, 40.0)
    width = min(width, max(shape[1], shape[0] * aspect))
    height = width / aspect
    left = np.clip((x0 + x1 - width) / 2, min(0, shape[1] - width), max(0, shape[1] - width))
    top = np.clip((y0 + y1 - height) / 2, min(0, shape[0] - height), max(0, shape[0] - height))
    return float(left), float(top), float(left + width), float(top + height)
