"""Plays a recorded bag through the align node and writes what comes out into a new bag.

    ros2 run sparc_ros replay BAG RESULTS --ros-args -r image:=/camera/color/image_raw ...

Player, node and recorder share one process and one executor. In full speed every message is worked off before
the next one is played: nothing is dropped, and the same bag gives the same results.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import remove_ros_args

from sparc_ros.bag_player import BagPlayer
from sparc_ros.bag_recorder import STORAGES, BagRecorder
from sparc_ros.loading import load_aligner
from sparc_ros.node import AlignNode
from sparc_ros.run_node import BAD_PARAMETER
from sparc_ros.stopping import end_in_time, leave

# A message that has not arrived after this long was lost on the way.
ARRIVAL_TIMEOUT_S = 2.0
# Transforms come this much earlier than the images that need them.
TF_AHEAD_S = 0.5
LAST_OUTPUTS_S = 0.5
OUTPUTS = {
    "sparc/objects": "sparc_ros/msg/AlignedObjectArray",
    "sparc/detections": "vision_msgs/msg/Detection3DArray",
    "sparc/markers": "visualization_msgs/msg/MarkerArray",
    "sparc/overlay": "sensor_msgs/msg/Image",
    "sparc/cad_library": "sparc_ros/msg/CadLibrary",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/tf_static": "tf2_msgs/msg/TFMessage",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}
LATCHED = ("sparc/cad_library", "/tf_static")


class Replay:
    """One bag through one align node. options: see `parse`; load: see `loading.load_everything`.

    Raises ValueError naming a bag, topic or parameter that cannot be used.
    """

    def __init__(
        self, options: argparse.Namespace, load: Callable | None = None, context=None, parameters=()
    ):
        overrides = [Parameter("use_sim_time", value=True), *parameters]
        self._options, self._now_ns = options, 0
        self._node = AlignNode(load or load_aligner, context=context, parameter_overrides=overrides)
        self._side = Node(
            "replay",
            namespace=self._node.get_namespace(),
            context=context,
            parameter_overrides=overrides[:1],
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._executor.add_node(self._side)
        try:
            self._open_bags()
        except Exception:
            self._end_nodes()  # nobody else holds them
            raise

    def _open_bags(self) -> None:
        options = self._options
        names = {self._side.resolve_topic_name(topic): kind for topic, kind in OUTPUTS.items()}
        played_too = {"/tf", "/tf_static"}
        self._player = BagPlayer(self._side, options.bag, leave_out=frozenset(set(names) - played_too))
        self._check_inputs()
        topics = names | (self._player.types if options.with_inputs else {})
        latched = frozenset(self._side.resolve_topic_name(topic) for topic in LATCHED)
        self._recorder = BagRecorder(
            self._side, options.results, topics, lambda: self._now_ns, latched, options.storage
        )

    def run(self) -> None:
        """Play the bag from its beginning to its end."""
        full_speed = self._options.rate == 0
        start_s, first_ns, played = time.monotonic(), None, 0
        for message in self._player.messages(TF_AHEAD_S if full_speed else 0.0):
            if first_ns is None:
                first_ns = message.time_ns
            self._now_ns = max(self._now_ns, message.time_ns)
            if not full_speed:
                elapsed_s = (message.time_ns - first_ns) * 1e-9 / self._options.rate
                self._spin_until(lambda due=start_s + elapsed_s: time.monotonic() >= due)
            self._player.publish(message, self._now_ns)
            played += 1
            if full_speed:
                self._work_off(message.topic)
        end_s = time.monotonic() + LAST_OUTPUTS_S
        self._spin_until(lambda: time.monotonic() >= end_s and self._node.worker.idle)
        self._tell(played, time.monotonic() - start_s)

    def close(self) -> bool:
        """Finish the new bag and end the node; False when its threads did not end in time."""
        self._recorder.close()
        self._player.close()
        return self._end_nodes()

    def _end_nodes(self) -> bool:
        ended = self._node.close()
        self._executor.shutdown(timeout_sec=0)
        self._node.destroy_node()
        self._side.destroy_node()
        return ended

    def _check_inputs(self) -> None:
        missing = [
            f"{state.name} on {state.topic}"
            for state in self._node.inputs.monitor.states(0.0)
            if state.topic not in self._player.types
        ]
        if missing:
            raise ValueError(
                f"bag {self._options.bag}: has no {', '.join(missing)}; its topics are "
                f"{', '.join(sorted(self._player.types))} (image:=TOPIC names another one)"
            )

    def _work_off(self, topic: str) -> None:
        """Wait until the node has received the message and done what it does with it."""
        monitor = self._node.inputs.monitor
        if topic not in monitor.topics:
            self._executor.spin_once(timeout_sec=0.0)
            return
        before = monitor.count(topic)
        deadline_s = time.monotonic() + ARRIVAL_TIMEOUT_S
        self._spin_until(lambda: monitor.count(topic) > before or time.monotonic() > deadline_s)
        if monitor.count(topic) == before:
            self._side.get_logger().warning(f"a message of {topic} was lost on its way to the node")
        self._spin_until(lambda: self._node.worker.idle)

    def _spin_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._executor.spin_once(timeout_sec=0.01)

    def _tell(self, played: int, seconds: float) -> None:
        counts, objects = self._node.worker.counts, self._side.resolve_topic_name("sparc/objects")
        self._side.get_logger().info(
            f"{played} messages played in {seconds:.1f} s; {counts.finished} images aligned, "
            f"{counts.dropped} dropped for newer ones, {counts.failed} failed; "
            f"{self._recorder.counts[objects]} results in {self._options.results}"
        )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="replay", description=__doc__.split("\n")[0])
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("results", type=Path, help="folder of the new bag; must not exist")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="1: as recorded; 2: twice as fast; 0: as fast as the node is"
    )
    parser.add_argument("--storage", choices=sorted(STORAGES), default="mcap", help="of the new bag")
    parser.add_argument("--with-inputs", action="store_true", help="put the played messages in it as well")
    options = parser.parse_args(words)
    if options.rate < 0:
        parser.error(f"--rate must not be negative, got {options.rate}")
    return options


def main(args: list[str] | None = None) -> int:
    """0 when the bag was played, or the replay told to end; 2 for what cannot be used."""
    end_in_time()
    words = sys.argv if args is None else args
    options = parse(remove_ros_args(words)[1:])
    replay = None
    rclpy.init(args=words)
    try:
        replay = Replay(options)
        replay.run()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # what was recorded until now is kept
    except ValueError as error:
        rclpy.logging.get_logger("replay").fatal(str(error))
        return BAD_PARAMETER
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            if replay is not None:
                replay.close()
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    leave(main())
