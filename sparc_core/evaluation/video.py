"""Video mode on synthetic sequences: tracking against a search in every image, with and without smoothing.

`VideoRunner.run` renders one sequence and sends every image through all methods; each keeps a record of every
object it was given. One more tracker has single tracks set wrong now and then, to see how it recovers.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.report import poses_of
from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_y
from sparc_core.mapping.live_map import LiveMapConfig
from sparc_core.pipeline import Aligner
from sparc_core.synth.sequence import SequenceFrame, SequenceWorld
from sparc_core.synth.sequence_room import SequenceConfig
from sparc_core.tracking.config import TrackerConfig
from sparc_core.tracking.video import VideoAligner, VideoResult

MAIN = next(iter(THRESHOLDS))
WRONG_EVERY = 20  # images between two tracks that are set wrong
WRONG_SHIFT_M = 0.3
RECOVERY_LIMIT_S = 3.0  # of being detected; a track that is still wrong then has not recovered


@dataclass(frozen=True)
class Method:
    """One way to go through a video. search: every image is searched anew; camera_pose: whether the tracker
    is told the camera's motion; smoothing: of the published poses; map_mode: poses fused over the whole
    video, ids that return."""

    name: str
    search: bool = False
    smoothing: bool = False
    camera_pose: bool = True
    map_mode: bool = False


METHODS = (
    Method("search in every image", search=True),
    Method("search in every image, smoothed", search=True, smoothing=True),
    Method("tracks"),
    Method("tracks, smoothed", smoothing=True),
    Method("map mode", smoothing=True, map_mode=True),
    Method("tracks, smoothed, camera motion unknown", smoothing=True, camera_pose=False),
)


@dataclass(frozen=True)
class VideoBenchConfig:
    """sequences: how many rooms; seed fixes them. methods: names in `METHODS`. given_models: detections name
    their CAD model. tracker: options of all methods, whose smoothing is that of the smoothed ones."""

    sequences: int = 3
    seed: int = 2028
    methods: tuple[str, ...] = tuple(method.name for method in METHODS)
    cad_library: str = "procedural:1000000-1000009"
    given_models: bool = True
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self):
        if self.sequences < 1:
            raise ValueError(f"sequences must be at least 1, got {self.sequences}")
        known = [method.name for method in METHODS]
        for name in self.methods:
            if name not in known:
                raise ValueError(f"unknown method {name!r}; they are {', '.join(map(repr, known))}")
        if self.tracker.smoothing is None:
            raise ValueError("tracker smoothing: expected options for the smoothed methods, got none")


class VideoRunner:
    """Runs one network over the sequences of the benchmark, one by one."""

    def __init__(self, config: VideoBenchConfig, weights: Path | str | None = None, device: str = "cpu"):
        self.config = config
        self.library = CadLibrary.open(config.cad_library)
        self.aligner = Aligner.load(weights, self.library, device=device)

    def run(self, number: int) -> dict:
        """Sequence `number`: {"objects": records of objects, "images": of images, "recoveries": of tracks
        that were set wrong}, each a list of flat dicts."""
        world = SequenceWorld(self.library, self.config.sequence, self.config.seed * 1009 + number)
        runs = [
            _MethodRun(self.aligner, method, self.config.tracker)
            for method in METHODS
            if method.name in self.config.methods
        ]
        disturbed = _DisturbedRun(self.aligner, Method("", smoothing=True), self.config.tracker, number)
        for frame in world.frames():
            if not self.config.given_models:
                detections = tuple(replace(d, model_id=None) for d in frame.detections)
                frame = replace(frame, detections=detections)
            for run in (*runs, disturbed):
                run.add(frame, world)
        sequence = {"sequence": number}
        return {
            "objects": [sequence | record for run in runs for record in run.objects],
            "images": [sequence | record for run in runs for record in run.images],
            "recoveries": [sequence | record for record in disturbed.finish()],
        }


class _MethodRun:
    """One method on one sequence, and its records."""

    def __init__(self, aligner: Aligner, method: Method, tracker: TrackerConfig):
        self.method = method
        config = tracker if method.smoothing else replace(tracker, smoothing=None)
        live_map = LiveMapConfig() if method.map_mode else None
        self.video = VideoAligner(aligner, config, search_always=method.search, live_map=live_map)
        self.objects: list[dict] = []
        self.images: list[dict] = []

    def add(self, frame: SequenceFrame, world: SequenceWorld) -> VideoResult:
        began, cpu_began = time.perf_counter(), time.process_time()
        found = self.video.align(
            frame.rgb, frame.camera, frame.detections, frame.stamp_s, frame.depth_m,
            T_fixed_cam=frame.T_room_cam if self.method.camera_pose else None,
        )  # fmt: skip
        cpu_ms = 1e3 * (time.process_time() - cpu_began)
        took_ms = 1e3 * (time.perf_counter() - began)
        observe_ms = found.result.timing_ms.get("observe", 0.0)
        self.images.append({
            "method": self.method.name, "stamp_s": frame.stamp_s, "objects": len(frame.objects),
            "searched": len(found.searched), "alignment_ms": took_ms - observe_ms, "total_ms": took_ms,
            "cpu_ms": cpu_ms,
        })  # fmt: skip
        self.objects += object_records(self.method.name, frame, world, found)
        return found


def object_records(method: str, frame: SequenceFrame, world: SequenceWorld, found: VideoResult) -> list[dict]:
    """One flat record of every detection of an image: errors, track, and the pose in the room."""
    numbers = torch.tensor(frame.objects, dtype=torch.long)
    pose, score = poses_of(found.result, len(frame.objects))
    truth = frame.truth.map(lambda x: x[numbers])
    order = world.symmetry_order[numbers]
    errors = pose_errors(pose, truth, order)
    track_of = {obj.detection: i for obj, i in zip(found.result.objects, found.track_ids, strict=True)}
    in_room = _in_room(pose, frame.T_room_cam)
    records = []
    for d, number in enumerate(frame.objects):
        records.append({
            "method": method, "stamp_s": frame.stamp_s, "object": number, "track": track_of.get(d, 0),
            "moving": bool(frame.moving[number]), "visible": float(frame.visible[number]),
            "category": frame.detections[d].category, "symmetry_order": int(order[d]),
            "translation_m": float(errors.translation_m[d]), "rotation_deg": float(errors.rotation_deg[d]),
            "scale": float(errors.scale[d]), "score": float(score[d]),
            "R": in_room.R[d].tolist(), "T_m": in_room.T[d].tolist(),
        })  # fmt: skip
    return records


def _in_room(pose: Pose, T_room_cam: np.ndarray) -> Pose:
    turn = torch.from_numpy(T_room_cam[:3, :3]).float()
    shift = torch.from_numpy(T_room_cam[:3, 3]).float()
    return Pose(turn @ pose.R, pose.T @ turn.T + shift, pose.S)


class _DisturbedRun(_MethodRun):
    """Sets a right track wrong every now and then and measures how long it stays wrong while detected."""

    def __init__(self, aligner, method, tracker, seed: int):
        super().__init__(aligner, method, tracker)
        self._rng = np.random.default_rng(seed)
        self._count, self._open, self._done, self._last = 0, {}, [], []

    def add(self, frame: SequenceFrame, world: SequenceWorld) -> VideoResult:
        elapsed_s = 1.0 / world.config.fps
        if self._count and self._count % WRONG_EVERY == 0:
            self._disturb()
        self._count += 1
        found = super().add(frame, world)
        self._last = self.objects[len(self.objects) - len(frame.objects) :]
        for record in self._last:
            wrong = self._open.get(record["object"])
            if wrong is None:
                continue
            wrong["seen_s"] += elapsed_s
            if is_right(record):
                self._close(record["object"], recovered=True, same_track=record["track"] == wrong["track"])
            elif wrong["seen_s"] >= RECOVERY_LIMIT_S:
                self._close(record["object"], recovered=False, same_track=record["track"] == wrong["track"])
        return found

    def finish(self) -> list[dict]:
        """Records of all tracks that were set wrong; those still open at the end have no answer and are left
        out."""
        return self._done

    def _close(self, number: int, **outcome) -> None:
        self._done.append({**self._open.pop(number), **outcome})

    def _disturb(self) -> None:
        """Turn a right track, whose model has a front, by a quarter or half turn, or shift it, or both."""
        alive = {track.track_id: track for track in self.video.tracker.tracks}
        able = [
            r for r in self._last if is_right(r) and r["track"] in alive and r["object"] not in self._open
        ]
        if not able:
            return
        record = able[self._rng.integers(len(able))]
        track = alive[record["track"]]
        quarters = int(self._rng.integers(1, 4)) if record["symmetry_order"] == 1 else 0
        angle = self._rng.uniform(0, 2 * math.pi)
        shift = WRONG_SHIFT_M if quarters == 0 or self._rng.random() < 0.5 else 0.0
        turn = rotation_y(torch.tensor(quarters * math.pi / 2, dtype=torch.float64)).numpy()
        # the room's floor is level: y is up
        T_m = track.T_m + shift * np.array([math.cos(angle), 0.0, math.sin(angle)])
        self.video.tracker.correct(track.track_id, track.R @ turn, T_m, track.S_m)
        self._open[record["object"]] = {
            "stamp_s": record["stamp_s"], "object": record["object"], "track": record["track"],
            "turn_deg": 90 * quarters, "shift_m": shift, "seen_s": 0.0,
        }  # fmt: skip


def is_right(record: dict) -> bool:
    """Whether an object's record is within 20 cm, 20° and 20 %."""
    metres, degrees, fraction = THRESHOLDS[MAIN]
    return (
        record["translation_m"] <= metres
        and record["rotation_deg"] <= degrees
        and record["scale"] <= fraction
    )
