"""What should be found in a frame: the annotated CAD models in view, rendered, with how much of them is seen.

Multi-SPARC, section 4: a CAD model counts when its centre is in the image, and when for at least half of its
pixels the rendered depth is within 30 cm of the sensor's. Masks are those of ROCA's data: all CAD models of
the scene in one depth buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparc_core.datasets.poses import CadPose
from sparc_core.datasets.shapenet import CadMesh
from sparc_core.types import Camera
from sparc_core.visualise.zbuffer import rasterise

VISIBLE_WITHIN_M = 0.30
VISIBLE_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class FrameObject:
    """One annotated object in one frame.

    index: in the scene's annotations. box_xyxy: of all of it that falls on the image, hidden or not.
    visible_share: of its pixels, those at which the sensor measured its depth within 30 cm; a pixel the
    sensor has no depth for does not count as seen. mask: (H, W) bool, where no other CAD model hides it;
    mask_box_xyxy: around it, None when nothing is left.
    """

    index: int
    box_xyxy: tuple[float, float, float, float]
    visible_share: float
    mask: np.ndarray
    mask_box_xyxy: tuple[float, float, float, float] | None

    @property
    def visible(self) -> bool:
        """Whether it counts in the per-image protocol."""
        return self.visible_share >= VISIBLE_SHARE


@dataclass(frozen=True, eq=False)
class PosedMesh:
    """A CAD model and the pose of its file in the camera frame."""

    mesh: CadMesh
    pose: CadPose

    @property
    def triangles_cam(self) -> np.ndarray:
        """(F, 3, 3) corners of the faces in the camera frame."""
        return self.pose.transform(self.mesh.vertices)[self.mesh.faces]

    @property
    def centre_cam(self) -> np.ndarray:
        """(3,) the centre of the box in the camera frame."""
        return self.pose.transform(self.mesh.box.centre)


def frame_truth(
    posed: Sequence[PosedMesh | None], camera: Camera, depth_m: np.ndarray | None
) -> list[FrameObject]:
    """The objects of one frame whose centre is in the image and that cover at least one pixel.

    posed: all annotated objects of the scene, None where there is no mesh. depth_m: (H, W) of the sensor, 0
    where unknown; None: everything counts as seen.
    """
    rendered = {i: rasterise(p.triangles_cam, camera) for i, p in enumerate(posed) if p is not None}
    front = np.full((camera.height, camera.width), np.inf, dtype=np.float32)
    owner = np.full(front.shape, -1)
    for i, z in rendered.items():
        nearer = z < front
        front[nearer], owner[nearer] = z[nearer], i
    found = []
    for i, z in rendered.items():
        covered = np.isfinite(z)
        if not covered.any() or not centre_in_view(posed[i].centre_cam, camera):
            continue
        mask = owner == i
        found.append(FrameObject(
            i, mask_box(covered), _visible_share(z[covered], depth_m, covered), mask,
            mask_box(mask) if mask.any() else None,
        ))  # fmt: skip
    return found


def centre_in_view(point_cam: np.ndarray, camera: Camera) -> bool:
    """Whether a camera point (3,) projects onto the image."""
    if point_cam[2] <= 0:
        return False
    u = point_cam[0] / point_cam[2] * camera.fx + camera.cx
    v = point_cam[1] / point_cam[2] * camera.fy + camera.cy
    return bool(-0.5 <= u < camera.width - 0.5 and -0.5 <= v < camera.height - 0.5)


def mask_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The box around the True pixels of an (H, W) mask, to the pixels' outer edges. ValueError if none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError("an empty mask has no box")
    return columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5


def _visible_share(rendered_m: np.ndarray, depth_m: np.ndarray | None, covered: np.ndarray) -> float:
    if depth_m is None:
        return 1.0
    measured = depth_m[covered]
    seen = (measured > 0) & (np.abs(measured - rendered_m) <= VISIBLE_WITHIN_M)
    return float(seen.mean())
