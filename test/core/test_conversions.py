"""Camera infos, detections and rotations from ROS messages (stand-ins: no ROS is needed here)."""

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parent))
from message_stand_ins import camera_info, detection, detections  # noqa: E402

from sparc_ros import transform_adapter  # noqa: E402
from sparc_ros.category_names import category_of  # noqa: E402
from sparc_ros.conversions import (  # noqa: E402
    DetectionRules,
    camera_from_info,
    detections_from_msg,
    fill_pose,
    tf_frame_name,
)

TOPIC = "/cam/camera_info"


def test_camera_by_hand():
    camera = camera_from_info(camera_info(), TOPIC, up_cam=(0, -2, 0))
    assert (camera.width, camera.height) == (640, 480)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 320, 240)
    assert camera.distortion_model == "none" and camera.distortion == ()
    assert camera.up_cam == (0, -1, 0)


def test_rectified_takes_p_and_drops_distortion():
    info = camera_info(d=[0.1, 0, 0, 0, 0], distortion_model="thin_prism")
    camera = camera_from_info(info, TOPIC, rectified=True)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (450, 460, 310, 230)
    assert camera.distortion_model == "none"


@pytest.mark.parametrize(
    ("model", "d", "ours"),
    [
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.01], "plumb_bob"),
        ("rational_polynomial", [0.1, 0, 0, 0, 0, 0.2, 0, 0], "rational_polynomial"),
        ("equidistant", [0.1, 0, 0, 0], "equidistant"),
        ("fisheye", [0.1, 0, 0, 0], "equidistant"),
        ("plumb_bob", [0.0] * 5, "none"),
        ("rational_polynomial", [], "none"),
        ("something new", [0.0] * 12, "none"),
        ("", [], "none"),
    ],
)
def test_distortion_models(model, d, ours):
    camera = camera_from_info(camera_info(d=d, distortion_model=model), TOPIC)
    assert camera.distortion_model == ours
    assert camera.distortion == (tuple(d) if ours != "none" else ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"d": [0.1] * 4, "distortion_model": "thin_prism"}, "thin_prism.*plumb_bob"),
        ({"d": [0.1] * 3, "distortion_model": "plumb_bob"}, "coefficients"),
        ({"k": [math.nan, 0, 1, 0, 500.0, 1, 0, 0, 1]}, "not calibrated"),
        ({"k": [500.0, 0, math.nan, 0, 500.0, 1, 0, 0, 1]}, "cx"),
        ({"width": 0}, "width"),
    ],
)
def test_unusable_camera_infos_name_topic_and_reason(changes, words):
    with pytest.raises(ValueError, match=f"{TOPIC}.*{words}"):
        camera_from_info(camera_info(**changes), TOPIC)


def test_region_and_binning_agree_with_cropping_and_shrinking_pixels():
    region = SimpleNamespace(x_offset=100, y_offset=60, width=400, height=300)
    camera = camera_from_info(camera_info(roi=region, binning_x=2, binning_y=2), TOPIC)
    assert (camera.width, camera.height) == (200, 150)
    # A full-resolution pixel (u, v), cropped, then merged two by two, pixel centres at integers.
    point = np.array([0.3, -0.2, 2.0])
    full = np.array([500 * 0.15 + 320, 510 * -0.1 + 240])
    merged = (full - (100, 60) + 0.5) / 2 - 0.5
    mine = (camera.fx * point[0] / 2 + camera.cx, camera.fy * point[1] / 2 + camera.cy)
    np.testing.assert_allclose(mine, merged)
    # The same by OpenCV: the centroid of a blob in an image before and after crop and area averaging.
    blob = np.zeros((480, 640), np.float32)
    blob[186:190, 392:400] = 1
    small = cv2.resize(blob[60:360, 100:500], (200, 150), interpolation=cv2.INTER_AREA)
    centroid = [np.average(axis, weights=small) for axis in np.meshgrid(np.arange(200), np.arange(150))]
    before = np.array([395.5, 187.5])
    np.testing.assert_allclose(centroid, (before - (100, 60) + 0.5) / 2 - 0.5, atol=1e-4)


def test_detection_by_hand():
    message = detections(detection((10, 20, 110, 70), ("person", 0.2), ("chair", 0.9), ("sofa", 0.5)))
    read = detections_from_msg(message, DetectionRules())
    (found,) = read.detections
    assert found.box_xyxy == (10, 20, 110, 70)
    assert (found.category, found.score, found.model_id) == ("chair", 0.9, None)
    assert read.index == (0,) and not read.left_out and not read.unknown_classes


@pytest.mark.parametrize(
    ("class_id", "category"),
    [
        ("chair", "chair"),
        ("Couch", "sofa"),
        ("tv", "display"),
        ("monitor", "display"),
        ("dining table", "table"),
        ("dining_table", "table"),
        ("trash bin", "bin"),
        ("bookcase", "bookshelf"),
        ("56", "chair"),
        ("person", None),
        ("", None),
    ],
)
def test_category_names(class_id, category):
    assert category_of(class_id, {"56": "chair"}) == category


