"""The overlay picture: CAD wireframes, silhouettes, boxes and labels on the camera image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sparc_core.perception.rectify import rectifier_for
from sparc_core.types import AlignedObject, Camera
from sparc_core.visualise.lines import Lines, object_lines
from sparc_core.visualise.zbuffer import render_objects, render_pinhole

# Distinct on wood, white and dark backgrounds; RGB.
PALETTE = (
    (255, 140, 0), (0, 200, 255), (255, 60, 120), (80, 220, 80), (170, 110, 255),
    (255, 230, 0), (0, 220, 170), (255, 90, 60), (90, 140, 255), (240, 130, 230),
)  # fmt: skip
FILL_OPACITY = 0.22
HIDDEN_OPACITY = 0.35
# Visibility is decided on a depth buffer no wider than this; lines are drawn at full resolution.
BUFFER_WIDTH = 640
_SUBPIXEL_BITS = 4


def object_color(detection: int) -> tuple[int, int, int]:
    """The RGB colour (0 to 255) of the object of one detection, the same in every picture."""
    return PALETTE[detection % len(PALETTE)]


def draw_overlay(
    image_rgb: np.ndarray, camera: Camera, objects: Sequence[AlignedObject], library
) -> np.ndarray:
    """Draw aligned CAD models over the image they were found in.

    image_rgb: (H, W, 3) uint8, the raw image of `camera` (its lens distortion is applied). library: the
    `CadLibrary` the objects' models come from. Returns a new (H, W, 3) uint8 image: one colour an
    object, feature edges (hidden ones faint), a translucent fill of the visible part, box and label.
    Raises ValueError for another image layout and for a model the library does not have.
    """
    if image_rgb.dtype != np.uint8 or image_rgb.shape != (camera.height, camera.width, 3):
        raise ValueError(
            f"image_rgb: expected {(camera.height, camera.width, 3)} uint8, "
            f"got {image_rgb.shape} {image_rgb.dtype}"
        )
    rectifier = rectifier_for(camera)
    pinhole = render_pinhole(rectifier, BUFFER_WIDTH if rectifier.is_identity else 2 * BUFFER_WIDTH)
    buffer = render_objects(objects, library, pinhole)
    lines = [
        object_lines(item, library.models[library.index_of(item.model_id)], camera, pinhole, buffer.z_m)
        for item in objects
    ]
    canvas = np.ascontiguousarray(image_rgb).copy()
    visible = [rectifier.raw_mask(buffer.owner == i).view(np.uint8) for i in range(len(objects))]
    for item, mask in zip(objects, visible, strict=True):
        _fill(canvas, mask, object_color(item.detection))
    _draw_lines(canvas, objects, lines, visible)
    _draw_labels(canvas, objects)
    return canvas


def _fill(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    # Only the rows and columns of the mask: a whole-image blend an object would cost more than the rest.
    x, y, width, height = cv2.boundingRect(mask)
    if width == 0:
        return
    crop = canvas[y : y + height, x : x + width]
    tinted = cv2.addWeighted(crop, 1 - FILL_OPACITY, np.full_like(crop, color), FILL_OPACITY, 0)
    cv2.copyTo(tinted, mask[y : y + height, x : x + width], crop)


def _draw_lines(
    canvas: np.ndarray, objects: Sequence[AlignedObject], lines: list[Lines], visible: list[np.ndarray]
) -> None:
    """Hidden lines, outlines and boxes first and faint, then the visible lines."""
    width = max(1, round(canvas.shape[1] / 640))
    faint = canvas.copy()
    for item, runs, mask in zip(objects, lines, visible, strict=True):
        color = object_color(item.detection)
        _polylines(faint, runs.hidden, color, width)
        # Round things have no feature edges: their outline is all there is to see.
        outline = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
        cv2.drawContours(faint, outline, -1, color, width, cv2.LINE_AA)
        x0, y0, x1, y1 = np.clip(np.rint(item.box_xyxy), -1, [canvas.shape[1], canvas.shape[0]] * 2)
        cv2.rectangle(faint, (int(x0), int(y0)), (int(x1), int(y1)), color, width, cv2.LINE_AA)
    cv2.addWeighted(faint, HIDDEN_OPACITY, canvas, 1 - HIDDEN_OPACITY, 0, dst=canvas)
    for item, runs in zip(objects, lines, strict=True):
        _polylines(canvas, runs.visible, object_color(item.detection), width)


def _polylines(canvas: np.ndarray, runs: list[np.ndarray], color: tuple[int, int, int], width: int) -> None:
    scaled = [np.rint(run * 2**_SUBPIXEL_BITS).astype(np.int32) for run in runs]
    if scaled:
        cv2.polylines(canvas, scaled, False, color, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def _draw_labels(canvas: np.ndarray, objects: Sequence[AlignedObject]) -> None:
    """Labels above their boxes, inside the image, moved down where one is taken already."""
    size = max(0.4, 0.42 * canvas.shape[1] / 640)
    taken: list[tuple[int, int, int, int]] = []
    for item in objects:
        text = label_text(item)
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        width, height = width + 6, height + below + 4
        x = int(np.clip(item.box_xyxy[0], 0, max(0, canvas.shape[1] - width)))
        y = int(np.clip(item.box_xyxy[1] - height, 0, max(0, canvas.shape[0] - height)))
        while any(_overlap((x, y, width, height), other) for other in taken):
            if y + 2 * height > canvas.shape[0]:
                break
            y += height
        taken.append((x, y, width, height))
        color = object_color(item.detection)
        cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), color, cv2.FILLED)
        ink = (0, 0, 0) if np.dot(color, (0.3, 0.59, 0.11)) > 110 else (255, 255, 255)
        origin = (x + 3, y + height - below - 2)
        cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def label_text(item: AlignedObject) -> str:
    """Category, CAD model and score; the category once where the model's name starts with it."""
    name = item.model_id if item.model_id.startswith(item.category) else f"{item.category} {item.model_id}"
    return f"{name} {item.score:.2f}"


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
