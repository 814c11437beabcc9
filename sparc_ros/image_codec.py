"""Image bytes to numpy and back, in plain numpy and OpenCV: no ROS, no cv_bridge.

Functions take anything with the fields of sensor_msgs/Image (height, width, encoding, is_bigendian,
step, data). `image_adapter` chooses between these and cv_bridge.
"""

from __future__ import annotations

import cv2
import numpy as np

# Encoding: (bytes a pixel as dtype, channels, OpenCV conversion to RGB or None).
# OpenCV names a Bayer pattern by its second row, ROS by its first: RGGB is COLOR_BayerBG.
_COLOUR = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": (np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": (np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": (np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": (np.uint16, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
}
COLOUR_ENCODINGS = tuple(_COLOUR)
_DEPTH = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
DEPTH_ENCODINGS = tuple(_DEPTH)


def pixels(msg, dtype, channels: int) -> np.ndarray:
    """(H, W) or (H, W, channels) view of an Image's bytes in the machine's byte order.

    Rows may be padded (`step` larger than the pixels need). Raises ValueError for an empty image and
    for sizes that do not agree.
    """
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    if height <= 0 or width <= 0:
        raise ValueError(f"image is empty: {width}x{height}")
    row_bytes = width * channels * np.dtype(dtype).itemsize
    data = np.frombuffer(msg.data, dtype=np.uint8)
    if step < row_bytes or data.size < step * (height - 1) + row_bytes:
        raise ValueError(
            f"image data does not fit its size: {width}x{height} {msg.encoding} needs {row_bytes} bytes "
            f"a row, got step {step} and {data.size} bytes"
        )
    # The last row may come without its padding.
    padded = np.zeros(step * height, np.uint8) if data.size < step * height else data[: step * height]
    if data.size < step * height:
        padded[: data.size] = data
    rows = np.ascontiguousarray(padded.reshape(height, step)[:, :row_bytes])
    order = ">" if msg.is_bigendian else "<"
    values = rows.view(np.dtype(dtype).newbyteorder(order)).astype(dtype, copy=False)
    return values if channels == 1 else values.reshape(height, width, channels)


def image_to_rgb(msg) -> np.ndarray:
    """Image message -> (H, W, 3) uint8 RGB. Raises ValueError naming an encoding it does not know."""
    if msg.encoding not in _COLOUR:
        raise ValueError(
            f"image encoding {msg.encoding!r} is not supported; supported: {list(COLOUR_ENCODINGS)}"
        )
    dtype, channels, conversion = _COLOUR[msg.encoding]
    if channels == 2 and msg.width % 2:
        raise ValueError(f"image encoding {msg.encoding} needs an even width, got {msg.width}")
    values = pixels(msg, dtype, channels)
    if dtype is np.uint16:
        values = (values >> 8).astype(np.uint8)
    return np.array(values) if conversion is None else cv2.cvtColor(values, conversion)


def depth_values(msg) -> np.ndarray:
    """Depth image message -> (H, W) uint16 or float32 as sent. ValueError names an unknown encoding."""
    if msg.encoding not in _DEPTH:
        raise ValueError(
            f"depth encoding {msg.encoding!r} is not supported; supported: {list(DEPTH_ENCODINGS)}"
        )
    return pixels(msg, _DEPTH[msg.encoding], 1)


def depth_in_metres(values: np.ndarray, unit_m: float) -> np.ndarray:
    """(H, W) depth as sent -> float32 metres; 0, negative, NaN and infinite values become 0 (none).

    Integers are multiplied by `unit_m`; floats are metres already (REP 118).
    """
    scale = unit_m if np.issubdtype(values.dtype, np.integer) else 1.0
    depth_m = values.astype(np.float32) * np.float32(scale)
    return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0))


def compressed_to_rgb(msg) -> np.ndarray:
    """CompressedImage message (JPEG, PNG, ...) -> (H, W, 3) uint8 RGB.

    Raises ValueError with the message's format when the bytes cannot be decoded.
    """
    data = np.frombuffer(msg.data, dtype=np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise ValueError(f"compressed image of format {msg.format!r} cannot be decoded ({data.size} bytes)")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
