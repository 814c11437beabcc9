"""Feature edges of a CAD model: the lines a draughtsman would draw."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

FEATURE_ANGLE_RAD = np.deg2rad(25.0)
# Corners closer than this share of the bounding box are one corner (meshes come with split vertices).
WELD_UNIT = 1e-4


@lru_cache(maxsize=512)
def feature_edges(model) -> np.ndarray:
    """(E, 2, 3) float32 end points, in the unit cube, of a `CadModel`'s feature edges.

    An edge counts when it borders one face only, or when two of its faces meet at more than 25°
    measured at the model's true extents. Cached: library models are frozen and compare by identity.
    """
    corners, faces = _weld(model.vertices, model.faces)
    edges = mesh_feature_edges(corners * model.extents_m, faces)
    return corners[edges].astype(np.float32)


def mesh_feature_edges(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(E, 2) vertex indices of the feature edges of a welded mesh; vertices (V, 3), faces (F, 3)."""
    # A sheet modelled with two coincident faces counts once: its rim is then a border, its inside flat.
    faces = faces[np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1]]
    normals, area = _face_normals(vertices, faces)
    faces, normals = faces[area > 0], normals[area > 0]
    if not len(faces):
        return np.zeros((0, 2), dtype=np.int64)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    owner = np.tile(np.arange(len(faces)), 3)
    forward = directed[:, 0] < directed[:, 1]
    key = directed.min(1).astype(np.int64) * len(vertices) + directed.max(1)
    order = np.argsort(key, kind="stable")
    key, owner, forward = key[order], owner[order], forward[order]
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    count = np.diff(np.r_[first, len(key)])
    keep = count == 1
    # Compare every further face of an edge with the edge's first one.
    group = np.repeat(np.arange(len(first)), count)
    head = first[group]
    cosine = (normals[owner] * normals[owner[head]]).sum(-1)
    # Neighbours with one winding run along their common edge in opposite directions. Where they do not,
    # one of the two is inside out and its normal counts reversed.
    head_itself = head == np.arange(len(key))
    cosine = np.where((forward == forward[head]) & ~head_itself, -cosine, cosine)
    sharp = np.bincount(group, cosine < np.cos(FEATURE_ANGLE_RAD), minlength=len(first)) > 0
    chosen = key[first[keep | sharp]]
    return np.stack([chosen // len(vertices), chosen % len(vertices)], -1)


def _weld(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grid = np.round(np.asarray(vertices, dtype=np.float64) / WELD_UNIT).astype(np.int64)
    _, first, inverse = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    return np.asarray(vertices, dtype=np.float64)[first], inverse.reshape(-1)[faces]


def _face_normals(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    cross = np.cross(b - a, c - a)
    length = np.linalg.norm(cross, axis=-1)
    return cross / np.maximum(length, 1e-30)[:, None], length
