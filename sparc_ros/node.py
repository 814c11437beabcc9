"""The align node: wiring of inputs, one inference thread, outputs and diagnostics.

Reading order: `subscriptions` -> `worker` -> `frame` -> `publishers`; this file only connects them.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Imu
from tf2_ros import Buffer, TransformListener

from sparc_core.cad.library import CadLibrary
from sparc_core.files.detections import read_detections
from sparc_core.perception.see import Perception, PerceptionConfig
from sparc_core.pipeline import Aligner, AlignerConfig
from sparc_core.visualise import draw_overlay
from sparc_ros import image_adapter, transform_adapter
from sparc_ros.diagnostics import FrameLog, Throttle, diagnostic_array
from sparc_ros.frame import FrameMessages, FrameProcessor, InputError
from sparc_ros.gravity import CameraPlacer, ImuUp
from sparc_ros.markers import export_mesh_uris
from sparc_ros.parameter_list import declare_parameters, resolve_changes
from sparc_ros.parameters import NodeParameters, parse_scale_modes
from sparc_ros.publishers import FrameOutputs
from sparc_ros.run_node import run_node
from sparc_ros.subscriptions import FrameInputs
from sparc_ros.worker import LatestJobWorker

LOG_PERIOD_S = 10.0
STOP_TIMEOUT_S = 2.0


def load_aligner(parameters: NodeParameters) -> Aligner:
    """The aligner with the CAD library and weights the parameters name; ValueError names the parameter."""
    try:
        library = CadLibrary.open(parameters.cad_library)
    except (ValueError, OSError) as error:
        raise ValueError(f"parameter cad_library: {error}") from error
    config = AlignerConfig(
        scale_mode=parameters.scale_mode,
        scale_modes=parse_scale_modes(parameters.scale_modes),
        max_candidates=parameters.max_candidates,
    )
    weights = Path(parameters.weights).expanduser() if parameters.weights else None
    try:
        return Aligner.load(
            weights, library, device=parameters.device, config=config, retrieval=parameters.retrieval
        )
    except (ValueError, OSError) as error:
        raise ValueError(
            f"parameter weights ({parameters.weights or 'shipped'}), retrieval ({parameters.retrieval}) or "
            f"device ({parameters.device}): {error}"
        ) from error


def load_perception(parameters: NodeParameters, device: str) -> Perception:
    """The predictors that the parameters name; ValueError names the parameters."""
    predicts_depth = parameters.depth_model != "none" and (not parameters.use_depth or parameters.fill_holes)
    try:
        config = PerceptionConfig(
            parameters.detector if parameters.detections_source == "detector" else "",
            parameters.depth_model if predicts_depth else "",
            parameters.masks,
            parameters.detector_min_score,
            parameters.fill_holes,
        )
        return Perception.load(config, device)
    except (ValueError, OSError) as error:
        raise ValueError(f"parameter detector, depth_model or masks: {error}") from error


class AlignNode(Node):
    """Aligns CAD models with the objects in a camera's images.

    Raises ValueError naming the parameter for one that cannot be used.
    """

    def __init__(self, load: Callable[[NodeParameters], Aligner] = load_aligner, **node_options):
        super().__init__("align_node", automatically_declare_parameters_from_overrides=True, **node_options)
        # (rclpy's Node has a `_parameters` of its own.)
        self._values = declare_parameters(self, NodeParameters)
        self._backends = {"images by": image_adapter.BACKEND, "rotations by": transform_adapter.BACKEND}
        self.get_logger().info(", ".join(f"{what} {name}" for what, name in self._backends.items()))
        file_detections = self._detections_from_file()
        aligner = self._load(load)
        perception = load_perception(self._values, str(aligner.device))
        self._library = aligner.cad_library
        mesh_uris = export_mesh_uris(self._library, self._values.mesh_path)

        self._log = FrameLog()
        self._throttle = Throttle(LOG_PERIOD_S)
        self._told_once: set[str] = set()  # kinds of warnings that still hold
        self._outputs = FrameOutputs(self, self._library, mesh_uris, draw_overlay)
        self._tf_buffer = Buffer()
        self._tf_listener = TransformListener(self._tf_buffer, self)
        self._placer = CameraPlacer(self._tf_buffer, self._subscribe_imu())
        self._worker = LatestJobWorker(self._process, self._on_failure)
        self._inputs = FrameInputs(self, self._values, self._worker.submit)
        self._processor = FrameProcessor(
            aligner, self._inputs.topics, self._values, file_detections, perception
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: with use_sim_time and no /clock, silence must still be told.
        self.create_timer(1.0, self._each_second, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.add_post_set_parameters_callback(self._on_parameters)
        self.add_on_set_parameters_callback(self._check_parameters)
        topics = ", ".join(f"{state.name} on {state.topic}" for state in self._inputs.monitor.states(0.0))
        self.get_logger().info(f"ready; waiting for {topics}")

    def close(self) -> bool:
        """End the inference thread, before the node is destroyed; False when it did not end in time."""
        return self._worker.stop(STOP_TIMEOUT_S)

    def _load(self, load) -> Aligner:
        start = time.perf_counter()
        # More threads than free cores wait for each other: ten times slower on a busy machine.
        torch.set_num_threads(self._values.thread_count)
        aligner = load(self._values)
        library = aligner.cad_library
        for path, reason in library.skipped:
            self.get_logger().warning(f"CAD library {self._values.cad_library}: skipped {path}: {reason}")
        seconds = time.perf_counter() - start
        self.get_logger().info(
            f"{len(library.models)} CAD models in {', '.join(library.categories)}; network on "
            f"{aligner.device} ({self._values.thread_count} CPU threads); loaded in {seconds:.1f} s"
        )
        return aligner

    def _subscribe_imu(self) -> ImuUp:
        imu = ImuUp()
        if self._values.up_source == "imu":
            self.create_subscription(Imu, "imu", imu.add, qos_profile_sensor_data)
        return imu

    def _detections_from_file(self):
        if self._values.detections_source != "file":
            return None
        try:
            return read_detections(self._values.detections_file)
        except (ValueError, OSError) as error:
            raise ValueError(f"parameter detections_file: {error}") from error

    # In the inference thread.

    def _process(self, messages: FrameMessages) -> None:
        start = time.perf_counter()
        place = self._placer.place(messages.image.header, self._values)
        placed = time.perf_counter()
        result = self._processor.process(messages, place)
        publish = time.perf_counter()
        latency_ms = self._outputs.publish(result, messages.arrived_s, self._values)
        timing_ms = result.timing_ms | {
            "tf": 1e3 * (placed - start),
            "publish": 1e3 * (time.perf_counter() - publish),
            "arrival to publication": latency_ms,
        }
        now_s = time.monotonic()
        self._log.result(result, timing_ms, now_s)
        for warning in result.warnings:
            told = warning.kind in self._told_once if warning.once else False
            if not told and (warning.once or self._throttle.allows(warning.kind, now_s)):
                self.get_logger().warning(warning.text)
        self._told_once = {warning.kind for warning in result.warnings if warning.once}

    def _on_failure(self, messages: FrameMessages, error: Exception) -> None:
        if not self.context.ok():
            return  # the node is going down: publishers no longer exist
        expected = isinstance(error, InputError)
        text = str(error) if expected else f"frame failed: {type(error).__name__}: {error}"
        now_s = time.monotonic()
        self._log.error(text, now_s)
        if self._throttle.allows(text, now_s):
            details = "" if expected else "\n" + "".join(traceback.format_exception(error))
            self.get_logger().error(text + details)

    # In the executor.

    def _each_second(self) -> None:
        now_s = time.monotonic()
        monitor = self._inputs.monitor
        for state in monitor.newly_silent(now_s):
            self.get_logger().warning(
                f"no message of {state.name} on {state.topic} ({state.qos}) for "
                f"{self._values.stale_input_s:.0f} s: is it published, and with a QoS that matches?"
            )
        mismatch = monitor.mismatch(now_s)
        if mismatch and self._throttle.allows("mismatch", now_s):
            self.get_logger().error(mismatch)
        array = diagnostic_array(
            self.get_clock().now().to_msg(),
            self.get_fully_qualified_name().lstrip("/"),
            monitor,
            self._log.state(now_s),
            self._worker.counts,
            self._library,
            self._backends,
            now_s,
        )
        self._diagnostics.publish(array)

    def _changes(self, parameters) -> dict:
        return {p.name: p.value for p in parameters if hasattr(self._values, p.name)}

    def _check_parameters(self, parameters):
        from rcl_interfaces.msg import SetParametersResult

        try:
            resolve_changes(self._values, self._changes(parameters))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_parameters(self, parameters) -> None:
        self._values = resolve_changes(self._values, self._changes(parameters))
        self._processor.configure(self._values)


def main(args: list[str] | None = None) -> int:
    """Run the align node until it is told to end: 0; 2 when a parameter keeps it from starting."""
    return run_node(AlignNode, "align_node", args)


if __name__ == "__main__":
    sys.exit(main())
