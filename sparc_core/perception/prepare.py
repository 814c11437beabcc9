"""From what the caller hands in to channels on the device: checks, rectification, normals, masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparc_core.cad.candidates import choose_candidates
from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.camera import intrinsics_tensor
from sparc_core.perception.gravity import estimate_up
from sparc_core.perception.masks import depth_masks
from sparc_core.perception.normals import DepthNormals, normals_from_depth
from sparc_core.perception.observe import ImageChannels
from sparc_core.perception.rectify import Rectifier, rectifier_for
from sparc_core.perception.samples import Frame
from sparc_core.types import ESTIMATE_NUMBERS, Camera, Detection, PixelHints

MIN_BOX_PX = 4.0
NO_ESTIMATE = (0.0,) * ESTIMATE_NUMBERS


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A rectified image ready for the search.

    camera: the pinhole of the rectified image, with gravity where it is known or could be estimated.
    kept: which detections are aligned, in order; skipped: (detection, reason). boxes_xyxy (D, 4)
    rectified and cut at the image; candidates: D arrays of CAD model positions, and likeness: D arrays of how
    much a retrieval finds them alike, 0 without one; depth_source: "sensor", "predicted" or "none";
    estimate (D, `ESTIMATE_NUMBERS`) of the detections, 0 unknown.
    """

    camera: Camera
    channels: ImageChannels
    kept: tuple[int, ...]
    skipped: tuple[tuple[int, str], ...]
    boxes_xyxy: np.ndarray
    candidates: tuple[np.ndarray, ...]
    likeness: tuple[np.ndarray, ...]
    depth_source: str
    estimate: np.ndarray

    def frame(self, detection: torch.Tensor) -> Frame:
        """What the image is like for blocks of objects: detection (K, N) positions in `kept`, −1 padded."""
        camera, device, blocks = self.camera, detection.device, len(detection)
        boxes = torch.from_numpy(self.boxes_xyxy).float().to(device)[detection.clamp(min=0)]
        up = camera.up_cam or (0.0, -1.0, 0.0)
        return Frame(
            intrinsics_tensor(camera, device).expand(blocks, 4),
            torch.tensor([camera.width, camera.height], dtype=torch.float32, device=device).expand(blocks, 2),
            boxes,
            detection >= 0,
            torch.tensor(up, dtype=torch.float32, device=device).expand(blocks, 3),
            torch.full((blocks,), camera.up_cam is not None, device=device),
            torch.from_numpy(self.estimate).float().to(device)[detection.clamp(min=0)],
            torch.full((blocks,), camera.above_floor_m or 0.0, device=device),
        )


def prepare_image(
    image_rgb: np.ndarray,
    camera: Camera,
    detections: Sequence[Detection],
    depth_m: np.ndarray | None,
    library: CadLibrary,
    config,
    device: torch.device,
    normals_cam: np.ndarray | None = None,
    depth_predicted: bool = False,
    hints: PixelHints | None = None,
) -> PreparedImage:
    """Check everything, then compute the channels. config: an `AlignerConfig`; the images as in
    `Aligner.align`.

    Raises ValueError for an image or depth of the wrong shape or type; single bad detections are
    skipped with a reason.
    """
    _check_images(image_rgb, camera, depth_m, normals_cam)
    _check_hints(hints, camera)
    rectifier = rectifier_for(camera)
    boxes, reasons = _usable_boxes(rectifier, detections, library)
    kept = tuple(i for i in range(len(detections)) if i not in reasons)
    skipped = tuple(sorted(reasons.items()))
    depth = None if depth_m is None else rectifier.depth(_clean_depth(depth_m))
    pinhole = _with_gravity(rectifier.camera, depth, kept, config)
    normals = None if normals_cam is None else rectifier.normals(_clean_normals(normals_cam))
    if hints is not None:
        hints = PixelHints.unstacked(rectifier.values(hints.stacked()))
    seen = [detections[i] for i in kept]
    masks = _masks(rectifier, pinhole, seen, boxes, depth, hints, library, config)
    rgb = rectifier.image(image_rgb)
    channels = _channels(pinhole, rgb, depth, normals, hints, boxes, masks, device)
    candidates = tuple(
        _candidates(detections[i], box, depth, pinhole, library, config.max_candidates)
        for i, box in zip(kept, boxes, strict=True)
    )
    source = "none" if depth is None else "predicted" if depth_predicted else "sensor"
    likeness = tuple(np.zeros(len(c)) for c in candidates)
    estimate = packed_estimates(seen)
    return PreparedImage(pinhole, channels, kept, skipped, boxes, candidates, likeness, source, estimate)


