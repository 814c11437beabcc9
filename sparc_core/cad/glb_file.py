"""Writing a mesh as GLB (glTF binary): one part a colour, each with a material."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from sparc_core.cad.mesh_file import srgb_to_linear


def write_glb(path: Path, vertices: np.ndarray, faces: np.ndarray, face_colors: np.ndarray) -> None:
    """Write vertices (V, 3), faces (F, 3) and sRGB face_colors (F, 3) uint8 to `path`."""
    colors, index = np.unique(face_colors, axis=0, return_inverse=True)
    scene = trimesh.Scene()
    for number, color in enumerate(colors):
        used, position = np.unique(faces[index.reshape(-1) == number], return_inverse=True)
        material = trimesh.visual.material.PBRMaterial(
            baseColorFactor=[*srgb_to_linear(color / 255), 1.0], metallicFactor=0.0, roughnessFactor=0.8
        )
        part = trimesh.Trimesh(vertices[used], position.reshape(-1, 3), process=False)
        part.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(part, geom_name=f"color_{number}")
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(scene.export(file_type="glb"))
    partial.replace(path)
