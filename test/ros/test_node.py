"""The align node in a process of its own: its outputs, and every bad input of which it must complain.

The aligner is a stand-in with known answers: these tests are about the node. `test_demo.py` has the real one.
"""

import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import trimesh
from rclpy.time import Time
from sensor_msgs.msg import Image
from tf2_ros import Buffer, TransformListener
from vision_msgs.msg import Detection2DArray
from visualization_msgs.msg import Marker

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from node_probe import FRAME, HEIGHT, WIDTH, Probe, camera_info, detection, latched_library  # noqa: E402
from stand_in_aligner import BREAKS  # noqa: E402

from sparc_ros.image_adapter import fill_image, image_to_rgb  # noqa: E402
from sparc_ros.transform_adapter import matrix_from_pose, matrix_from_transform  # noqa: E402


@pytest.fixture(scope="module")
def align_node(tmp_path_factory):
    """The node's process, with short times so that the tests are quick."""
    folder = tmp_path_factory.mktemp("align_node")
    parameters = {
        "stale_input_s": "1.5",
        "track_max_age_s": "1.0",
        "max_detections": "20",
        "mesh_folder": str(folder / "meshes"),
        "up_source": "none",
        "fixed_frame": "''",
    }
    command = [sys.executable, str(HERE / "stand_in_aligner.py"), "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        process.log_path = folder / "log.txt"
        yield process
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def connected(align_node):
    probe = Probe()
    probe.wait_for_node()
    yield probe
    probe.close()


@pytest.fixture
def probe(connected, align_node):
    """The connected probe; afterwards the node must still answer a good frame."""
    yield connected
    good = connected.publish()
    assert len(connected.objects_of(good).objects) == 1
    assert align_node.poll() is None


def dets(*entries):
    return Detection2DArray(detections=list(entries))


def stamp_of(header):
    return header.stamp.sec, header.stamp.nanosec


def test_every_output_has_the_images_stamp_and_frame(probe):
    stamp = probe.publish(detections=dets(detection((40, 30, 100, 90)), detection((10, 10, 60, 60), "sofa")))
    objects = probe.objects_of(stamp)
    assert objects.header.frame_id == FRAME and objects.latency_ms > 0
    assert [(o.category, o.model_id, o.detection) for o in objects.objects] == [
        ("chair", "chair_0000000", 0),
        ("sofa", "sofa_0000000", 1),
    ]
    boxes = probe.spin_until(lambda: probe.with_stamp("detections_3d", stamp), "3D detections")
    assert boxes.header.frame_id == FRAME
    for obj, box in zip(objects.objects, boxes.detections, strict=True):
        assert box.id == str(obj.track_id) and box.bbox.center == obj.pose and box.bbox.size == obj.scale
        assert box.results[0].hypothesis.class_id == obj.category
    markers = probe.spin_until(
        lambda: [
            m for array in probe.received["markers"] for m in array.markers if stamp_of(m.header) == stamp
        ],
        "markers",
    )
    assert all(marker.header.frame_id == FRAME for marker in markers)


def test_the_pose_is_where_the_aligner_put_it(probe):
    stamp = probe.publish(detections=dets(detection((40, 30, 100, 90), detection_id="anything")))
    (obj,) = probe.objects_of(stamp).objects
    position = obj.pose.position
    # box centre (70, 60), depth 2.5 m, focal length 150, centre (79.5, 59.5)
    np.testing.assert_allclose(
        (position.x, position.y, position.z), (-9.5 / 150 * 2.5, 0.5 / 150 * 2.5, 2.5), atol=1e-6
    )
    assert obj.score == pytest.approx(0.9) and obj.start == "azimuth_0"
    np.testing.assert_allclose(obj.box_xyxy, (40, 30, 100, 90))


def test_tf_and_message_agree(probe):
    buffer = Buffer()
    listener = TransformListener(buffer, probe.node)
    probe.spin_until(lambda: listener.tf_sub and probe.node.count_publishers("/tf"), "/tf")
    probe.spin(0.5)
    stamp = probe.publish()
    (obj,) = probe.objects_of(stamp).objects
    frame = f"sparc/{obj.category}_{obj.track_id}"
    when = Time(seconds=stamp[0], nanoseconds=stamp[1])
    probe.spin_until(lambda: buffer.can_transform(FRAME, frame, when), f"TF of {frame}")
    transform = buffer.lookup_transform(FRAME, frame, when)
    np.testing.assert_allclose(
        matrix_from_transform(transform.transform), matrix_from_pose(obj.pose), atol=1e-6
    )
    listener.unregister()


def test_marker_meshes_are_the_unit_cube_and_stand_where_the_object_is(probe):
    stamp = probe.publish()
    (obj,) = probe.objects_of(stamp).objects
    marker = probe.spin_until(
        lambda: [
            m
            for array in probe.received["markers"]
            for m in array.markers
            if stamp_of(m.header) == stamp and m.type == Marker.MESH_RESOURCE and m.action == Marker.ADD
        ],
        "the mesh marker",
    )[0]
    uri = urlparse(marker.mesh_resource)
    assert uri.scheme == "file"
    mesh = trimesh.load(unquote(uri.path), force="mesh")
    np.testing.assert_allclose(mesh.bounds, [[-0.5] * 3, [0.5] * 3], atol=1e-4)
    assert marker.pose == obj.pose and marker.scale == obj.scale and marker.id == obj.track_id
    assert marker.color.a > 0 and marker.ns == "sparc/mesh"


def test_markers_are_deleted_once_when_the_track_ends(probe):
    first = probe.publish(detections=dets(detection((10, 10, 60, 60), "bed")))
    (obj,) = probe.objects_of(first).objects
    probe.received["markers"].clear()
    for _ in range(3):  # the stamps are a second apart, a track ends after one
        probe.objects_of(probe.publish(detections=dets()))
    probe.spin(0.3)
    actions = [(m.ns, m.id, m.action) for array in probe.received["markers"] for m in array.markers]
    assert sorted(a for a in actions if a[1] == obj.track_id and a[2] != Marker.ADD) == [
        ("sparc/label", obj.track_id, Marker.DELETE),
        ("sparc/mesh", obj.track_id, Marker.DELETE),
    ]
    assert not [a for a in actions if a[2] == Marker.DELETEALL]


def test_track_ids_are_stable(probe):
    start = 5000
    ids = []
    for index, (left, right) in enumerate([(10, 100), (100, 11), (12, 99)]):
        boxes = [detection((x, 30, x + 40, 90)) for x in (left, right)]
        objects = probe.objects_of(probe.publish(stamp_s=start + index, detections=dets(*boxes))).objects
        ids.append([o.track_id for o in objects])
    assert ids[0] == ids[1][::-1] == ids[2]
    probe._second = 6000  # later stamps go on from here


def test_a_late_subscriber_receives_the_library_and_its_meshes_exist(probe):
    library = latched_library(probe)
    assert len(library.models) == 9 and {m.category for m in library.models} >= {"chair", "bed", "sofa"}
    for model in library.models:
        assert Path(unquote(urlparse(model.mesh_uri).path)).is_file()
        assert model.extents.y > 0.05 and model.symmetry in ("none", "c2", "c4", "cinf")


def test_overlay_is_drawn_for_those_who_ask(probe):
    overlays = []
    subscription = probe.node.create_subscription(Image, "sparc/overlay", overlays.append, 1)
    probe.spin_until(lambda: probe.node.count_publishers("sparc/overlay"), "overlay's publisher")
    probe.spin(0.5)
    stamp = probe.publish()
    overlay = probe.spin_until(lambda: overlays, "an overlay")[-1]
    assert stamp_of(overlay.header) == stamp and overlay.header.frame_id == FRAME
    picture = image_to_rgb(overlay)
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.any()
    probe.node.destroy_subscription(subscription)


def test_no_detections_give_an_empty_message(probe):
    assert list(probe.objects_of(probe.publish(detections=dets())).objects) == []


def test_detections_may_come_later(probe):
    frame = probe.frame()
    for name in ("image", "info", "depth"):
        probe.publishers[name].publish(frame[name])
    for _ in range(3):  # fewer than qos_depth: none may be lost even when the node is slow to look
        probe.publish(detections=None)
    probe.spin(0.5)
    probe.publishers["detections"].publish(frame["detections"])
    assert probe.objects_of(stamp_of(frame["image"].header))


def image_of(encoding, dtype=np.uint8, channels=3, size=(HEIGHT, WIDTH), value=0):
    shape = size if channels == 1 else (*size, channels)
    message = fill_image(Image(), np.full(shape, value, dtype), "rgb8")
    message.encoding = encoding
    return message


# Input, words of the error that /diagnostics must show.
ERRORS = {
    "unknown encoding": ({"image": image_of("nv21")}, ("/image", "nv21", "rgb8")),
    "truncated image": ({"image": image_of("rgba8")}, ("/image", "does not fit")),
    "uncalibrated": ({"info": camera_info(k=[0.0] * 9)}, ("/camera_info", "not calibrated")),
    "unknown distortion": (
        {"info": camera_info(distortion_model="thin_prism", d=[0.1] * 12)},
        ("/camera_info", "thin_prism", "plumb_bob"),
    ),
    "other camera's info": ({"info": camera_info(width=640)}, ("/camera_info", "640x120", "160x120")),
    "depth of another size": (
        {"depth": image_of("16UC1", np.uint16, 1, (60, 80))},
        ("/depth", "80x60", "160x120", "aligned"),
    ),
    "depth of unknown encoding": ({"depth": image_of("mono8", np.uint8, 1)}, ("/depth", "mono8", "16UC1")),
    "a bug in the aligner": (
        {"detections": dets(detection((40, 30, 100, 90), score=BREAKS))},
        ("RuntimeError", "asked to break"),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_an_error_in_diagnostics_and_log_and_the_node_lives_on(probe, align_node, name):
    changes, words = ERRORS[name]
    probe.publish(**changes)
    probe.wait_for_diagnostics("error", *words)
    assert all(word in align_node.log_path.read_text() for word in words)


# Input, words of the warning, how many objects there are all the same.
WARNINGS = {
    "boxes outside and empty": (
        {
            "detections": dets(
                detection((900, 10, 950, 60)), detection((50, 50, 50, 90)), detection((9, 9, 60, 60))
            )
        },
        ("/detections", "0 (", "1 ("),
        1,
    ),
    "unknown category": (
        {"detections": dets(detection((9, 9, 60, 60), "giraffe"), detection((9, 9, 60, 60)))},
        ("/detections", "giraffe", "class_map"),
        1,
    ),
    "zero depth": ({"depth": image_of("16UC1", np.uint16, 1)}, ("/depth", "no valid value"), 1),
    "NaN depth": ({"depth": image_of("32FC1", np.float32, 1, value=np.nan)}, ("/depth", "no valid value"), 1),
    "hundreds of detections": (
        {"detections": dets(*(detection((x % 90, 9, x % 90 + 50, 60)) for x in range(300)))},
        ("280 detections on /detections", "max_detections"),
        20,
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_odd_input_is_a_warning_and_the_rest_is_aligned(probe, align_node, name):
    changes, words, count = WARNINGS[name]
    assert len(probe.objects_of(probe.publish(**changes)).objects) == count
    probe.wait_for_diagnostics("warn", *words)
    assert all(word in align_node.log_path.read_text() for word in words)


def test_stamps_that_never_match_are_an_error_that_names_the_topic(probe, align_node):
    probe.wait_for_diagnostics(
        "error",
        "matching stamps",
        "/depth",
        "sync_slop_s",
        meanwhile=lambda: probe.publish(depth_stamp_s=100),
    )
    assert "matching stamps" in align_node.log_path.read_text()


def test_silence_is_a_warning_that_names_topic_and_qos(probe, align_node):
    probe.objects_of(probe.publish())
    probe.spin(2.0)
    status = probe.wait_for_diagnostics("warn", "no messages", "image on /image", "best_effort")
    assert "never" not in {pair.key: pair.value for pair in status.values}["image"]
    assert "no message of depth on /depth (best_effort" in align_node.log_path.read_text()


def test_stamps_that_jump_back_do_not_stop_the_node(probe):
    probe.objects_of(probe.publish(stamp_s=90000))
    for later in range(1, 41):  # fills the queues: nothing matches
        probe.publish(stamp_s=90000 + later, detections=None)
        probe.spin(0.01)
    probe.spin(0.3)
    probe._second = 1000
    for _ in range(3):
        probe.publish()
        probe.spin(0.1)
    probe.objects_of(probe.publish())


def test_diagnostics_hold_rates_and_latencies(probe):
    for _ in range(3):
        probe.objects_of(probe.publish())
    probe.spin(1.2)
    statuses = {s.name: s for s in probe.received["diagnostics"][-1].status}
    parts = ("node", "inputs", "inference", "cad library")
    assert set(statuses) == {f"align_node: {part}" for part in parts}
    values = {pair.key: pair.value for pair in statuses["align_node: inference"].values}
    assert float(values["rate_hz"]) > 0
    assert {"decode ms", "align ms", "track ms", "publish ms", "align/total ms"} <= set(values)
    assert values["images by"] in ("numpy", "cv_bridge")
    assert int(values["frames failed"]) >= 0 and int(values["frames dropped for newer ones"]) >= 0
