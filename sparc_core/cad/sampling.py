"""Uniform surface samples of a CAD model."""

from __future__ import annotations

import numpy as np

SAMPLINGS = ("surface", "visible")


def sample_surface(
    vertices_m: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`count` points spread uniformly over the surface, in random order.

    vertices_m (V, 3) at true size: uniform in the unit cube would not be uniform on the object.
    Returns points (count, 3), unit face normals (count, 3) and face indices (count,). Raises
    ValueError when the mesh has no area.
    """
    triangles = vertices_m[faces]
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    doubled_area = np.linalg.norm(cross, axis=1)
    total = doubled_area.sum()
    if not np.isfinite(total) or total <= 0:
        raise ValueError("the mesh has no surface area")
    face = rng.choice(len(faces), size=count, p=doubled_area / total)
    u, v = rng.random((2, count, 1))
    root = np.sqrt(u)  # without the root, points would crowd at the first corner
    a, b, c = (triangles[face, k] for k in range(3))
    points = (1 - root) * a + root * (1 - v) * b + root * v * c
    return points, cross[face] / doubled_area[face, None], face


def normals_to_unit_cube(normals: np.ndarray, extents_m: np.ndarray) -> np.ndarray:
    """Unit normals at true size -> unit normals of the unit-cube model (the cube's points are the true
    ones divided by the extents, so normals are multiplied by them)."""
    scaled = normals * extents_m
    return scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1e-12)
