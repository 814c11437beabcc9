"""The file contracts: what is read, what is refused; every error names file, field, expected and got."""

import json
import struct
import zlib

import cv2
import numpy as np
import pytest

from sparc_core.files import (
    camera_to_json,
    read_camera,
    read_depth,
    read_depth_scale,
    read_detections,
    read_image,
    read_mask,
    read_result,
    write_image,
    write_result,
)
from sparc_core.types import AlignedObject, AlignmentResult, Camera, SkippedDetection

CAMERA = {"width": 640, "height": 480, "fx": 525.0, "fy": 526.0, "cx": 319.5, "cy": 239.5}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def camera_file(tmp_path, **changes):
    content = {name: value for name, value in (CAMERA | changes).items() if value is not ...}
    return write_json(tmp_path / "cam.json", content)


# cameras


def test_a_camera_is_read_and_notes_are_ignored(tmp_path):
    camera = read_camera(camera_file(tmp_path, note="made by hand", rgb="x.png", up_cam=[0, -2, 0]))
    assert (camera.width, camera.height, camera.fx, camera.fy) == (640, 480, 525.0, 526.0)
    assert (camera.cx, camera.cy, camera.distortion, camera.distortion_model) == (319.5, 239.5, (), "none")
    assert camera.up_cam == (0.0, -1.0, 0.0)


@pytest.mark.parametrize(
    ("count", "named", "model"),
    [
        (0, None, "none"), (4, None, "plumb_bob"), (5, None, "plumb_bob"), (8, None, "rational_polynomial"),
        (12, None, "rational_polynomial"), (14, None, "rational_polynomial"),
        (4, "equidistant", "equidistant"),
    ],
)  # fmt: skip
def test_the_number_of_coefficients_tells_the_distortion_model(tmp_path, count, named, model):
    extra = {"distortion_model": named} if named else {}
    camera = read_camera(camera_file(tmp_path, distortion=[0.01] * count, **extra))
    assert camera.distortion_model == model
    assert camera.distortion == (0.01,) * count


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fx": ...}, ["'fx'", "missing"]),
        ({"fx": 0}, ["'fx'", "positive", "got 0"]),
        ({"fy": "525"}, ["'fy'", "positive number", "'525'"]),
        ({"cx": float("nan")}, ["'cx'", "finite", "nan"]),
        ({"width": 640.5}, ["'width'", "positive integer", "640.5"]),
        ({"height": True}, ["'height'", "integer", "True"]),
        ({"height": -480}, ["'height'", "positive", "-480"]),
        ({"distortion": [0.1, 0.2, 0.3]}, ["'distortion'", "coefficients", "got 3"]),
        ({"distortion": [0.1, "a", 0, 0]}, ["'distortion'", "finite numbers"]),
        (
            {"distortion": [0.1] * 5, "distortion_model": "equidistant"},
            ["'distortion'", "equidistant", "got 5"],
        ),
        ({"distortion": [], "distortion_model": "fov"}, ["'distortion_model'", "plumb_bob", "'fov'"]),
        ({"up_cam": [0, 1]}, ["'up_cam'", "3 finite numbers", "[0, 1]"]),
        ({"up_cam": [0, 0, 0]}, ["up_cam", "non-zero"]),
        ({"above_floor_m": -1}, ["'above_floor_m'", "a positive number of metres", "-1"]),
        ({"above_floor_m": 1.2}, ["above_floor_m needs up_cam"]),
    ],
)
def test_a_wrong_camera_field_is_named_with_what_was_expected_and_what_came(tmp_path, changes, words):
    path = camera_file(tmp_path, **changes)
    with pytest.raises(ValueError) as error:
        read_camera(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_files_that_are_no_camera_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.json: no such file"):
        read_camera(tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="expected a file, got a folder"):
        read_camera(tmp_path)
    (tmp_path / "broken.json").write_text('{"width": 640,\n}')
    with pytest.raises(ValueError, match="broken.json.*error in line 2"):
        read_camera(tmp_path / "broken.json")
    with pytest.raises(ValueError, match=r"expected a camera as an object .*got \[1\]"):
        read_camera(write_json(tmp_path / "list.json", [1]))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_camera(tmp_path / "binary.json")


def test_a_camera_survives_writing_and_reading(tmp_path):
    camera = Camera(64, 48, 50, 51, 31, 24, (0.1, 0.01, 0, 0), "equidistant", (0.0, -0.6, -0.8), 1.3)
    assert read_camera(write_json(tmp_path / "c.json", camera_to_json(camera))) == camera


def test_the_depth_scale_of_the_camera_file(tmp_path):
    assert read_depth_scale(camera_file(tmp_path, depth_scale_units_per_m=5000)) == 5000
    assert read_depth_scale(camera_file(tmp_path)) is None
    with pytest.raises(ValueError, match="'depth_scale_units_per_m': expected a positive number, got 0"):
        read_depth_scale(camera_file(tmp_path, depth_scale_units_per_m=0))


# images

RGB = np.array([[[255, 0, 0], [0, 128, 255]]], dtype=np.uint8)


def encode(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


def test_colour_images_of_all_kinds_become_8_bit_rgb(tmp_path):
    bgr = RGB[..., ::-1]
    np.testing.assert_array_equal(read_image(encode(tmp_path / "a.png", bgr)), RGB)
    with_alpha = np.concatenate([bgr, np.full((1, 2, 1), 7, np.uint8)], -1)
    np.testing.assert_array_equal(read_image(encode(tmp_path / "b.png", with_alpha)), RGB)
    deep = bgr.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(encode(tmp_path / "c.png", deep)), RGB)
    grey = np.array([[0, 200]], dtype=np.uint8)
    np.testing.assert_array_equal(read_image(encode(tmp_path / "d.png", grey)), grey[..., None].repeat(3, -1))
    deep_grey = np.array([[0, 65535, 257 * 3 + 200]], dtype=np.uint16)  # the last rounds up to 4
    np.testing.assert_array_equal(read_image(encode(tmp_path / "e.png", deep_grey))[0, :, 1], [0, 255, 4])


def test_a_palette_image_shows_its_colours(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"PLTE", RGB.tobytes()) + chunk(b"IDAT", zlib.compress(b"\0\0\1"))
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), RGB)


