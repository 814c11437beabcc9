"""The align node as a managed node: transitions, recovery, services, trigger mode, output frame."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from tf2_ros import StaticTransformBroadcaster
from vision_msgs.msg import Detection2DArray
from visualization_msgs.msg import Marker

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from node_probe import DEADLINE_S, FRAME, Probe, detection, latched_library  # noqa: E402
from stand_in_aligner import StandInAligner  # noqa: E402

from sparc_core.cad.library import CadLibrary  # noqa: E402
from sparc_ros.node import AlignNode  # noqa: E402
from sparc_ros.srv import AlignOnce  # noqa: E402
from sparc_ros.transform_adapter import matrix_from_pose  # noqa: E402

# A level camera that looks along x of the map, from (1, 2, 3).
R_MAP_CAM = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
PLACE_M = np.array([1.0, 2.0, 3.0])


class Loader:
    """Loads a stand-in aligner as `load_aligner` loads the real one; `problem` is raised instead."""

    def __init__(self, spec="procedural:0-0"):
        self.calls, self.problem, self.spec, self.broken = [], None, spec, None

    def __call__(self, parameters, library=None):
        self.calls.append(parameters)
        if self.problem is not None:
            raise self.problem
        aligner = StandInAligner(self.spec)
        if library is not None:
            aligner.cad_library = library
        aligner.device = parameters.device
        if self.broken is not None and parameters.device != "cpu":
            aligner.align = self._break
        return aligner

    def _break(self, *arguments, **keywords):
        raise self.broken


@pytest.fixture
def start(tmp_path):
    """start(**parameters) -> (probe, node, loader): a node in this process."""
    started = []

    def make(**parameters):
        probe, loader = Probe(), Loader()
        values = {
            "mesh_folder": str(tmp_path / "meshes"),
            "up_source": "none",
            "fixed_frame": "",
        } | parameters
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = AlignNode(loader, context=probe.context, parameter_overrides=overrides)
        probe.add(node)
        started.append((probe, node))
        return probe, node, loader

    yield make
    for probe, node in started:
        assert node.close()
        node.destroy_node()
        probe.close()


def call(probe, kind, name, request=None, timeout_s=DEADLINE_S, meanwhile=lambda: None):
    """The response of a service; meanwhile() is called all the time."""
    client = probe.node.create_client(kind, name)
    probe.spin_until(client.service_is_ready, f"service {name}")
    future = client.call_async(request or kind.Request())

    def done():
        meanwhile()
        return future.done()

    probe.spin_until(done, f"answer of {name}", timeout_s)
    probe.node.destroy_client(client)
    return future.result()


def paced(function, period_s=0.5):
    """A function that calls another one, but not more often than once in a while."""
    last_s = [time.monotonic()]

    def call_now_and_then():
        if time.monotonic() > last_s[0] + period_s:
            last_s[0] = time.monotonic()
            function()

    return call_now_and_then


def change(probe, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return call(probe, ChangeState, "align_node/change_state", request).success


def state_of(probe):
    return call(probe, GetState, "align_node/get_state").current_state.id


def test_it_starts_by_itself_unless_told_otherwise(start):
    probe, _, _ = start()
    assert state_of(probe) == State.PRIMARY_STATE_ACTIVE


def test_every_state_and_back(start):
    probe, node, loader = start(autostart=False)
    assert state_of(probe) == State.PRIMARY_STATE_UNCONFIGURED and not loader.calls
    assert change(probe, Transition.TRANSITION_CONFIGURE)
    assert len(loader.calls) == 1 and len(latched_library(probe).models) == 9
    assert not node.count_subscribers("image")
    for _ in range(2):
        assert change(probe, Transition.TRANSITION_ACTIVATE)
        probe.wait_for_node()
        assert len(probe.objects_of(probe.publish()).objects) == 1
        assert change(probe, Transition.TRANSITION_DEACTIVATE)
        assert node.worker is None and not node.count_subscribers("image")
    assert len(loader.calls) == 1
    assert change(probe, Transition.TRANSITION_CLEANUP)
    assert node.inference is None and state_of(probe) == State.PRIMARY_STATE_UNCONFIGURED
    assert change(probe, Transition.TRANSITION_CONFIGURE) and len(loader.calls) == 2
    assert change(probe, Transition.TRANSITION_INACTIVE_SHUTDOWN)
    assert state_of(probe) == State.PRIMARY_STATE_FINALIZED


@pytest.mark.parametrize(
    ("problem", "words"),
    [(ValueError("parameter weights: no such file"), "no such file"), (KeyError("a bug"), "KeyError")],
)
def test_a_failed_configuration_can_be_repaired_and_repeated(start, problem, words, capfd):
    probe, node, loader = start(autostart=False)
    loader.problem = problem
    assert not change(probe, Transition.TRANSITION_CONFIGURE)
    assert state_of(probe) == State.PRIMARY_STATE_UNCONFIGURED
    probe.wait_for_diagnostics("error", "unconfigured", words)
    assert words in capfd.readouterr().err
    loader.problem = None
    (result,) = node.set_parameters([Parameter("weights", value="other.safetensors")])
    assert result.successful
    assert change(probe, Transition.TRANSITION_CONFIGURE) and change(probe, Transition.TRANSITION_ACTIVATE)
    assert loader.calls[-1].weights == "other.safetensors"
    probe.wait_for_node()
    assert len(probe.objects_of(probe.publish()).objects) == 1
    (result,) = node.set_parameters([Parameter("weights", value="third.safetensors")])
    assert not result.successful and "weights" in result.reason


def test_reset_tracks_ends_them_and_deletes_their_markers(start):
    probe, _, _ = start()
    probe.wait_for_node()
    (first,) = probe.objects_of(probe.publish()).objects
    probe.spin_until(lambda: probe.received["markers"], "markers")
    probe.received["markers"].clear()
    answer = call(probe, Trigger, "sparc/reset_tracks")
    assert answer.success and answer.message == "1 tracks ended"
    array = probe.spin_until(lambda: probe.received["markers"], "deleted markers")[0]
    assert {marker.action for marker in array.markers} == {Marker.DELETE}
    (second,) = probe.objects_of(probe.publish()).objects
    assert second.track_id != first.track_id


def test_the_map_is_saved_where_the_parameter_says_in_the_fixed_frame(start, tmp_path):
    probe, node, _ = start(map_mode=True, fixed_frame="map")
    probe.wait_for_node()
    probe.publish()
    probe.wait_for_diagnostics("error", "where the camera is in fixed_frame")
    transform = TransformStamped(child_frame_id=FRAME)
    transform.header.frame_id = "map"
    transform.transform.translation.x, transform.transform.rotation.w = 5.0, 1.0
    broadcaster = StaticTransformBroadcaster(probe.node)
    broadcaster.sendTransform(transform)
    probe.spin(0.5)
    found = [probe.objects_of(probe.publish()) for _ in range(4)]
    answer = call(probe, Trigger, "sparc/save_map")
    assert not answer.success and "parameter map_file: must name a file" in answer.message
    (result,) = node.set_parameters([Parameter("map_file", value=str(tmp_path / "map.json"))])
    assert result.successful
    answer = call(probe, Trigger, "sparc/save_map")
    assert answer.success and answer.message == f"1 objects in {tmp_path / 'map.json'}"
    (entry,) = json.loads((tmp_path / "map.json").read_text())["objects"]
    (last,) = found[-1].objects
    assert entry["id"] == last.track_id
    position = last.pose.position
    np.testing.assert_allclose(entry["T_m"], (position.x + 5.0, position.y, position.z), atol=1e-6)


def test_trigger_mode_aligns_only_when_asked(start):
    probe, node, _ = start(trigger_mode=True)
    probe.wait_for_node()
    for _ in range(3):
        probe.publish()
        probe.spin(0.2)
    assert not probe.received["objects"]
    answer = call(probe, AlignOnce, "sparc/align_once", meanwhile=paced(probe.publish))
    assert answer.success and len(answer.objects.objects) == 1 and answer.message == "1 objects"
    probe.spin_until(lambda: probe.received["objects"], "the objects' topic")
    assert probe.received["objects"] == [answer.objects]
    node.set_parameters([Parameter("trigger_mode", value=False)])
    assert probe.objects_of(probe.publish())


def test_align_once_says_why_there_is_nothing(start):
    probe, _, _ = start(trigger_mode=True, stale_input_s=0.5)
    probe.wait_for_node()
    answer = call(probe, AlignOnce, "sparc/align_once")
    assert not answer.success and "no complete set of inputs came" in answer.message
    assert change(probe, Transition.TRANSITION_DEACTIVATE)
    for kind, name in ((AlignOnce, "sparc/align_once"), (Trigger, "sparc/reset_tracks")):
        answer = call(probe, kind, name)
        assert not answer.success and "not active" in answer.message


def test_the_rate_can_be_limited(start):
    probe, node, _ = start(max_rate_hz=0.001)
    probe.wait_for_node()
    probe.objects_of(probe.publish())
    for _ in range(3):
        probe.publish()
        probe.spin(0.1)
    assert len(probe.received["objects"]) == 1
    node.set_parameters([Parameter("max_rate_hz", value=0.0)])
    assert probe.objects_of(probe.publish())


def test_reload_takes_the_new_library_or_keeps_the_old_one(start, capfd):
    probe, _, loader = start()
    probe.wait_for_node()
    probe.objects_of(probe.publish())
    loader.problem = ValueError("parameter cad_library: /cad has no mesh")
    answer = call(probe, Trigger, "sparc/reload_cad_library")
    assert not answer.success and "/cad has no mesh" in answer.message and "kept" in answer.message
    assert len(probe.objects_of(probe.publish()).objects) == 1
    loader.problem, loader.spec = None, "procedural:3-4"
    answer = call(probe, Trigger, "sparc/reload_cad_library")
    assert answer.success and "18 CAD models" in answer.message, answer
    (obj,) = probe.objects_of(probe.publish()).objects
    assert obj.model_id in {model.model_id for model in CadLibrary.open("procedural:3-4").models}
    assert len(latched_library(probe).models) == 18


def test_a_failing_gpu_is_left_for_the_cpu_and_told(start):
    probe, node, loader = start()
    assert change(probe, Transition.TRANSITION_DEACTIVATE) and change(probe, Transition.TRANSITION_CLEANUP)
    loader.broken = torch.AcceleratorError("CUDA error: device-side assert triggered")
    node.set_parameters([Parameter("device", value="cuda")])
    assert change(probe, Transition.TRANSITION_CONFIGURE) and change(probe, Transition.TRANSITION_ACTIVATE)
    probe.wait_for_node()
    probe.publish()
    probe.wait_for_diagnostics("warn", "on the CPU", "device-side assert")
    assert len(probe.objects_of(probe.publish()).objects) == 1
    assert [parameters.device for parameters in loader.calls[-2:]] == ["cuda", "cpu"]


def test_objects_in_the_output_frame(start):
    probe, _, _ = start(output_frame="map")
    probe.wait_for_node()
    probe.publish()
    probe.wait_for_diagnostics("error", "'map'", "output_frame")
    assert not probe.received["objects"]
    transform = TransformStamped(child_frame_id=FRAME)
    transform.header.frame_id = "map"
    t, q = transform.transform.translation, transform.transform.rotation
    t.x, t.y, t.z = PLACE_M
    q.x, q.y, q.z, q.w = Rotation.from_matrix(R_MAP_CAM).as_quat()
    broadcaster = StaticTransformBroadcaster(probe.node)
    broadcaster.sendTransform(transform)
    probe.spin(0.5)
    stamp = probe.publish(detections=Detection2DArray(detections=[detection((40, 30, 100, 90))]))
    message = probe.objects_of(stamp)
    assert message.header.frame_id == "map"
    (obj,) = message.objects
    # in the camera: box centre (70, 60), depth 2.5 m, focal length 150, centre (79.5, 59.5)
    expected = R_MAP_CAM @ (-9.5 / 150 * 2.5, 0.5 / 150 * 2.5, 2.5) + PLACE_M
    T_map_obj = matrix_from_pose(obj.pose)
    np.testing.assert_allclose(T_map_obj[:3, 3], expected, atol=1e-6)
    R_cam_obj = Rotation.from_euler("xyz", (2.9, 0.4, 0.1)).as_matrix()
    np.testing.assert_allclose(T_map_obj[:3, :3], R_MAP_CAM @ R_cam_obj, atol=1e-6)
    boxes = probe.spin_until(lambda: probe.with_stamp("detections_3d", stamp), "3D detections")
    assert boxes.header.frame_id == "map" and boxes.detections[0].bbox.center == obj.pose
    probe.spin_until(lambda: probe.received["tf"], "the object's TF")
    (sent,) = probe.received["tf"][-1].transforms
    assert sent.header.frame_id == "map" and sent.transform.translation.x == obj.pose.position.x


def test_silence_names_the_publisher_whose_qos_or_type_does_not_match(start):
    parameters = {"stale_input_s": 0.5, "qos_overrides./image.subscription.reliability": "reliable"}
    probe, _, _ = start(**parameters)
    probe.wait_for_diagnostics("warn", "depth on /depth", "send nothing")
    probe.node.destroy_publisher(probe.publishers["image"])
    probe.wait_for_diagnostics("warn", "image on /image (reliable", "nobody publishes it")
    offered = probe.node.create_publisher(Image, "image", qos_profile_sensor_data)
    probe.wait_for_diagnostics("warn", "image on /image", "/probe does not match", "reliab")
    probe.node.destroy_publisher(offered)
    probe.node.create_publisher(Detection2DArray, "image", 1)
    probe.wait_for_diagnostics("warn", "vision_msgs/msg/Detection2DArray", "not sensor_msgs/msg/Image")


def test_nonsense_parameters_are_refused_and_change_nothing(start):
    probe, node, _ = start()
    before = node.values
    for name, value in (
        ("min_score", float("nan")),
        ("min_score", "high"),
        ("max_rate_hz", -1.0),
        ("class_map", ["56=giraffe"]),
        ("categories", [1, 2]),
        ("trigger_mode", 3),
        ("autostart", False),
    ):
        (result,) = node.set_parameters([Parameter(name, value=value)])
        assert not result.successful, name
    assert dataclasses.asdict(node.values) == dataclasses.asdict(before)
    probe.wait_for_node()
    assert probe.objects_of(probe.publish())