def test_model_ids_fix_the_model_only_when_the_library_has_them():
    message = detections(
        detection((0, 0, 9, 9), ("chair", 1), detection_id="chair_7"),
        detection((0, 0, 9, 9), ("chair", 1), detection_id="track 12"),
    )
    read = detections_from_msg(message, DetectionRules(model_ids={"chair_7"}))
    assert [found.model_id for found in read.detections] == ["chair_7", None]


def test_what_is_left_out_and_why():
    message = detections(
        detection((0, 0, 9, 9)),
        detection((0, 0, math.nan, 9), ("chair", 0.9)),
        detection((0, 0, 9, 9), ("giraffe", 0.9)),
        detection((0, 0, 9, 9), ("sofa", 0.9)),
        detection((0, 0, 9, 9), ("chair", 0.3)),
        detection((0, 0, 9, 9), ("chair", 0.8)),
    )
    read = detections_from_msg(message, DetectionRules(categories=("chair",), min_score=0.5))
    assert read.index == (5,)
    assert [index for index, _ in read.left_out] == [0, 1]
    assert "hypothesis" in read.left_out[0][1] and "finite" in read.left_out[1][1]
    assert read.unknown_classes == ("giraffe",)


def test_the_limit_keeps_the_best_in_the_message_order():
    message = detections(*(detection((0, 0, 9, 9), ("chair", score)) for score in (0.2, 0.9, 0.1, 0.5)))
    read = detections_from_msg(message, DetectionRules(max_count=2))
    assert read.index == (1, 3) and read.capped == 2


def test_a_rotated_box_becomes_the_upright_box_around_it():
    message = detections(detection((-50, -10, 50, 10), ("chair", 1), theta=math.pi / 2))
    box = detections_from_msg(message, DetectionRules()).detections[0].box_xyxy
    np.testing.assert_allclose(box, (-10, -50, 10, 50), atol=1e-12)
    slanted = detections(detection((-50, -10, 50, 10), ("chair", 1), theta=0.3))
    corners = np.array([(x, y) for x in (-50, 50) for y in (-10, 10)])
    turned = corners @ np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    box = detections_from_msg(slanted, DetectionRules()).detections[0].box_xyxy
    np.testing.assert_allclose(box, (*turned.min(0), *turned.max(0)), atol=1e-9)


def test_no_detections():
    assert detections_from_msg(detections(), DetectionRules()).detections == ()


@pytest.fixture(params=["scipy", "tf_transformations"])
def transforms(request, monkeypatch):
    """The adapter, imported anew without and with a stand-in for tf_transformations."""
    module = None
    if request.param == "tf_transformations":
        module = ModuleType("tf_transformations")

        def quaternion_matrix(quaternion):
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
            return matrix

        module.quaternion_matrix = quaternion_matrix
        module.quaternion_from_matrix = lambda matrix: Rotation.from_matrix(matrix[:3, :3]).as_quat()
    monkeypatch.setitem(sys.modules, "tf_transformations", module)
    adapter = importlib.reload(transform_adapter)
    assert adapter.BACKEND == request.param
    yield adapter
    monkeypatch.undo()
    importlib.reload(transform_adapter)


def test_quaternions_agree_with_scipy_and_come_back(transforms):
    rng = np.random.default_rng(0)
    half_turns = [np.diag(signs) for signs in ((1.0, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, 1))]
    for R in [*Rotation.random(50, random_state=rng).as_matrix(), *half_turns]:
        quaternion = transforms.quaternion_xyzw(R)
        assert quaternion[3] >= 0
        assert abs(quaternion @ Rotation.from_matrix(R).as_quat()) == pytest.approx(1)
        np.testing.assert_allclose(transforms.rotation_matrix(3 * quaternion), R, atol=1e-7)


def test_quaternion_order_is_xyzw(transforms):
    quarter_about_z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    half = math.sqrt(0.5)
    np.testing.assert_allclose(transforms.quaternion_xyzw(quarter_about_z), (0, 0, half, half), atol=1e-12)


@pytest.mark.parametrize("R", [np.diag([1.0, 1, -1]), 2 * np.eye(3), np.full((3, 3), np.nan), np.eye(4)])
def test_what_is_not_a_rotation_is_refused(transforms, R):
    with pytest.raises(ValueError, match="rotation matrix"):
        transforms.quaternion_xyzw(R)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (0, 0, 0, math.nan), (0, 0, 1)])
def test_what_is_not_a_quaternion_is_refused(transforms, quaternion):
    with pytest.raises(ValueError, match="quaternion"):
        transforms.rotation_matrix(quaternion)


def test_pose_round_trip():
    pose = SimpleNamespace(position=SimpleNamespace(), orientation=SimpleNamespace())
    R = Rotation.from_euler("xyz", (0.3, -1.2, 2.5)).as_matrix()
    T = transform_adapter.matrix_from_pose(fill_pose(pose, R, np.array([1.0, 2.0, 3.0])))
    np.testing.assert_allclose(T[:3, :3], R, atol=1e-12)
    np.testing.assert_allclose(T[:, 3], (1, 2, 3, 1))


def test_tf_frame_names():
    assert tf_frame_name("sparc", "chair", 7) == "sparc/chair_7"
    assert tf_frame_name("", "chair", 7) == "chair_7"
