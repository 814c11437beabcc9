"""Instance masks from a depth image and boxes alone, for detections that bring no mask.

Perception stage: z-depth, a pinhole camera and one box come in; the pixels that probably belong to the
object go out. The steps: the plane the object stands on is found along the box's lower border and
removed; the nearest substantial surface in the middle of the box is the seed; pixels near the seed's depth
are grouped into pieces along depth jumps; pieces that run on across the border of the box belong to
something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sparc_core.perception.support import SupportPlane, find_support
from sparc_core.types import Camera

MIN_VALID_SHARE = 0.05
MIN_VALID_PIXELS = 40
# The middle of the box that is searched for the seed: this share of its width and height.
CORE_SHARE = 0.6
# The seed is the nearest layer, half a half-diagonal thick, that holds this share of the core.
SEED_SHARE = 0.25
# A plane that most of the core lies on is the object itself (a table top), not what it stands on.
MAX_SUPPORT_SHARE = 0.6
# Pieces smaller than this share of the box are noise.
MIN_PIECE_SHARE = 0.002
# A piece runs on across the border when its crossings exceed this share of its own size (root of area).
MAX_CROSSING = 0.35
JUMP_INVERSE_M = 0.008


@dataclass(frozen=True, eq=False)
class BoxMask:
    """The mask of one box, or the reason why there is none.

    mask: (H, W) bool or None. confidence in [0, 1]: share of the box's pixels that have depth, times the
    share of its foreground that the seed's own piece makes up. depth_m: median depth of the mask, or
    None. support: the plane the object stands on, or None where none was found.
    """

    mask: np.ndarray | None
    confidence: float
    depth_m: float | None = None
    support: SupportPlane | None = None
    reason: str | None = None


def depth_box_mask(
    depth_m: np.ndarray,
    camera: Camera,
    box_xyxy,
    *,
    half_diagonal_m: float = 0.6,
    up_cam=None,
    seed: int = 0,
) -> BoxMask:
    """The pixels of a box that belong to its object, judged by depth.

    depth_m: (H, W) float z-depth in metres, 0 or NaN where there is none. camera: a pinhole (rectify
    first). box_xyxy: pixels. half_diagonal_m: half the diagonal of a typical object of the category:
    what is farther from the seed in depth is not the object. up_cam: gravity's opposite when known;
    `camera.up_cam` is taken when None. seed: of the random plane hypotheses.

    Without depth in the box, or with an empty box, the mask is None and `reason` says why. Raises
    ValueError for a depth image of another size than the camera's or a half diagonal that is not positive.
    """
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(f"depth_m: expected {(camera.height, camera.width)}, got {depth_m.shape}")
    if not half_diagonal_m > 0:
        raise ValueError(f"half_diagonal_m: expected a positive length, got {half_diagonal_m}")
    bounds = _pixel_bounds(box_xyxy, camera)
    if bounds is None:
        return BoxMask(None, 0.0, reason=f"the box {tuple(box_xyxy)} holds no pixel of the image")
    left, top, right, bottom = bounds
    inside = (slice(top, bottom), slice(left, right))
    depth = depth_m[inside]
    valid = np.isfinite(depth) & (depth > 0)
    if valid.sum() < max(MIN_VALID_PIXELS, MIN_VALID_SHARE * valid.size):
        return BoxMask(None, 0.0, reason=f"only {valid.sum()} of the box's {valid.size} pixels have depth")

    up = camera.up_cam if up_cam is None else up_cam
    support = find_support(depth_m, camera, bounds, up, np.random.default_rng(seed))
    above = valid
    if support is not None:
        above = valid & support.is_above(depth, camera, left, top)
        core = _core(above)[_core(valid)]
        if core.size and core.mean() < 1 - MAX_SUPPORT_SHARE:
            support, above = None, valid
    seed_depth = _seed_depth(depth, above, half_diagonal_m)
    if seed_depth is None:
        return BoxMask(None, 0.0, support=support, reason="nothing stands out from the plane below the box")
    near = above & (depth > seed_depth - half_diagonal_m) & (depth < seed_depth + 1.5 * half_diagonal_m)
    local, main_share = _own_pieces(depth_m, near, bounds, seed_depth, half_diagonal_m)
    mask = np.zeros(depth_m.shape, dtype=bool)
    mask[inside] = local
    confidence = float(valid.mean() * main_share)
    return BoxMask(mask, confidence, float(np.median(depth[local])), support)


def separate_masks(masks: list[np.ndarray | None]) -> list[np.ndarray | None]:
    """Give each pixel that several masks claim to the smallest of them.

    A monitor stands inside the box of its table and a chair in front of it; never the other way round in
    a way that matters. masks: (H, W) bool each or None, which stays None.
    """
    order = sorted((i for i, mask in enumerate(masks) if mask is not None), key=lambda i: masks[i].sum())
    separated: list[np.ndarray | None] = [None] * len(masks)
    taken = None
    for i in order:
        separated[i] = masks[i].copy() if taken is None else masks[i] & ~taken
        taken = masks[i].copy() if taken is None else taken | masks[i]
    return separated


def _pixel_bounds(box_xyxy, camera: Camera) -> tuple[int, int, int, int] | None:
    """Integer bounds (ends exclusive) of the pixels whose centres lie in the box, None when there is none."""
    box = np.asarray(box_xyxy, dtype=np.float64)
    if not np.isfinite(box).all():
        return None
    left, top = np.clip(np.ceil(box[:2]), 0, None).astype(int)
    right, bottom = np.minimum(np.floor(box[2:]) + 1, (camera.width, camera.height)).astype(int)
    return (int(left), int(top), int(right), int(bottom)) if right > left and bottom > top else None


def _core_slices(crop: np.ndarray) -> tuple[slice, slice]:
    margins = [int(size * (1 - CORE_SHARE) / 2) for size in crop.shape]
    return tuple(slice(m, size - m) for m, size in zip(margins, crop.shape, strict=True))


def _core(crop: np.ndarray) -> np.ndarray:
    return crop[_core_slices(crop)]


def _seed_depth(depth: np.ndarray, candidates: np.ndarray, half_diagonal_m: float) -> float | None:
    """Depth of the nearest layer of the core that holds a fair share of its pixels."""
    values = _core(depth)[_core(candidates)]
    if len(values) < MIN_VALID_PIXELS:
        values = depth[candidates]
        if len(values) < MIN_VALID_PIXELS:
            return None
    values = np.sort(values[:: max(1, len(values) // 2000)])
    # How many values lie in the layer that starts at each value.
    count = np.searchsorted(values, values + 0.5 * half_diagonal_m, side="right") - np.arange(len(values))
    # Depths spread over many metres: no layer holds that share, the fullest one is taken.
    enough = np.flatnonzero(count >= min(SEED_SHARE * len(values), count.max()))
    first = enough[0]
    return float(np.median(values[first : first + count[first]]))


def _own_pieces(
    depth_m: np.ndarray, near: np.ndarray, bounds, seed_depth: float, half_diagonal_m: float
) -> tuple[np.ndarray, float]:
    """The pieces of `near` that are the object's: (h, w) bool, and the share of the seed's own piece."""
    labels, stats = _pieces(depth_m, near, bounds)
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    area[0] = 0  # the background
    depth = depth_m[bounds[1] : bounds[3], bounds[0] : bounds[2]]
    layer = near & (np.abs(depth - seed_depth) < 0.5 * half_diagonal_m)
    in_core = np.bincount(_core(labels)[_core(layer)], minlength=len(area)).astype(np.float64)
    in_core[0] = 0
    main = int(np.argmax(in_core)) if in_core.any() else int(np.argmax(area))
    crossings = _crossings(depth_m, labels, bounds, len(area))
    kept = (area >= MIN_PIECE_SHARE * near.size) & (crossings <= MAX_CROSSING * np.sqrt(area))
    kept[main] = True
    kept[0] = False
    local = kept[labels]
    # The jump pixels between the pieces were taken out: the object's own rim comes back.
    grown = cv2.dilate(local.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    others = (labels > 0) & ~local
    return grown & near & ~others, float(area[main] / max(area.sum(), 1.0))


def _pieces(depth_m: np.ndarray, near: np.ndarray, bounds) -> tuple[np.ndarray, np.ndarray]:
    """Connected pieces of `near` cut along depth jumps: (h, w) labels, 0 for none, and OpenCV's stats."""
    inverse = np.zeros(near.shape, dtype=np.float32)
    depth = depth_m[bounds[1] : bounds[3], bounds[0] : bounds[2]]
    np.divide(1, depth, out=inverse, where=near)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    # A pixel is at a jump when a neighbour lies clearly behind it; holes do not count as behind.
    nearest = cv2.erode(np.where(near, inverse, np.float32(1e3)), cross)
    whole = near & (inverse - nearest < JUMP_INVERSE_M + 0.012 * inverse)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(whole.astype(np.uint8), connectivity=4)
    return labels, stats


def _crossings(depth_m: np.ndarray, labels: np.ndarray, bounds, count: int) -> np.ndarray:
    """(count,) number of border pixels over which each piece runs on outside the box.

    The lower border is left out: what stands on the floor often touches it.
    """
    left, top, right, bottom = bounds
    height, width = depth_m.shape
    found = np.zeros(count)
    sides = []
    if left > 0:
        sides.append((labels[:, 0], depth_m[top:bottom, left], depth_m[top:bottom, left - 1]))
    if right < width:
        sides.append((labels[:, -1], depth_m[top:bottom, right - 1], depth_m[top:bottom, right]))
    if top > 0:
        sides.append((labels[0], depth_m[top, left:right], depth_m[top - 1, left:right]))
    for label, inner, outer in sides:
        with np.errstate(divide="ignore", invalid="ignore"):
            goes_on = np.abs(1 / inner - 1 / outer) < JUMP_INVERSE_M + 0.012 / inner
        found += np.bincount(label[goes_on], minlength=count)
    return found
