"""What the ROS benchmarks share: a camera that shows one rendered room, and the align node as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from sparc_core.cad.library import CadLibrary
from sparc_ros.conversions import fill_vector
from sparc_ros.demo_world import R_LINK_OPTICAL, DemoWorld
from sparc_ros.image_adapter import fill_image
from sparc_ros.msg import AlignedObjectArray
from sparc_ros.transform_adapter import quaternion_xyzw

LIBRARY = "procedural:1000-1003"
FRAME = "camera_optical"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, eq=False)
class Picture:
    """One rendered image with its depth, camera and boxes."""

    rgb: np.ndarray
    depth_m: np.ndarray
    K: np.ndarray
    truth: tuple
    T_map_cam: np.ndarray

    @classmethod
    def render(cls) -> Picture:
        """The demo's room as its camera sees it first."""
        world = DemoWorld(CadLibrary.open(LIBRARY), seed=6)
        view = world.view(0.0)
        T_link_cam = np.eye(4)
        T_link_cam[:3, :3] = R_LINK_OPTICAL
        return cls(view.rgb, view.depth_m, world.camera.K, view.truth, view.T_map_link @ T_link_cam)


class BenchCamera(Node):
    """Publishes a picture again and again with new stamps, and keeps what the node answers.

    objects: boxes in each image, those of the picture repeated. compressed: JPEG instead of raw images.
    """

    def __init__(self, picture: Picture, objects: int = 5, compressed: bool = False):
        super().__init__("bench_camera")
        self.picture, self.objects, self.compressed = picture, objects, compressed
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self)
        self.stamp_offset_s, self.tf_on, self.sent = 0.0, True, 0
        self.ages_s: list[tuple[float, float]] = []  # (received at, age), time.monotonic()
        self.statuses: dict[str, tuple[int, str, dict]] = {}
        self.edit = lambda frame: frame
        self.connect()
        self._tf = self.create_publisher(TFMessage, "/tf", 100)
        self.create_subscription(AlignedObjectArray, "sparc/objects", self._on_objects, 50)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def connect(self) -> None:
        """Make the publishers of the inputs."""
        kind, topic = (CompressedImage, "image/compressed") if self.compressed else (Image, "image")
        self.inputs = {
            "image": self.create_publisher(kind, topic, qos_profile_sensor_data),
            "info": self.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data),
            "depth": self.create_publisher(Image, "depth", qos_profile_sensor_data),
            "detections": self.create_publisher(Detection2DArray, "detections", 10),
        }

    def disconnect(self) -> None:
        """Take the publishers away, as a driver that dies does."""
        for publisher in self.inputs.values():
            self.destroy_publisher(publisher)
        self.inputs = {}

    def run(self, seconds: float, rate_hz: float, until=lambda: False) -> bool:
        """Publish for some time, or until a condition holds; returns whether it held."""
        begin_s = time.monotonic()
        due_s = begin_s
        while time.monotonic() - begin_s < seconds:
            if time.monotonic() >= due_s:
                self.publish()
                due_s = max(due_s + 1 / rate_hz, time.monotonic() - 0.5 / rate_hz)
            self.spinner.spin_once(timeout_sec=max(0.0, due_s - time.monotonic()))
            if until():
                return True
        return False

    def publish(self) -> None:
        """One frame."""
        stamp_ns = self.get_clock().now().nanoseconds + int(self.stamp_offset_s * 1e9)
        frame = self.edit(self._frame())
        for message in frame.values():
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
            message.header.frame_id = FRAME
        if self.tf_on:
            self._tf.publish(TFMessage(transforms=[self._transform(stamp_ns)]))
        for name, publisher in self.inputs.items():
            publisher.publish(frame[name])
        self.sent += 1

    def _frame(self) -> dict:
        picture = self.picture
        depth_mm = np.round(1000 * picture.depth_m).astype(np.uint16)
        return {
            "image": self.jpeg(picture.rgb) if self.compressed else fill_image(Image(), picture.rgb, "rgb8"),
            "info": self.info(picture.rgb.shape[1], picture.rgb.shape[0]),
            "depth": fill_image(Image(), depth_mm, "16UC1"),
            "detections": self.detections(),
        }

    def jpeg(self, rgb: np.ndarray) -> CompressedImage:
        """The image as JPEG."""
        data = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
        return CompressedImage(format="rgb8; jpeg compressed bgr8", data=data)

    def info(self, width: int, height: int) -> CameraInfo:
        """Intrinsics of the picture, scaled to a size."""
        scale = width / self.picture.rgb.shape[1]
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        K = np.diag([scale, scale, 1.0]) @ self.picture.K
        info.k = K.ravel().tolist()
        info.p = np.hstack((K, np.zeros((3, 1)))).ravel().tolist()
        return info

    def detections(self, score: float = 0.9, scale: float = 1.0) -> Detection2DArray:
        """The boxes, with their CAD models."""
        array = Detection2DArray()
        for index in range(self.objects):
            item = self.picture.truth[index % len(self.picture.truth)]
            x0, y0, x1, y1 = (scale * value for value in item.box_xyxy)
            detection = Detection2D(id=item.model_id)
            centre = detection.bbox.center.position
            centre.x, centre.y = (x0 + x1) / 2, (y0 + y1) / 2
            detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = item.category, score
            detection.results.append(result)
            array.detections.append(detection)
        return array

    def _transform(self, stamp_ns: int) -> TransformStamped:
        message = TransformStamped(child_frame_id=FRAME)
        message.header.frame_id = "map"
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        fill_vector(message.transform.translation, self.picture.T_map_cam[:3, 3])
        rotation = message.transform.rotation
        x, y, z, w = (float(value) for value in quaternion_xyzw(self.picture.T_map_cam[:3, :3]))
        rotation.x, rotation.y, rotation.z, rotation.w = x, y, z, w
        return message

    def _on_objects(self, message: AlignedObjectArray) -> None:
        stamp_s = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        now_s = self.get_clock().now().nanoseconds * 1e-9 + self.stamp_offset_s
        self.ages_s.append((time.monotonic(), now_s - stamp_s))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            part = status.name.split(": ")[-1]
            self.statuses[part] = (int.from_bytes(status.level, "little"), status.message, values)


class NodeProcess:
    """The align node in a process of its own. program: what Python runs, with its arguments."""

    def __init__(self, parameters: dict, log: Path, program: tuple[str, ...] = ("-m", "sparc_ros.node")):
        command = [sys.executable, *program, "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else f"'{value}'" if value == "" else value
            command += ["-p", f"{name}:={text}"]
        self.log_path = log
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def memory_mb(self) -> float:
        """Memory that is in use (RSS)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024

    def cpu_s(self) -> float:
        """Processor time used so far, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def end(self) -> tuple[int, float]:
        """Ctrl-C; returns (exit status, seconds it took)."""
        start_s = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return status, time.monotonic() - start_s
