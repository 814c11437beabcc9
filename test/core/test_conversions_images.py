"""Image messages to arrays: every encoding by a pixel worked by hand, broken messages, both adapters."""

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from message_stand_ins import image  # noqa: E402

from sparc_ros import image_adapter, image_codec  # noqa: E402

RGB = np.array([[(10, 20, 30), (40, 50, 60)], [(70, 80, 90), (100, 110, 120)]], np.uint8)
ALPHA = np.full((2, 2, 1), 255, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "values"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.concatenate((RGB, ALPHA), -1)),
        ("bgra8", np.concatenate((RGB[..., ::-1], ALPHA), -1)),
    ],
)
def test_colour_encodings_give_the_same_rgb(encoding, values):
    np.testing.assert_array_equal(image_codec.image_to_rgb(image(values, encoding)), RGB)


def test_mono_is_repeated_and_16_bit_keeps_the_high_byte():
    mono = np.array([[0, 200]], np.uint8)
    expected = np.repeat(mono[..., None], 3, -1)
    np.testing.assert_array_equal(image_codec.image_to_rgb(image(mono, "mono8")), expected)
    wide = np.array([[0x00FF, 200 * 256 + 7]], np.uint16)
    np.testing.assert_array_equal(image_codec.image_to_rgb(image(wide, "mono16")), expected)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("pattern", "rows"),
    [("rggb", ("rg", "gb")), ("bggr", ("bg", "gr")), ("gbrg", ("gb", "rg")), ("grbg", ("gr", "bg"))],
)
def test_bayer_patterns_recover_a_flat_colour(pattern, rows, depth):
    colour = {"r": 200, "g": 100, "b": 50}
    tile = np.array([[colour[c] for c in row] for row in rows])
    mosaic = np.tile(tile, (8, 8)).astype(np.uint8)
    if depth == 16:
        mosaic = mosaic.astype(np.uint16) << 8
    rgb = image_codec.image_to_rgb(image(mosaic, f"bayer_{pattern}{depth}"))
    np.testing.assert_array_equal(rgb[4, 4], (200, 100, 50))
    np.testing.assert_array_equal(rgb[5, 4], (200, 100, 50))


