"""The node's inputs: subscriptions, matching of stamps, and the watch over silent topics.

In: topics. Out: one `FrameMessages` for each complete set, handed to a callback in the executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import message_filters
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from sparc_ros.conversions import stamp_seconds
from sparc_ros.frame import FrameMessages, Topics
from sparc_ros.input_monitor import InputMonitor, InputState
from sparc_ros.parameters import NodeParameters

# A stamp this much older than the one before means that a recording started again.
JUMP_BACK_S = 1.0


class FrameInputs:
    """Subscribes to the inputs and calls `on_frame` with each complete set, `on_jump_back` when the stamps
    begin anew."""

    def __init__(
        self,
        node: Node,
        parameters: NodeParameters,
        topics: Topics,
        on_frame: Callable[[FrameMessages], None],
        on_jump_back: Callable[[], None],
    ):
        self._node, self._on_frame, self._on_jump_back = node, on_frame, on_jump_back
        self._topics, self._kinds = topics, _kinds(parameters)
        # Best effort takes what any publisher offers; a user can override it (qos_overrides parameters,
        # which are written into the profile when the subscription is made).
        self._qos = {
            name: QoSProfile(depth=parameters.qos_depth, reliability=ReliabilityPolicy.BEST_EFFORT)
            for name in self._kinds
        }
        self._newest_s: dict[str, float] = {}
        self._subscribers = [self._subscribe(name, kind) for name, kind in self._kinds.items()]
        self.monitor = InputMonitor(
            {name: (getattr(topics, name), _in_words(qos)) for name, qos in self._qos.items()},
            parameters.stale_input_s,
            time.monotonic(),
        )
        self._synchroniser = _synchroniser(self._subscribers, parameters)
        self._synchroniser.registerCallback(self._on_set)

    def close(self) -> None:
        """End the subscriptions."""
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)

    def why_silent(self, state: InputState) -> str:
        """What the graph knows of a silent input: no publisher, or one that does not fit."""
        publishers = self._node.get_publishers_info_by_topic(state.topic)
        if not publishers:
            return "nobody publishes it"
        wanted = _type_name(self._kinds[state.name])
        for publisher in publishers:
            who = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
            if publisher.topic_type != wanted:
                return f"{who} publishes {publisher.topic_type} there, not {wanted}"
            fits, reason = qos_check_compatible(publisher.qos_profile, self._qos[state.name])
            if fits == QoSCompatibility.ERROR:
                return f"the QoS of its publisher {who} does not match: {reason.strip()}"
        return f"{len(publishers)} publisher(s) with a matching QoS, which send nothing"

    def _subscribe(self, name: str, kind: type) -> message_filters.Subscriber:
        topic, qos = getattr(self._topics, name), self._qos[name]

        def on_incompatible_qos(event):
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self._node.get_logger().warning(
                f"a publisher of {name} on {topic} offers another QoS ({policy}) than asked for "
                f"({_in_words(qos)}): none of its messages will arrive"
            )

        subscriber = message_filters.Subscriber(
            self._node,
            kind,
            topic,
            qos_profile=qos,
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
            self._on_jump_back()
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


def resolve_topics(node: Node, parameters: NodeParameters) -> Topics:
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


def _type_name(kind: type) -> str:
    """sensor_msgs/msg/Image of the message class."""
    package, folder = kind.__module__.split(".")[:2]
    return f"{package}/{folder}/{kind.__name__}"
