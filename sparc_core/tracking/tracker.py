"""Stable ids for objects seen again and again (DESIGN: video mode builds on this).

In: the aligned objects of one image, its stamp, and the camera's pose when it is known. Out: a track
id for each object, and the tracks that ended. Poses are compared in the fixed frame when the camera's
pose is known, so a moving camera does not lose what it saw; otherwise in the camera frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparc_core.geometry.camera import project_points
from sparc_core.tracking.association import UNIT_CUBE_CORNERS, association_cost, box_iou, match
from sparc_core.types import AlignedObject, Camera


@dataclass(frozen=True)
class TrackerConfig:
    """max_age_s: a track ends when unseen this long while in view; max_hidden_s: while out of view.

    max_distance_m: poses further apart need `min_iou` of their boxes to be one object.
    Raises ValueError naming the field for a value outside its range.
    """

    max_age_s: float = 2.0
    max_hidden_s: float = 60.0
    max_distance_m: float = 0.5
    min_iou: float = 0.3

    def __post_init__(self):
        for name in ("max_age_s", "max_hidden_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"tracker {name} must not be negative, got {getattr(self, name)}")
        if not self.max_distance_m > 0:
            raise ValueError(f"tracker max_distance_m must be positive, got {self.max_distance_m}")
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"tracker min_iou must be in (0, 1], got {self.min_iou}")


@dataclass(frozen=True, eq=False)
class Track:
    """One object over time, at its last sighting.

    R, T_m: object to `frame` ("fixed", or "camera": the camera at the last sighting). S_m: extents.
    unseen_s, hidden_s: how long it has been missing while in view and while out of view.
    """

    track_id: int
    category: str
    model_id: str
    frame: str
    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    box_xyxy: tuple[float, float, float, float]
    score: float
    first_seen_s: float
    last_seen_s: float
    sightings: int = 1
    unseen_s: float = 0.0
    hidden_s: float = 0.0


@dataclass(frozen=True, eq=False)
class TrackerUpdate:
    """track_ids: one for each object that went in. tracks: those alive. ended: those that ended now.

    time_jumped_back: the stamp lay before the previous one (a bag that started again): every earlier
    track has ended.
    """

    track_ids: tuple[int, ...]
    tracks: tuple[Track, ...]
    ended: tuple[Track, ...]
    time_jumped_back: bool = False


class Tracker:
    """Gives each object a track id that stays the same while the object is tracked.

    Ids start at 1 and are never used again, not even after `reset`.
    """

    def __init__(self, config: TrackerConfig | None = None):
        self.config = config or TrackerConfig()
        self._tracks: tuple[Track, ...] = ()
        self._next_id = 1
        self._last_stamp_s: float | None = None

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks alive, oldest first."""
        return self._tracks

    def reset(self) -> tuple[Track, ...]:
        """End every track and return them."""
        ended, self._tracks, self._last_stamp_s = self._tracks, (), None
        return ended

    def update(
        self,
        objects: Sequence[AlignedObject],
        stamp_s: float,
        camera: Camera,
        T_fixed_cam: np.ndarray | None = None,
    ) -> TrackerUpdate:
        """Match the objects of one image to the tracks; start, continue and end tracks.

        objects: poses in the camera frame. stamp_s: of the image. T_fixed_cam: (4, 4) camera to fixed
        frame at that stamp, or None when unknown. Raises ValueError for another shape.
        """
        view = _View.of(camera, T_fixed_cam)
        jumped = self._last_stamp_s is not None and stamp_s < self._last_stamp_s
        ended_by_jump = self.reset() if jumped else ()
        elapsed_s = 0.0 if self._last_stamp_s is None else stamp_s - self._last_stamp_s

        sightings = [_sighting(obj, view, stamp_s) for obj in objects]
        track_of_sighting = {m: self._tracks[n] for n, m in match(self._cost(sightings, view))}
        current = [self._numbered(seen, track_of_sighting.get(m)) for m, seen in enumerate(sightings)]
        matched = {track.track_id for track in track_of_sighting.values()}
        unseen = [
            _aged(track, elapsed_s, view.shows(track))
            for track in self._tracks
            if track.track_id not in matched
        ]
        ended = tuple(track for track in unseen if self._is_over(track))
        alive = current + [track for track in unseen if not self._is_over(track)]

        self._tracks = tuple(sorted(alive, key=lambda track: track.track_id))
        self._last_stamp_s = stamp_s
        return TrackerUpdate(
            tuple(track.track_id for track in current), self._tracks, ended_by_jump + ended, jumped
        )

    def _cost(self, sightings: list[Track], view: _View) -> np.ndarray:
        """(tracks, sightings) association cost."""
        tracks = self._tracks
        if not tracks or not sightings:
            return np.zeros((len(tracks), len(sightings)))
        iou = box_iou(
            np.array([view.expected_box(track) for track in tracks]),
            np.array([seen.box_xyxy for seen in sightings]),
        )
        offsets = np.array([t.T_m for t in tracks])[:, None] - np.array([s.T_m for s in sightings])[None]
        distance_m = np.linalg.norm(offsets, axis=-1)
        # A pose from another frame cannot be compared: TF appeared or vanished between the images.
        distance_m[[track.frame != view.frame for track in tracks]] = np.nan
        same = np.array([[track.category == seen.category for seen in sightings] for track in tracks])
        return association_cost(
            iou, distance_m, same, max_distance_m=self.config.max_distance_m, min_iou=self.config.min_iou
        )

    def _numbered(self, seen: Track, track: Track | None) -> Track:
        """The sighting as the continuation of `track`, or as a new track with the next free id."""
        if track is not None:
            return dataclasses.replace(
                seen,
                track_id=track.track_id,
                first_seen_s=track.first_seen_s,
                sightings=track.sightings + 1,
            )
        self._next_id += 1
        return dataclasses.replace(seen, track_id=self._next_id - 1)

    def _is_over(self, track: Track) -> bool:
        return track.unseen_s > self.config.max_age_s or track.hidden_s > self.config.max_hidden_s


