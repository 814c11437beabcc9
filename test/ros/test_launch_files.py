"""Launch files, parameter file and RViz file agree with the nodes and with each other."""

import ast
import dataclasses
import importlib.util
from pathlib import Path

import pytest
import yaml

from sparc_ros.launch_verb import describe_arguments
from sparc_ros.parameters import NodeParameters

ROOT = Path(__file__).resolve().parents[2]


def module_of(name):
    spec = importlib.util.spec_from_file_location(name.replace(".", "_"), ROOT / "launch" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["align.launch.py", "demo.launch.py"])
def test_every_argument_is_described(name):
    description = module_of(name).generate_launch_description()
    for argument in description.get_launch_arguments():
        assert len(argument.description) > 10, argument.name
    assert "default" in describe_arguments(ROOT / "launch" / name)


def test_arguments_of_align_are_parameters_and_inputs_of_the_node():
    align = module_of("align.launch.py")
    names = {item.name for item in dataclasses.fields(NodeParameters)}
    assert set(align.PARAMETERS) <= names
    subscriptions = (ROOT / "sparc_ros" / "subscriptions.py").read_text() + (
        ROOT / "sparc_ros" / "node.py"
    ).read_text()
    strings = {node.value for node in ast.walk(ast.parse(subscriptions)) if isinstance(node, ast.Constant)}
    assert set(align.INPUTS) <= strings


def test_the_demo_camera_takes_the_place_of_the_default_camera():
    inputs = {name: default for name, (default, _) in module_of("align.launch.py").INPUTS.items()}
    for name, topic in module_of("demo.launch.py").CAMERA_TOPICS.items():
        assert inputs[name] == topic


def test_the_parameter_file_holds_only_known_parameters_with_allowed_values():
    values = yaml.safe_load((ROOT / "config" / "align.yaml").read_text())["/**"]["ros__parameters"]
    assert NodeParameters(**values)


def test_rviz_shows_the_topics_that_are_published():
    config = yaml.safe_load((ROOT / "rviz" / "sparc.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in config["Displays"] if "Topic" in display}
    assert {"/sparc/markers", "/sparc/overlay"} <= topics
    assert config["Global Options"]["Fixed Frame"] == NodeParameters().fixed_frame
    cloud = next(d for d in config["Displays"] if d["Class"].endswith("DepthCloud"))
    camera = module_of("demo.launch.py").CAMERA_TOPICS
    assert cloud["Color Image Topic"] == camera["image"] and cloud["Depth Map Topic"] == camera["depth"]
