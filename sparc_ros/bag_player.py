"""Plays a recorded bag (a rosbag2 folder, an .mcap or .db3 file) into ROS 2, message by message."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError
from rosgraph_msgs.msg import Clock
from rosidl_runtime_py.utilities import get_message

# Topics that a subscriber who comes late receives as well.
LATCHED = ("/tf_static", "/robot_description")
TF_TOPICS = ("/tf", "/tf_static")
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, eq=False)
class BagMessage:
    """A message as it was recorded: `data` is serialised (CDR)."""

    topic: str
    time_ns: int
    data: bytes


class BagPlayer:
    """Publishes the messages of a bag on their own topics, and its time on /clock.

    leave_out: topics that are not played. Raises ValueError for a bag that cannot be read.
    """

    def __init__(self, node: Node, path: Path, leave_out: frozenset[str] = frozenset()):
        self._node, self._path = node, path
        try:
            self._reader = Reader(path)
            self._reader.open()
        except (ReaderError, OSError) as error:
            raise ValueError(f"bag {path}: {error}") from error
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._publishers = {}
        self._connections = [c for c in self._reader.connections if c.topic not in leave_out | {"/clock"}]
        for connection in self._connections:
            self._publish_on(connection.topic, connection.msgtype)

    @property
    def types(self) -> dict[str, str]:
        """Message type of every topic that is played."""
        return {each.topic: each.msgtype for each in self._connections if each.topic in self._publishers}

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def messages(self, tf_ahead_s: float = 0.0) -> Iterator[BagMessage]:
        """All messages in the order of their recording; transforms `tf_ahead_s` before their time.

        A node that looks up an image's transform must not wait for one that is not played before it is done.
        """
        connections = [c for c in self._connections if c.topic in self._publishers]
        transforms = [c for c in connections if c.topic in TF_TOPICS]
        others = [c for c in connections if c.topic not in TF_TOPICS]
        ahead_ns = int(tf_ahead_s * NANOSECONDS)
        streams = [self._stream(transforms, ahead_ns), self._stream(others, 0)]
        for _, message in heapq.merge(*streams, key=lambda item: item[0]):
            yield message

    def _stream(self, connections: list, ahead_ns: int) -> Iterator[tuple[int, BagMessage]]:
        if not connections:  # the reader would take none for all
            return
        for connection, time_ns, data in self._reader.messages(connections):
            yield time_ns - ahead_ns, BagMessage(connection.topic, time_ns, bytes(data))

    def publish(self, message: BagMessage, now_ns: int) -> None:
        """Publish a message at the bag's time `now_ns`."""
        seconds, nanoseconds = divmod(now_ns, NANOSECONDS)
        self._clock.publish(Clock(clock=Time(sec=seconds, nanosec=nanoseconds)))
        self._publishers[message.topic].publish(message.data)

    def _publish_on(self, topic: str, kind: str) -> None:
        try:
            message_class = get_message(kind)
        except (ModuleNotFoundError, AttributeError, ValueError) as error:
            self._node.get_logger().warning(f"{topic} is not played: no message type {kind} here ({error})")
            return
        latched = topic in LATCHED
        qos = QoSProfile(
            depth=100,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        self._publishers[topic] = self._node.create_publisher(message_class, topic, qos)
