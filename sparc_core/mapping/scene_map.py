"""Which sightings of many frames are the same object, and the map made of them.

After Scan2CAD's and ROCA's suppression: the best σ leads, sightings of its category close to it are the same
object. Here they are not thrown away but fused. Two detections of one frame are two objects, unless they lie
so close that one of them must be a double.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sparc_core.mapping.fuse import FuseConfig, fuse
from sparc_core.mapping.sighting import MapObject, Sighting


@dataclass(frozen=True)
class MapConfig:
    """max_distance_m: sightings farther from the leading one are other objects, and so are those farther than
    size_share of its size (but not within min_distance_m); max_scale: and those whose mean ratio of extents
    is farther from 1. A second sighting of a frame within double_share of the limit is a double and dropped.
    min_score, min_sightings: of objects that are kept.

    Raises ValueError naming the field out of range.
    """

    max_distance_m: float = 0.4
    min_distance_m: float = 0.15
    size_share: float = 0.5
    max_scale: float = 0.6
    double_share: float = 0.5
    min_score: float = 0.0
    min_sightings: int = 1
    fuse: FuseConfig = field(default_factory=FuseConfig)

    def __post_init__(self):
        for name in ("max_distance_m", "min_distance_m", "size_share", "max_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"map {name} must be positive, got {getattr(self, name)}")
        if self.min_distance_m > self.max_distance_m:
            raise ValueError(f"map min_distance_m must not exceed max_distance_m, got {self.min_distance_m}")
        if not 0 <= self.double_share <= 1 or not 0 <= self.min_score <= 1:
            raise ValueError("map double_share and min_score must be in [0, 1]")
        if self.min_sightings < 1:
            raise ValueError(f"map min_sightings must be at least 1, got {self.min_sightings}")


def build_map(sightings: Sequence[Sighting], config: MapConfig | None = None) -> list[MapObject]:
    """The objects of a scene, best score first."""
    config = config or MapConfig()
    objects = [fuse(group, config.fuse) for group in associate(sightings, config)]
    objects = [o for o in _without_doubles(objects, config) if o.score >= config.min_score]
    return [o for o in objects if len(o.sightings) >= config.min_sightings]


def associate(sightings: Sequence[Sighting], config: MapConfig) -> list[list[Sighting]]:
    """Groups of sightings of one object each, the leading one first; doubles are in none."""
    groups: list[list[Sighting]] = []
    for s in sorted(sightings, key=lambda s: -s.score):
        near = [(_gap(s, g[0]), g) for g in groups if _close(s, g[0], config)]
        free = [(gap, g) for gap, g in near if all(other.frame != s.frame for other in g)]
        if free:
            min(free, key=lambda pair: pair[0])[1].append(s)
        elif not any(gap <= config.double_share * _limit_m(g[0], config) for gap, g in near):
            groups.append([s])
    return groups


def _without_doubles(objects: list[MapObject], config: MapConfig) -> list[MapObject]:
    """Objects that fusion moved onto a better one fall to it. Best score first."""
    kept: list[MapObject] = []
    for item in sorted(objects, key=lambda o: -o.score):
        near = (k for k in kept if _close(item, k, config))
        if not any(_gap(item, k) <= config.double_share * _limit_m(k, config) for k in near):
            kept.append(item)
    return kept


def _close(s: Sighting | MapObject, leader: Sighting | MapObject, config: MapConfig) -> bool:
    same = s.category == leader.category and _gap(s, leader) <= _limit_m(leader, config)
    return same and abs(float(np.mean(leader.S_m / s.S_m)) - 1) <= config.max_scale


def _gap(a: Sighting | MapObject, b: Sighting | MapObject) -> float:
    return float(np.linalg.norm(a.T_m - b.T_m))


def _limit_m(leader: Sighting | MapObject, config: MapConfig) -> float:
    size = float(np.sqrt(np.mean(np.square(leader.S_m))))
    return float(np.clip(config.size_share * size, config.min_distance_m, config.max_distance_m))
