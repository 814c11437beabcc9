"""Watches the demo for some images, then prints a table of errors and latencies and writes a picture.

In: `sparc/objects`, `sparc/overlay` and `demo/truth`, each in its own process over ROS. Exit status: 0
when objects were received in enough images, 1 with a reason when not.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from sparc_ros import demo_scores, image_adapter
from sparc_ros.conversions import stamp_seconds
from sparc_ros.msg import AlignedObjectArray
from sparc_ros.parameter_list import check_values, declare_parameters, parameter

OVERLAY_WAIT_S = 10.0
KEPT_TRUTHS = 200


@dataclass(frozen=True)
class DemoReportParameters:
    """The resolved parameters of the demo's report; ValueError names one that cannot be used."""

    frames: int = parameter(10, "Images to watch.", minimum=1, maximum=10000)
    timeout_s: float = parameter(180.0, "Longest wait for them (s).", minimum=1.0, maximum=36000.0)
    overlay_path: str = parameter("sparc_demo.png", "Where the overlay picture is written.")
    report_path: str = parameter("", "Where every score is written as JSON; empty: nowhere.")

    def __post_init__(self):
        check_values(self)


class DemoReport(Node):
    """Collects objects and truths with equal stamps."""

    def __init__(self):
        super().__init__("demo_report", automatically_declare_parameters_from_overrides=True)
        self.values = declare_parameters(self, DemoReportParameters)
        self.frames: list[list[demo_scores.Score]] = []
        self.expected: list[int] = []
        self.latencies_ms: list[float] = []
        self.overlay: Image | None = None
        self.messages_without_truth = 0
        self._truths: dict[tuple[int, int], AlignedObjectArray] = {}
        self.create_subscription(AlignedObjectArray, "demo/truth", self._on_truth, 10)
        self.create_subscription(AlignedObjectArray, "sparc/objects", self._on_objects, 10)
        self.create_subscription(Image, "sparc/overlay", self._on_overlay, 1)

    @property
    def found_objects(self) -> int:
        """How many objects were received and matched so far."""
        return sum(len(frame) for frame in self.frames)

    def _on_truth(self, msg: AlignedObjectArray) -> None:
        self._truths[_key(msg)] = msg
        while len(self._truths) > KEPT_TRUTHS:
            del self._truths[min(self._truths)]

    def _on_objects(self, msg: AlignedObjectArray) -> None:
        now_s = self.get_clock().now().nanoseconds * 1e-9
        truth = self._truths.get(_key(msg))
        if truth is None:
            self.messages_without_truth += 1
            return
        if len(self.frames) >= self.values.frames:
            return
        self.frames.append(demo_scores.score_frame(msg.objects, truth.objects))
        self.expected.append(len(truth.objects))
        self.latencies_ms.append(1e3 * (now_s - stamp_seconds(msg.header.stamp)))

    def _on_overlay(self, msg: Image) -> None:
        self.overlay = msg


def _key(msg) -> tuple[int, int]:
    return msg.header.stamp.sec, msg.header.stamp.nanosec


def _spin_until(executor: SingleThreadedExecutor, condition, timeout_s: float) -> bool:
    """Spin until the condition holds; False when the time is over."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        executor.spin_once(timeout_sec=0.2)
    return True


def _watch(node: DemoReport, executor: SingleThreadedExecutor) -> str | None:
    """Watch and report; returns the reason when that was not possible."""
    enough = _spin_until(executor, lambda: len(node.frames) >= node.values.frames, node.values.timeout_s)
    if not enough:
        hint = "is the align node running? Its log and /diagnostics say what it waits for"
        if node.messages_without_truth:
            hint = f"{node.messages_without_truth} messages had no truth of the same stamp on demo/truth"
        return (
            f"{len(node.frames)} of {node.values.frames} images came through sparc/objects within "
            f"{node.values.timeout_s:.0f} s: {hint}"
        )
    if node.found_objects == 0:
        return f"{len(node.frames)} images came through, without a single object"
    table = demo_scores.format_table(node.frames, node.expected, node.latencies_ms)
    sys.stdout.write(f"\n{table}\n")
    if node.values.report_path:
        data = demo_scores.as_json(node.frames, node.expected, node.latencies_ms)
        Path(node.values.report_path).write_text(json.dumps(data, indent=1))
    if not _spin_until(executor, lambda: node.overlay is not None, OVERLAY_WAIT_S):
        return f"no picture on sparc/overlay within {OVERLAY_WAIT_S:.0f} s"
    path = Path(node.values.overlay_path).expanduser().resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image_adapter.image_to_rgb(node.overlay)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        return f"parameter overlay_path: {path} cannot be written"
    sys.stdout.write(f"overlay: {path}\n\n")
    sys.stdout.flush()
    return None


def main(args: list[str] | None = None) -> int:
    """Watch the demo and report: 0 when objects came, 1 when not, 2 for a wrong parameter."""
    node = None
    try:
        rclpy.init(args=args)
        node = DemoReport()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        problem = _watch(node, executor)
        if problem:
            node.get_logger().error(problem)
        return 1 if problem else 0
    except (KeyboardInterrupt, ExternalShutdownException):
        return 1  # ended before there was anything to report
    except ValueError as error:
        rclpy.logging.get_logger("demo_report").fatal(str(error))
        return 2
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
