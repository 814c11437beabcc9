"""Runs a node from start to a clean end: the one place that knows how ROS 2 stops.

Exit status: 0 when told to end (Ctrl-C, SIGTERM), 2 when a parameter keeps the node from starting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from sparc_ros.stopping import end_in_time, leave

BAD_PARAMETER = 2


def run_node(make_node: Callable[[], Node], name: str, args: list[str] | None = None) -> int:
    """Make the node, spin it until it is told to end, and return the exit status.

    name: for messages before there is a node. A node may have `close() -> bool`, called before it is
    destroyed; False means that a thread could not be ended in time.
    """
    end_in_time()
    node, ended = None, True
    try:
        rclpy.init(args=args)
        try:
            node = make_node()
        except ValueError as error:
            rclpy.logging.get_logger(name).fatal(str(error))
            return BAD_PARAMETER
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # Ctrl-C or SIGTERM: the way to end a node
    except Exception:
        # A signal invalidates the context at once, and whatever was being published then fails.
        if rclpy.ok():
            raise
    finally:
        # A second Ctrl-C must not turn a clean end into a traceback.
        with contextlib.suppress(KeyboardInterrupt):
            if node is not None:
                ended = node.close() if hasattr(node, "close") else True
                node.destroy_node()
            rclpy.try_shutdown()
    if not ended:
        # PyTorch cannot be interrupted within a forward pass, and tearing its libraries down under the
        # running thread aborts the process.
        leave(0)
    return 0