@dataclass(frozen=True, eq=False)
class _View:
    """The camera at one image: `frame` says whether T_frame_cam leads to the fixed frame."""

    camera: Camera
    frame: str
    T_frame_cam: np.ndarray

    @classmethod
    def of(cls, camera: Camera, T_fixed_cam: np.ndarray | None) -> _View:
        if T_fixed_cam is None:
            return cls(camera, "camera", np.eye(4))
        T_fixed_cam = np.asarray(T_fixed_cam, dtype=np.float64)
        if T_fixed_cam.shape != (4, 4) or not np.isfinite(T_fixed_cam).all():
            raise ValueError(f"T_fixed_cam must be a finite (4, 4) matrix, got {T_fixed_cam}")
        return cls(camera, "fixed", T_fixed_cam)

    def expected_box(self, track: Track) -> tuple[float, float, float, float]:
        """Where the track's box should be: projected in the fixed frame, else where it was."""
        if not self._knows_place_of(track):
            return track.box_xyxy
        corners = (UNIT_CUBE_CORNERS * track.S_m) @ track.R.T + track.T_m
        uv = self._pixels(corners)
        if not np.isfinite(uv).all():
            return (np.nan,) * 4  # partly behind the camera: no box, the distance still compares
        border = np.array([self.camera.width, self.camera.height]) - 0.5
        return (*np.clip(uv.min(0), -0.5, border), *np.clip(uv.max(0), -0.5, border))

    def shows(self, track: Track) -> bool:
        """Whether the track's centre is in the image; counts as shown when its place is unknown."""
        if not self._knows_place_of(track):
            return True
        u, v = self._pixels(track.T_m[None])[0]
        return bool(-0.5 <= u <= self.camera.width - 0.5 and -0.5 <= v <= self.camera.height - 0.5)

    def _knows_place_of(self, track: Track) -> bool:
        return self.frame == "fixed" and track.frame == "fixed"

    def _pixels(self, points_fixed: np.ndarray) -> np.ndarray:
        points_cam = (points_fixed - self.T_frame_cam[:3, 3]) @ self.T_frame_cam[:3, :3]
        return project_points(points_cam, self.camera)


def _sighting(obj: AlignedObject, view: _View, stamp_s: float) -> Track:
    """The object as a track that has no number yet (id 0)."""
    R_frame_cam, t_frame_cam = view.T_frame_cam[:3, :3], view.T_frame_cam[:3, 3]
    return Track(
        track_id=0,
        category=obj.category,
        model_id=obj.model_id,
        frame=view.frame,
        R=R_frame_cam @ np.asarray(obj.R, dtype=np.float64),
        T_m=R_frame_cam @ np.asarray(obj.T_m, dtype=np.float64) + t_frame_cam,
        S_m=np.asarray(obj.S_m, dtype=np.float64),
        box_xyxy=tuple(float(v) for v in obj.box_xyxy),
        score=float(obj.score),
        first_seen_s=stamp_s,
        last_seen_s=stamp_s,
    )


def _aged(track: Track, elapsed_s: float, in_view: bool) -> Track:
    if in_view:
        return dataclasses.replace(track, unseen_s=track.unseen_s + elapsed_s)
    return dataclasses.replace(track, hidden_s=track.hidden_s + elapsed_s)
