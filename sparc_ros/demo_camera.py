"""The demo's RGB-D camera: publishes a synthetic room as a real camera and a detector would.

Out: image, camera info, aligned depth, detections (jittered true boxes), TF, and the truth on
`demo/truth`, all of one image with one stamp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from sparc_core.cad.library import CadLibrary
from sparc_core.types import AlignedObject
from sparc_ros.conversions import fill_vector, objects_msg
from sparc_ros.demo_world import R_LINK_OPTICAL, DemoView, DemoWorld
from sparc_ros.image_adapter import fill_image
from sparc_ros.msg import AlignedObjectArray
from sparc_ros.parameter_list import check_values, declare_parameters, parameter
from sparc_ros.run_node import run_node
from sparc_ros.stopping import leave
from sparc_ros.transform_adapter import quaternion_xyzw

LINK_FRAME = "camera_link"
OPTICAL_FRAME = "camera_color_optical_frame"


@dataclass(frozen=True)
class DemoCameraParameters:
    """The resolved parameters of the demo camera; ValueError names one that cannot be used."""

    rate_hz: float = parameter(
        2.0, "Images a second (as far as rendering keeps up).", minimum=0.1, maximum=30.0
    )
    seed: int = parameter(
        6, "Chooses CAD models, sizes, turns and noise of the room.", minimum=0, maximum=2**31 - 1
    )
    cad_library: str = parameter("procedural", "CAD library of the furniture, as for the align node.")
    publish_model_ids: bool = parameter(
        True, "Whether detections carry the CAD model's id (else the align node tries all of the category)."
    )
    map_frame: str = parameter("map", "TF frame of the room, z up.")

    def __post_init__(self):
        check_values(self)


class DemoCamera(Node):
    """Renders the room on a timer and publishes what a camera, a detector and a tracker of it would."""

    def __init__(self):
        super().__init__("demo_camera", automatically_declare_parameters_from_overrides=True)
        self._values = declare_parameters(self, DemoCameraParameters)
        library = CadLibrary.open(self._values.cad_library)
        self._symmetries = {model.model_id: model.symmetry for model in library.models}
        self._world = DemoWorld(library, self._values.seed)
        self._images = self.create_publisher(Image, "image", qos_profile_sensor_data)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self._depths = self.create_publisher(Image, "depth", qos_profile_sensor_data)
        self._detections = self.create_publisher(Detection2DArray, "detections", 10)
        self._truth = self.create_publisher(AlignedObjectArray, "demo/truth", 10)
        self._tf = TransformBroadcaster(self)
        self._static_tf = StaticTransformBroadcaster(self)
        self._static_tf.sendTransform(self._optical_transform())
        self._start = self.get_clock().now()
        self.create_timer(1.0 / self._values.rate_hz, self._publish)

    def _publish(self) -> None:
        seconds = (self.get_clock().now() - self._start).nanoseconds * 1e-9
        view = self._world.view(seconds)
        # The stamp says when the image was finished: a camera's latency begins there, rendering is not ours.
        stamp = self.get_clock().now().to_msg()
        image = Image()
        image.header.stamp, image.header.frame_id = stamp, OPTICAL_FRAME
        self._tf.sendTransform(self._link_transform(stamp, view.T_map_link))
        self._truth.publish(self._truth_msg(image.header, view))
        depth_mm = np.round(np.clip(1000 * view.depth_m, 0, 65535)).astype(np.uint16)
        self._depths.publish(fill_image(Image(header=image.header), depth_mm, "16UC1"))
        self._infos.publish(self._camera_info(image.header))
        self._images.publish(fill_image(image, view.rgb, "rgb8"))
        self._detections.publish(self._detections_msg(image.header, view))

    def _camera_info(self, header) -> CameraInfo:
        camera = self._world.camera
        info = CameraInfo(header=header, width=camera.width, height=camera.height)
        info.distortion_model = "plumb_bob"
        info.d = [0.0] * 5
        info.k = camera.K.ravel().tolist()
        info.r = np.eye(3).ravel().tolist()
        info.p = np.hstack((camera.K, np.zeros((3, 1)))).ravel().tolist()
        return info

    def _detections_msg(self, header, view: DemoView) -> Detection2DArray:
        array = Detection2DArray(header=header)
        for item in view.truth:
            array.detections.append(self._detection(header, item))
        return array

    def _detection(self, header, item: AlignedObject) -> Detection2D:
        x0, y0, x1, y1 = item.box_xyxy
        detection = Detection2D(header=header)
        detection.bbox.center.position.x, detection.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = item.category, 0.9
        detection.results.append(result)
        if self._values.publish_model_ids:
            detection.id = item.model_id
        return detection

    def _truth_msg(self, header, view: DemoView) -> AlignedObjectArray:
        # Ids by place in the room, not by visibility: they stay when an object leaves the view.
        return objects_msg(header, view.truth, view.place_numbers, self._symmetries)

    def _link_transform(self, stamp, T_map_link: np.ndarray) -> TransformStamped:
        message = _transform(T_map_link[:3, :3], T_map_link[:3, 3])
        message.header.stamp, message.header.frame_id = stamp, self._values.map_frame
        message.child_frame_id = LINK_FRAME
        return message

    def _optical_transform(self) -> TransformStamped:
        message = _transform(R_LINK_OPTICAL, np.zeros(3))
        message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), LINK_FRAME
        message.child_frame_id = OPTICAL_FRAME
        return message


def _transform(R: np.ndarray, t: np.ndarray) -> TransformStamped:
    message = TransformStamped()
    fill_vector(message.transform.translation, t)
    rotation = message.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = (float(v) for v in quaternion_xyzw(R))
    return message


def main(args: list[str] | None = None) -> int:
    """Run the demo camera until it is told to end: 0; 2 when a parameter keeps it from starting."""
    torch.set_num_threads(1)  # rendering leaves the processor to the align node
    return run_node(DemoCamera, "demo_camera", args)


if __name__ == "__main__":
    leave(main())
