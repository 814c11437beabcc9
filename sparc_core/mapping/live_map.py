"""A map that grows while a video runs: the sightings of each object over all the time, and their fusion.

Sightings come in under the id of whoever follows the object (a track); an object that nobody follows any more
stays, and waits for a sighting in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sparc_core.mapping.fuse import FuseConfig, fuse, rotation_distance_deg, turn_towards
from sparc_core.mapping.sighting import MapObject, Sighting


@dataclass(frozen=True)
class LiveMapConfig:
    """memory: sightings kept of an object, spread evenly over the time it was seen. min_overlap: of two boxes
    of a category (intersection over union) that are one object. moved_m, moved_deg: an object whose followed
    pose is so far from the fused one, or moves, for `patience` sightings in a row begins anew. forget_s: an
    object that nobody follows is given up when it should have been seen for so long.

    Raises ValueError naming the field out of range.
    """

    memory: int = 48
    min_overlap: float = 0.2
    moved_m: float = 0.10
    moved_deg: float = 20.0
    patience: int = 8
    forget_s: float = 30.0
    fuse: FuseConfig = field(default_factory=FuseConfig)

    def __post_init__(self):
        if self.memory < 4 or self.patience < 1:
            raise ValueError(
                f"map memory must be at least 4 and patience at least 1, got {self.memory}, {self.patience}"
            )
        if not 0 < self.min_overlap <= 1:
            raise ValueError(f"map min_overlap must be in (0, 1], got {self.min_overlap}")
        for name in ("moved_m", "moved_deg", "forget_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"map {name} must be positive, got {getattr(self, name)}")


class _Entry:
    """One object: its sightings, thinned evenly, and their fusion, which follows a little behind."""

    def __init__(self, memory: int, config: FuseConfig):
        self.memory, self.config = memory, config
        self.begin_anew()
        self.count = 0  # of all sightings ever
        self.missing_s = 0.0

    def begin_anew(self) -> None:
        self.sightings: list[Sighting] = []
        self.offered, self.stride, self.fused_at, self.astray = 0, 1, 0, 0
        self.fused: MapObject | None = None

    def add(self, seen: Sighting) -> None:
        self.count += 1
        self.missing_s = 0.0
        self.offered += 1
        if (self.offered - 1) % self.stride:
            return
        self.sightings.append(seen)
        if len(self.sightings) > self.memory:
            self.sightings, self.stride = self.sightings[::2], 2 * self.stride
            self.fused_at = 0
        # what one sighting among many changes is not worth the time
        if len(self.sightings) - self.fused_at >= max(1, len(self.sightings) // 8):
            self.fuse()

    def fuse(self) -> None:
        found, before = fuse(self.sightings, self.config), self.fused
        if before is not None:  # of turns that look the same, the one of before
            R, S_m = turn_towards(found, before.R, found.symmetry)
            found = replace(found, R=R, S_m=S_m)
        self.fused, self.fused_at = found, len(self.sightings)


class LiveMap:
    """Objects by their ids, from the sightings that are added."""

    def __init__(self, config: LiveMapConfig | None = None):
        self.config = config or LiveMapConfig()
        self._entries: dict[int, _Entry] = {}

    @property
    def objects(self) -> dict[int, MapObject]:
        """The fused objects by id."""
        return {number: entry.fused for number, entry in sorted(self._entries.items())}

    def counts(self) -> dict[int, int]:
        """How often each object was sighted."""
        return {number: entry.count for number, entry in sorted(self._entries.items())}

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def add(self, number: int, seen: Sighting, followed, doubtful: bool, moving: bool) -> MapObject | None:
        """One more sighting of an object; the fused object, or None while it moves or disagrees with
        `followed`, the pose (R, T_m) that the last sightings give by themselves.

        doubtful: the followed pose may be wrong, so that it does not show that the object has moved; moving:
        it seems to move now.
        """
        entry = self._entries.get(number)
        if entry is None:
            entry = self._entries[number] = _Entry(self.config.memory, self.config.fuse)
        entry.add(seen)
        if not moving and not self._astray(entry.fused, followed):
            entry.astray = 0
            return entry.fused
        entry.astray += not doubtful
        if entry.astray >= self.config.patience:
            entry.begin_anew()
            entry.add(seen)
        return None

    def rename(self, number: int, new: int) -> None:
        """What was known as `number` turned out to be `new`: its sightings go there. Either may be new."""
        entry = self._entries.pop(number, None)
        kept = self._entries.get(new)
        if entry is not None and kept is None:
            self._entries[new] = entry
        elif entry is not None:
            for seen in entry.sightings:
                kept.add(seen)

    def miss(self, elapsed_s: Mapping[int, float]) -> tuple[int, ...]:
        """Objects that should have been seen, for how long, and were not; the ids of those given up."""
        gone = []
        for number, seconds in elapsed_s.items():
            entry = self._entries[number]
            entry.missing_s += seconds
            if entry.missing_s > self.config.forget_s:
                gone.append(number)
                del self._entries[number]
        return tuple(gone)

    def _astray(self, fused: MapObject, followed) -> bool:
        far = float(np.linalg.norm(fused.T_m - followed.T_m)) > self.config.moved_m
        return far or rotation_distance_deg(fused.R, followed.R, fused.symmetry) > self.config.moved_deg