def test_what_is_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    for reader in (read_image, read_mask, read_depth):
        with pytest.raises(ValueError, match="x.png: expected .*got a file in no image format"):
            reader(tmp_path / "x.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match="empty.png"):
        read_image(tmp_path / "empty.png")
    encode(tmp_path / "float.tiff", np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="8 or 16 bit image, got float32"):
        read_image(tmp_path / "float.tiff")


def test_an_image_survives_writing_and_reading(tmp_path):
    write_image(tmp_path / "o.png", RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "o.png"), RGB)
    with pytest.raises(ValueError, match="o.gif: expected a name ending in .png"):
        write_image(tmp_path / "o.gif", RGB)
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        write_image(tmp_path / "o.png", RGB.astype(np.float32))


def test_integer_depth_is_scaled_and_float_depth_is_metres(tmp_path):
    units = np.array([[0, 1500, 65535]], dtype=np.uint16)
    np.testing.assert_allclose(read_depth(encode(tmp_path / "d.png", units)), [[0, 1.5, 65.535]], rtol=1e-6)
    scaled = read_depth(tmp_path / "d.png", 5000)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[0, 0.3, 13.107]], rtol=1e-6)
    metres = np.array([[1.25, np.nan, np.inf, 0]], dtype=np.float32)
    np.save(tmp_path / "d.npy", metres)
    encode(tmp_path / "d.tiff", metres)
    for name in ("d.npy", "d.tiff"):
        np.testing.assert_array_equal(read_depth(tmp_path / name, 5000), [[1.25, 0, 0, 0]])


