"""The align node: lifecycle, parameters, services and diagnostics around one inference thread.

Reading order: `subscriptions` -> `frame_gate` -> `worker` -> `inference` -> `frame` -> `publishers`; this
file only connects them. Configuring loads weights and CAD models; activating subscribes and starts the
thread.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from sparc_ros import diagnostics, image_adapter, transform_adapter
from sparc_ros.frame import FrameMessages
from sparc_ros.frame_gate import FrameGate
from sparc_ros.inference import LOG_PERIOD_S, Inference
from sparc_ros.loading import load_aligner
from sparc_ros.parameter_list import declare_parameters, resolve_changes
from sparc_ros.parameters import NodeParameters
from sparc_ros.run_node import run_node
from sparc_ros.services import NodeServices
from sparc_ros.stopping import leave
from sparc_ros.subscriptions import FrameInputs
from sparc_ros.worker import LatestJobWorker, WorkerCounts

STOP_TIMEOUT_S = 1.0


def _told(transition: Callable) -> Callable:
    """A transition whose exceptions are logged: rclpy turns them into errors without a word."""

    @functools.wraps(transition)
    def wrapped(self, state):
        try:
            return transition(self, state)
        except Exception as error:
            self.transition_broke(error)
            raise

    return wrapped


class AlignNode(LifecycleNode):
    """Aligns CAD models with the objects in a camera's images.

    load: see `loading.load_everything`. Raises ValueError naming the parameter for one that cannot be used:
    any with `autostart`, else only those outside their type and range (the others fail the transition).
    """

    def __init__(self, load: Callable = load_aligner, **node_options):
        super().__init__("align_node", automatically_declare_parameters_from_overrides=True, **node_options)
        # (rclpy's Node has a `_parameters` and a `_services` of its own.)
        self._values = declare_parameters(self, NodeParameters, lifecycle=True)
        self._load = load
        self._backends = {"images by": image_adapter.BACKEND, "rotations by": transform_adapter.BACKEND}
        self.get_logger().info(", ".join(f"{what} {name}" for what, name in self._backends.items()))
        self.state, self._problem = "unconfigured", None
        self.inference: Inference | None = None
        self.worker: LatestJobWorker | None = None
        self.inputs: FrameInputs | None = None
        self.gate = FrameGate()
        self._own_services = NodeServices(self)
        self._throttle = diagnostics.Throttle(LOG_PERIOD_S)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: with use_sim_time and no /clock, silence must still be told.
        self.create_timer(1.0, self._each_second, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.add_post_set_parameters_callback(self._on_parameters)
        self.add_on_set_parameters_callback(self._check_parameters)
        if self._values.autostart:
            self._start()

    @property
    def values(self) -> NodeParameters:
        """The parameters as they are now."""
        return self._values

    def close(self) -> bool:
        """End the threads, before the node is destroyed; False when they did not end in time."""
        return self._stop_threads()

    def _start(self) -> None:
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise ValueError(self._problem)

    # Transitions, in the executor.

    @_told
    def on_configure(self, state) -> TransitionCallbackReturn:
        """Load weights and CAD library; a parameter that cannot be used is told, and fails it."""
        try:
            self.inference = Inference(self, self._values, self._load, self.gate)
        except ValueError as error:
            return self._failed(str(error))
        return self._reached("inactive", super().on_configure(state))

    @_told
    def on_activate(self, state) -> TransitionCallbackReturn:
        """Subscribe, and start the inference thread."""
        if self.worker is not None and not self._stop_threads():
            return self._failed("the inference of an earlier image has not ended yet")
        result = super().on_activate(state)
        self.inference.outputs.start()
        self.worker = LatestJobWorker(self.inference.process, self.inference.fail)
        self.inputs = FrameInputs(
            self, self._values, self.inference.topics, self._on_frame, self.inference.tf_buffer.clear
        )
        topics = ", ".join(f"{each.name} on {each.topic}" for each in self.inputs.monitor.states(0.0))
        self.get_logger().info(f"ready; waiting for {topics}")
        return self._reached("active", result)

    @_told
    def on_deactivate(self, state) -> TransitionCallbackReturn:
        """End subscriptions and threads; what is loaded stays."""
        self._rest()
        return self._reached("inactive", super().on_deactivate(state))

    @_told
    def on_cleanup(self, state) -> TransitionCallbackReturn:
        """Let go of weights and CAD library."""
        self._unload()
        return self._reached("unconfigured", super().on_cleanup(state))

    @_told
    def on_shutdown(self, state) -> TransitionCallbackReturn:
        """End everything."""
        self._unload()
        return self._reached("finalized", super().on_shutdown(state))

    def on_error(self, state) -> TransitionCallbackReturn:
        """A transition broke: let go of everything, so that the node can be configured again."""
        self._unload()
        self.state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def transition_broke(self, error: Exception) -> None:
        """A transition raised: tell it; `on_error` follows."""
        self._problem = f"{type(error).__name__}: {error}"
        self.get_logger().error("".join(traceback.format_exception(error)))

    def _reached(self, state: str, result: TransitionCallbackReturn) -> TransitionCallbackReturn:
        self.state, self._problem = state, None
        return result

    def _failed(self, problem: str) -> TransitionCallbackReturn:
        self._problem = problem
        self.get_logger().error(f"{problem} (the node stays {self.state})")
        return TransitionCallbackReturn.FAILURE

    def _rest(self) -> None:
        if self.inputs is not None:
            self.inputs.close()
            self.inputs = None
        self.gate.give_up(float("inf"), (None, "the node was deactivated"), submitted=True)
        if not self._stop_threads():
            self.get_logger().warning("the image that is being aligned is finished, and then thrown away")
        elif self.inference is not None:
            self.inference.outputs.clear_markers()

    def _unload(self) -> None:
        self._rest()
        if self.inference is not None:
            self.inference.close()
            self.inference = None

    def _stop_threads(self) -> bool:
        drawn = self.inference is None or self.inference.outputs.stop(STOP_TIMEOUT_S)
        if self.worker is None:
            return drawn
        stopped = self.worker.stop(STOP_TIMEOUT_S)
        if stopped:
            self.worker = None
        return stopped and drawn

    # In the executor.

    def _on_frame(self, messages: FrameMessages) -> None:
        if self.gate.admits(messages.arrived_s, self._values.trigger_mode, self._values.max_rate_hz):
            self.worker.submit(messages)

    def _each_second(self) -> None:
        now_s = time.monotonic()
        self.gate.give_up(
            now_s - self._values.stale_input_s,
            (None, f"no complete set of inputs came within {self._values.stale_input_s:.0f} s"),
        )
        if self.inputs is not None:
            self._tell_inputs(now_s)
        self._diagnostics.publish(self._diagnose(now_s))

    def _tell_inputs(self, now_s: float) -> None:
        monitor = self.inputs.monitor
        fallen, back = monitor.news(now_s)
        for state in fallen:
            self.get_logger().warning(
                f"no message of {state.name} on {state.topic} ({state.qos}) for "
                f"{self._values.stale_input_s:.0f} s: {self.inputs.why_silent(state)}"
            )
        for state in back:
            self.get_logger().info(f"messages of {state.name} on {state.topic} arrive")
        mismatch = monitor.mismatch(now_s)
        if mismatch and self._throttle.allows("mismatch", now_s):
            self.get_logger().error(mismatch)

    def _diagnose(self, now_s: float) -> DiagnosticArray:
        name = self.get_fully_qualified_name().lstrip("/")
        inputs, loaded = self.inputs, self.inference
        problem = self._problem or (loaded and loaded.device_problem)
        status = [
            diagnostics.node_status(name, self.state, problem),
            diagnostics.inputs_status(
                name, inputs and inputs.monitor, inputs.why_silent if inputs else None, now_s
            ),
        ]
        if loaded is not None:
            counts = self.worker.counts if self.worker else WorkerCounts()
            more = self._backends | {"device": str(loaded.loaded.aligner.device)}
            status += [
                diagnostics.inference_status(name, loaded.log.state(now_s), counts, more),
                diagnostics.library_status(name, loaded.loaded.library),
            ]
        array = DiagnosticArray(status=status)
        array.header.stamp = self.get_clock().now().to_msg()
        return array

    def _changed(self, parameters) -> NodeParameters:
        changes = {p.name: p.value for p in parameters if hasattr(self._values, p.name)}
        return resolve_changes(self._values, changes, configured=self.state != "unconfigured")

    def _check_parameters(self, parameters) -> SetParametersResult:
        try:
            self._changed(parameters)
        except (ValueError, TypeError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_parameters(self, parameters) -> None:
        self._values = self._changed(parameters)
        if self.inference is not None:
            self.inference.configure(self._values)


def main(args: list[str] | None = None) -> int:
    """Run the align node until it is told to end: 0; 2 when a parameter keeps it from starting."""
    return run_node(AlignNode, "align_node", args)


if __name__ == "__main__":
    leave(main())
