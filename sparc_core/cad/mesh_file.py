"""Reading one mesh file: triangles in metres, y up, front +z, with a colour a face.

Everything trimesh reads goes in; units and axes are the caller's knowledge. Colours are sRGB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "inch": 0.0254, "ft": 0.3048}
GLTF_SUFFIXES = (".glb", ".gltf")
GREY = 160
_AXES = {"X": (1, 0, 0), "Y": (0, 1, 0), "Z": (0, 0, 1)}


def read_mesh(
    path: Path, units: str = "m", up: str = "+Y", front: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 in metres (y up, front +z), faces (F, 3), face colours (F, 3) uint8.

    Parts of a scene are placed by its transforms and joined. Raises ValueError for a file without
    triangles, unknown units or axes, and whatever trimesh raises for a file it cannot read.
    """
    if units not in UNITS_M:
        raise ValueError(f"units must be one of {sorted(UNITS_M)}, got {units!r}")
    rotation = axes_rotation(up, front)
    loaded = trimesh.load(path, process=False)
    parts = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
    parts = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not parts:
        raise ValueError("the file holds no triangles")
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float64)
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)])
    linear = path.suffix.lower() in GLTF_SUFFIXES  # glTF's colour factors are linear, textures are not
    colors = np.concatenate([face_colors(part, linear) for part in parts])
    return vertices @ rotation.T * UNITS_M[units], faces, colors


def axes_rotation(up: str, front: str | None) -> np.ndarray:
    """(3, 3) rotation that brings a file's `up` axis to +y and its `front` to +z ("+Z", "-X", "y", …).

    Without a front it is +z, and −y for files with z up or down (y up in a file turned by −90° about
    x, as most exporters do it). Raises ValueError for axes that are unknown or not at right angles.
    """
    up_vector = _axis(up)
    if front is None:
        front = "+Z" if up_vector[2] == 0 else "-Y"
    front_vector = _axis(front)
    if up_vector @ front_vector != 0:
        raise ValueError(f"up {up!r} and front {front!r} must be at right angles")
    return np.stack([np.cross(up_vector, front_vector), up_vector, front_vector])


def _axis(name: str) -> np.ndarray:
    letter = name.upper().removeprefix("+").removeprefix("-")
    if letter not in _AXES:
        raise ValueError(f"axis must be one of ±X, ±Y, ±Z, got {name!r}")
    return np.array(_AXES[letter], dtype=np.float64) * (-1 if name.startswith("-") else 1)


def face_colors(part: trimesh.Trimesh, linear_factors: bool = False) -> np.ndarray:
    """(F, 3) uint8 sRGB: texture at the faces' centres times the material's colour, or face colours.

    linear_factors: material colours are linear light, as glTF has them. Grey where there is nothing.
    """
    visual = part.visual
    if not isinstance(visual, trimesh.visual.TextureVisuals):
        if visual.kind is None:
            return np.full((len(part.faces), 3), GREY, dtype=np.uint8)
        return np.asarray(visual.face_colors)[:, :3].astype(np.uint8)
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    textured = image is not None and visual.uv is not None and len(visual.uv) == len(part.vertices)
    factor = _material_color(material, textured)
    if linear_factors:
        factor = linear_to_srgb(factor)
    if not textured:
        return np.tile(np.round(255 * factor).astype(np.uint8), (len(part.faces), 1))
    pixels = np.asarray(image.convert("RGB"))
    uv = visual.uv[part.faces].mean(1) % 1.0
    rows = ((1 - uv[:, 1]) * (pixels.shape[0] - 1)).astype(int)  # v counts from the bottom
    texture = pixels[rows, (uv[:, 0] * (pixels.shape[1] - 1)).astype(int)]
    return np.round(texture * factor).astype(np.uint8)


def _material_color(material, textured: bool) -> np.ndarray:
    """(3,) in [0, 1]; what a material does not say is white under a texture, grey without one."""
    color = getattr(material, "baseColorFactor", None)
    if color is None and not textured:
        color = getattr(material, "diffuse", None)
    if color is None:
        return np.ones(3) if textured else np.full(3, GREY / 255)
    color = np.asarray(color, dtype=np.float64)[:3]
    return color / 255 if color.max() > 1 else color


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light in [0, 1], the inverse of `linear_to_srgb`."""
    srgb = np.clip(srgb, 0.0, 1.0)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