def test_exr_depth_is_metres(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", "1")
    try:
        encode(tmp_path / "d.exr", np.array([[0.75, 2.5]], dtype=np.float32))
    except cv2.error:
        pytest.skip("this OpenCV is built without EXR")
    np.testing.assert_array_equal(read_depth(tmp_path / "d.exr"), [[0.75, 2.5]])


def test_depth_that_cannot_be_depth_is_refused(tmp_path):
    np.save(tmp_path / "mm.npy", np.full((4, 4), 1500.0))
    with pytest.raises(ValueError, match="mm.npy.*metres.*1500"):
        read_depth(tmp_path / "mm.npy")
    np.save(tmp_path / "neg.npy", np.full((4, 4), -1.0))
    with pytest.raises(ValueError, match="neg.npy: expected depth of 0 or more, got -1 m"):
        read_depth(tmp_path / "neg.npy")
    np.save(tmp_path / "rgb.npy", np.ones((4, 4, 3)))
    with pytest.raises(ValueError, match=r"one channel, got shape \(4, 4, 3\)"):
        read_depth(tmp_path / "rgb.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects.npy: expected a NumPy array"):
        read_depth(tmp_path / "objects.npy")
    encode(tmp_path / "eight.png", np.ones((2, 2), np.uint8))
    with pytest.raises(ValueError, match="eight.png: expected 16-bit or floating point depth, got uint8"):
        read_depth(tmp_path / "eight.png")
    with pytest.raises(ValueError, match="depth scale: expected a positive number.*got 0"):
        read_depth(tmp_path / "eight.png", 0)


# detections


def test_detections_are_read_with_masks_relative_to_their_file(tmp_path):
    folder = tmp_path / "frame"
    folder.mkdir()
    mask = np.zeros((3, 4), np.uint8)
    mask[1, 2] = 9
    encode(folder / "m.png", mask)
    content = [
        {
            "box_xyxy": [1, 2, 3.5, 4],
            "category": "chair",
            "score": 0.9,
            "model_id": "c1",
            "mask": "m.png",
            "track_id": 4,
        },
        {"box_xyxy": [0, 0, 1, 1], "category": "spaceship", "model_id": None},
    ]
    first, second = read_detections(write_json(folder / "d.json", content))
    assert (first.box_xyxy, first.category, first.score) == ((1.0, 2.0, 3.5, 4.0), "chair", 0.9)
    assert (first.model_id, first.track_id) == ("c1", 4)
    np.testing.assert_array_equal(first.mask, mask > 0)
    # An unknown category is the aligner's to skip, with a reason.
    assert (second.category, second.score, second.model_id, second.mask) == ("spaceship", 1.0, None, None)
    assert read_detections(write_json(tmp_path / "none.json", [])) == ()


def test_a_colour_mask_with_alpha_is_read_by_its_colours(tmp_path):
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, 1, 2] = 255
    np.testing.assert_array_equal(read_mask(encode(tmp_path / "m.png", pixels)), [[False, True]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box_xyxy": [1, 2, 3]}, ["'box_xyxy'", "4 finite numbers", "[1, 2, 3]"]),
        ({"box_xyxy": [1, 2, 3, [4]]}, ["'box_xyxy'", "4 finite numbers"]),
        ({"box_xyxy": [1, 2, 3, float("inf")]}, ["'box_xyxy'", "finite", "inf"]),
        ({"box_xyxy": None}, ["'box_xyxy'", "missing"]),
        ({"category": ""}, ["'category'", "non-empty text"]),
        ({"score": 1.5}, ["'score'", "0 to 1", "1.5"]),
        ({"model_id": 7}, ["'model_id'", "text", "7"]),
        ({"mask": "gone.png"}, ["'mask'", "gone.png", "no such file"]),
        ({"modelid": "x"}, ["only the fields", "model_id", "modelid"]),
    ],
)
def test_a_wrong_detection_is_named_with_its_index(tmp_path, change, words):
    good = {"box_xyxy": [0, 0, 9, 9], "category": "chair"}
    path = write_json(tmp_path / "dets.json", [good, good | change])
    with pytest.raises(ValueError) as error:
        read_detections(path)
    for word in ["dets.json: detection 1", *words]:
        assert word in str(error.value)


