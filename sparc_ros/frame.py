"""One frame from messages to tracked objects: decode, check, align, track. No node, no publisher.

In: the synchronised messages of one image and what is known of the camera's pose. Out: a frozen
`FrameResult` for the publishers. Anything wrong with an input raises `InputError` with the topic's
name; the worker reports it and goes on with the next frame.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparc_core.perception.see import Perception, Seen
from sparc_core.tracking.config import TrackerConfig
from sparc_core.tracking.map_mode import LiveMapConfig
from sparc_core.tracking.smoothing import SmoothingConfig
from sparc_core.tracking.tracker import TrackerUpdate
from sparc_core.tracking.video import VideoAligner
from sparc_core.types import AlignedObject, AlignmentResult, Camera, Detection
from sparc_ros import image_adapter, image_codec
from sparc_ros.conversions import (
    DetectionRules,
    ReadDetections,
    camera_from_info,
    detections_from_msg,
    select_detections,
    stamp_seconds,
)
from sparc_ros.parameters import NodeParameters, parse_class_map


class InputError(ValueError):
    """An input message that cannot be used; the text names the topic and what to do."""


@dataclass(frozen=True)
class Topics:
    """Resolved names of the inputs, for messages to the user."""

    image: str
    camera_info: str
    depth: str
    detections: str


@dataclass(frozen=True, eq=False)
class FrameMessages:
    """The messages of one image; depth and detections are None where the node does not subscribe."""

    image: object
    info: object
    depth: object | None
    detections: object | None
    arrived_s: float  # time.monotonic() when the set was complete


@dataclass(frozen=True, eq=False)
class CameraPlace:
    """What is known of the camera at an image's stamp; `problem` says why gravity is missing,
    `motion_problem` why the camera's pose is, `floor_problem` why its height above the floor is.

    T_fixed_cam, T_output_cam: (4, 4) camera points to `fixed_frame` and to `output_frame`.
    """

    T_fixed_cam: np.ndarray | None = None
    up_cam: tuple[float, float, float] | None = None
    problem: str | None = None
    motion_problem: str | None = None
    T_output_cam: np.ndarray | None = None
    above_floor_m: float | None = None
    floor_problem: str | None = None


@dataclass(frozen=True)
class FrameWarning:
    """Something the user should know that did not stop the frame. `kind` groups them for the log; `once`: the
    log has it once, until it has been over."""

    kind: str
    text: str
    once: bool = False


@dataclass(frozen=True, eq=False)
class FrameResult:
    """header: the image's own. objects and track_ids go together; warnings are for the user."""

    header: object
    image_rgb: np.ndarray
    camera: Camera
    objects: tuple[AlignedObject, ...]
    track_ids: tuple[int, ...]
    update: TrackerUpdate
    warnings: tuple[FrameWarning, ...]
    timing_ms: dict[str, float]