def packed_estimates(detections: Sequence[Detection]) -> np.ndarray:
    """(D, `ESTIMATE_NUMBERS`) float32 what is expected of detections, 0 where nothing is."""
    rows = [NO_ESTIMATE if d.estimate is None else d.estimate.packed() for d in detections]
    return np.array(rows, dtype=np.float32).reshape(-1, ESTIMATE_NUMBERS)


def _check_images(image_rgb, camera: Camera, depth_m, normals_cam) -> None:
    expected = (camera.height, camera.width)
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(f"image_rgb must be (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}")
    if image_rgb.shape[:2] != expected:
        raise ValueError(
            f"image_rgb is {image_rgb.shape[:2]} (height, width), but the camera says {expected}"
        )
    if normals_cam is not None and (
        normals_cam.shape != (*expected, 3) or not np.issubdtype(normals_cam.dtype, np.floating)
    ):
        raise ValueError(
            f"normals_cam must be {(*expected, 3)} float unit vectors, "
            f"got {normals_cam.shape} {normals_cam.dtype}"
        )
    if depth_m is None:
        return
    if depth_m.ndim != 2 or not np.issubdtype(depth_m.dtype, np.floating):
        raise ValueError(f"depth_m must be (H, W) float metres, got {depth_m.shape} {depth_m.dtype}")
    if depth_m.shape != expected:
        raise ValueError(
            f"depth_m is {depth_m.shape} (height, width), but the image is {expected}: register the "
            "depth to the colour camera first"
        )


def _check_hints(hints: PixelHints | None, camera: Camera) -> None:
    if hints is None:
        return
    size = (camera.height, camera.width)
    for name, shape in (("object_share", size), ("depth_sigma_log", size)):
        values = getattr(hints, name)
        if values.shape != shape or not np.issubdtype(values.dtype, np.floating):
            raise ValueError(f"hints.{name} must be {shape} float, got {values.shape} {values.dtype}")


def _clean_depth(depth_m: np.ndarray) -> np.ndarray:
    """float32 depth with 0 for everything that is not a positive finite number."""
    depth = depth_m.astype(np.float32)
    depth[~((depth > 0) & (depth < np.inf))] = 0
    return depth


def _clean_normals(normals_cam: np.ndarray) -> np.ndarray:
    """float32 unit normals, zero where they were not finite or had no length."""
    length = np.linalg.norm(normals_cam, axis=-1, keepdims=True)
    known = np.isfinite(length) & (length > 0.5)
    return np.where(known, normals_cam / np.where(known, length, 1), 0).astype(np.float32)


def _usable_boxes(rectifier: Rectifier, detections, library: CadLibrary):
    """(D, 4) rectified boxes cut at the image, and the reasons of those that are not among them."""
    camera = rectifier.camera
    limit = np.tile([camera.width - 1, camera.height - 1], 2)
    boxes, reasons = [], {}
    for index, detection in enumerate(detections):
        reason = _detection_problem(detection, camera, library)
        if reason is None:
            box = np.clip(rectifier.boxes(np.array([detection.box_xyxy]))[0], 0, limit)
            size = box[2:] - box[:2]
            if not np.isfinite(box).all() or (size < MIN_BOX_PX).any():
                reason = (
                    f"box {_plain(detection.box_xyxy)} has less than {MIN_BOX_PX:.0f} pixels on the image"
                )
        if reason is None:
            boxes.append(box)
        else:
            reasons[index] = reason
    return np.array(boxes, dtype=np.float64).reshape(-1, 4), reasons