# results


def result(**changes):
    item = {
        "detection": 2, "category": "chair", "model_id": "chair_1", "box_xyxy": (1.0, 2.0, 3.0, 4.0),
        "R": np.eye(3),
        "T_m": np.array([0.1, 0.2, 2.0]), "S_m": np.array([0.5, 0.9, 0.6], np.float32),
        "score": np.float32(0.75),
        "start": "azimuth_90",
    }  # fmt: skip
    return AlignmentResult(
        Camera(**CAMERA),
        (AlignedObject(**(item | changes)),),
        (SkippedDetection(0, "no pixels"),),
        {"total": 12.5},
    )


def test_the_result_file_holds_the_contracts_fields(tmp_path):
    write_result(tmp_path / "r.json", result(), config={"refinements": 3})
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["camera"] == CAMERA
    assert content["objects"] == [
        {
            "detection": 2, "category": "chair", "model_id": "chair_1", "box_xyxy": [1.0, 2.0, 3.0, 4.0],
            "R": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "T_m": [0.1, 0.2, 2.0],
            "S_m": pytest.approx([0.5, 0.9, 0.6]), "score": 0.75, "start": "azimuth_90",
        }
    ]  # fmt: skip
    assert content["timing_ms"] == {"total": 12.5}
    assert content["skipped"] == [{"detection": 0, "reason": "no pixels"}]
    assert content["version"] == 1
    assert content["config"] == {"refinements": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_result_survives_writing_and_reading_and_later_fields(tmp_path):
    write_result(tmp_path / "r.json", result())
    content = json.loads((tmp_path / "r.json").read_text())
    content["objects"][0]["track_id"] = 5
    content["future"] = {}
    read = read_result(write_json(tmp_path / "later.json", content))
    assert read.camera == result().camera
    assert (read.skipped, read.timing_ms) == (result().skipped, result().timing_ms)
    (item,) = read.objects
    assert (item.detection, item.model_id, item.start, item.score) == (2, "chair_1", "azimuth_90", 0.75)
    np.testing.assert_array_equal(item.R, np.eye(3))
    np.testing.assert_array_equal(item.T_m, [0.1, 0.2, 2.0])
    del content["skipped"]
    assert read_result(write_json(tmp_path / "earlier.json", content)).skipped == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"T_m": np.array([0, np.nan, 1])}, r"object 0 \(chair\): T_m: expected finite numbers, got .*nan"),
        ({"score": float("inf")}, "object 0 .*score: expected finite"),
        ({"R": np.eye(4)}, r"R: expected shape \(3, 3\), got \(4, 4\)"),
        ({"box_xyxy": (1, 2, 3)}, r"box_xyxy: expected shape \(4,\)"),
    ],
)
def test_a_result_with_nonsense_is_refused_and_nothing_is_written(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        write_result(tmp_path / "r.json", result(**changes))
    with pytest.raises(ValueError, match="config: expected plain finite JSON values"):
        write_result(tmp_path / "r.json", result(), config={"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_broken_result_names_its_object(tmp_path):
    write_result(tmp_path / "r.json", result())
    content = json.loads((tmp_path / "r.json").read_text())
    content["objects"][0]["S_m"] = [1, 2]
    with pytest.raises(
        ValueError, match=r"bad.json: object 0: field 'S_m': expected 3 finite numbers, got \[1, 2\]"
    ):
        read_result(write_json(tmp_path / "bad.json", content))
