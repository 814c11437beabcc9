"""Our messages travel between two processes over the configured middleware, unchanged."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile

from sparc_ros.msg import AlignedObject, AlignedObjectArray, CadLibrary

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import example_messages  # noqa: E402

DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def sender():
    """A second process that publishes."""
    process = subprocess.Popen([sys.executable, str(HERE / "send_messages.py")])
    yield process
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture
def node():
    """A node of this process, in a context of its own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("receiver", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def receive(node, kind: type, topic: str, qos):
    """First message on a topic; fails after DEADLINE_S."""
    received = []
    node.create_subscription(kind, topic, received.append, qos)
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + DEADLINE_S
    while not received:
        assert time.monotonic() < end, f"nothing on {topic} within {DEADLINE_S} s"
        executor.spin_once(timeout_sec=0.2)
    executor.shutdown()
    return received[0]


def test_objects_arrive_from_another_process_with_equal_values(sender, node):
    message = receive(node, AlignedObjectArray, "sparc/objects", 10)
    assert message == example_messages.aligned_objects(str(sender.pid))
    assert sender.pid != os.getpid()
    assert [o.detection for o in message.objects] == [0, 1, 2]
    assert list(message.objects[2].box_xyxy) == [-1.5, 2.5, 640.25, 482.75]
    assert message.objects[1].model_id == "chair_0000001 ü"


def test_a_late_subscriber_receives_the_latched_library(sender, node):
    receive(node, AlignedObjectArray, "sparc/objects", 10)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    library = receive(node, CadLibrary, "sparc/cad_library", latched)
    assert library == example_messages.cad_library(str(sender.pid))
    assert len(library.models) == 200


def test_a_box_has_four_numbers():
    with pytest.raises(AssertionError):
        AlignedObject(box_xyxy=[1.0, 2.0, 3.0], check_fields=True)
