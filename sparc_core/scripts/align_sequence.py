"""`sparc align` on a folder of images or a video: video mode, a line of JSON a frame, one 3D scene of it
all."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sparc_core.files.cameras import read_camera
from sparc_core.files.images import read_depth
from sparc_core.files.results import result_to_json
from sparc_core.files.sequence import (
    DEPTH_SUFFIXES,
    FrameFiles,
    ImageSequence,
    SequenceDetections,
    VideoFrame,
)
from sparc_core.files.trajectory import Trajectory, read_trajectory
from sparc_core.scripts.align_inputs import InputOptions
from sparc_core.scripts.align_networks import Networks
from sparc_core.types import Camera, Detection

UP_AXES = {"z": (0.0, 0.0, 1.0), "y": (0.0, 1.0, 0.0), "-y": (0.0, -1.0, 0.0), "none": None}
MIN_SIGHTINGS = 3  # of a track in the scene; what was seen less often may be a detector's slip
KEPT_S = 36_000.0  # a recording is looked at as a whole: what left the view is not forgotten


@dataclass(frozen=True)
class SequenceOptions(InputOptions):
    """Besides: poses (trajectory, or None) with the axis of theirs that is up, and how high the floor is
    along it (None: not known). fps, every: as for `ImageSequence`. smoothing, reinit_score: of the tracker.
    scene (.glb or .html): written; map (.json): map mode, and its map written."""

    poses: Path | None = None
    world_up: str = "z"
    floor: float | None = None
    fps: float | None = None
    every: int = 1
    smoothing: bool = True
    reinit_score: float = 0.4
    scene: Path | None = None
    map: Path | None = None


@dataclass(frozen=True, eq=False)
class _Inputs:
    """The opened inputs; `frame_camera`, `depth` and `detections` answer for single frames."""

    options: SequenceOptions
    images: ImageSequence
    camera: Camera
    detections_of: SequenceDetections | None
    depth_files: FrameFiles | None
    depth_scale: float
    trajectory: Trajectory | None
    up_fixed: np.ndarray | None

    @classmethod
    def open(cls, options: SequenceOptions) -> _Inputs:
        if options.world_up not in UP_AXES:
            raise ValueError(f"--world-up: expected one of {', '.join(UP_AXES)}, got {options.world_up!r}")
        if options.map is not None and options.poses is None:
            raise ValueError(f"--map {options.map}: needs --poses, where the camera was in a fixed frame")
        axis = UP_AXES[options.world_up]
        if options.floor is not None and (options.poses is None or axis is None):
            raise ValueError(f"--floor {options.floor:g}: needs --poses, and a --world-up that is not none")
        return cls(
            options,
            ImageSequence(options.source, options.fps, options.every),
            read_camera(options.camera),
            None if options.detections is None else SequenceDetections(options.detections),
            None if options.depth is None else FrameFiles(options.depth, DEPTH_SUFFIXES, "depth images"),
            options.depth_units_per_m(),
            None if options.poses is None else read_trajectory(options.poses),
            None if options.poses is None or axis is None else np.array(axis),
        )

    def pose(self, frame: VideoFrame) -> np.ndarray | None:
        return None if self.trajectory is None else self.trajectory.at(frame.name, frame.stamp_s)

    def frame_camera(self, T_fixed_cam: np.ndarray | None) -> Camera:
        """The camera with gravity, and its height where the floor's is known: from its pose; a moving
        camera's file cannot know them."""
        if self.up_fixed is None or T_fixed_cam is None:
            return self.camera
        camera = dataclasses.replace(self.camera, up_cam=tuple(T_fixed_cam[:3, :3].T @ self.up_fixed))
        if self.options.floor is None:
            return camera
        above = float(T_fixed_cam[:3, 3] @ self.up_fixed) - self.options.floor
        if above <= 0:
            raise ValueError(
                f"--floor {self.options.floor:g}: {self.options.poses} has the camera {-above:.2f} m below it"
            )
        return dataclasses.replace(camera, above_floor_m=above)

    def depth(self, frame: VideoFrame) -> np.ndarray | None:
        if self.depth_files is None:
            return None
        path = self.depth_files.of(frame)
        depth_m = read_depth(path, self.depth_scale)
        self.options.check_size(path, depth_m, self.camera)
        return depth_m

    def detections(self, frame: VideoFrame) -> tuple[Detection, ...] | None:
        if self.detections_of is None:
            return None
        found = self.detections_of.of(frame)
        self.options.check_masks(f"{self.detections_of.path}: frame {frame.name}", found, self.camera)
        return found

    def check_image(self, frame: VideoFrame) -> None:
        self.options.check_size(f"{self.images.path}: frame {frame.name}", frame.image_rgb, self.camera)


