"""What a tracker remembers of one object, and where it expects the object now."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparc_core.tracking.smoothing import Estimate
from sparc_core.tracking.view import View

HISTORY_S = 0.5  # of sightings, to tell motion from noise
COASTING_S = 1.5  # what moved when it was last seen is taken to go on for this long
MIN_SHIFT_M = 0.1  # in the history; less is noise
SAME_PLACE = 0.25  # of the mean extent
MAX_SPEED_M_PER_S = 3.0  # more is no furniture: a pose that was corrected


@dataclass(frozen=True, eq=False)
class Track:
    """One object over time, at its last sighting.

    R, T_m: object to `frame` ("fixed", or "camera": the camera at the last sighting). S_m: extents. With
    smoothing these are the mean of the sightings. score: σ of the last; confidence: of the last few.
    unseen_s, hidden_s: how long it has been missing while it should have been seen, and while it was out of
    view or behind something. searched_s: stamp of the last search for it. history: (stamp, position in
    `frame`) of the last sightings. estimate: None without smoothing.
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
    confidence: float
    first_seen_s: float
    last_seen_s: float
    sightings: int = 1
    unseen_s: float = 0.0
    hidden_s: float = 0.0
    searched_s: float = -np.inf
    history: tuple[tuple[float, np.ndarray], ...] = ()
    estimate: Estimate | None = None

    @property
    def velocity_m_per_s(self) -> np.ndarray:
        """(3,) of an object that has moved steadily over the last half second, else 0."""
        if len(self.history) < 3:
            return np.zeros(3)
        (begin_s, first), (middle_s, middle), (end_s, last) = (
            self.history[i] for i in (0, len(self.history) // 2, -1)
        )
        shift, early, late = last - first, middle - first, last - middle
        steady = early @ shift > 0.2 * (shift @ shift) and late @ shift > 0.2 * (shift @ shift)
        if end_s - begin_s < 0.5 * HISTORY_S or np.linalg.norm(shift) < MIN_SHIFT_M or not steady:
            return np.zeros(3)
        velocity = shift / (end_s - begin_s)
        return velocity if np.linalg.norm(velocity) <= MAX_SPEED_M_PER_S else np.zeros(3)

    def moved(self, T_new_old: np.ndarray, frame: str) -> Track:
        """The same track in another frame; T_new_old (4, 4)."""
        turn, shift = T_new_old[:3, :3], T_new_old[:3, 3]
        return replace(
            self,
            frame=frame,
            R=turn @ self.R,
            T_m=turn @ self.T_m + shift,
            history=tuple((s, turn @ p + shift) for s, p in self.history),
            estimate=None if self.estimate is None else self.estimate.moved(T_new_old),
        )


@dataclass(frozen=True, eq=False)
class Expectation:
    """Where a track should be at an image, in this camera's frame.

    R (3, 3), T_m (3,), S_m (3,); last_T_m (3,): where it was measured last, which smoothing may have left
    out; box_xyxy NaN when partly behind the camera; gate_m: how far it may be from there; shown: whether it
    should be seen.
    """

    track: Track
    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    last_T_m: np.ndarray
    box_xyxy: tuple[float, float, float, float]
    gate_m: float
    shown: bool


def expect(track: Track, view: View, stamp_s: float, max_distance_m: float) -> Expectation:
    """The track's last pose, moved by the camera's motion, and by its own if it was moving."""
    unseen_s = min(max(stamp_s - track.last_seen_s, 0.0), COASTING_S)
    shift = track.velocity_m_per_s * unseen_s
    T_cam_frame = view.to_camera(track.frame)
    R = T_cam_frame[:3, :3] @ track.R
    measured = track.history[-1][1] if track.history else track.T_m
    T_m, last_T_m = (
        T_cam_frame[:3, :3] @ (place + shift) + T_cam_frame[:3, 3] for place in (track.T_m, measured)
    )
    box = view.expected_box(R, T_m, track.S_m)
    # half of a motion may have been wrongly foreseen
    gate_m = max_distance_m + 0.5 * float(np.linalg.norm(shift))
    return Expectation(track, R, T_m, track.S_m, last_T_m, box, gate_m, view.shows(R, T_m, track.S_m))


def in_one_place(a: Track, b: Track) -> bool:
    """Whether two tracks of a category stand where only one thing can be: their centres are nearer than a
    quarter of the smaller one's mean extent."""
    if a.category != b.category or a.frame != b.frame:
        return False
    size = min(float(a.S_m.mean()), float(b.S_m.mean()))
    return float(np.linalg.norm(a.T_m - b.T_m)) < SAME_PLACE * size
