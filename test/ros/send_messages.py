"""Publishes the example messages until it is ended. Its process id travels as the frame."""

import contextlib
import os

import example_messages
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import DurabilityPolicy, QoSProfile

from sparc_ros.msg import AlignedObjectArray, CadLibrary


def main():
    """The library is published once, before anyone listens; the objects ten times a second."""
    rclpy.init()
    node = rclpy.create_node("sender")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    library = node.create_publisher(CadLibrary, "sparc/cad_library", latched)
    library.publish(example_messages.cad_library(str(os.getpid())))
    objects = node.create_publisher(AlignedObjectArray, "sparc/objects", 10)
    message = example_messages.aligned_objects(str(os.getpid()))
    node.create_timer(0.1, lambda: objects.publish(message))
    with contextlib.suppress(ExternalShutdownException):  # the test ends us
        rclpy.spin(node)


if __name__ == "__main__":
    main()
