"""Launch files, parameter file and RViz file agree with the nodes and with each other."""

import ast
import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from launch import LaunchContext

from sparc_ros.launch_verb import describe_arguments
from sparc_ros.parameters import NodeParameters

ROOT = Path(__file__).resolve().parents[2]


def module_of(name):
    spec = importlib.util.spec_from_file_location(name.replace(".", "_"), ROOT / "launch" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["align.launch.py", "demo.launch.py", "replay.launch.py"])
def test_every_argument_is_described(name):
    description = module_of(name).generate_launch_description()
    for argument in description.get_launch_arguments():
        assert len(argument.description) > 10, argument.name
    assert "default" in describe_arguments(ROOT / "launch" / name)


def test_arguments_of_align_are_parameters_and_inputs_of_the_node():
    align = module_of("align.launch.py")
    names = {item.name for item in dataclasses.fields(NodeParameters)}
    assert set(align.PARAMETERS) <= names
    subscribing = ("subscriptions.py", "inference.py")
    text = "".join((ROOT / "sparc_ros" / name).read_text() for name in subscribing)
    strings = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    assert set(align.INPUTS) <= strings


def nodes_of_align(**arguments):
    """(namespace, {input: topic}) of every node that align.launch.py starts."""
    align, context = module_of("align.launch.py"), LaunchContext()
    for argument in align.generate_launch_description().get_launch_arguments():
        default = "".join(part.perform(context) for part in argument.default_value)
        context.launch_configurations[argument.name] = arguments.pop(argument.name, default)
    assert not arguments
    found = []
    for node in align._align_nodes(context):
        node._perform_substitutions(context)
        found.append((node.expanded_node_namespace, dict(node.expanded_remapping_rules)))
    return found


def test_one_camera():
    ((namespace, topics),) = nodes_of_align(image="/cam/rgb")
    assert namespace in ("", "/", "<node_namespace_unspecified>")
    assert topics == {
        "image": "/cam/rgb",
        "camera_info": "/camera/camera/color/camera_info",
        "depth": "/camera/camera/aligned_depth_to_color/image_raw",
        "detections": "/detections",
    }


def test_several_cameras_have_nodes_and_topics_of_their_own():
    nodes = nodes_of_align(camera="/front/camera, /rear/camera", namespace="robot", camera_model="oak_d")
    assert [namespace for namespace, _ in nodes] == ["/robot/front/camera", "/robot/rear/camera"]
    assert nodes[1][1]["depth"] == "/rear/camera/stereo/image_raw"
    assert nodes[0][1]["detections"] == "/front/camera/detections"


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "cameras").glob("*.yaml")), ids=lambda p: p.stem)
def test_camera_files_hold_known_inputs_and_allowed_parameters(path):
    align, camera = module_of("align.launch.py"), yaml.safe_load(path.read_text())
    assert set(camera) == {"namespace", "topics", "parameters"}
    values = NodeParameters(**camera["parameters"])
    needed = {"image", "camera_info"} | ({"depth"} if values.use_depth else set())
    needed |= {"imu"} if values.up_source == "imu" else set()
    assert needed <= set(camera["topics"]) <= set(align.INPUTS)
    assert "ros2 " in path.read_text(), "the command that starts the driver"


def test_arguments_get_the_types_of_the_parameters():
    given = {"use_depth": "false", "max_rate_hz": "5", "device": "cpu", "weights": "", "fixed_frame": "map"}
    assert module_of("align.launch.py").given_parameters(given) == {
        "use_depth": False,
        "max_rate_hz": 5.0,
        "device": "cpu",
        "fixed_frame": "map",
    }


def test_an_unknown_camera_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="camera_model: expected one of .*oak_d.* got 'polaroid'"):
        module_of("align.launch.py").camera_file("polaroid")


def test_the_demo_camera_takes_the_place_of_the_default_camera():
    ((_, topics),) = nodes_of_align()
    for name, topic in module_of("demo.launch.py").CAMERA_TOPICS.items():
        assert topics[name] == topic


def test_the_parameter_file_holds_only_known_parameters_with_allowed_values():
    values = yaml.safe_load((ROOT / "config" / "align.yaml").read_text())["/**"]["ros__parameters"]
    assert NodeParameters(**values)


def test_rviz_shows_the_topics_that_are_published():
    config = yaml.safe_load((ROOT / "rviz" / "sparc.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in config["Displays"] if "Topic" in display}
    assert {"/sparc/markers", "/sparc/overlay"} <= topics
    assert config["Global Options"]["Fixed Frame"] == NodeParameters().fixed_frame
    classes = {display["Class"].split("/")[1] for display in config["Displays"]}
    assert {"MarkerArray", "TF", "Image", "Camera"} <= classes
    cloud = next(d for d in config["Displays"] if d["Class"].endswith("DepthCloud"))
    camera = module_of("demo.launch.py").CAMERA_TOPICS
    assert cloud["Color Image Topic"] == camera["image"] and cloud["Depth Map Topic"] == camera["depth"]


def test_foxglove_shows_panels_that_exist_and_topics_that_are_published():
    config = json.loads((ROOT / "config" / "foxglove.json").read_text())

    def panels(part):
        return {part} if isinstance(part, str) else panels(part["first"]) | panels(part["second"])

    assert panels(config["layout"]) == set(config["configById"])
    text = json.dumps(config["configById"])
    for topic in ("/sparc/markers", "/sparc/overlay", "/sparc/objects", "/diagnostics"):
        assert topic in text
    for name in ("image", "camera_info", "depth"):
        assert module_of("demo.launch.py").CAMERA_TOPICS[name] in text