def align_sequence(options: SequenceOptions, networks: Networks) -> None:
    """Align every frame and write the lines, then the scene. The networks are loaded after the inputs were
    found to be readable.

    Raises ValueError or OSError naming what was wrong; lines of frames before a bad one stay written.
    """
    # torch and the network take seconds to import: not for --help, nor for a wrong file name.
    from sparc_core.mapping.live_map import LiveMapConfig
    from sparc_core.tracking.config import TrackerConfig
    from sparc_core.tracking.smoothing import SmoothingConfig
    from sparc_core.tracking.video import VideoAligner
    from sparc_core.visualise import RoomScene

    inputs = _Inputs.open(options)
    config = TrackerConfig(
        max_hidden_s=KEPT_S, reinit_score=options.reinit_score,
        smoothing=SmoothingConfig() if options.smoothing else None,
    )  # fmt: skip
    perception = networks.load_perception(options.detections is not None, options.depth is not None)
    live_map = None if options.map is None else LiveMapConfig()
    video = VideoAligner(networks.load_aligner(), config, live_map=live_map)
    up = "-y" if inputs.trajectory is None else {"none": "z"}.get(options.world_up, options.world_up)
    room = RoomScene(video.aligner.cad_library, up) if options.scene is not None else None
    console, facts = Console(stderr=True), _facts(video, options)
    for path, reason in video.aligner.cad_library.skipped:
        console.print(f"[yellow]skipped CAD file[/] {escape(str(path))}: {escape(reason)}")
    aligned = without_pose = 0
    with options.out.open("w", encoding="utf-8") as lines, _progress(console) as progress:
        task = progress.add_task("aligning", total=len(inputs.images) or None)
        for frame in inputs.images:
            line = _align_frame(frame, inputs, video, perception, options, room)
            without_pose += inputs.trajectory is not None and line["T_fixed_cam"] is None
            lines.write(json.dumps(line | facts, allow_nan=False, ensure_ascii=False) + "\n")
            lines.flush()
            aligned += 1
            progress.advance(task)
    if without_pose:
        console.print(
            f"[yellow]{without_pose} of {aligned} frames have no pose in {escape(str(options.poses))}:[/] "
            "the camera was taken not to have moved"
        )
    tracks = [t for t in video.tracker.tracks if t.sightings >= min(MIN_SIGHTINGS, aligned)]
    if room is not None:
        frame_of_scene = "camera" if inputs.trajectory is None else "fixed"
        placed = [t for t in tracks if t.frame == frame_of_scene]
        room.write(options.scene, placed if video.map_mode is None else _placed(video.map_mode.objects))
    _print_tracks(tracks, aligned)
    if options.map is not None:
        video.write_map(options.map, poses=str(options.poses))


def _placed(objects: dict) -> list[SimpleNamespace]:
    """The objects of a map as `RoomScene.write` wants them."""
    return [
        SimpleNamespace(track_id=number, model_id=o.model_id, R=o.R, T_m=o.T_m, S_m=o.S_m)
        for number, o in objects.items()
    ]


def _align_frame(frame: VideoFrame, inputs: _Inputs, video, perception, options, room) -> dict:
    """The line of one frame, as plain JSON values."""
    inputs.check_image(frame)
    T_fixed_cam = inputs.pose(frame)
    if T_fixed_cam is None and video.map_mode is not None and not video.map_mode.images:
        raise ValueError(f"{options.poses}: no pose for frame {frame.name}: --map needs one to begin with")
    camera = inputs.frame_camera(T_fixed_cam)
    seen = perception.see(frame.image_rgb, camera, inputs.detections(frame), inputs.depth(frame))
    found = video.align(
        frame.image_rgb, camera, seen.detections, frame.stamp_s, seen.depth_m, seen.normals_cam,
        T_fixed_cam=T_fixed_cam, depth_predicted=options.depth_predicted or seen.depth_predicted,
        hints=seen.hints,
    )  # fmt: skip
    result = dataclasses.replace(found.result, timing_ms={**seen.timing_ms, **found.result.timing_ms})
    content = result_to_json(result)
    for entry, track_id in zip(content["objects"], found.track_ids, strict=True):
        entry["track_id"] = track_id
    if room is not None and (T_fixed_cam is not None or inputs.trajectory is None):
        place = np.eye(4) if T_fixed_cam is None else T_fixed_cam
        room.add_image(camera, place, frame.image_rgb, seen.depth_m)
    return {
        "frame": frame.name,
        "stamp_s": frame.stamp_s,
        "T_fixed_cam": None if T_fixed_cam is None else T_fixed_cam.tolist(),
        **content,
        "searched": list(found.searched),
        "ended": [track.track_id for track in found.update.ended],
        "perception": seen.ran,
    }


def _facts(video, options: SequenceOptions) -> dict:
    """The options of the run, the same in every line."""
    tracker = dataclasses.asdict(video.tracker.config)
    sequence = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(options).items()
        if name not in ("out", "scene", "map")
    }
    aligner = dataclasses.asdict(video.aligner.config)
    return {"config": {**aligner, "tracker": tracker, "sequence": sequence}}


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip


def _print_tracks(tracks, frames: int) -> None:
    """A table of the tracks that are alive at the end."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    title = f"{len(tracks)} objects in {frames} frames"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name, justify in (
        ("track", "right"), ("category", "left"), ("CAD model", "left"), ("frames", "right"),
        ("score", "right"), ("position m", "right"), ("size m", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, overflow="fold")
    for track in tracks:
        position, size = (" ".join(f"{value:.2f}" for value in vector) for vector in (track.T_m, track.S_m))
        table.add_row(
            str(track.track_id), track.category, escape(track.model_id), str(track.sightings),
            f"{track.confidence:.2f}", position, size,
        )  # fmt: skip
    console.print(table)