@pytest.mark.parametrize(
    ("encoding", "pair"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
def test_yuv_pairs(encoding, pair):
    # BT.601, studio range: (Y, U, V) = (82, 90, 240) is red; the same chroma is shared by both pixels.
    values = {"y": 82, "u": 90, "v": 240}
    row = np.array([values[c] for c in pair], np.uint8).reshape(1, 2, 2)
    rgb = image_codec.image_to_rgb(image(row, encoding))
    np.testing.assert_allclose(rgb, np.broadcast_to((255, 0, 0), (1, 2, 3)), atol=2)


def test_padded_rows_are_cut():
    padded = image(RGB, "rgb8", step=16)
    np.testing.assert_array_equal(image_codec.image_to_rgb(padded), RGB)
    padded.data = padded.data[: 16 + 6]  # the last row without its padding
    np.testing.assert_array_equal(image_codec.image_to_rgb(padded), RGB)


def test_big_endian_depth():
    depth = np.array([[1500, 2]], np.uint16)
    np.testing.assert_array_equal(image_codec.depth_values(image(depth, "16UC1", big_endian=True)), depth)


def test_depth_in_metres_by_hand():
    millimetres = np.array([[0, 1, 1500, 65535]], np.uint16)
    values = image_codec.depth_values(image(millimetres, "16UC1"))
    depth_m = image_codec.depth_in_metres(values, 0.001)
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, [[0, 0.001, 1.5, 65.535]], rtol=1e-6)
    np.testing.assert_allclose(image_codec.depth_in_metres(values, 0.00025)[0, 2], 0.375)


def test_float_depth_is_metres_already_and_holes_are_zero():
    metres = np.array([[1.25, 0.0, np.nan, np.inf, -np.inf, -1.0]], np.float32)
    depth_m = image_codec.depth_in_metres(image_codec.depth_values(image(metres, "32FC1")), 0.001)
    np.testing.assert_array_equal(depth_m, np.array([[1.25, 0, 0, 0, 0, 0]], np.float32))


def test_compressed_images_come_out_as_rgb():
    png = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    message = SimpleNamespace(format="bgr8; png compressed bgr8", data=png)
    np.testing.assert_array_equal(image_codec.compressed_to_rgb(message), RGB)


@pytest.mark.parametrize("data", [b"", b"not an image"])
def test_broken_compressed_image_names_the_format(data):
    with pytest.raises(ValueError, match="jpeg"):
        image_codec.compressed_to_rgb(SimpleNamespace(format="jpeg", data=data))


def test_unknown_encodings_are_named_with_those_supported():
    with pytest.raises(ValueError, match="'nv21'.*rgb8"):
        image_codec.image_to_rgb(image(RGB, "nv21"))
    with pytest.raises(ValueError, match="'rgb8'.*16UC1"):
        image_codec.depth_values(image(RGB, "rgb8"))


def test_data_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs 6 bytes a row"):
        image_codec.image_to_rgb(image(RGB, "rgb8", data=b"\0" * 11))
    with pytest.raises(ValueError, match="empty"):
        image_codec.image_to_rgb(SimpleNamespace(height=0, width=0, step=0, encoding="rgb8", data=b""))
    with pytest.raises(ValueError, match="even width"):
        image_codec.image_to_rgb(image(np.zeros((1, 3, 2), np.uint8), "yuyv"))


@pytest.fixture
def adapter_with(monkeypatch):
    """Imports the adapter anew with or without a stand-in for cv_bridge."""

    def load(module):
        monkeypatch.setitem(sys.modules, "cv_bridge", module)
        return importlib.reload(image_adapter)

    yield load
    monkeypatch.undo()
    importlib.reload(image_adapter)


def stand_in_bridge():
    """cv_bridge as far as the adapter uses it; it answers in its own way, so that we see who answered."""
    module = ModuleType("cv_bridge")

    class CvBridgeError(TypeError):
        pass

    class CvBridge:
        def imgmsg_to_cv2(self, msg, desired_encoding):
            if msg.encoding == "bgr8":
                raise CvBridgeError("no such conversion")
            if desired_encoding == "passthrough":
                return np.full((msg.height, msg.width), 2000, np.uint16)
            assert desired_encoding == "rgb8"
            return np.full((msg.height, msg.width, 3), 77, np.uint8)

    module.CvBridge, module.CvBridgeError = CvBridge, CvBridgeError
    return module


def test_adapter_without_cv_bridge(adapter_with):
    adapter = adapter_with(None)
    assert adapter.BACKEND == "numpy"
    np.testing.assert_array_equal(adapter.image_to_rgb(image(RGB, "rgb8")), RGB)
    np.testing.assert_allclose(
        adapter.depth_to_metres(image(np.array([[1500]], np.uint16), "16UC1"), 0.001), 1.5
    )


def test_adapter_with_cv_bridge(adapter_with):
    adapter = adapter_with(stand_in_bridge())
    assert adapter.BACKEND == "cv_bridge"
    np.testing.assert_array_equal(adapter.image_to_rgb(image(RGB, "rgb8")), np.full_like(RGB, 77))
    np.testing.assert_allclose(
        adapter.depth_to_metres(image(np.array([[1500]], np.uint16), "16UC1"), 0.001), 2.0
    )
    # what cv_bridge does not know stays ours
    np.testing.assert_array_equal(adapter.image_to_rgb(image(RGB[..., ::-1], "8UC3")), RGB)
    with pytest.raises(ValueError, match="nv21"):
        adapter.image_to_rgb(image(RGB, "nv21"))
    with pytest.raises(ValueError, match="'bgr8': cv_bridge refused it"):
        adapter.image_to_rgb(image(RGB, "bgr8"))


@pytest.mark.parametrize("encoding", ["rgb8", "16UC1", "32FC1"])
def test_fill_image_round_trip(encoding):
    dtype = {"rgb8": np.uint8, "16UC1": np.uint16, "32FC1": np.float32}[encoding]
    values = RGB if encoding == "rgb8" else np.array([[1, 2, 3], [4, 5, 600]], dtype)
    message = image_adapter.fill_image(SimpleNamespace(), values, encoding)
    read = image_codec.image_to_rgb(message) if encoding == "rgb8" else image_codec.depth_values(message)
    np.testing.assert_array_equal(read, values)
