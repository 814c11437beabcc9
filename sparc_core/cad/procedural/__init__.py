"""Procedural furniture in the nine categories: thousands of variants, one an integer seed.

Comes in: a category and a seed. Goes out: a closed, coloured mesh in metres, y up, front +z, standing
on y = 0 and centred on x and z, with the symmetry it was built with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh

from sparc_core.cad.procedural import bathtub, bed, bin, bookshelf, cabinet, chair, display, sofa, table
from sparc_core.types import CATEGORIES

_BUILDERS = {
    "bathtub": bathtub.build,
    "bed": bed.build,
    "bin": bin.build,
    "bookshelf": bookshelf.build,
    "cabinet": cabinet.build,
    "chair": chair.build,
    "display": display.build,
    "sofa": sofa.build,
    "table": table.build,
}


@dataclass(frozen=True, eq=False)
class ProceduralModel:
    """A generated model: vertices (V, 3) float64 metres, faces (F, 3) int64, face_colors (F, 3) uint8."""

    category: str
    seed: int
    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray
    symmetry: str

    @property
    def mesh(self) -> trimesh.Trimesh:
        """A trimesh in metres. Vertices stay unmerged, so every part is a closed body of its own."""
        return trimesh.Trimesh(self.vertices, self.faces, face_colors=self.face_colors, process=False)


def generate(category: str, seed: int) -> ProceduralModel:
    """The model of a category (one of `CATEGORIES`) and a seed ≥ 0: always the same for the same pair.

    Raises ValueError for an unknown category or a negative seed.
    """
    if category not in _BUILDERS:
        raise ValueError(f"category must be one of {sorted(_BUILDERS)}, got {category!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng([CATEGORIES.index(category), int(seed)])
    parts, symmetry = _BUILDERS[category](rng)
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)])
    colors = np.repeat(
        np.array([part.color for part in parts], dtype=np.uint8), [len(part.faces) for part in parts], axis=0
    )
    low, high = vertices.min(0), vertices.max(0)
    vertices = vertices - np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return ProceduralModel(category, int(seed), vertices, faces, colors, symmetry)
