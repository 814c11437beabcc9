"""Predicted CAD models: in a scene, as the protocol counts them, and in a frame, as methods find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparc_core.datasets.poses import CadBox, CadPose
from sparc_core.datasets.scan2cad import CadKey

SCORES = ("pose", "detection")


@dataclass(frozen=True, eq=False)
class ScenePrediction:
    """One CAD model in a scene. pose: of the CAD file in scan coordinates; score: what ranks it."""

    scene: str
    synset: str
    cad_id: str
    category: str
    pose: CadPose
    score: float

    @property
    def key(self) -> CadKey:
        """Synset and id of the CAD model."""
        return self.synset, self.cad_id


@dataclass(frozen=True, eq=False)
class FramePrediction:
    """One CAD model in a frame. pose: of the CAD file in the camera frame, None when it was not aligned; box
    in pixels of the 480 × 360 image; pose_score: the method's trust in the pose, detection_score that in
    the 2D detection; segmentation: COCO's run-length mask or None."""

    scene: str
    frame: str
    synset: str
    cad_id: str
    category: str
    box_xyxy: tuple[float, float, float, float]
    pose: CadPose | None
    pose_score: float
    detection_score: float
    segmentation: dict | None = None

    @property
    def key(self) -> CadKey:
        """Synset and id of the CAD model."""
        return self.synset, self.cad_id

    def score(self, ranked_by: str) -> float:
        """The score that ranks: "pose" or "detection"."""
        return self.pose_score if ranked_by == "pose" else self.detection_score


def to_scene(
    predictions: Sequence[FramePrediction], T_scan_cam: dict[tuple[str, str], np.ndarray], ranked_by: str
) -> list[ScenePrediction]:
    """The predictions of frames in scan coordinates; those without a pose are left out.

    T_scan_cam: (4, 4) of every (scene, frame). Raises ValueError for a frame it does not have.
    """
    found = []
    for p in predictions:
        if p.pose is None:
            continue
        if (p.scene, p.frame) not in T_scan_cam:
            raise ValueError(f"{p.scene}/{p.frame}: the camera's pose is not known")
        pose = p.pose.moved(T_scan_cam[p.scene, p.frame])
        found.append(ScenePrediction(p.scene, p.synset, p.cad_id, p.category, pose, p.score(ranked_by)))
    return found


def in_convention(pose: CadPose, box: CadBox, convention: str) -> CadPose:
    """A pose of a CAD file as the convention compares it: "file", or "box" with the box of the file."""
    return pose if convention == "file" else box.to_box_pose(pose)
