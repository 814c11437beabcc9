"""A recorded bag goes through the node, and every image's result is in the new bag."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosidl_runtime_py.utilities import get_message
from tf2_msgs.msg import TFMessage

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from node_probe import FRAME, Probe  # noqa: E402
from stand_in_aligner import StandInAligner  # noqa: E402

from sparc_ros.bag_types import typestore_for  # noqa: E402
from sparc_ros.replay import Replay, main, parse  # noqa: E402

TOPICS = {
    "image": "sensor_msgs/msg/Image",
    "info": "sensor_msgs/msg/CameraInfo",
    "depth": "sensor_msgs/msg/Image",
    "detections": "vision_msgs/msg/Detection2DArray",
}
NAMES = {"info": "camera_info"}
FIRST_S, PERIOD_S, FRAMES = 5000, 0.1, 6


def transform(stamp, x_m):
    message = TransformStamped(child_frame_id=FRAME)
    message.header.stamp, message.header.frame_id = stamp, "map"
    message.transform.translation.x = x_m
    # A level camera that looks along x.
    rotation = message.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = -0.5, 0.5, -0.5, 0.5
    return TFMessage(transforms=[message])


@pytest.fixture(params=["mcap", "sqlite3"])
def bag(request, tmp_path):
    """A bag of a camera that moves along x; the transform of an image is recorded after the image."""
    probe = Probe()
    plugin = StoragePlugin.MCAP if request.param == "mcap" else StoragePlugin.SQLITE3
    kinds = TOPICS | {"/tf": "tf2_msgs/msg/TFMessage"}
    store = typestore_for(kinds.values())
    with Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        connections = {
            name: writer.add_connection(
                name if name.startswith("/") else "/" + NAMES.get(name, name), kind, typestore=store
            )
            for name, kind in kinds.items()
        }

        def write(name, message, time_s):
            writer.write(connections[name], round(time_s * 1e9), serialize_message(message))

        for index in range(FRAMES):
            time_s = FIRST_S + index * PERIOD_S
            for name, message in probe.frame().items():
                message.header.stamp.sec = int(time_s)
                message.header.stamp.nanosec = round(time_s % 1 * 1e9)
                stamp = message.header.stamp
                write(name, message, time_s)
            write("/tf", transform(stamp, 0.5 * index), time_s + 0.03)
    probe.close()
    return tmp_path / "bag"


def replayed(bag, results, *words, **parameters):
    options = parse([str(bag), str(results), *words])
    values = {"mesh_folder": str(results.parent / "meshes"), "output_frame": "map"} | parameters
    context = rclpy.Context()
    rclpy.init(context=context)
    replay = Replay(
        options,
        lambda *_: StandInAligner(),
        context=context,
        parameters=[Parameter(name, value=value) for name, value in values.items()],
    )
    try:
        replay.run()
    finally:
        assert replay.close()
        rclpy.shutdown(context=context)


def read(path):
    """{topic: [(time in s, message)]} of a bag."""
    found = {}
    with Reader(path) as reader:
        for connection, time_ns, data in reader.messages():
            message = deserialize_message(bytes(data), get_message(connection.msgtype))
            found.setdefault(connection.topic, []).append((time_ns * 1e-9, message))
    return found


def test_at_full_speed_every_image_has_its_result_in_the_moving_camera(bag, tmp_path):
    # the probe's object moves with the camera, half a metre an image: no mean of its poses is wanted
    replayed(bag, tmp_path / "out", smoothing=False)
    found = read(tmp_path / "out")
    objects = [message for _, message in found["/sparc/objects"]]
    stamps_s = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for message in objects]
    np.testing.assert_allclose(stamps_s, FIRST_S + PERIOD_S * np.arange(FRAMES), atol=1e-6)
    assert {message.header.frame_id for message in objects} == {"map"}
    # The box of the probe's detection, 2.5 m before the camera, which moves along x.
    x_m = [message.objects[0].pose.position.x for message in objects]
    np.testing.assert_allclose(x_m, 2.5 + 0.5 * np.arange(FRAMES), atol=1e-6)
    assert len(found["/sparc/cad_library"]) == 1 and len(found["/sparc/markers"]) == FRAMES
    assert "/image" not in found
    times_s = np.array([time_s for time_s, _ in found["/sparc/objects"]])
    assert (times_s >= np.array(stamps_s) - 1e-6).all() and times_s[-1] <= stamps_s[-1] + 2 * PERIOD_S


def test_the_inputs_can_be_put_into_the_new_bag_which_plays_again(bag, tmp_path):
    replayed(bag, tmp_path / "out", "--with-inputs", "--storage", "sqlite3")
    assert len(read(tmp_path / "out")["/image"]) == FRAMES
    replayed(tmp_path / "out", tmp_path / "again")
    assert len(read(tmp_path / "again")["/sparc/objects"]) == FRAMES


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["missing", "out"], "bag missing"),
        (["{bag}", "{bag}"], "bag .*exist"),
        (["{bag}", "out", "--ros-args", "-r", "depth:=/other"], "has no depth on /other; its topics are"),
        (["{bag}", "out", "--ros-args", "-p", "device:=tpu"], "parameter device"),
    ],
)
def test_what_cannot_be_replayed_is_said(bag, tmp_path, monkeypatch, capfd, words, error):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sparc_ros.replay.load_aligner", lambda *_: StandInAligner())
    given = [word.format(bag=bag) for word in words]
    if "--ros-args" not in given:
        given.append("--ros-args")
    assert main(["replay", *given, "-p", f"mesh_folder:={tmp_path / 'meshes'}"]) == 2
    assert re.search(error, capfd.readouterr().err)
