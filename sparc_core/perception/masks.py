"""Instance masks from a depth image and boxes alone, for detections that bring no mask.

Perception stage: z-depth, a pinhole camera and all boxes of an image come in; the pixels that probably
belong to each object go out. Floor and walls are removed (as planes, or as a network knows them), what is
left is cut into pieces along depth jumps, and every piece goes to the box it fills best: a chair before a
table lies in both boxes, but fits its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from sparc_core.perception.background import foreground, inverse_depth
from sparc_core.types import Camera

MIN_PIECE_PX = 12
JUMP_INVERSE_M = 0.008
# A box that is this many times as large as the object could be at a piece's depth is not filled by it.
TOO_LARGE = 1.3
TOO_SMALL = 0.35
UNLIKELY = 0.2
# A piece joins an object when this share of it lies in the box and its depth is within half a diagonal.
MIN_INSIDE = 0.6
MIN_MASK_PX = 20


@dataclass(frozen=True, eq=False)
class Pieces:
    """labels (H, W) int32, 0 where there is no piece; per piece 1…P: area (P,) in pixels, depth_m (P,)."""

    labels: np.ndarray
    area: np.ndarray
    depth_m: np.ndarray


def depth_masks(
    depth_m: np.ndarray,
    camera: Camera,
    boxes_xyxy,
    diagonals_m,
    *,
    on_object: np.ndarray | None = None,
    seed: int = 0,
) -> list[np.ndarray | None]:
    """A mask (H, W) bool for every box, or None where nothing in the box stands out.

    depth_m: (H, W) float z-depth in metres, 0 or NaN where there is none. camera: a pinhole (rectify
    first). boxes_xyxy: (D, 4) pixels. diagonals_m: (D,) diagonal of each object's typical or CAD box.
    on_object: (H, W) bool, the pixels of objects where that is known; None: what lies in front of the planes
    of floor and walls. seed: of the random plane hypotheses. No pixel belongs to two masks.

    Raises ValueError for a depth image or on_object of another size than the camera's, a box that is not
    finite or a diagonal that is not positive.
    """
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(f"depth_m: expected {(camera.height, camera.width)}, got {depth_m.shape}")
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    diagonals = np.asarray(diagonals_m, dtype=np.float64).reshape(-1)
    if not np.isfinite(boxes).all():
        raise ValueError(f"boxes_xyxy: expected finite numbers, got {boxes.tolist()}")
    if not (diagonals > 0).all():
        raise ValueError(f"diagonals_m: expected positive lengths, got {diagonals.tolist()}")
    if on_object is None:
        front = foreground(depth_m, camera, boxes, seed)
    elif on_object.shape == depth_m.shape:
        front = on_object & (depth_m > 0) & (depth_m < np.inf)
    else:
        raise ValueError(f"on_object: expected {depth_m.shape}, got {on_object.shape}")
    pieces = cut_into_pieces(depth_m, front)
    windows = [_window(box, camera) for box in boxes]
    inside, fill = _overlaps(pieces, boxes, windows)
    score = fill * inside**2 * _size_plausible(pieces, boxes, diagonals, camera)
    main = _main_pieces(score)
    owner = _owners(pieces, inside, main, diagonals)
    return [
        _mask_of(d, window, pieces, depth_m, owner, main[d], diagonals[d]) for d, window in enumerate(windows)
    ]


def cut_into_pieces(depth_m: np.ndarray, front: np.ndarray) -> Pieces:
    """Connected pieces of the foreground, cut along depth jumps."""
    inverse = inverse_depth(depth_m, front)
    # small holes (dark glass, dropped pixels) take over the nearest depth around them
    missing = ~((depth_m > 0) & (depth_m < np.inf))
    np.copyto(inverse, cv2.dilate(inverse, np.ones((5, 5), np.uint8)), where=missing)
    solid = inverse > 0
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    # a pixel is at a jump when a neighbour lies clearly behind it; holes do not count as behind
    nearest = cv2.erode(np.where(solid, inverse, np.float32(1e3)), cross)
    whole = solid & (inverse - nearest < JUMP_INVERSE_M + 0.012 * inverse)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(whole.astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < MIN_PIECE_PX
    small[0] = True
    number = np.zeros(count, dtype=np.int32)
    number[~small] = np.arange(1, (~small).sum() + 1)
    labels = number[labels]
    # the jump pixels were taken out to separate the pieces: each goes back to a piece beside it
    grown = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8))
    np.copyto(labels, grown, where=labels == 0, casting="unsafe")
    labels *= front
    pixels = np.flatnonzero(labels)
    label = labels.ravel()[pixels]
    area = np.bincount(label, minlength=len(number[~small]) + 1)[1:].astype(np.float64)
    depth = np.bincount(label, depth_m.ravel()[pixels], minlength=len(area) + 1)[1:]
    return Pieces(labels, area, depth / np.maximum(area, 1))


def _window(box, camera: Camera) -> tuple[slice, slice]:
    """Rows and columns of the pixels whose centres lie in the box."""
    left, top = np.clip(np.ceil(box[:2]), 0, None).astype(int)
    right, bottom = np.minimum(np.floor(box[2:]) + 1, (camera.width, camera.height)).astype(int)
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def _overlaps(pieces: Pieces, boxes: np.ndarray, windows) -> tuple[np.ndarray, np.ndarray]:
    """(P, D) share of each piece that lies in each box; (P, D) overlap (IoU) of the bounds of that part
    with the box."""
    count = len(pieces.area)
    inside, fill = np.zeros((count, len(boxes))), np.zeros((count, len(boxes)))
    for d, (box, window) in enumerate(zip(boxes, windows, strict=True)):
        crop = pieces.labels[window]
        inside[:, d] = np.bincount(crop.ravel(), minlength=count + 1)[1:] / np.maximum(pieces.area, 1)
        width, height = np.maximum(box[2:] - box[:2], 1)
        for p, bounds in enumerate(ndimage.find_objects(crop) if crop.any() else ()):
            if bounds is not None:
                rows, columns = (along.stop - along.start for along in bounds)
                fill[p, d] = min(columns / width, 1) * min(rows / height, 1)
    return inside, fill


def _size_plausible(pieces: Pieces, boxes: np.ndarray, diagonals: np.ndarray, camera: Camera) -> np.ndarray:
    """(P, D) 1, or `UNLIKELY` where an object of the box's size at the piece's depth would be far larger or
    smaller than it is. What is cut off by the image border or hidden only makes a box smaller."""
    size = (boxes[:, 2:] - boxes[:, :2]) / [camera.fx, camera.fy]
    metres = np.linalg.norm(size, axis=1)[None] * pieces.depth_m[:, None]
    limit = np.array([1.5, 1.5, camera.width - 2.5, camera.height - 2.5])
    cut = (boxes[:, :2] <= limit[:2]).any(1) | (boxes[:, 2:] >= limit[2:]).any(1)
    unlikely = (metres > TOO_LARGE * diagonals) | ((metres < TOO_SMALL * diagonals) & ~cut)
    return np.where(unlikely, UNLIKELY, 1.0)


def _main_pieces(score: np.ndarray) -> np.ndarray:
    """(D,) the piece every box gets first, −1 for none: best pairs first, no piece twice while others
    are left."""
    main = np.full(score.shape[1], -1)
    left = score.copy()
    for _ in range(score.shape[1]):
        if left.size == 0 or left.max() <= 0:
            break
        p, d = np.unravel_index(left.argmax(), left.shape)
        main[d] = p
        left[p], left[:, d] = 0, 0
    return main


def _owners(pieces: Pieces, inside, main, diagonals) -> np.ndarray:
    """(P,) the box each piece goes to, −1 for none: its own if it is a main piece, else that of the box
    around it whose main piece is nearest in depth."""
    owner = np.full(len(pieces.area), -1)
    has_main = main >= 0
    if has_main.any() and len(owner):
        gap = np.abs(pieces.depth_m[:, None] - pieces.depth_m[np.maximum(main, 0)][None])
        joins = (inside >= MIN_INSIDE) & has_main[None] & (gap < diagonals / 2)
        gap = np.where(joins, gap / diagonals, np.inf)
        owner = np.where(joins.any(1), gap.argmin(1), -1)
    owner[main[has_main]] = np.flatnonzero(has_main)
    return owner


def _mask_of(d, window, pieces: Pieces, depth_m, owner, main: int, diagonal_m: float) -> np.ndarray | None:
    """The pixels of box d's pieces within the box and not farther than a diagonal from the main piece."""
    if main < 0:
        return None
    crop, depth = pieces.labels[window], depth_m[window]
    own = np.append(owner == d, False)[crop - 1] & (crop > 0)
    first = depth[crop == main + 1]
    if not len(first):
        return None
    own &= np.abs(depth - np.median(first)) < diagonal_m
    if own.sum() < MIN_MASK_PX:
        return None
    mask = np.zeros(depth_m.shape, dtype=bool)
    mask[window] = own
    return mask
