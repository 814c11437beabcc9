"""A 3D scene file of the result: CAD models, the depth image's points, the camera.

As .glb for any 3D viewer, or as .html: a page that holds the scene and a viewer (three.js, as it comes inside
trimesh), so that it can be turned with the mouse in any browser, without a network.
"""

from __future__ import annotations

import html
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


def write_scene(
    objects: Sequence[AlignedObject],
    library,
    path: str | Path,
    *,
    camera: Camera | None = None,
    image_rgb: np.ndarray | None = None,
    depth_m: np.ndarray | None = None,
) -> None:
    """Write one GLB or HTML file with all aligned models, in metres, seen from the camera's frame turned to
    y up.

    With `camera` a small frustum is added; with `depth_m` (H, W) metres as well, its points, coloured
    from `image_rgb` (H, W, 3) uint8 when given. Nodes are named "<detection>_<model_id>", "points" and
    "camera". Raises ValueError for a name that ends in neither, or depth without a camera.
    """
    import trimesh  # costs half a second: not for those who only draw

    path = Path(path)
    require_scene_suffix(path)
    if depth_m is not None and camera is None:
        raise ValueError("camera: expected a Camera with depth_m, got None")
    scene = trimesh.Scene()
    for item in objects:
        model = library.models[library.index_of(item.model_id)]
        mesh = tinted_mesh(model, place(model.vertices, item) @ GLTF_FROM_CAM.T, item.detection)
        scene.add_geometry(mesh, node_name=f"{item.detection}_{item.model_id}")
    if depth_m is not None:
        points, colors = coloured_points(camera, depth_m, image_rgb, MAX_POINTS)
        scene.add_geometry(trimesh.PointCloud(points @ GLTF_FROM_CAM.T, colors=colors), node_name="points")
    if camera is not None:
        scene.add_geometry(frustum(camera, GLTF_FROM_CAM), node_name="camera")
    save_scene(scene, path)


def require_scene_suffix(path: Path) -> None:
    """Raise ValueError when the name ends neither in .glb nor in .html."""
    if path.suffix.lower() not in (".glb", ".html"):
        raise ValueError(f"{path}: expected a name ending in .glb or .html")


def save_scene(scene, path: Path) -> None:
    """Write a `trimesh.Scene`, y up, as the file's ending says."""
    if path.suffix.lower() == ".glb":
        path.write_bytes(scene.export(file_type="glb"))
        return
    from trimesh.viewer.notebook import scene_to_html

    page = scene_to_html(scene)
    path.write_text(page.replace("trimesh: threejs viewer", html.escape(path.stem), 1), encoding="utf-8")


def tinted_mesh(model, vertices: np.ndarray, number: int):
    """A CAD model's mesh with the given vertices (V, 3), in its own colours with a tint of the number's."""
    import trimesh

    colors = (1 - TINT) * model.face_colors + TINT * np.array(object_color(number))
    return trimesh.Trimesh(
        vertices, model.faces, process=False, face_colors=np.rint(colors).astype(np.uint8)
    )  # fmt: skip


def coloured_points(
    camera: Camera, depth_m: np.ndarray, image_rgb: np.ndarray | None, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) points of a depth image in the camera frame and (P, 3) uint8 colours, at most `most` of them.

    Raises ValueError when the depth does not fit the camera.
    """
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(f"depth_m: expected {(camera.height, camera.width)}, got {depth_m.shape}")
    row, column = np.nonzero(np.isfinite(depth_m) & (depth_m > 0))
    every = max(1, -(-len(row) // most))
    row, column = row[::every], column[::every]
    rays = undistorted_rays(np.stack([column, row], -1).astype(np.float64), camera)
    known = np.isfinite(rays).all(-1)
    row, column, rays = row[known], column[known], rays[known]
    points = np.concatenate([rays, np.ones_like(rays[:, :1])], -1) * depth_m[row, column, None]
    colors = np.full((len(points), 3), 160, np.uint8) if image_rgb is None else image_rgb[row, column]
    return points, colors


def frustum(camera: Camera, R: np.ndarray, origin=(0.0, 0.0, 0.0)):
    """A pyramid from the camera's centre to the corners of its image, 15 cm long; R (3, 3), origin (3,):
    where the camera is."""
    import trimesh

    corners = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]]) - 0.5
    rays = (corners - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    tips = np.concatenate([rays, np.ones((4, 1))], -1) * FRUSTUM_LENGTH_M
    faces = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1], [1, 3, 2], [1, 4, 3]]
    vertices = np.concatenate([np.zeros((1, 3)), tips]) @ R.T + np.asarray(origin)
    return trimesh.Trimesh(vertices, faces, process=False, face_colors=[60, 60, 60, 255])
