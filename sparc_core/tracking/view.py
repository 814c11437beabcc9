"""The camera at one image, as the tracker knows it: where a track should be seen, and whether it can be.

In: intrinsics, the camera's pose in the fixed frame (None: unknown, then it is taken not to have moved) and
the depth image. Out: poses and boxes of tracks in this camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparc_core.geometry.camera import project_points
from sparc_core.tracking.association import UNIT_CUBE_CORNERS
from sparc_core.types import Camera

# Where a track is looked for: nine points across the middle of its box, in unit-cube coordinates.
_LOOKED_AT = np.array(
    [(x, y, z) for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)] + [(0, 0, 0)]
)
IN_FRONT_M = 0.15  # depth this much nearer than the object's nearest point belongs to something else
MIN_SHOWN = 0.5  # of these points, on the image and not hidden


@dataclass(frozen=True, eq=False)
class View:
    """frame: "fixed" when the camera's pose in the fixed frame is known now, else "camera". T_fixed_cam
    (4, 4): that pose, or the last one known, or None. depth_m (H, W) metres, 0 unknown, or None."""

    camera: Camera
    frame: str
    T_fixed_cam: np.ndarray | None
    depth_m: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        camera: Camera,
        T_fixed_cam: np.ndarray | None,
        last_T_fixed_cam: np.ndarray | None = None,
        depth_m: np.ndarray | None = None,
    ) -> View:
        """Raises ValueError for a pose that is not a finite (4, 4) matrix."""
        if T_fixed_cam is None:
            return cls(camera, "camera", last_T_fixed_cam, depth_m)
        T_fixed_cam = np.asarray(T_fixed_cam, dtype=np.float64)
        if T_fixed_cam.shape != (4, 4) or not np.isfinite(T_fixed_cam).all():
            raise ValueError(f"T_fixed_cam must be a finite (4, 4) matrix, got {T_fixed_cam}")
        return cls(camera, "fixed", T_fixed_cam, depth_m)

    def to_camera(self, frame: str) -> np.ndarray:
        """(4, 4) from a track's frame to this camera. What was placed in a camera's frame stays there: no
        motion is assumed."""
        if frame == "camera":
            return np.eye(4)
        return np.linalg.inv(self.T_fixed_cam)

    def from_camera(self) -> np.ndarray:
        """(4, 4) from this camera to the frame that sightings are kept in."""
        return self.T_fixed_cam if self.frame == "fixed" else np.eye(4)

    def expected_box(self, R: np.ndarray, T_m: np.ndarray, S_m: np.ndarray) -> tuple[float, ...]:
        """The box of a pose in this camera, cut at the image; NaN when a part is behind the camera."""
        uv = project_points((UNIT_CUBE_CORNERS * S_m) @ R.T + T_m, self.camera)
        if not np.isfinite(uv).all():
            return (np.nan,) * 4
        border = np.array([self.camera.width, self.camera.height]) - 0.5
        return (*np.clip(uv.min(0), -0.5, border), *np.clip(uv.max(0), -0.5, border))

    def shows(self, R: np.ndarray, T_m: np.ndarray, S_m: np.ndarray) -> bool:
        """Whether an object in this pose, given in this camera, should be seen: on the image, and with
        nothing in front of it in the depth image."""
        points = (_LOOKED_AT * S_m) @ R.T + T_m
        uv = project_points(points, self.camera)
        size = np.array([self.camera.width, self.camera.height])
        with np.errstate(invalid="ignore"):
            shown = np.isfinite(uv).all(1) & (uv >= -0.5).all(1) & (uv <= size - 0.5).all(1)
        if self.depth_m is not None and shown.any():
            nearest = ((UNIT_CUBE_CORNERS * S_m) @ R.T + T_m)[:, 2].min()
            column, row = np.clip(np.rint(uv[shown]), 0, size - 1).astype(int).T
            depth = self.depth_m[row, column]
            shown[shown] = ~((depth > 0) & (depth < nearest - IN_FRONT_M))
        return bool(shown.mean() >= MIN_SHOWN)

    def touches_border(self, box_xyxy: tuple[float, float, float, float]) -> bool:
        """Whether a detected box is cut by the image's border, so that the object is not seen whole."""
        x0, y0, x1, y1 = box_xyxy
        return x0 < 2 or y0 < 2 or x1 > self.camera.width - 3 or y1 > self.camera.height - 3
