"""Map mode: the tracks of a video as a map in the fixed frame, which keeps objects and ids when tracks end.

In: what the tracker made of an image, and the poses as they were measured. Out: the same with the fused
poses, and with the ids of before where an object is seen again in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparc_core.mapping.live_map import LiveMap, LiveMapConfig
from sparc_core.mapping.overlap import box_overlap
from sparc_core.mapping.sighting import MapObject, sighting_of
from sparc_core.tracking.association import UNMATCHED_COST, match
from sparc_core.tracking.track import Track
from sparc_core.tracking.tracker import Tracker, TrackerUpdate
from sparc_core.tracking.view import View
from sparc_core.types import AlignedObject, Camera

MIN_SIGHTINGS = 3  # of an object in a map that is written; less may be a detector's slip


class MapMode:
    """Builds the map from the tracker's updates, one image after the other.

    symmetries: of CAD models by their id; a model that is not named has none.
    """

    def __init__(self, config: LiveMapConfig | None = None, symmetries: Mapping[str, str] | None = None):
        self.map = LiveMap(config)
        self.images = 0
        self._symmetries = symmetries or {}
        self._last_stamp_s: float | None = None

    @property
    def objects(self) -> dict[int, MapObject]:
        """The objects of the map by id, those seen at least `MIN_SIGHTINGS` times."""
        counts = self.map.counts()
        return {i: found for i, found in self.map.objects.items() if counts[i] >= MIN_SIGHTINGS}

    def clear(self) -> None:
        """Forget the map."""
        self.map.clear()
        self._last_stamp_s = None

    def update(
        self,
        tracker: Tracker,
        measured: tuple[AlignedObject, ...],
        update: TrackerUpdate,
        stamp_s: float,
        camera: Camera,
        T_fixed_cam: np.ndarray,
        depth_m: np.ndarray | None = None,
    ) -> TrackerUpdate:
        """Take an image into the map; `update` with fused poses and the ids of before.

        measured: the objects of `update` as they were aligned in this image. The tracker's tracks get the ids
        as well. Raises ValueError for a pose that is no rotation with a shift.
        """
        update = self._with_ids_of_before(tracker, update)
        tracks = {track.track_id: track for track in update.tracks}
        objects = []
        for obj, posed, number in zip(measured, update.objects, update.track_ids, strict=True):
            symmetry = self._symmetries.get(obj.model_id, "none")
            seen, track = sighting_of(obj, symmetry, T_fixed_cam, self.images), tracks[number]
            moving = bool(track.velocity_m_per_s.any())
            doubtful = track.confidence < tracker.config.reinit_score
            fused = self.map.add(number, seen, track, doubtful, moving)
            objects.append(posed if fused is None else _in_camera(posed, fused, T_fixed_cam))
        self._miss(tracks, stamp_s, View.of(camera, T_fixed_cam, None, depth_m))
        self.images += 1
        return replace(update, objects=tuple(objects))

    def _with_ids_of_before(self, tracker: Tracker, update: TrackerUpdate) -> TrackerUpdate:
        """Tracks seen now that stand where the map has an object of their category, which no track follows,
        are that object. The younger ids end."""
        alive = {track.track_id: track for track in update.tracks}
        waiting = [number for number in self.map.objects if number not in alive]
        seen = [alive[number] for number in update.track_ids]
        renamed: dict[int, int] = {}
        ended: list[Track] = []
        for n, m in match(self._cost(waiting, seen)):
            old, track = waiting[n], seen[m]
            if old > track.track_id:  # the younger of two that were one all the time
                self.map.rename(old, track.track_id)
                continue
            renamed[track.track_id] = old
            ended.append(track)
            tracker.rename(track.track_id, old)
            self.map.rename(track.track_id, old)
        if not renamed:
            return update
        return replace(
            update,
            track_ids=tuple(renamed.get(number, number) for number in update.track_ids),
            tracks=tracker.tracks,
            ended=tuple(t for t in update.ended if t.track_id not in renamed.values()) + tuple(ended),
        )

    def _cost(self, waiting: list[int], seen: list[Track]) -> np.ndarray:
        """(N, M) 1 − overlap of objects of the map with tracks, where they may be one."""
        cost = np.full((len(waiting), len(seen)), UNMATCHED_COST)
        objects = self.map.objects
        for n, number in enumerate(waiting):
            for m, track in enumerate(seen):
                if objects[number].category == track.category:
                    overlap = box_overlap(objects[number], track)
                    cost[n, m] = 1 - overlap if overlap >= self.map.config.min_overlap else UNMATCHED_COST
        return cost

    def _miss(self, tracks: Mapping[int, Track], stamp_s: float, view: View) -> None:
        """Count the time that objects without a track should have been seen."""
        elapsed_s = 0.0 if self._last_stamp_s is None else max(0.0, stamp_s - self._last_stamp_s)
        self._last_stamp_s = stamp_s
        T = view.to_camera("fixed")
        missed = {}
        for number, found in self.map.objects.items():
            here = T[:3, :3] @ found.R, T[:3, :3] @ found.T_m + T[:3, 3], found.S_m
            if number not in tracks and view.shows(*here):
                missed[number] = elapsed_s
        self.map.miss(missed)


def _in_camera(obj: AlignedObject, fused: MapObject, T_fixed_cam: np.ndarray) -> AlignedObject:
    """The object as it was fused: its pose, and the CAD model that most sightings agree on."""
    R = T_fixed_cam[:3, :3].T
    T_m = R @ (fused.T_m - T_fixed_cam[:3, 3])
    return replace(obj, model_id=fused.model_id, R=R @ fused.R, T_m=T_m, S_m=fused.S_m)
