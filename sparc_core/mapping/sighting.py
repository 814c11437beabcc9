"""One aligned CAD model of one frame, carried into the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparc_core.types import AlignedObject


@dataclass(frozen=True, eq=False)
class Sighting:
    """x_world = R · diag(S_m) · x_cad + T_m, as seen from camera_m (3,) in frame number `frame`.

    score: the network's σ; symmetry of the CAD model: "none", "c2", "c4" or "cinf".
    """

    frame: int
    category: str
    model_id: str
    symmetry: str
    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    score: float
    camera_m: np.ndarray


@dataclass(frozen=True, eq=False)
class MapObject:
    """One object of the world, fused from its sightings. score: the best σ among those that agree with it;
    sightings: all of them; agreeing: those whose rotation was used."""

    category: str
    model_id: str
    symmetry: str
    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    score: float
    sightings: tuple[Sighting, ...]
    agreeing: int


def sighting_of(item: AlignedObject, symmetry: str, T_world_cam: np.ndarray, frame: int) -> Sighting:
    """An aligned object of the camera frame in the world.

    T_world_cam (4, 4): a rotation and a shift. Raises ValueError for anything else.
    """
    T_world_cam = np.asarray(T_world_cam, dtype=np.float64)
    if T_world_cam.shape != (4, 4) or not np.isfinite(T_world_cam).all():
        raise ValueError(f"T_world_cam must be a finite (4, 4) matrix, got {T_world_cam.tolist()}")
    rotation, camera = T_world_cam[:3, :3], T_world_cam[:3, 3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise ValueError(f"T_world_cam must hold a rotation, got {rotation.tolist()}")
    return Sighting(
        frame, item.category, item.model_id, symmetry, rotation @ np.asarray(item.R, dtype=np.float64),
        rotation @ np.asarray(item.T_m, dtype=np.float64) + camera, np.asarray(item.S_m, dtype=np.float64),
        float(item.score), camera,
    )  # fmt: skip
