"""Video mode's memory: which object is which track, where each one is expected, and what it starts from.

`starts` comes before the alignment of an image: detections that a track explains start from its pose.
`update` comes after it: the aligned objects continue tracks or begin new ones. Tracks are kept in the
fixed frame while the camera's pose is known; without it the camera is taken not to have moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparc_core.geometry.boxes import box_iou
from sparc_core.tracking.association import association_cost, match
from sparc_core.tracking.config import TrackerConfig
from sparc_core.tracking.depth_distance import depth_distances
from sparc_core.tracking.smoothing import Estimate, Sighting, smoothed
from sparc_core.tracking.track import HISTORY_S, Expectation, Track, expect, in_one_place
from sparc_core.tracking.view import View
from sparc_core.types import AlignedObject, Camera, Detection, StartPose

TRACK_START = "track"
CUT_WEIGHT = 0.25  # of a sighting whose box the image's border cuts
CONFIDENCE_GAIN = 0.4  # of a sighting's σ in the track's confidence: a single look's σ is noisy
FRESH_S = 0.3  # a box this old is about where the object is now


@dataclass(frozen=True, eq=False)
class TrackerUpdate:
    """track_ids: one for each object that went in; objects: the same with their tracks' poses, which
    smoothing has moved. tracks: those alive. ended: those that ended now.

    time_jumped_back: the stamp lay before the previous one (a bag that started again): every earlier
    track has ended.
    """

    track_ids: tuple[int, ...]
    objects: tuple[AlignedObject, ...]
    tracks: tuple[Track, ...]
    ended: tuple[Track, ...]
    time_jumped_back: bool = False


class Tracker:
    """Gives each object a track id that stays the same while the object is tracked.

    Ids start at 1 and are never used again, not even after `reset`, unless somebody knows better (`rename`).
    symmetries: of CAD models by their id; a model that is not named has none.
    """

    def __init__(self, config: TrackerConfig | None = None, symmetries: Mapping[str, str] | None = None):
        self.config = config or TrackerConfig()
        self._symmetries = symmetries or {}
        self._tracks: tuple[Track, ...] = ()
        self._next_id = 1
        self._last_stamp_s: float | None = None
        self._last_T_fixed_cam: np.ndarray | None = None

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks alive, oldest first."""
        return self._tracks

    def reset(self) -> tuple[Track, ...]:
        """End every track and return them."""
        ended, self._tracks, self._last_stamp_s = self._tracks, (), None
        return ended

    def correct(self, track_id: int, R: np.ndarray, T_m: np.ndarray, S_m: np.ndarray) -> None:
        """Somebody knows better: set a track's pose, in the frame that it is kept in (`Track.frame`).

        Raises ValueError for a track that is not alive.
        """
        if track_id not in {track.track_id for track in self._tracks}:
            raise ValueError(f"track_id: {track_id} is not alive")
        self._tracks = tuple(
            self._corrected(track, R, T_m, S_m) if track.track_id == track_id else track
            for track in self._tracks
        )

    def rename(self, track_id: int, older_id: int) -> None:
        """A track turned out to be an object known before: it goes on under the id of a track that ended.

        Raises ValueError for a track that is not alive, or an id that is.
        """
        alive = {track.track_id for track in self._tracks}
        if track_id not in alive or older_id in alive:
            raise ValueError(f"track {track_id} cannot go on as {older_id}; alive are {sorted(alive)}")
        tracks = (replace(t, track_id=older_id) if t.track_id == track_id else t for t in self._tracks)
        self._tracks = tuple(sorted(tracks, key=lambda track: track.track_id))

    def _corrected(self, track: Track, R, T_m, S_m) -> Track:
        estimate = None
        if track.estimate is not None:
            estimate = replace(track.estimate, R=R, T_m=T_m, S_m=S_m, outside=0, drift=np.zeros(9))
        return replace(track, R=R, T_m=T_m, S_m=S_m, estimate=estimate, history=())

    def starts(
        self,
        detections: Sequence[Detection],
        stamp_s: float,
        camera: Camera,
        T_fixed_cam: np.ndarray | None = None,
        depth_m: np.ndarray | None = None,
    ) -> tuple[StartPose | None, ...]:
        """Of every detection of an image the pose to start from; None for one that no track explains.

        T_fixed_cam: (4, 4) camera to fixed frame at that stamp, or None when unknown; depth_m (H, W) metres,
        or None. Nothing is remembered. Raises ValueError for a pose of another shape.
        """
        view = View.of(camera, T_fixed_cam, self._last_T_fixed_cam, depth_m)
        if self._last_stamp_s is not None and stamp_s < self._last_stamp_s:
            return (None,) * len(detections)
        expected = self._expected(view, stamp_s)
        cost = self._cost(
            expected,
            [d.category for d in detections],
            [d.box_xyxy for d in detections],
            depth_distances(expected, detections, depth_m, camera),
            stamp_s,
        )
        starts: list[StartPose | None] = [None] * len(detections)
        for n, m in match(cost):
            starts[m] = self._start(expected[n], detections[m], stamp_s)
        return tuple(starts)

    def update(
        self,
        objects: Sequence[AlignedObject],
        stamp_s: float,
        camera: Camera,
        T_fixed_cam: np.ndarray | None = None,
        depth_m: np.ndarray | None = None,
        searched: frozenset[int] = frozenset(),
    ) -> TrackerUpdate:
        """Match the objects of one image to the tracks; start, continue and end tracks.

        objects: poses in the camera frame. stamp_s: of the image. T_fixed_cam, depth_m: as for `starts`.
        searched: detections that a search was made for. Raises ValueError for a pose of another shape.
        """
        view = View.of(camera, T_fixed_cam, self._last_T_fixed_cam, depth_m)
        jumped = self._last_stamp_s is not None and stamp_s < self._last_stamp_s
        ended_by_jump = self.reset() if jumped else ()
        elapsed_s = 0.0 if self._last_stamp_s is None else stamp_s - self._last_stamp_s

        expected = self._expected(view, stamp_s)
        places = np.array([(e.T_m, e.last_T_m) for e in expected]).reshape(-1, 2, 3)
        positions = np.array([obj.T_m for obj in objects], dtype=np.float64).reshape(-1, 3)
        cost = self._cost(
            expected,
            [obj.category for obj in objects],
            [obj.box_xyxy for obj in objects],
            np.linalg.norm(places[:, :, None] - positions[None, None], axis=-1).min(1),
            stamp_s,
        )
        expected_of_object = {m: expected[n] for n, m in match(cost)}
        current = [
            self._seen(obj, expected_of_object.get(m), view, stamp_s, obj.detection in searched)
            for m, obj in enumerate(objects)
        ]
        matched = {e.track.track_id for e in expected_of_object.values()}
        unseen = [_aged(e.track, elapsed_s, e.shown) for e in expected if e.track.track_id not in matched]
        current, unseen, merged = self._merged(current, unseen)
        ended = tuple(track for track in unseen if self._is_over(track))
        alive = current + [track for track in unseen if not self._is_over(track)]

        self._tracks = tuple(sorted(alive, key=lambda track: track.track_id))
        self._last_stamp_s = stamp_s
        self._last_T_fixed_cam = view.T_fixed_cam
        return TrackerUpdate(
            tuple(track.track_id for track in current),
            tuple(_posed(obj, track, view) for obj, track in zip(objects, current, strict=True)),
            self._tracks,
            ended_by_jump + merged + ended,
            jumped,
        )

    def _merged(self, current: list[Track], unseen: list[Track]):
        """Of a seen and an unseen track in one place, which two things cannot be, the older id goes on with
        what was seen; the tracks that end by it come third. A hidden object whose first glimpse was aligned
        wrongly gets its id back so, once it is right."""
        ended = []
        for n, seen in enumerate(current):
            for other in unseen:
                if in_one_place(seen, other):
                    unseen = [track for track in unseen if track is not other]
                    ended.append(max(seen, other, key=lambda track: track.track_id))
                    first_seen_s = min(seen.first_seen_s, other.first_seen_s)
                    older = min(seen.track_id, other.track_id)
                    seen = replace(seen, track_id=older, first_seen_s=first_seen_s)
            current[n] = seen
        return current, unseen, tuple(ended)

    def _expected(self, view: View, stamp_s: float) -> list[Expectation]:
        return [expect(track, view, stamp_s, self.config.max_distance_m) for track in self._tracks]

    def _cost(
        self, expected: list[Expectation], categories, boxes, distance_m: np.ndarray, stamp_s: float
    ) -> np.ndarray:
        """(tracks, sightings) association cost. distance_m: (N, M), NaN where unknown."""
        if not expected or not len(boxes):
            return np.zeros((len(expected), len(boxes)))
        iou = box_iou(np.array([e.box_xyxy for e in expected]), np.array(boxes))
        # A fresh box is about where the object still is, and knows what hides a part of it.
        fresh = np.array([stamp_s - e.track.last_seen_s <= FRESH_S for e in expected])[:, None]
        last_iou = box_iou(np.array([e.track.box_xyxy for e in expected]), np.array(boxes))
        iou = np.where(fresh, np.maximum(iou, last_iou), iou)
        # The pose of a doubtful track says little about where it is: the boxes say more.
        doubtful = np.array([self._is_doubtful(e.track) for e in expected])[:, None]
        return association_cost(
            iou,
            np.where(doubtful & (iou >= self.config.min_iou), np.nan, distance_m),
            np.array([[e.track.category == category for category in categories] for e in expected]),
            max_distance_m=np.array([[e.gate_m] for e in expected]),
            min_iou=self.config.min_iou,
        )

    def _start(self, expected: Expectation, detection: Detection, stamp_s: float) -> StartPose:
        track, config = expected.track, self.config
        rested = stamp_s - track.searched_s >= config.reinit_pause_s
        return StartPose(
            detection.model_id or track.model_id, expected.R, expected.T_m, expected.S_m,
            search=self._is_doubtful(track) and rested,
        )  # fmt: skip

    def _seen(
        self, obj: AlignedObject, expected: Expectation | None, view: View, stamp_s: float, searched: bool
    ) -> Track:
        """The object as the continuation of a track, or as a new one with the next free id."""
        T = view.from_camera()
        R, T_m = T[:3, :3] @ np.asarray(obj.R, np.float64), T[:3, :3] @ obj.T_m + T[:3, 3]
        score = float(obj.score)
        # the search that a doubtful track asked for found something better
        repaired = (
            expected is not None
            and obj.start != TRACK_START
            and self._is_doubtful(expected.track)
            and score > expected.track.confidence
        )
        seen = self._sighting(obj, R, T_m, view, repaired)
        if expected is None:
            self._next_id += 1
            track = Track(
                self._next_id - 1, obj.category, obj.model_id, view.frame, R, T_m, seen.S_m, obj.box_xyxy,
                score, score, stamp_s, stamp_s, sightings=0,
            )  # fmt: skip
        else:
            track = expected.track
            if track.frame != view.frame:
                track = track.moved(T @ view.to_camera(track.frame), view.frame)
        history = tuple(entry for entry in track.history if stamp_s - entry[0] <= HISTORY_S)
        estimate = self._estimate(track, seen)
        mean = estimate or seen
        change = score - track.confidence
        return replace(
            track, R=mean.R, T_m=mean.T_m, S_m=mean.S_m, estimate=estimate, model_id=obj.model_id,
            box_xyxy=tuple(float(v) for v in obj.box_xyxy), score=score,
            confidence=score if repaired else track.confidence + CONFIDENCE_GAIN * change,
            last_seen_s=stamp_s, sightings=track.sightings + 1, unseen_s=0.0, hidden_s=0.0,
            searched_s=stamp_s if searched else track.searched_s, history=(*history, (stamp_s, T_m)),
        )  # fmt: skip

    def _sighting(self, obj: AlignedObject, R, T_m, view: View, repaired: bool) -> Sighting:
        """Depth noise and pixels make a pose less certain with the square of its distance."""
        distance_m = float(np.linalg.norm(obj.T_m))
        weight = max(float(obj.score), 0.05) / max(distance_m, 0.5) ** 2
        if view.touches_border(obj.box_xyxy):
            weight *= CUT_WEIGHT
        return Sighting(R, T_m, np.asarray(obj.S_m, dtype=np.float64), weight, distance_m, repaired)

    def _estimate(self, track: Track, seen: Sighting) -> Estimate | None:
        if self.config.smoothing is None:
            return None
        if track.estimate is None or track.velocity_m_per_s.any():
            return Estimate.first(seen)  # what moves has no mean
        symmetry = self._symmetries.get(track.model_id, "none")
        return smoothed(track.estimate, seen, symmetry, self.config.smoothing)

    def _is_doubtful(self, track: Track) -> bool:
        return track.confidence < self.config.reinit_score

    def _is_over(self, track: Track) -> bool:
        return track.unseen_s > self.config.max_age_s or track.hidden_s > self.config.max_hidden_s


def _posed(obj: AlignedObject, track: Track, view: View) -> AlignedObject:
    """The object with its track's pose, in the camera frame."""
    if track.estimate is None:
        return obj
    T = view.to_camera(track.frame)
    return replace(obj, R=T[:3, :3] @ track.R, T_m=T[:3, :3] @ track.T_m + T[:3, 3], S_m=track.S_m)


def _aged(track: Track, elapsed_s: float, shown: bool) -> Track:
    if shown:
        return replace(track, unseen_s=track.unseen_s + elapsed_s)
    return replace(track, hidden_s=track.hidden_s + elapsed_s)
