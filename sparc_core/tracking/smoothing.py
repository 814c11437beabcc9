"""The pose of a track from its sightings: a weighted mean that has no lag for an object that stands still.

Sightings of one object differ by noise and by the view; their mean in the fixed frame is better than any of
them. A mean is wrong for an object that moves, so the estimate watches how far the sightings are from it: a
single one far off is left out, some of them in a row, or a small deviation that lasts, start it anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from sparc_core.cad.symmetry import turn_angles_rad


@dataclass(frozen=True)
class SmoothingConfig:
    """memory: sightings that the mean remembers at most. gate_m (plus gate_per_m for each metre of distance),
    gate_deg, gate_scale: a sighting further than this from the mean is left out, unless `patience` in a row
    are; drift_share: of the gate; the mean of the last `drift_sightings` deviating more is motion.

    Raises ValueError naming the field for a value outside its range.
    """

    memory: float = 30.0
    gate_m: float = 0.05
    gate_per_m: float = 0.02
    gate_deg: float = 8.0
    gate_scale: float = 0.12
    patience: int = 3
    drift_share: float = 0.4
    drift_sightings: float = 8.0

    def __post_init__(self):
        for name in ("memory", "patience", "drift_sightings"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"smoothing {name} must be at least 1, got {getattr(self, name)}")
        for name in ("gate_m", "gate_deg", "gate_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"smoothing {name} must be positive, got {getattr(self, name)}")
        if not self.gate_per_m >= 0:
            raise ValueError(f"smoothing gate_per_m must not be negative, got {self.gate_per_m}")
        if not 0 < self.drift_share <= 1:
            raise ValueError(f"smoothing drift_share must be in (0, 1], got {self.drift_share}")


@dataclass(frozen=True, eq=False)
class Sighting:
    """One measured pose: R (3, 3), T_m (3,), S_m (3,) in the track's frame; weight > 0, of its certainty;
    distance_m from the camera; repaired: a search found it for a track that was doubtful, so that the mean
    has no say in it."""

    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    weight: float
    distance_m: float
    repaired: bool = False


@dataclass(frozen=True, eq=False)
class Estimate:
    """R, T_m, S_m: the mean. weight: of all sightings in it. outside: how many in a row were left out. drift
    (9,): running mean of the deviations (metres, radians, log extents)."""

    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    weight: float
    outside: int = 0
    drift: np.ndarray | None = None

    @classmethod
    def first(cls, seen: Sighting) -> Estimate:
        """The estimate from one sighting."""
        return cls(seen.R, seen.T_m, seen.S_m, seen.weight, 0, np.zeros(9))

    def moved(self, T_new_old: np.ndarray) -> Estimate:
        """The same in another frame; T_new_old (4, 4)."""
        turn = T_new_old[:3, :3]
        drift = np.concatenate((turn @ self.drift[:3], self.drift[3:]))
        return replace(self, R=turn @ self.R, T_m=turn @ self.T_m + T_new_old[:3, 3], drift=drift)


def smoothed(estimate: Estimate, seen: Sighting, symmetry: str, config: SmoothingConfig) -> Estimate:
    """The estimate after one more sighting; symmetry: of the CAD model."""
    seen = nearest_turn(seen, estimate.R, symmetry)
    turn = Rotation.from_matrix(estimate.R.T @ seen.R).as_rotvec()
    off = np.concatenate((seen.T_m - estimate.T_m, turn, np.log(seen.S_m / estimate.S_m)))
    gates = (
        config.gate_m + config.gate_per_m * seen.distance_m,
        math.radians(config.gate_deg),
        config.gate_scale,
    )
    if _size(off, gates) > 1:
        if seen.repaired or estimate.outside + 1 >= config.patience:
            return Estimate.first(seen)
        return replace(estimate, outside=estimate.outside + 1)
    drift = estimate.drift + (off - estimate.drift) / config.drift_sightings
    if _size(drift, gates) > config.drift_share:
        return Estimate.first(seen)
    gain = seen.weight / (estimate.weight + seen.weight)
    limit = max(config.memory * seen.weight, estimate.weight)  # a worse sighting takes no weight away
    return Estimate(
        estimate.R @ Rotation.from_rotvec(gain * turn).as_matrix(),
        estimate.T_m + gain * off[:3],
        estimate.S_m * np.exp(gain * off[6:]),
        min(estimate.weight + seen.weight, limit),
        0,
        drift - gain * off,  # the mean has come nearer to what was seen
    )


def nearest_turn(seen: Sighting, R: np.ndarray, symmetry: str) -> Sighting:
    """The sighting turned about the CAD y axis by the model's symmetry so that it is nearest to R (3, 3).

    A quarter turn exchanges the extents along x and z.
    """
    if symmetry == "none":
        return seen
    between = R.T @ seen.R
    if symmetry == "cinf":
        # the turn with the largest trace of between · R_y(angle)
        angle = math.atan2(between[2, 0] - between[0, 2], between[0, 0] + between[2, 2])
    else:
        angles = turn_angles_rad(symmetry)
        turned = between @ Rotation.from_euler("y", angles[:, None]).as_matrix()
        angle = float(angles[np.trace(turned, axis1=1, axis2=2).argmax()])
    S_m = seen.S_m[[2, 1, 0]] if round(angle / (math.pi / 2)) % 2 else seen.S_m
    return replace(seen, R=seen.R @ Rotation.from_euler("y", angle).as_matrix(), S_m=S_m)


def _size(off: np.ndarray, gates: tuple[float, float, float]) -> float:
    """A deviation (9,) in gates: the largest of position, rotation and scale."""
    parts = (np.linalg.norm(off[:3]), np.linalg.norm(off[3:6]), np.abs(off[6:]).max())
    return max(part / gate for part, gate in zip(parts, gates, strict=True))
