"""The best estimate of one object from its sightings.

A single frame errs mostly along its viewing ray, sometimes by a quarter or half turn, and knows from σ when
it is likely wrong. So rotations vote, and the winners' mean is taken; positions are averaged with an
uncertainty that is longer along the ray, so that views from different sides make up for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from sparc_core.cad.symmetry import turn_angles_rad
from sparc_core.mapping.sighting import MapObject, Sighting

MIN_WEIGHT = 1e-3  # a σ of zero still is a sighting


@dataclass(frozen=True)
class FuseConfig:
    """score_power: a sighting weighs σ to this power. agree_deg: rotations within it vote for each other.
    ray_ratio: how many times longer the uncertainty of a position is along the viewing ray than across.

    Raises ValueError naming the field out of range.
    """

    score_power: float = 2.0
    agree_deg: float = 30.0
    ray_ratio: float = 3.0

    def __post_init__(self):
        if self.score_power < 0:
            raise ValueError(f"score_power must not be negative, got {self.score_power}")
        if not 0 < self.agree_deg < 45:
            raise ValueError(f"agree_deg must be between 0 and 45, got {self.agree_deg}")
        if self.ray_ratio < 1:
            raise ValueError(f"ray_ratio must be at least 1, got {self.ray_ratio}")


def fuse(sightings: Sequence[Sighting], config: FuseConfig | None = None) -> MapObject:
    """One object from all its sightings (at least one, all of one category).

    The CAD model is the one with the most weight; its symmetry says which turns are the same.
    """
    config = config or FuseConfig()
    weight = np.array([max(s.score, MIN_WEIGHT) ** config.score_power for s in sightings])
    model_id, symmetry = _chosen_model(sightings, weight)
    leader, agrees = _rotation_vote(sightings, weight, symmetry, config.agree_deg)
    group = [sightings[i] for i in agrees]
    turned = [turn_towards(s, sightings[leader].R, symmetry) for s in group]
    R = Rotation.from_matrix(np.stack([R for R, _ in turned])).mean(weight[agrees]).as_matrix()
    S = np.exp(np.average(np.log([S for _, S in turned]), axis=0, weights=weight[agrees]))
    return MapObject(
        sightings[leader].category, model_id, symmetry, R, _position(sightings, weight, config.ray_ratio), S,
        max(s.score for s in group), tuple(sightings), len(group),
    )  # fmt: skip


def turn_towards(sighting: Sighting, R: np.ndarray, symmetry: str) -> tuple[np.ndarray, np.ndarray]:
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
    distance = np.array([
        [rotation_distance_deg(a.R, b.R, symmetry) for b in sightings] for a in sightings
    ])  # fmt: skip
    agree = distance <= agree_deg
    leader = int(np.argmax(agree @ weight))
    return leader, np.flatnonzero(agree[leader])


def _position(sightings: Sequence[Sighting], weight: np.ndarray, ray_ratio: float) -> np.ndarray:
    """The mean of positions, each weighted by the inverse of its uncertainty: it grows with the distance and
    is `ray_ratio` times longer along the ray."""
    information, weighted = np.zeros((3, 3)), np.zeros(3)
    for s, w in zip(sightings, weight, strict=True):
        offset = s.T_m - s.camera_m
        distance = max(float(np.linalg.norm(offset)), 1e-6)
        ray = offset / distance
        across = np.eye(3) - np.outer(ray, ray)
        own = w / distance**2 * (across + np.outer(ray, ray) / ray_ratio**2)
        information += own
        weighted += own @ s.T_m
    return np.linalg.solve(information, weighted)


def _angles_deg(R: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(K,) angles between rotations (K, 3, 3) and one (3, 3)."""
    cosine = (np.einsum("kij,ij->k", R, reference) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
