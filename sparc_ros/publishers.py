"""The node's outputs, each with the stamp of the image they belong to, in its frame or in `output_frame`.

In: a `FrameResult`. Out: objects, 3D detections, markers, TF, overlay; the CAD library once, latched.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_ros import TransformBroadcaster
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from sparc_ros.conversions import cad_library_msg, detections_3d_msg, objects_msg, transform_msgs
from sparc_ros.frame import FrameResult
from sparc_ros.image_adapter import fill_image
from sparc_ros.loading import Loaded
from sparc_ros.markers import MarkerSet
from sparc_ros.msg import AlignedObjectArray, CadLibrary
from sparc_ros.output_frame import in_output_frame
from sparc_ros.parameters import NodeParameters
from sparc_ros.worker import LatestJobWorker

# Reliable, so that RViz and `ros2 topic echo` receive it with their defaults as well. Of large messages a
# short history: a writer waits for the slowest reader's receipt of what it must keep.
OUTPUT_QOS = QoSProfile(depth=5)
OVERLAY_QOS = QoSProfile(depth=1)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class FrameOutputs:
    """Publishes the results of frames. `draw(image_rgb, camera, objects, library)` makes the overlay.

    Overlays are drawn and sent in a thread of their own while `start`ed: neither the drawing nor a slow
    reader of large pictures holds up the inference. `on_failure(job, error)` is told when it fails.
    """

    def __init__(self, node: LifecycleNode, draw: Callable, on_failure: Callable):
        self._node, self._draw, self._on_failure = node, draw, on_failure
        self._objects = node.create_lifecycle_publisher(AlignedObjectArray, "sparc/objects", OUTPUT_QOS)
        self._detections = node.create_lifecycle_publisher(Detection3DArray, "sparc/detections", OUTPUT_QOS)
        self._marker_arrays = node.create_lifecycle_publisher(MarkerArray, "sparc/markers", OUTPUT_QOS)
        self._overlay = node.create_lifecycle_publisher(Image, "sparc/overlay", OVERLAY_QOS)
        self._cad_library = node.create_publisher(CadLibrary, "sparc/cad_library", LATCHED_QOS)
        self._tf = TransformBroadcaster(node)
        self._artist: LatestJobWorker | None = None
        self._markers: MarkerSet | None = None
        self._markers_header: Header | None = None

    def use(self, loaded: Loaded) -> None:
        """Take over a CAD library, and tell of it. What markers show of another one is deleted."""
        if self._markers is not None:
            self.clear_markers()
        self._library = loaded.library
        self._symmetries = {model.model_id: model.symmetry for model in loaded.library.models}
        self._markers = MarkerSet(loaded.mesh_uris)
        stamp = self._node.get_clock().now().to_msg()
        self._cad_library.publish(cad_library_msg(stamp, loaded.library.models, loaded.mesh_uris))

    def start(self) -> None:
        """Begin to draw overlays."""
        self._artist = LatestJobWorker(self._publish_overlay, self._on_failure, "sparc_overlay")

    def stop(self, timeout_s: float) -> bool:
        """End the drawing; False when it did not end in time."""
        artist, self._artist = self._artist, None
        return artist is None or artist.stop(timeout_s)

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in (self._objects, self._detections, self._marker_arrays, self._overlay):
            self._node.destroy_lifecycle_publisher(publisher)
        self._node.destroy_publisher(self._cad_library)
        self._node.destroy_publisher(self._tf.pub_tf)

    def publish(
        self,
        result: FrameResult,
        T_output_cam: np.ndarray | None,
        arrived_s: float,
        parameters: NodeParameters,
    ) -> tuple[AlignedObjectArray, float]:
        """Publish everything that is switched on; returns the message of the objects, and when it left.

        T_output_cam: camera to `output_frame`, where that is set. Times are time.monotonic().
        """
        header, objects = in_output_frame(
            result.header, result.objects, T_output_cam, parameters.output_frame
        )
        track_ids = result.track_ids
        if parameters.publish_tf and header.frame_id and objects:
            self._tf.sendTransform(transform_msgs(header, objects, track_ids, parameters.tf_prefix))
        published_s = time.monotonic()
        latency_ms = 1e3 * (published_s - arrived_s)
        message = objects_msg(header, objects, track_ids, self._symmetries, latency_ms)
        self._objects.publish(message)
        if parameters.publish_detections:
            self._detections.publish(detections_3d_msg(header, objects, track_ids))
        if not parameters.publish_markers:
            self.clear_markers()
        elif header.frame_id:
            alive = {track.track_id for track in result.update.tracks}
            self._marker_arrays.publish(self._markers.update(header, objects, track_ids, alive))
            self._markers_header = header
        if parameters.publish_overlay and self._artist and self._overlay.get_subscription_count() > 0:
            self._artist.submit((result, self._library))
        return message, published_s

    def clear_markers(self) -> None:
        """Delete the markers that are shown."""
        if self._markers_header is not None:
            self._marker_arrays.publish(self._markers.clear(self._markers_header))
            self._markers_header = None

    def _publish_overlay(self, job: tuple) -> None:
        result, library = job
        picture = self._draw(result.image_rgb, result.camera, result.objects, library)
        self._overlay.publish(fill_image(Image(header=result.header), picture, "rgb8"))
