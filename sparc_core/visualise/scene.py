"""A 3D scene file of the result: CAD models, the depth image's points, the camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparc_core.perception.rectify import undistorted_rays
from sparc_core.types import AlignedObject, Camera
from sparc_core.visualise.overlay import object_color
from sparc_core.visualise.zbuffer import place

# Optical frame (y down, z forward) to glTF (y up, z towards the viewer): half a turn about x.
GLTF_FROM_CAM = np.diag([1.0, -1.0, -1.0])
FRUSTUM_LENGTH_M = 0.15
MAX_POINTS = 200_000
# Share of the object's colour in the drawn surface; the rest is the CAD model's own.
TINT = 0.35


def scene_glb(
    objects: Sequence[AlignedObject],
    library,
    path: str | Path,
    *,
    camera: Camera | None = None,
    image_rgb: np.ndarray | None = None,
    depth_m: np.ndarray | None = None,
) -> None:
    """Write one GLB with all aligned models, in metres, seen from the camera's frame turned to y up.

    With `camera` a small frustum is added; with `depth_m` (H, W) metres as well, its points, coloured
    from `image_rgb` (H, W, 3) uint8 when given. Nodes are named "<detection>_<model_id>", "points" and
    "camera". Raises ValueError for a name that does not end in .glb, or depth without a camera.
    """
    import trimesh  # costs half a second: not for those who only draw

    path = Path(path)
    require_scene_suffix(path)
    if depth_m is not None and camera is None:
        raise ValueError("camera: expected a Camera with depth_m, got None")
    scene = trimesh.Scene()
    for item in objects:
        model = library.models[library.index_of(item.model_id)]
        colors = (1 - TINT) * model.face_colors + TINT * np.array(object_color(item.detection))
        mesh = trimesh.Trimesh(
            place(model.vertices, item) @ GLTF_FROM_CAM.T, model.faces, process=False,
            face_colors=np.rint(colors).astype(np.uint8),
        )  # fmt: skip
        scene.add_geometry(mesh, node_name=f"{item.detection}_{item.model_id}")
    if depth_m is not None:
        scene.add_geometry(_point_cloud(camera, depth_m, image_rgb), node_name="points")
    if camera is not None:
        scene.add_geometry(_frustum(camera), node_name="camera")
    path.write_bytes(scene.export(file_type="glb"))


def require_scene_suffix(path: Path) -> None:
    """Raise ValueError when the name does not end in .glb."""
    if path.suffix.lower() != ".glb":
        raise ValueError(f"{path}: expected a name ending in .glb")


def _point_cloud(camera: Camera, depth_m: np.ndarray, image_rgb: np.ndarray | None):
    import trimesh

    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(f"depth_m: expected {(camera.height, camera.width)}, got {depth_m.shape}")
    row, column = np.nonzero(np.isfinite(depth_m) & (depth_m > 0))
    every = max(1, -(-len(row) // MAX_POINTS))
    row, column = row[::every], column[::every]
    rays = undistorted_rays(np.stack([column, row], -1).astype(np.float64), camera)
    known = np.isfinite(rays).all(-1)
    row, column, rays = row[known], column[known], rays[known]
    points = np.concatenate([rays, np.ones_like(rays[:, :1])], -1) * depth_m[row, column, None]
    colors = np.full((len(points), 3), 160, np.uint8) if image_rgb is None else image_rgb[row, column]
    return trimesh.PointCloud(points @ GLTF_FROM_CAM.T, colors=colors)


def _frustum(camera: Camera):
    """A pyramid from the camera's centre to the corners of its image, 15 cm long."""
    import trimesh

    corners = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]]) - 0.5
    rays = (corners - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    tips = np.concatenate([rays, np.ones((4, 1))], -1) * FRUSTUM_LENGTH_M
    faces = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1], [1, 3, 2], [1, 4, 3]]
    vertices = np.concatenate([np.zeros((1, 3)), tips]) @ GLTF_FROM_CAM.T
    return trimesh.Trimesh(vertices, faces, process=False, face_colors=[60, 60, 60, 255])