def _detection_problem(detection: Detection, camera: Camera, library: CadLibrary) -> str | None:
    box = np.asarray(detection.box_xyxy, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        return f"box {detection.box_xyxy} is not four finite numbers"
    if box[2] <= box[0] or box[3] <= box[1]:
        return f"box {_plain(box)} is empty"
    if box[2] <= 0 or box[3] <= 0 or box[0] >= camera.width - 1 or box[1] >= camera.height - 1:
        return f"box {_plain(box)} lies outside the {camera.width}x{camera.height} image"
    if detection.mask is not None and detection.mask.shape != (camera.height, camera.width):
        return f"mask is {detection.mask.shape} (height, width), the image {(camera.height, camera.width)}"
    if detection.model_id is not None:
        try:
            library.index_of(detection.model_id)
        except ValueError as error:
            return str(error)
        return None
    if not len(library.indices_of_category(detection.category)):
        known = ", ".join(library.categories)
        return f"no CAD model of category {detection.category!r}; the library has {known}"
    return None


def _plain(box) -> str:
    return "[" + ", ".join(f"{v:.1f}" for v in box) + "]"


def _with_gravity(camera: Camera, depth, kept, config) -> Camera:
    """The camera with up_cam: as given, else estimated from depth, else unknown."""
    if camera.up_cam is not None or depth is None or not kept or not config.estimate_gravity:
        return camera
    up = estimate_up(torch.from_numpy(depth), intrinsics_tensor(camera))
    return camera if up is None else dataclasses.replace(camera, up_cam=tuple(up.tolist()))


def _channels(camera, image_rgb, depth, given_normals, hints, boxes, masks, device) -> ImageChannels:
    shape = (camera.height, camera.width)
    rgb = torch.from_numpy(np.array(image_rgb)).to(device)  # a copy: the caller may go on
    depth_map = torch.zeros(shape, device=device) if depth is None else torch.from_numpy(depth).to(device)
    normals = torch.zeros(*shape, 3, device=device)
    if given_normals is not None:
        normals = torch.from_numpy(given_normals).to(device)
    elif depth is not None and len(boxes):
        normals = _normals(depth_map, camera, boxes)
    stacked = np.zeros((max(1, len(masks)), *shape), dtype=bool)
    for i in (i for i, mask in enumerate(masks) if mask is not None):
        stacked[i] = masks[i]
    has_mask = torch.tensor([mask is not None for mask in masks] or [False], device=device)
    said = None if hints is None else torch.from_numpy(hints.stacked()).to(device)
    return ImageChannels(rgb, depth_map, normals, torch.from_numpy(stacked).to(device), has_mask, said)


def _normals(depth_m: torch.Tensor, camera: Camera, boxes: np.ndarray) -> torch.Tensor | DepthNormals:
    """Of all pixels on a GPU, which would wait for the processor at every read; else fitted where read."""
    intrinsics = intrinsics_tensor(camera, depth_m.device)[None]
    if depth_m.device.type != "cpu":
        return normals_from_depth(depth_m[None], intrinsics)[0][0]
    normals = DepthNormals(depth_m[None], intrinsics)
    normals.expect(torch.from_numpy(boxes))
    return normals


def _masks(rectifier, camera, detections, boxes, depth, hints, library, config) -> list[np.ndarray | None]:
    """(H, W) bool masks: the detections' own, else cut from depth and box, else None."""
    given = [None if d.mask is None else rectifier.mask(d.mask) for d in detections]
    if depth is None or not config.depth_masks:
        return given
    extents = [_expected_extents(detection, library) for detection in detections]
    on_object = None if hints is None else hints.object_share > 0.5
    diagonals = [float(np.linalg.norm(e)) for e in extents]
    cut = depth_masks(depth, camera, boxes, diagonals, on_object=on_object)
    return [g if g is not None else c for g, c in zip(given, cut, strict=True)]


def _expected_extents(detection: Detection, library: CadLibrary) -> np.ndarray:
    if detection.model_id is not None:
        return library.models[library.index_of(detection.model_id)].extents_m
    return library.median_extents_m(detection.category)


def _candidates(
    detection: Detection, box, depth, camera: Camera, library: CadLibrary, limit: int
) -> np.ndarray:
    if detection.model_id is not None:
        return np.array([library.index_of(detection.model_id)])
    seen = None
    if depth is not None:
        x0, y0, x1, y1 = (int(v) for v in box)
        quarter_x, quarter_y = (x1 - x0) // 4, (y1 - y0) // 4
        centre = depth[y0 + quarter_y : y1 - quarter_y + 1, x0 + quarter_x : x1 - quarter_x + 1]
        if (centre > 0).any():
            z = float(np.median(centre[centre > 0]))
            seen = ((box[2] - box[0]) * z / camera.fx, (box[3] - box[1]) * z / camera.fy)
    return choose_candidates(library, detection.category, limit, seen)
