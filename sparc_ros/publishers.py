"""The node's outputs, each with the stamp and frame of the image they belong to.

In: a `FrameResult`. Out: objects, 3D detections, markers, TF, overlay; the CAD library once, latched.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from tf2_ros import TransformBroadcaster
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from sparc_ros.conversions import cad_library_msg, detections_3d_msg, objects_msg, transform_msgs
from sparc_ros.frame import FrameResult
from sparc_ros.image_adapter import fill_image
from sparc_ros.markers import MarkerSet
from sparc_ros.msg import AlignedObjectArray, CadLibrary
from sparc_ros.parameters import NodeParameters

# Reliable, so that RViz and `ros2 topic echo` receive it with their defaults as well.
OUTPUT_QOS = QoSProfile(depth=5)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class FrameOutputs:
    """Publishes the results of frames. `draw(image_rgb, camera, objects, library)` makes the overlay."""

    def __init__(self, node: Node, library, mesh_uris: dict[str, str], draw: Callable):
        self._library = library
        self._symmetries = {model.model_id: model.symmetry for model in library.models}
        self._markers = MarkerSet(mesh_uris)
        self._markers_shown = False
        self._draw = draw
        self._objects = node.create_publisher(AlignedObjectArray, "sparc/objects", OUTPUT_QOS)
        self._detections = node.create_publisher(Detection3DArray, "sparc/detections", OUTPUT_QOS)
        self._marker_arrays = node.create_publisher(MarkerArray, "sparc/markers", OUTPUT_QOS)
        self._overlay = node.create_publisher(Image, "sparc/overlay", QoSProfile(depth=1))
        self._tf = TransformBroadcaster(node)
        self._cad_library = node.create_publisher(CadLibrary, "sparc/cad_library", LATCHED_QOS)
        stamp = node.get_clock().now().to_msg()
        self._cad_library.publish(cad_library_msg(stamp, library.models, mesh_uris))

    def publish(self, result: FrameResult, arrived_s: float, parameters: NodeParameters) -> float:
        """Publish everything that is switched on; returns the latency since `arrived_s` in ms.

        The overlay is drawn last, after the objects have left, and only for subscribers.
        """
        header, objects, track_ids = result.header, result.objects, result.track_ids
        if parameters.publish_tf and header.frame_id and objects:
            self._tf.sendTransform(transform_msgs(header, objects, track_ids, parameters.tf_prefix))
        latency_ms = 1e3 * (time.monotonic() - arrived_s)
        self._objects.publish(objects_msg(header, objects, track_ids, self._symmetries, latency_ms))
        if parameters.publish_detections:
            self._detections.publish(detections_3d_msg(header, objects, track_ids))
        if header.frame_id:
            self._publish_markers(result, parameters.publish_markers)
        if parameters.publish_overlay and self._overlay.get_subscription_count() > 0:
            picture = self._draw(result.image_rgb, result.camera, objects, self._library)
            self._overlay.publish(fill_image(Image(header=header), picture, "rgb8"))
        return latency_ms

    def _publish_markers(self, result: FrameResult, wanted: bool) -> None:
        if wanted:
            alive = {track.track_id for track in result.update.tracks}
            array = self._markers.update(result.header, result.objects, result.track_ids, alive)
            self._marker_arrays.publish(array)
        elif self._markers_shown:
            self._marker_arrays.publish(self._markers.clear(result.header))
        self._markers_shown = wanted
