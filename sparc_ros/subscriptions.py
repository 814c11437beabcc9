"""The node's inputs: subscriptions, matching of stamps, and the watch over silent topics.

In: topics. Out: one `FrameMessages` for each complete set, handed to a callback in the executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import message_filters
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from sparc_ros.conversions import stamp_seconds
from sparc_ros.frame import FrameMessages, Topics
from sparc_ros.input_monitor import InputMonitor
from sparc_ros.parameters import NodeParameters

# A stamp this much older than the one before means that a recording started again.
JUMP_BACK_S = 1.0


class FrameInputs:
    """Subscribes to the inputs and calls `on_frame` with each complete set."""

    def __init__(self, node: Node, parameters: NodeParameters, on_frame: Callable[[FrameMessages], None]):
        self._node = node
        self._on_frame = on_frame
        # Best effort takes what any publisher offers; a user can override it (qos_overrides parameters).
        self._qos = QoSProfile(depth=parameters.qos_depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.topics = _resolve(node, parameters)
        self._kinds = _kinds(parameters)
        topics = {name: getattr(self.topics, name) for name in self._kinds}
        self.monitor = InputMonitor(
            {name: (topic, _in_words(self._qos)) for name, topic in topics.items()},
            parameters.stale_input_s,
            time.monotonic(),
        )
        self._newest_s: dict[str, float] = {}
        self._subscribers = [self._subscribe(name, kind) for name, kind in self._kinds.items()]
        self._synchroniser = _synchroniser(self._subscribers, parameters)
        self._synchroniser.registerCallback(self._on_set)

    def _subscribe(self, name: str, kind: type) -> message_filters.Subscriber:
        topic = getattr(self.topics, name)

        def on_incompatible_qos(event):
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self._node.get_logger().warning(
                f"a publisher of {name} on {topic} offers another QoS ({policy}) than asked for "
                f"({_in_words(self._qos)}): none of its messages will arrive"
            )

        subscriber = message_filters.Subscriber(
            self._node,
            kind,
            topic,
            qos_profile=self._qos,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=on_incompatible_qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # Registered before the synchroniser's own callback, so that a jump back is seen first.
        subscriber.registerCallback(self._on_message, name)
        return subscriber

    def _on_message(self, msg, name: str) -> None:
        stamp_s = stamp_seconds(msg.header.stamp)
        self.monitor.message(name, stamp_s, time.monotonic())
        if stamp_s < self._newest_s.get(name, stamp_s) - JUMP_BACK_S:
            # The synchroniser throws the oldest stamps away first: after a jump back that would be
            # every new message, for ever.
            for queue in self._synchroniser.queues:
                queue.clear()
            self._newest_s.clear()
        self._newest_s[name] = stamp_s

    def _on_set(self, *messages) -> None:
        now_s = time.monotonic()
        self.monitor.complete_set(now_s)
        found = dict(zip(self._kinds, messages, strict=True))
        self._on_frame(
            FrameMessages(
                image=found["image"],
                info=found["camera_info"],
                depth=found.get("depth"),
                detections=found.get("detections"),
                arrived_s=now_s,
            )
        )


def _resolve(node: Node, parameters: NodeParameters) -> Topics:
    """Input topics with namespace and remaps applied.

    Compressed images are beside the raw topic, as image_transport has them: remap `image` alone.
    """
    image = node.resolve_topic_name("image")
    return Topics(
        image=image + "/compressed" if parameters.image_transport == "compressed" else image,
        camera_info=node.resolve_topic_name("camera_info"),
        depth=node.resolve_topic_name("depth"),
        detections=(
            node.resolve_topic_name("detections")
            if parameters.detections_source == "topic"
            else parameters.detections_file
        ),
    )


def _kinds(parameters: NodeParameters) -> dict[str, type]:
    """Message type of each input that is subscribed, the image first."""
    kinds = {
        "image": CompressedImage if parameters.image_transport == "compressed" else Image,
        "camera_info": CameraInfo,
    }
    if parameters.use_depth:
        kinds["depth"] = Image
    if parameters.detections_source == "topic":
        kinds["detections"] = Detection2DArray
    return kinds


def _synchroniser(subscribers, parameters: NodeParameters):
    if parameters.sync == "exact":
        return message_filters.TimeSynchronizer(subscribers, parameters.sync_queue_size)
    return message_filters.ApproximateTimeSynchronizer(
        subscribers, parameters.sync_queue_size, parameters.sync_slop_s
    )


def _in_words(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}, depth {qos.depth}"