class FrameProcessor:
    """Runs the aligner in video mode on one frame after the other (from one thread)."""

    def __init__(
        self, aligner, topics: Topics, parameters: NodeParameters, file_detections=None, perception=None
    ):
        """perception: a `Perception` for what is not subscribed; None where everything is."""
        live_map = LiveMapConfig() if parameters.map_mode else None
        self._video = VideoAligner(aligner, live_map=live_map)
        self._perception = perception or Perception()
        self._topics = topics
        self._file_detections: tuple[Detection, ...] | None = file_detections
        self._model_ids = frozenset(model.model_id for model in aligner.cad_library.models)
        self.configure(parameters)

    def configure(self, parameters: NodeParameters) -> None:
        """Take over parameters that changed at run time; they hold from the next frame on."""
        self._parameters = parameters
        self._rules = DetectionRules(
            categories=parameters.categories,
            class_map=parse_class_map(parameters.class_map),
            model_ids=self._model_ids,
            min_score=parameters.min_detection_score,
            max_count=parameters.max_detections,
        )
        self._video.search_always = not parameters.video_mode
        self._video.tracker.config = TrackerConfig(
            max_age_s=parameters.track_max_age_s,
            max_hidden_s=parameters.track_max_hidden_s,
            reinit_score=parameters.reinit_score,
            smoothing=SmoothingConfig() if parameters.smoothing else None,
        )

    def reset_tracks(self) -> int:
        """End every track and forget the map; returns how many tracks there were. From the thread of
        `process`."""
        return self._video.reset()

    def save_map(self) -> str:
        """Write the map to `map_file`; says what was written. From the thread of `process`. Raises ValueError
        naming the parameter that is missing, OSError for a file that cannot be written."""
        parameters = self._parameters
        if not parameters.map_mode:
            raise ValueError("there is no map: the parameter map_mode is false")
        if not parameters.map_file:
            raise ValueError("parameter map_file: must name a file, got ''")
        path = Path(parameters.map_file).expanduser()
        count = self._video.write_map(path, fixed_frame=parameters.fixed_frame)
        return f"{count} objects in {path}"

    def process(self, messages: FrameMessages, place: CameraPlace) -> FrameResult:
        """Align and track the objects of one frame. Raises InputError naming a topic."""
        self._check_place(place)
        start = time.perf_counter()
        image_rgb = self._image(messages.image)
        camera = self._camera(messages.info, image_rgb.shape, place)
        depth_m = self._depth(messages.depth, image_rgb.shape)
        decoded = time.perf_counter()
        read, seen = self._look(messages.detections, image_rgb, camera, depth_m)
        looked = time.perf_counter()
        found = self._video.align(
            image_rgb, camera, read.detections, stamp_seconds(messages.image.header.stamp), seen.depth_m,
            seen.normals_cam, T_fixed_cam=place.T_fixed_cam,
            depth_predicted=self._parameters.depth_predicted or seen.depth_predicted, hints=seen.hints,
        )  # fmt: skip
        result, update = found.result, found.update
        # What scores too low is tracked all the same; `detection` counts what went into the aligner, users
        # count in their own message.
        published = [
            (dataclasses.replace(obj, detection=read.index[obj.detection]), track_id)
            for obj, track_id in zip(result.objects, found.track_ids, strict=True)
            if obj.score >= self._parameters.min_score
        ]
        timing_ms = {f"align/{name}": value for name, value in result.timing_ms.items()} | {
            **{f"see/{name}": value for name, value in seen.timing_ms.items()},
            "decode": 1e3 * (decoded - start),
            "see": 1e3 * (looked - decoded),
            "align": 1e3 * (time.perf_counter() - looked) - found.track_ms,
            "track": found.track_ms,
        }
        return FrameResult(
            header=messages.image.header,
            image_rgb=image_rgb,
            camera=camera,
            objects=tuple(obj for obj, _ in published),
            track_ids=tuple(track_id for _, track_id in published),
            update=update,
            warnings=self._warnings(read, result, depth_m, place, update, messages.image.header),
            timing_ms=timing_ms,
        )

    def _check_place(self, place: CameraPlace) -> None:
        map_mode = self._video.map_mode
        if map_mode is not None and place.T_fixed_cam is None and not map_mode.images:
            raise InputError(
                f"map_mode: TF does not tell yet where the camera is in fixed_frame "
                f"({self._parameters.fixed_frame!r}): {place.motion_problem}"
            )

    def _image(self, msg) -> np.ndarray:
        compressed = self._parameters.image_transport == "compressed"
        try:
            return image_codec.compressed_to_rgb(msg) if compressed else image_adapter.image_to_rgb(msg)
        except ValueError as error:
            raise InputError(f"image on {self._topics.image}: {error}") from error

    def _camera(self, info, shape: tuple[int, ...], place: CameraPlace) -> Camera:
        try:
            camera = camera_from_info(
                info,
                self._topics.camera_info,
                rectified=self._parameters.image_is_rectified,
                up_cam=place.up_cam,
                above_floor_m=place.above_floor_m,
            )
        except ValueError as error:
            raise InputError(str(error)) from error
        if (camera.height, camera.width) != shape[:2]:
            raise InputError(
                f"camera info on {self._topics.camera_info} is for {camera.width}x{camera.height} pixels, "
                f"the image on {self._topics.image} has {shape[1]}x{shape[0]}: do they belong together?"
            )
        return camera

    def _depth(self, msg, shape: tuple[int, ...]) -> np.ndarray | None:
        if msg is None:
            return None
        try:
            depth_m = image_adapter.depth_to_metres(msg, self._parameters.depth_unit_m)
        except ValueError as error:
            raise InputError(f"depth on {self._topics.depth}: {error}") from error
        if depth_m.shape != shape[:2]:
            raise InputError(
                f"depth on {self._topics.depth} has {depth_m.shape[1]}x{depth_m.shape[0]} pixels, the image "
                f"on {self._topics.image} {shape[1]}x{shape[0]}: publish depth aligned to the image "
                "(RealSense: align_depth.enable:=true), or set use_depth:=false"
            )
        return depth_m

    def _look(
        self, msg, image_rgb: np.ndarray, camera: Camera, depth_m: np.ndarray | None
    ) -> tuple[ReadDetections, Seen]:
        """The detections that count, and what the predictors make of the image."""
        if self._parameters.detections_source == "detector":
            seen = self._perception.see(image_rgb, camera, None, depth_m)
            return select_detections(seen.detections, self._rules), seen
        if msg is not None:
            read = detections_from_msg(msg, self._rules)
        else:
            read = select_detections(self._file_detections or (), self._rules)
        if not read.detections:  # nothing to predict anything for
            return read, Seen((), depth_m, None, False)
        seen = self._perception.see(image_rgb, camera, read.detections, depth_m)
        return dataclasses.replace(read, detections=seen.detections), seen

    def _warnings(self, read: ReadDetections, result: AlignmentResult, depth_m, place, update, header):
        topic = self._topics.detections
        skipped = [(read.index[skip.detection], skip.reason) for skip in result.skipped]
        found = {
            "detections": _listed(f"detections on {topic} left out", read.left_out + tuple(skipped)),
            "place": place.problem,
            "floor": place.floor_problem,
        }
        if read.unknown_classes:
            names = ", ".join(repr(name) for name in read.unknown_classes[:5])
            found["category"] = f"unknown category on {topic}: {names}: left out (class_map can name them)"
        if read.capped:
            found["capped"] = (
                f"{read.capped} detections on {topic} beyond max_detections = "
                f"{self._parameters.max_detections} were left out (lowest scores)"
            )
        if depth_m is not None and not depth_m.any():
            found["depth"] = f"depth on {self._topics.depth} has no valid value (all zero or NaN)"
        if not header.frame_id:
            found["frame"] = (
                f"image on {self._topics.image} has an empty frame_id: its objects have no TF and no markers"
            )
        if update.time_jumped_back:
            found["time"] = f"stamps on {self._topics.image} jumped back: every track was ended"
        warnings = [FrameWarning(kind, text) for kind, text in found.items() if text]
        if place.motion_problem:
            warnings.append(FrameWarning("motion", place.motion_problem, once=True))
        return tuple(warnings)


def _listed(title: str, reasons) -> str | None:
    """'TITLE: 3 (reason), 7 (reason) and 12 more', or None when there are none."""
    if not reasons:
        return None
    listed = ", ".join(f"{index} ({reason})" for index, reason in reasons[:3])
    return f"{title}: {listed}" + (f" and {len(reasons) - 3} more" if len(reasons) > 3 else "")
