"""One 3D scene of a whole video: the tracked models where they stand, the camera's way, coloured points.

Images are added one after the other; memory stays bounded because old points are thinned.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sparc_core.types import Camera
from sparc_core.visualise.overlay import object_color
from sparc_core.visualise.scene import coloured_points, frustum, require_scene_suffix, save_scene, tinted_mesh

MAX_POINTS = 200_000
POINTS_PER_IMAGE = 4_000
PATH_RADIUS_M = 0.008
MIN_STEP_M = 0.02  # of the camera's way; what is nearer to the last place is left out

# The scene's frame (y up, as glTF wants it) from the video's, whose up axis has this name.
R_SCENE_FIXED = {
    "y": np.eye(3),
    "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    "-y": np.diag([1.0, -1.0, -1.0]),
}


class RoomScene:
    """Collects what was seen from the cameras of a video in one frame; `up`: which of its axes is up, one of
    `R_SCENE_FIXED` ("-y" for a camera's own frame). Raises ValueError for another."""

    def __init__(self, library, up: str):
        if up not in R_SCENE_FIXED:
            raise ValueError(f"up must be one of {list(R_SCENE_FIXED)}, got {up!r}")
        self._library, self._turn = library, R_SCENE_FIXED[up]
        self._way: list[np.ndarray] = []
        self._last: tuple[Camera, np.ndarray] | None = None
        self._points, self._colors, self._keep = [], [], POINTS_PER_IMAGE

    def add_image(
        self, camera: Camera, T_fixed_cam: np.ndarray, image_rgb: np.ndarray, depth_m: np.ndarray | None
    ) -> None:
        """One image: (4, 4) camera pose, (H, W, 3) uint8, (H, W) metres or None."""
        place = T_fixed_cam[:3, 3]
        moved = not self._way or np.linalg.norm(place - self._way[-1]) >= MIN_STEP_M
        if moved:
            self._way.append(place)
        self._last = (camera, T_fixed_cam)
        if depth_m is None or not (moved or not self._points):
            return
        points, colors = coloured_points(camera, depth_m, image_rgb, self._keep)
        self._points.append(points @ T_fixed_cam[:3, :3].T + place)
        self._colors.append(colors)
        while sum(map(len, self._points)) > MAX_POINTS:
            self._points = [points[::2] for points in self._points]
            self._colors = [colors[::2] for colors in self._colors]
            self._keep = max(1, self._keep // 2)

    def write(self, path: str | Path, tracks: Iterable) -> None:
        """Write a .glb or .html file with the tracks (`R`, `T_m`, `S_m` in the video's frame, `model_id`,
        `track_id`). Nodes are named "<track id>_<model id>", "points", "way" and "camera". Raises ValueError
        for another ending."""
        import trimesh

        path = Path(path)
        require_scene_suffix(path)
        scene = trimesh.Scene()
        for track in tracks:
            model = self._library.models[self._library.index_of(track.model_id)]
            vertices = (np.asarray(model.vertices, np.float64) * track.S_m) @ track.R.T + track.T_m
            mesh = tinted_mesh(model, vertices @ self._turn.T, track.track_id)
            scene.add_geometry(mesh, node_name=f"{track.track_id}_{track.model_id}")
        if self._points:
            points = np.concatenate(self._points) @ self._turn.T
            scene.add_geometry(
                trimesh.PointCloud(points, colors=np.concatenate(self._colors)), node_name="points"
            )
        if len(self._way) > 1:
            scene.add_geometry(_tube(np.array(self._way) @ self._turn.T), node_name="way")
        if self._last is not None:
            camera, T = self._last
            mesh = frustum(camera, self._turn @ T[:3, :3], self._turn @ T[:3, 3])
            scene.add_geometry(mesh, node_name="camera")
        save_scene(scene, path)


def _tube(way: np.ndarray):
    """A thin tube along (K, 3) points: lines of a GLB are one pixel wide in most viewers."""
    import trimesh

    pieces = [
        trimesh.creation.cylinder(PATH_RADIUS_M, segment=segment, sections=6)
        for segment in zip(way[:-1], way[1:], strict=True)
    ]
    tube = trimesh.util.concatenate(pieces)
    tube.visual.face_colors = np.array([*object_color(0), 255], np.uint8)
    return tube
