"""Writes what arrives on some topics into a new bag (rosbag2 folder, MCAP or SQLite inside)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosidl_runtime_py.utilities import get_message

from sparc_ros.bag_types import typestore_for

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
NO_TIME = QosTime(0, 0)


class BagRecorder:
    """Records from now on. topics: name -> message type; latched: those that late subscribers receive.

    now_ns gives the time of a message. Raises ValueError when the bag exists or a type is unknown.
    """

    def __init__(
        self,
        node: Node,
        path: Path,
        topics: Mapping[str, str],
        now_ns: Callable[[], int],
        latched: frozenset[str] = frozenset(),
        storage: str = "mcap",
    ):
        self.counts = dict.fromkeys(topics, 0)
        self._now_ns = now_ns
        store = typestore_for(topics.values())
        try:
            self._writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
            self._writer.open()
        except (WriterError, OSError) as error:
            raise ValueError(f"bag {path}: {error}") from error
        self._connections = {
            topic: self._writer.add_connection(
                topic, kind, typestore=store, offered_qos_profiles=[_offered(topic in latched)]
            )
            for topic, kind in topics.items()
        }
        for topic, kind in topics.items():
            self._subscribe(node, topic, get_message(kind), topic in latched)

    def close(self) -> None:
        """Finish the bag."""
        self._writer.close()

    def _subscribe(self, node: Node, topic: str, message_class: type, latched: bool) -> None:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE

        def write(data: bytes) -> None:
            self._writer.write(self._connections[topic], self._now_ns(), data)
            self.counts[topic] += 1

        qos = QoSProfile(depth=200, durability=durability)
        node.create_subscription(message_class, topic, write, qos, raw=True)


def _offered(latched: bool) -> Qos:
    """The QoS with which a player shall offer the topic."""
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, durability, NO_TIME, NO_TIME,
        QosLiveliness.AUTOMATIC, NO_TIME, False,
    )  # fmt: skip
