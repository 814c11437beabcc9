"""The align node's parameters and other ways to feed it; starting, ending, and files it cannot use."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage, Image, Imu
from tf2_ros import StaticTransformBroadcaster
from vision_msgs.msg import Detection2DArray

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from node_probe import DEADLINE_S, FRAME, HEIGHT, START_DEADLINE_S, WIDTH, Probe, compressed, detection  # noqa: E402
from stand_in_aligner import HANGS, StandInAligner  # noqa: E402

from sparc_ros.loading import load_aligner, load_perception  # noqa: E402
from sparc_ros.node import AlignNode  # noqa: E402
from sparc_ros.parameters import NodeParameters  # noqa: E402

QUIET = {"up_source": "none", "fixed_frame": ""}


@pytest.fixture
def start(tmp_path):
    """start(parameters, **probe options) -> (probe, node, aligner): a node in this process."""
    started = []

    def make(parameters, **options):
        probe = Probe(**options)
        aligner = StandInAligner()
        values = {"mesh_folder": str(tmp_path / "meshes")} | QUIET | parameters
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = AlignNode(lambda *_: aligner, context=probe.context, parameter_overrides=overrides)
        probe.add(node)
        started.append((probe, node))
        return probe, node, aligner

    yield make
    for probe, node in started:
        assert node.close()
        node.destroy_node()
        probe.close()


def test_every_parameter_is_described_on_the_node(start):
    _, node, _ = start({})
    for item in dataclasses.fields(NodeParameters):
        (descriptor,) = node.describe_parameters([item.name])
        assert descriptor.description == item.metadata["description"]
        assert descriptor.read_only == item.metadata["at_start"]
        if descriptor.type == ParameterType.PARAMETER_DOUBLE:
            assert descriptor.floating_point_range[0].to_value == item.metadata["maximum"]
        if descriptor.type == ParameterType.PARAMETER_INTEGER:
            assert descriptor.integer_range[0].from_value == item.metadata["minimum"]
        if item.metadata["choices"]:
            assert item.metadata["choices"][0] in descriptor.additional_constraints


def test_parameters_change_at_run_time_and_wrong_ones_are_refused_by_name(start):
    probe, node, _ = start({})
    probe.wait_for_node()
    assert len(probe.objects_of(probe.publish()).objects) == 1
    (result,) = node.set_parameters([Parameter("min_score", value=0.95)])
    assert result.successful
    assert len(probe.objects_of(probe.publish()).objects) == 0
    for name, value in (("min_score", 7.0), ("categories", ["giraffe"]), ("weights", "other")):
        (result,) = node.set_parameters([Parameter(name, value=value)])
        assert not result.successful
        assert name in result.reason or "read-only" in result.reason
    assert node.get_parameter("min_score").value == 0.95


def test_switched_off_outputs_are_silent_and_shown_markers_go(start):
    probe, node, _ = start({})
    probe.wait_for_node()
    probe.objects_of(probe.publish())
    probe.spin_until(lambda: probe.received["markers"] and probe.received["tf"], "markers and TF")
    switches = ("publish_markers", "publish_tf", "publish_detections")
    node.set_parameters([Parameter(name, value=False) for name in switches])
    probe.spin(0.3)
    for output in ("markers", "tf", "detections_3d"):
        probe.received[output].clear()
    for _ in range(2):
        probe.objects_of(probe.publish())
    probe.spin(0.3)
    assert not probe.received["tf"] and not probe.received["detections_3d"]
    (clearing,) = probe.received["markers"]
    assert {marker.action for marker in clearing.markers} == {clearing.markers[0].DELETE}


def test_compressed_images(start):
    probe, _, _ = start(
        {"image_transport": "compressed"}, image_kind=CompressedImage, image_topic="image/compressed"
    )
    probe.wait_for_node()
    picture = compressed(np.zeros((HEIGHT, WIDTH, 3), np.uint8), cv2.imencode)
    assert len(probe.objects_of(probe.publish(image=picture)).objects) == 1
    broken = CompressedImage(format="jpeg", data=b"nothing")
    probe.publish(image=broken)
    probe.wait_for_diagnostics("error", "/image/compressed", "jpeg")


def test_exact_stamps_without_depth_and_detections_from_a_file(start, tmp_path):
    path = tmp_path / "dets.json"
    path.write_text(json.dumps([{"box_xyxy": [40, 30, 100, 90], "category": "sofa"}]))
    probe, _, _ = start(
        {"sync": "exact", "use_depth": False, "detections_source": "file", "detections_file": str(path)}
    )
    probe.wait_for_node(inputs=("image", "info"))
    stamp = probe.publish(depth=None, detections=None)
    assert [o.category for o in probe.objects_of(stamp).objects] == ["sofa"]


def test_gravity_and_camera_pose_from_tf(start):
    probe, _, aligner = start({"up_source": "tf", "fixed_frame": "map"})
    probe.wait_for_node()
    probe.objects_of(probe.publish())
    assert aligner.cameras[-1].up_cam is None
    probe.wait_for_diagnostics("warn", "gravity is not known", "'map'", "up_source tf")
    # A level camera that looks along x of the map: z of the map is -y of the optical frame.
    broadcaster = StaticTransformBroadcaster(probe.node)
    transform = TransformStamped(child_frame_id=FRAME)
    transform.header.frame_id = "map"
    x, y, z, w = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]).as_quat()
    rotation = transform.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = x, y, z, w
    broadcaster.sendTransform(transform)
    probe.spin(0.5)
    probe.objects_of(probe.publish())
    np.testing.assert_allclose(aligner.cameras[-1].up_cam, (0, -1, 0), atol=1e-9)


@pytest.mark.parametrize("height_m", [1.3, -0.4])
def test_the_cameras_height_from_the_floors_frame(start, height_m):
    probe, _, aligner = start({"up_source": "none", "fixed_frame": "", "floor_frame": "base_footprint"})
    probe.wait_for_node()
    probe.objects_of(probe.publish())
    assert aligner.cameras[-1].above_floor_m is None
    probe.wait_for_diagnostics(
        "warn", "height above the floor is not known", "'base_footprint'", "floor_frame"
    )
    transform = TransformStamped(child_frame_id=FRAME)  # a level camera that looks along x
    transform.header.frame_id = "base_footprint"
    transform.transform.translation.x, transform.transform.translation.z = 0.2, height_m
    x, y, z, w = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]).as_quat()
    rotation = transform.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = x, y, z, w
    broadcaster = StaticTransformBroadcaster(probe.node)
    broadcaster.sendTransform(transform)
    probe.spin(0.5)
    probe.objects_of(probe.publish())
    if height_m < 0:
        assert aligner.cameras[-1].above_floor_m is None
        probe.wait_for_diagnostics("warn", "the camera is 0.40 m below 'base_footprint'")
    else:
        assert aligner.cameras[-1].above_floor_m == pytest.approx(height_m)
        np.testing.assert_allclose(aligner.cameras[-1].up_cam, (0, -1, 0), atol=1e-9)  # nothing else tells it


def test_gravity_from_an_imu(start):
    probe, _, aligner = start({"up_source": "imu", "fixed_frame": ""})
    probe.wait_for_node()
    reading = Imu()
    reading.header.frame_id = FRAME
    reading.orientation_covariance[0] = -1.0  # REP 145: it has no orientation
    for acceleration in ((0.0, -9.81 * 0.8, -9.81 * 0.6), (50.0, 0.0, 0.0)):  # at rest, then a knock
        a = reading.linear_acceleration
        a.x, a.y, a.z = acceleration
        probe.spin_until(probe.imu.get_subscription_count, "the IMU's subscriber")
        probe.imu.publish(reading)
    probe.spin(0.3)
    probe.objects_of(probe.publish())
    np.testing.assert_allclose(aligner.cameras[-1].up_cam, (0, -0.8, -0.6), atol=1e-9)


def test_an_incompatible_publisher_is_told_with_topic_and_policy(start, capfd):
    probe, _, _ = start({"qos_overrides./image.subscription.reliability": "reliable"})
    probe.node.create_publisher(Image, "image", qos_profile_sensor_data)  # best effort
    probe.spin(1.0)
    log = capfd.readouterr().err
    assert "/image" in log and "RELIABILITY" in log


def run_align_node(*parameters, **options):
    command = [sys.executable, str(HERE / "stand_in_aligner.py"), "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("device:=tpu", "parameter device: must be one of ['auto', 'cpu', 'cuda'], got 'tpu'"),
        ("max_candidates:=many", "parameter max_candidates: must be of type int"),
    ],
)
def test_a_wrong_parameter_ends_the_node_with_a_message_that_names_it(parameter, words):
    process = run_align_node(parameter)
    output, _ = process.communicate(timeout=START_DEADLINE_S)
    assert process.returncode == 2 and words in output and "Traceback" not in output


@pytest.mark.parametrize("busy", [False, True])
def test_ctrl_c_ends_the_node_quickly_with_status_0(busy, tmp_path):
    process = run_align_node(
        "up_source:=none", "fixed_frame:=''", "weigths:=typo", f"mesh_folder:={tmp_path}/meshes"
    )
    probe = Probe()
    try:
        probe.wait_for_node()
        if busy:
            hanging = Detection2DArray(detections=[detection((40, 30, 100, 90), score=HANGS)])
            probe.publish(detections=hanging)
            probe.spin(0.5)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, output
        assert "Traceback" not in output
        assert time.monotonic() - start <= 2.0
        assert "parameter weigths is unknown" in output and "did you mean weights?" in output
    finally:
        process.kill()
        probe.close()


@pytest.mark.parametrize("stand_on_floor", [True, False])
def test_whether_furniture_stands_on_the_floor_is_a_parameter(stand_on_floor):
    parameters = NodeParameters(cad_library="procedural:0-0", stand_on_floor=stand_on_floor)
    assert load_aligner(parameters).config.stand_on_floor is stand_on_floor


def test_files_that_cannot_be_used_are_named_with_their_parameter(tmp_path):
    with pytest.raises(ValueError, match="parameter weights .*missing.safetensors"):
        load_aligner(
            NodeParameters(weights=str(tmp_path / "missing.safetensors"), cad_library="procedural:0-0")
        )
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="parameter weights .*broken.safetensors"):
        load_aligner(NodeParameters(weights=str(broken), cad_library="procedural:0-0"))
    with pytest.raises(ValueError, match="parameter cad_library: .*nowhere"):
        load_aligner(NodeParameters(cad_library=str(tmp_path / "nowhere")))


def test_a_broken_mesh_in_the_cad_folder_is_skipped_and_named_in_diagnostics(tmp_path, capfd):
    from sparc_core.cad.library import CadLibrary

    folder = tmp_path / "cad" / "chair"
    folder.mkdir(parents=True)
    trimesh.creation.box((0.5, 0.9, 0.5)).export(folder / "good.obj")
    (folder / "broken.obj").write_text("f 1 2 3\nthis is no mesh\n")
    aligner = StandInAligner()
    aligner.cad_library = CadLibrary.open(tmp_path / "cad")
    probe = Probe()
    values = {"mesh_folder": str(tmp_path / "meshes")} | QUIET
    node = AlignNode(
        lambda *_: aligner,
        context=probe.context,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    probe.add(node)
    try:
        probe.wait_for_node()
        assert len(probe.objects_of(probe.publish()).objects) == 1
        probe.wait_for_diagnostics("warn", "1 meshes could not be read", "broken.obj")
        assert "broken.obj" in capfd.readouterr().err
    finally:
        assert node.close()
        node.destroy_node()
        probe.close()


def test_the_box_model_is_the_one_that_is_named(tmp_path):
    alone = NodeParameters(**QUIET, detections_source="detector", use_depth=False, depth_model="shipped")
    assert load_perception(alone, "cpu").judged_min_score == alone.detector_min_score
    without = load_perception(dataclasses.replace(alone, box_model="none"), "cpu")
    assert without.estimates is None and without.judged_min_score is None
    gone = dataclasses.replace(alone, box_model=str(tmp_path / "gone.safetensors"))
    with pytest.raises(ValueError, match="box_model.*gone.safetensors: no such file"):
        load_perception(gone, "cpu")
