"""One CAD model of a library, and how it is made from a mesh in metres.

Comes in: vertices and faces, y up, front +z, true size. Goes out: an immutable `CadModel` in the unit
cube with surface samples, extents and symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparc_core.cad.sampling import SAMPLINGS, normals_to_unit_cube, sample_surface
from sparc_core.cad.symmetry import estimate_symmetry

POINTS = 2048
SYMMETRY_POINTS = 16384
MAX_VISIBLE_DRAWS = 6
MIN_EXTENT_M = 1e-3


@dataclass(frozen=True, eq=False)
class CadModel:
    """One CAD model: y up, front +z, centred on its bounding box, scaled to the unit cube.

    extents_m (3,) float32 true size; symmetry about y; vertices (V, 3) float32 and faces (F, 3) int32
    in the unit cube; face_colors (F, 3) uint8; points, normals (P, 3) float32: uniform over the surface
    at true extents, in random order, unit-cube coordinates, so that a camera normal is
    ∝ R · diag(1/S) · normal; colors (P, 3) uint8 of the faces they lie on. source:
    the file, or "procedural:<category>:<seed>".
    """

    model_id: str
    category: str
    extents_m: np.ndarray
    symmetry: str
    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    source: str


def build_model(
    model_id: str,
    category: str,
    vertices_m: np.ndarray,
    faces: np.ndarray,
    face_colors: np.ndarray,
    source: str,
    symmetry: str | None = None,
    *,
    sampling: str = "visible",
    orient: bool = False,
) -> CadModel:
    """A `CadModel` from a mesh in metres that is already y up with front +z.

    Symmetry is estimated from the geometry when it is not given. sampling: "surface" takes every
    surface, "visible" only what can be seen from outside. orient: do not trust the winding, turn the
    normals to the side that can be seen from outside. Raises ValueError for a mesh without faces or
    area, with vertices that are not finite, or of which nothing can be seen.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {SAMPLINGS}, got {sampling!r}")
    vertices_m, faces = _used_vertices(vertices_m, faces)
    low, high = vertices_m.min(0), vertices_m.max(0)
    extents = np.maximum(high - low, MIN_EXTENT_M)
    centred = vertices_m - (low + high) / 2
    # seeded by the name: the same model always has the same samples
    rng = np.random.default_rng(np.frombuffer(model_id.encode().ljust(4, b"_"), dtype=np.uint8))
    if sampling == "visible":
        points, normals, face = _visible_samples(centred, faces, rng, orient)
        visible = points
    else:
        points, normals, face = sample_surface(centred, faces, POINTS, rng)
        visible = None
        if orient or symmetry is None:
            normals, visible = _seen_from_outside(centred, faces, points, normals, orient)
    if symmetry is None:
        symmetry = estimate_symmetry(sample_surface(centred, faces, SYMMETRY_POINTS, rng)[0], visible)
    face_colors = np.ascontiguousarray(face_colors, dtype=np.uint8)
    return CadModel(
        model_id,
        category,
        extents.astype(np.float32),
        symmetry,
        (centred / extents).astype(np.float32),
        np.ascontiguousarray(faces, dtype=np.int32),
        face_colors,
        (points / extents).astype(np.float32),
        normals_to_unit_cube(normals, extents).astype(np.float32),
        face_colors[face],
        source,
    )


def _used_vertices(vertices_m: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh without vertices that no face uses: they would count in the bounding box."""
    if len(faces) == 0 or len(vertices_m) == 0:
        raise ValueError("the mesh has no faces")
    used, position = np.unique(faces, return_inverse=True)
    vertices_m = np.asarray(vertices_m, dtype=np.float64)[used]
    if not np.isfinite(vertices_m).all():
        raise ValueError("the mesh has vertices that are not finite")
    return vertices_m, position.reshape(np.shape(faces))


def _seen_from_outside(
    vertices_m: np.ndarray, faces: np.ndarray, points: np.ndarray, normals: np.ndarray, orient: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Normals (P, 3), turned outwards where asked for, and the points (Q, 3) that can be seen.

    Everything counts as seen where nothing is: symmetry is then judged from all points.
    """
    from sparc_core.cad.visibility import open_directions  # Warp is needed for these options alone

    ahead, behind = open_directions(vertices_m, faces, points, normals)
    seen = ahead + behind > 0
    if orient:
        normals = np.where(_faces_inwards(ahead, behind)[:, None], -normals, normals)
    return normals, points[seen] if seen.any() else points


def _faces_inwards(ahead: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """(P,) bool. An open sheet is seen from both sides about equally: its normals stay as they are."""
    return behind > 1.5 * ahead


def _visible_samples(
    vertices_m: np.ndarray, faces: np.ndarray, rng: np.random.Generator, orient: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`POINTS` points that can be seen from outside, their normals and faces; draws until they suffice."""
    from sparc_core.cad.visibility import open_directions

    kept_points, kept_normals, kept_faces, found = [], [], [], 0
    for _ in range(MAX_VISIBLE_DRAWS):
        points, normals, face = sample_surface(vertices_m, faces, POINTS, rng)
        ahead, behind = open_directions(vertices_m, faces, points, normals)
        if orient:
            normals = np.where(_faces_inwards(ahead, behind)[:, None], -normals, normals)
        seen = ahead + behind > 0
        kept_points.append(points[seen])
        kept_normals.append(normals[seen])
        kept_faces.append(face[seen])
        found += int(seen.sum())
        if found >= POINTS:
            break
    if found == 0:
        raise ValueError("no surface of the mesh can be seen from outside")
    chosen = np.arange(POINTS) % found  # nearly everything hidden: the points that are seen count twice
    return tuple(np.concatenate(kept)[chosen] for kept in (kept_points, kept_normals, kept_faces))
