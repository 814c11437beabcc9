"""The best estimate of one object from its sightings.

σ says how likely a sighting is right, so its weight is the odds σ / (1 − σ): one sighting of 0.99 weighs more
than ten of 0.9. Rotations vote with it, since a single frame errs by quarter and half turns, and the winners
are averaged. Positions and sizes are averaged so that a sighting far from the others counts little; a
position is less certain along the viewing ray than across, so views from different sides correct each other's
depth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from sparc_core.cad.symmetry import turn_angles_rad
from sparc_core.mapping.sighting import MapObject, Sighting

CERTAIN = 0.998  # beyond, σ is not calibrated; below 1 − this, a sighting still is one
ROBUST_PASSES = 8


@dataclass(frozen=True)
class FuseConfig:
    """agree_deg: rotations within it vote for each other. ray_ratio: how many times longer the uncertainty of
    a position is along the viewing ray than across. spread_m, spread_log: at this distance from the mean (of
    positions in metres, of the logarithms of extents) a sighting counts half.

    Raises ValueError naming the field out of range.
    """

    agree_deg: float = 30.0
    ray_ratio: float = 2.0
    spread_m: float = 0.03
    spread_log: float = 0.04

    def __post_init__(self):
        if not 0 < self.agree_deg < 45:
            raise ValueError(f"agree_deg must be between 0 and 45, got {self.agree_deg}")
        if self.ray_ratio < 1:
            raise ValueError(f"ray_ratio must be at least 1, got {self.ray_ratio}")
        for name in ("spread_m", "spread_log"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def fuse(sightings: Sequence[Sighting], config: FuseConfig | None = None) -> MapObject:
    """One object from all its sightings (at least one, all of one category).

    The CAD model is the one with the most weight; its symmetry says which turns are the same.
    """
    config = config or FuseConfig()
    weight = odds(np.array([s.score for s in sightings]))
    model_id, symmetry = _chosen_model(sightings, weight)
    leader, agrees = _rotation_vote(sightings, weight, symmetry, config.agree_deg)
    group = [sightings[i] for i in agrees]
    turned = [turn_towards(s, sightings[leader].R, symmetry) for s in group]
    R = Rotation.from_matrix(np.stack([R for R, _ in turned])).mean(weight[agrees]).as_matrix()
    S = np.exp(_robust_mean(np.log([S for _, S in turned]), weight[agrees], config.spread_log))
    T = _robust_mean(np.array([s.T_m for s in sightings]), weight, config.spread_m, _rays(sightings, config))
    return MapObject(
        sightings[leader].category, model_id, symmetry, R, T, S, max(s.score for s in group),
        tuple(sightings), len(group),
    )  # fmt: skip


def odds(score: np.ndarray) -> np.ndarray:
    """σ / (1 − σ) of probabilities, kept finite and above zero."""
    score = np.clip(score, 1 - CERTAIN, CERTAIN)
    return score / (1 - score)


def turn_towards(
    sighting: Sighting | MapObject, R: np.ndarray, symmetry: str
) -> tuple[np.ndarray, np.ndarray]:
    """The sighting's rotation and extents after the turn of the symmetry that brings it closest to R.

    A quarter turn swaps the extents along x and z. What looks the same from everywhere has one width.
    """
    angles = turn_angles_rad(symmetry)
    turns = sighting.R @ Rotation.from_euler("y", angles[:, None]).as_matrix()
    k = int(np.argmin(_angles_deg(turns, R)))
    x, y, z = sighting.S_m
    if symmetry == "cinf":
        x = z = np.sqrt(x * z)
    elif symmetry == "c4" and k % 2:
        x, z = z, x
    return turns[k], np.array([x, y, z])


def rotation_distance_deg(a: np.ndarray, b: np.ndarray, symmetry: str) -> float:
    """The smallest angle between rotations a and b (3, 3) over the turns of a symmetry."""
    turns = a @ Rotation.from_euler("y", turn_angles_rad(symmetry)[:, None]).as_matrix()
    return float(_angles_deg(turns, b).min())


def _chosen_model(sightings: Sequence[Sighting], weight: np.ndarray) -> tuple[str, str]:
    total: dict[tuple[str, str], float] = defaultdict(float)
    for s, w in zip(sightings, weight, strict=True):
        total[s.model_id, s.symmetry] += w
    return max(total, key=total.__getitem__)


def _rotation_vote(
    sightings: Sequence[Sighting], weight: np.ndarray, symmetry: str, agree_deg: float
) -> tuple[int, np.ndarray]:
    """The sighting whose rotation the most weight agrees with, and who agrees (indices)."""
    R = np.stack([s.R for s in sightings])
    turns = R[:, None] @ Rotation.from_euler("y", turn_angles_rad(symmetry)[:, None]).as_matrix()
    cosine = (np.einsum("nkij,mij->nkm", turns, R).max(1) - 1) / 2  # the nearest turn has the largest trace
    agree = np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= agree_deg
    leader = int(np.argmax(agree @ weight))
    return leader, np.flatnonzero(agree[leader])


def _rays(sightings: Sequence[Sighting], config: FuseConfig) -> np.ndarray:
    """(N, 3, 3) information of each position: 1 across the viewing ray, less along it."""
    offset = np.array([s.T_m - s.camera_m for s in sightings])
    ray = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-6)
    return np.eye(3) - (1 - config.ray_ratio**-2) * ray[:, :, None] * ray[:, None, :]


def _robust_mean(
    values: np.ndarray, weight: np.ndarray, spread: float, information: np.ndarray | None = None
) -> np.ndarray:
    """The mean of (N, 3) values by weights and (N, 3, 3) information, reweighted some times so that a value
    `spread` away from the mean counts half (a Cauchy distribution's weights)."""
    information = np.eye(3)[None].repeat(len(values), 0) if information is None else information
    trust = np.ones(len(values))
    for _ in range(ROBUST_PASSES):
        own = (weight * trust)[:, None, None] * information
        mean = np.linalg.solve(own.sum(0), np.einsum("nij,nj->i", own, values))
        trust = 1 / (1 + np.square(np.linalg.norm(values - mean, axis=1) / spread))
    return mean


def _angles_deg(R: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(K,) angles between rotations (K, 3, 3) and one (3, 3)."""
    cosine = (np.einsum("kij,ij->k", R, reference) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
