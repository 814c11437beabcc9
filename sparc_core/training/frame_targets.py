"""What of a prepared frame is trained on: its visible objects with box, CAD model, mask and true pose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparc_core.datasets.poses import CadPose, rigid_inverse
from sparc_core.datasets.prepared import PreparedFrame, PreparedScannet, decode_mask, encode_mask
from sparc_core.datasets.roca import RocaPrediction
from sparc_core.datasets.scan2cad import CadKey
from sparc_core.datasets.truth import FrameObject
from sparc_core.geometry.boxes import box_iou
from sparc_core.types import Camera

MIN_BOX_PX = 12.0
MIN_IOU = 0.5  # of a detection with the object it stands for
MIN_DETECTION_SCORE = 0.5

Detections = Mapping[tuple[str, str], Sequence[RocaPrediction]]


@dataclass(frozen=True, eq=False)
class FrameTarget:
    """One object. cad: the CAD model to align, symmetry: of the annotated one; pose: the true one, of the
    unit cube in the camera frame; encoded_mask: where it is seen, as run lengths."""

    box_xyxy: tuple[float, float, float, float]
    category: str
    cad: CadKey
    symmetry: str
    pose: CadPose
    encoded_mask: dict

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        return decode_mask(self.encoded_mask)


@dataclass(frozen=True, eq=False)
class TrainingFrame:
    """A frame with at least one target; up_cam (3,): against gravity, from the scan; above_floor_m: the
    camera's height, None unknown."""

    scene: str
    name: str
    camera: Camera
    up_cam: np.ndarray
    targets: tuple[FrameTarget, ...]
    above_floor_m: float | None = None


def training_frames(
    dataset: PreparedScannet,
    scenes: Iterable[str],
    min_visible: float,
    usable: frozenset[CadKey],
    detections: Detections | None = None,
) -> list[TrainingFrame]:
    """The frames of some scenes that show objects whose visible share is at least min_visible.

    usable: CAD models that can be aligned; objects of others are left out. detections: of a detector; only
    objects that it found are trained on, with its boxes, masks and CAD models. None: the true ones.
    """
    frames = []
    for scene in scenes:
        for frame in dataset.frames(scene):
            found = None if detections is None else detections.get((scene, frame.name), ())
            targets = _targets(dataset, frame, min_visible, usable, found)
            if targets:
                up_cam = frame.T_scan_cam[2, :3].copy()  # the scan's z axis, in the camera
                frames.append(TrainingFrame(scene, frame.name, frame.camera, up_cam, tuple(targets)))
    return frames


def _targets(dataset, frame: PreparedFrame, min_visible: float, usable, found) -> list[FrameTarget]:
    annotated = dataset.annotations.scenes[frame.scene]
    seen = [
        item
        for item in frame.objects
        if item.visible_share >= min_visible
        and item.mask_box_xyxy is not None
        and annotated[item.index].key in usable
        and _large_enough(item.mask_box_xyxy)
    ]
    T_cam_scan = rigid_inverse(frame.T_scan_cam)
    targets = []
    for item, detection in _detected(seen, annotated, found):
        truth = annotated[item.index]
        pose = dataset.cad[truth.key].box.to_box_pose(truth.pose.moved(T_cam_scan))
        box, cad, mask = item.mask_box_xyxy, truth.key, encode_mask(item.mask)
        if detection is not None:
            box = detection.box_xyxy
            cad = detection.cad if detection.cad in usable else cad
            mask = detection.segmentation or mask
        targets.append(FrameTarget(box, truth.category, cad, truth.symmetry, pose, mask))
    return targets


def _detected(seen: list[FrameObject], annotated, found):
    """Pairs of object and detection: each detection, best score first, takes the free object of its category
    that its box overlaps most. All objects, with None, where there is no detector."""
    if found is None:
        return [(item, None) for item in seen]
    pairs, free = [], list(seen)
    for detection in sorted(found, key=lambda d: -d.score):
        rivals = [item for item in free if annotated[item.index].category == detection.category]
        if detection.score < MIN_DETECTION_SCORE or not rivals:
            continue
        overlap = box_iou(detection.box_xyxy, [item.mask_box_xyxy for item in rivals])[0]
        best = int(overlap.argmax())
        if overlap[best] >= MIN_IOU:
            pairs.append((rivals[best], detection))
            free.remove(rivals[best])
    return pairs


def _large_enough(box) -> bool:
    return min(box[2] - box[0], box[3] - box[1]) >= MIN_BOX_PX
