"""What is done with a frame in the inference thread: place the camera, align, publish, tell.

`Inference` holds everything that a configured node has loaded. It is made and closed in the executor while
there is no inference thread; `process`, `fail`, `use` and `reset_tracks` belong into that thread.
"""

from __future__ import annotations

import dataclasses
import re
import time
import traceback
from collections.abc import Callable, Sequence

import torch
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Imu
from tf2_ros import Buffer, TransformListener

from sparc_core.visualise import draw_overlay
from sparc_ros.conversions import stamp_seconds
from sparc_ros.diagnostics import FrameLog, Throttle
from sparc_ros.frame import FrameMessages, FrameProcessor, FrameWarning, InputError
from sparc_ros.frame_gate import FrameGate
from sparc_ros.gravity import CameraPlacer, ImuUp
from sparc_ros.loading import Loaded, load_everything
from sparc_ros.parameters import NodeParameters
from sparc_ros.publishers import FrameOutputs
from sparc_ros.subscriptions import resolve_topics

LOG_PERIOD_S = 10.0


class Inference:
    """Aligns and publishes one frame after the other.

    load: see `load_everything`. gate: is told of every frame that is done, as (objects message, None) or
    (None, what went wrong). Raises ValueError naming a parameter that cannot be used.
    """

    def __init__(self, node: LifecycleNode, parameters: NodeParameters, load: Callable, gate: FrameGate):
        self._node, self.load, self._gate = node, load, gate
        self._parameters = parameters
        self.log = FrameLog()
        self.device_problem: str | None = None
        self._closed = False
        self._throttle = Throttle(LOG_PERIOD_S)
        self._told_once: frozenset[str] = frozenset()  # kinds of warnings that still hold
        start = time.perf_counter()
        loaded = load_everything(parameters, load)
        self._tell_loaded(loaded, time.perf_counter() - start)
        self.topics = resolve_topics(node, parameters)
        self.tf_buffer = Buffer()
        self._tf_listener = TransformListener(self.tf_buffer, node)
        imu = ImuUp()
        self._imu = None
        if parameters.up_source == "imu":
            self._imu = node.create_subscription(Imu, "imu", imu.add, qos_profile_sensor_data)
        self._placer = CameraPlacer(self.tf_buffer, imu)
        self.outputs = FrameOutputs(node, draw_overlay, self._on_overlay_failure)
        self.use(loaded)

    @property
    def load_parameters(self) -> NodeParameters:
        """Those to load with: a GPU that failed is not tried again."""
        device = "cpu" if self.device_problem else self._parameters.device
        return dataclasses.replace(self._parameters, device=device)

    def configure(self, parameters: NodeParameters) -> None:
        """Take over parameters that changed at run time; they hold from the next frame on."""
        self._parameters = parameters
        self._processor.configure(parameters)

    def use(self, loaded: Loaded) -> None:
        """Align with another CAD library or on another device from now on; the tracks begin anew."""
        self.loaded = loaded
        self._processor = FrameProcessor(
            loaded.aligner, self.topics, self._parameters, loaded.file_detections, loaded.perception
        )
        self.outputs.use(loaded)

    def reset_tracks(self) -> int:
        """End every track and delete its markers; returns how many there were."""
        self.outputs.clear_markers()
        return self._processor.reset_tracks()

    def save_map(self) -> str:
        """Write the map of map_mode; see `FrameProcessor.save_map`."""
        return self._processor.save_map()

    def close(self) -> None:
        """Take topics and subscriptions away."""
        self._closed = True
        self._tf_listener.unregister()
        if self._imu is not None:
            self._node.destroy_subscription(self._imu)
        self.outputs.destroy()

    def process(self, messages: FrameMessages) -> None:
        """Align the objects of one image and publish them."""
        waited_ms = 1e3 * (time.monotonic() - messages.arrived_s)
        start = time.perf_counter()
        parameters = self._parameters
        place = self._placer.place(messages.image.header, parameters)
        placed = time.perf_counter()
        result = self._processor.process(messages, place)
        aligned = time.perf_counter()
        message, published_s = self.outputs.publish(
            result, place.T_output_cam, messages.arrived_s, parameters
        )
        now_s = time.monotonic()
        # Ages by the clock that the stamps are of: simulated time, where it is used.
        age_s = self._node.get_clock().now().nanoseconds * 1e-9 - stamp_seconds(messages.image.header.stamp)
        timing_ms = {
            "stamp to publication": 1e3 * (age_s - (now_s - published_s)),
            "stamp to arrival": 1e3 * (age_s - (now_s - messages.arrived_s)),
            "arrival to publication": 1e3 * (published_s - messages.arrived_s),
            "wait": waited_ms,
            "tf": 1e3 * (placed - start),
            **result.timing_ms,
            "publish": 1e3 * (time.perf_counter() - aligned),
        }
        if self.log.result(result, timing_ms, now_s):
            self._node.get_logger().info("images are aligned again")
        self._warn(result.warnings, now_s)
        self._gate.finished(messages.arrived_s, (message, None))

    def _warn(self, warnings: Sequence[FrameWarning], now_s: float) -> None:
        for warning in warnings:
            told = warning.once and warning.kind in self._told_once
            if not told and (warning.once or self._throttle.allows(warning.kind, now_s)):
                self._node.get_logger().warning(warning.text)
        self._told_once = frozenset(warning.kind for warning in warnings if warning.once)

    def fail(self, messages: FrameMessages, error: Exception) -> None:
        """A frame failed: tell it once, and leave a GPU that no longer works."""
        if self._closed or not self._node.context.ok():
            return  # the publishers no longer exist
        expected = isinstance(error, InputError)
        text = str(error) if expected else f"frame failed: {type(error).__name__}: {error}"
        self._tell_failure(text, None if expected else error)
        self._gate.finished(messages.arrived_s, (None, text))
        if is_device_failure(error) and str(self.loaded.aligner.device) != "cpu":
            self._leave_device(text)

    def _leave_device(self, text: str) -> None:
        # After an error of its own a CUDA device refuses every later call of the process.
        self.device_problem = f"on the CPU since the GPU failed (restart the node to use it again): {text}"
        self.use(load_everything(self.load_parameters, self.load, self.loaded.library))
        self._node.get_logger().error(self.device_problem)

    def _on_overlay_failure(self, job, error: Exception) -> None:
        if not self._closed and self._node.context.ok():
            self._tell_failure(f"overlay failed: {type(error).__name__}: {error}", error)

    def _tell_failure(self, text: str, error: Exception | None) -> None:
        now_s = time.monotonic()
        self.log.error(text, now_s)
        # One fault has many texts: sizes and stamps in them differ from frame to frame.
        if self._throttle.allows(re.sub(r"[\d.]+", "#", text), now_s):
            details = "" if error is None else "\n" + "".join(traceback.format_exception(error))
            self._node.get_logger().error(text + details)

    def _tell_loaded(self, loaded: Loaded, seconds: float) -> None:
        logger, library = self._node.get_logger(), loaded.library
        for path, reason in library.skipped:
            logger.warning(f"CAD library {self._parameters.cad_library}: skipped {path}: {reason}")
        logger.info(
            f"{len(library.models)} CAD models in {', '.join(library.categories)}; network on "
            f"{loaded.aligner.device} ({self._parameters.thread_count} CPU threads); "
            f"loaded in {seconds:.1f} s"
        )


def is_device_failure(error: Exception) -> bool:
    """Whether a GPU itself failed (torch.AcceleratorError, Warp); having too little memory is not that."""
    return not isinstance(error, torch.OutOfMemoryError) and "CUDA error" in str(error)
