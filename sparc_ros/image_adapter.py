"""Images in and out of ROS messages: by cv_bridge where it is installed, else by `image_codec`.

Chosen once, when this module is imported; `BACKEND` says which ("cv_bridge" or "numpy"). Both give
the same arrays; encodings that cv_bridge refuses raise ValueError as ours do.
"""

from __future__ import annotations

import array

import numpy as np

from sparc_ros import image_codec

try:
    from cv_bridge import CvBridge, CvBridgeError
except ImportError:  # it exists only in a ROS distribution; what it lacks here is done in image_codec
    CvBridge = CvBridgeError = None

BACKEND = "numpy" if CvBridge is None else "cv_bridge"

# What every cv_bridge turns into rgb8; the rest (16 bit, newer names) is done in image_codec.
_BY_BRIDGE = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422", "yuv422_yuy2") + tuple(
    f"bayer_{pattern}8" for pattern in ("rggb", "bggr", "gbrg", "grbg")
)


def image_to_rgb(msg) -> np.ndarray:
    """sensor_msgs/Image -> (H, W, 3) uint8 RGB. Raises ValueError for what cannot be read."""
    if CvBridge is None or msg.encoding not in _BY_BRIDGE:
        return image_codec.image_to_rgb(msg)
    return np.array(_by_bridge(msg, "rgb8"))


def depth_to_metres(msg, unit_m: float) -> np.ndarray:
    """sensor_msgs/Image -> (H, W) float32 z-depth in metres, 0 where there is none."""
    if CvBridge is None or msg.encoding not in image_codec.DEPTH_ENCODINGS:
        return image_codec.depth_in_metres(image_codec.depth_values(msg), unit_m)
    return image_codec.depth_in_metres(np.array(_by_bridge(msg, "passthrough")), unit_m)


def _by_bridge(msg, encoding: str) -> np.ndarray:
    try:
        return CvBridge().imgmsg_to_cv2(msg, desired_encoding=encoding)
    except CvBridgeError as error:
        raise ValueError(f"image encoding {msg.encoding!r}: cv_bridge refused it: {error}") from error


def fill_image(msg, pixels: np.ndarray, encoding: str):
    """Fill a sensor_msgs/Image in place with (H, W) or (H, W, C) pixels and return it.

    The bytes go in as array.array: rclpy copies those at once and checks anything else item by item.
    """
    pixels = np.ascontiguousarray(pixels)
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = 0
    msg.step = pixels.strides[0]
    data = array.array("B")
    data.frombytes(pixels.tobytes())
    msg.data = data
    return msg
