"""The test's side of the graph: publishes a camera's messages and collects what the align node says."""

import time

import numpy as np
import rclpy
from builtin_interfaces.msg import Time as TimeMsg
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2D, Detection2DArray, Detection3DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import MarkerArray

from sparc_ros.image_adapter import fill_image
from sparc_ros.msg import AlignedObjectArray, CadLibrary

WIDTH, HEIGHT = 160, 120
FRAME = "camera_optical"
LEVELS = {DiagnosticStatus.OK: "ok", DiagnosticStatus.WARN: "warn", DiagnosticStatus.ERROR: "error"}
# Generous: a busy machine is no reason to fail. Nothing waits this long when all is well.
DEADLINE_S = 60.0
START_DEADLINE_S = 150.0
OUTPUTS = {
    "objects": (AlignedObjectArray, "sparc/objects"),
    "detections_3d": (Detection3DArray, "sparc/detections"),
    "markers": (MarkerArray, "sparc/markers"),
    "tf": (TFMessage, "/tf"),
    "diagnostics": (DiagnosticArray, "/diagnostics"),
}


def detection(box, category="chair", score=0.9, detection_id=""):
    """A Detection2D of one hypothesis; box as x0, y0, x1, y1."""
    message = Detection2D(id=detection_id)
    message.bbox.center.position.x, message.bbox.center.position.y = (
        (box[0] + box[2]) / 2,
        (box[1] + box[3]) / 2,
    )
    message.bbox.size_x, message.bbox.size_y = float(box[2] - box[0]), float(box[3] - box[1])
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = category, score
    message.results.append(result)
    return message


class Probe:
    """A node with a camera's publishers and a collector for each output of the align node."""

    def __init__(self, image_kind=Image, image_topic="image"):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node("probe", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        create = self.node.create_publisher
        self.publishers = {
            "image": create(image_kind, image_topic, 10),
            "info": create(CameraInfo, "camera_info", 10),
            "depth": create(Image, "depth", 10),
            "detections": create(Detection2DArray, "detections", 10),
        }
        self.imu = create(Imu, "imu", 10)
        self.received = {name: [] for name in OUTPUTS}
        for name, (kind, topic) in OUTPUTS.items():
            self.node.create_subscription(kind, topic, self.received[name].append, 50)
        self._second = 1000

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def add(self, executor_node):
        """Spin another node of this context as well."""
        self.executor.add_node(executor_node)

    def spin_until(self, condition, what, timeout_s=DEADLINE_S):
        """Spin until condition() is true and return its value; fails with `what` after the timeout."""
        end = time.monotonic() + timeout_s
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def wait_for_node(self, inputs=("image", "info", "depth", "detections")):
        """Wait until every topic is connected on both sides."""

        def connected():
            listening = all(self.publishers[name].get_subscription_count() for name in inputs)
            speaking = all(self.node.count_publishers(topic) for _, topic in OUTPUTS.values())
            return listening and speaking

        self.spin_until(connected, "the align node's topics", timeout_s=START_DEADLINE_S)

    def frame(self, **changes):
        """Messages of a good frame with a new stamp; None in `changes` leaves one out.

        stamp_s gives the stamp, depth_stamp_s another one for depth.
        """
        self._second += 1
        stamp_s = changes.pop("stamp_s", self._second)
        depth_stamp_s = changes.pop("depth_stamp_s", stamp_s)
        frame = {
            "image": fill_image(Image(), np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb8"),
            "info": camera_info(),
            "depth": fill_image(Image(), np.full((HEIGHT, WIDTH), 2500, np.uint16), "16UC1"),
            "detections": Detection2DArray(detections=[detection((40, 30, 100, 90))]),
        } | changes
        frame = {name: message for name, message in frame.items() if message is not None}
        for name, message in frame.items():
            message.header.stamp = TimeMsg(sec=int(depth_stamp_s if name == "depth" else stamp_s), nanosec=42)
            message.header.frame_id = changes.get("frame_id", FRAME)
        return frame

    def publish(self, **changes):
        """Publish a frame; returns its stamp as (sec, nanosec)."""
        frame = self.frame(**changes)
        for name, message in frame.items():
            self.publishers[name].publish(message)
        stamp = frame["image"].header.stamp
        return stamp.sec, stamp.nanosec

    def with_stamp(self, output, stamp):
        """The message of an output with this stamp, or None."""
        found = [m for m in self.received[output] if (m.header.stamp.sec, m.header.stamp.nanosec) == stamp]
        return found[-1] if found else None

    def objects_of(self, stamp, timeout_s=DEADLINE_S):
        """The objects message of the image with this stamp."""
        return self.spin_until(lambda: self.with_stamp("objects", stamp), f"objects of {stamp}", timeout_s)

    def wait_for_diagnostics(self, level, *words, timeout_s=DEADLINE_S, meanwhile=lambda: None):
        """Wait for a new status of this level whose message contains all words; returns it.

        meanwhile() is called all the time.
        """
        self.received["diagnostics"].clear()

        def found():
            meanwhile()
            for array in self.received["diagnostics"]:
                for status in array.status:
                    if LEVELS[status.level] == level and all(word in status.message for word in words):
                        return status
            return None

        return self.spin_until(
            found, f"a diagnostic {level} with {words}; last: {self.last_status()}", timeout_s
        )

    def last_status(self):
        arrays = self.received["diagnostics"]
        return [(LEVELS[s.level], s.name, s.message) for s in arrays[-1].status] if arrays else None


def camera_info(**changes):
    """CameraInfo of the probe's camera."""
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [150.0, 0.0, 79.5, 0.0, 150.0, 59.5, 0.0, 0.0, 1.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def compressed(array_rgb, encode):
    """CompressedImage of (H, W, 3) RGB."""
    return CompressedImage(format="png", data=encode(".png", array_rgb[..., ::-1])[1].tobytes())


LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def latched_library(probe):
    """The CAD library as a subscriber that comes late receives it."""
    received = []
    probe.node.create_subscription(CadLibrary, "sparc/cad_library", received.append, LATCHED)
    return probe.spin_until(lambda: received, "the latched CAD library")[0]
