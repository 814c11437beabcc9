"""`ros2 launch` as we bring it: which file it takes, and the exit status that ./run demo relies on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_prefix

from sparc_ros import launch_verb

LAUNCH_FILE = """
import sys
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, Shutdown
from launch.substitutions import LaunchConfiguration


def generate_launch_description():
    code = ["import sys; sys.exit(", LaunchConfiguration("status"), ")"]
    return LaunchDescription([
        DeclareLaunchArgument("status", default_value="0", description="exit status of the short process"),
        ExecuteProcess(cmd=[sys.executable, "-c", "import time; time.sleep(60)"]),
        ExecuteProcess(cmd=[sys.executable, "-c", code], on_exit=[Shutdown()]),
    ])
"""


@pytest.fixture
def launch_file(tmp_path) -> Path:
    """One process that ends with a given status and one that lasts until it is told to end."""
    path = tmp_path / "two.launch.py"
    path.write_text(LAUNCH_FILE)
    return path


@pytest.mark.parametrize("status", [0, 3])
def test_status_is_that_of_the_process_not_of_those_told_to_end(launch_file, status):
    command = [sys.executable, "-m", "sparc_ros.launch_verb", str(launch_file), f"status:={status}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == (1 if status else 0), result.stderr


def test_a_misspelt_argument_of_the_demo_is_refused(launch_file):
    launch_verb.check_arguments(launch_file, ["status"])
    with pytest.raises(ValueError, match="two.launch.py has no argument stauts; it has status"):
        launch_verb.check_arguments(launch_file, ["stauts"])


def test_the_command_line_tool_offers_launch(launch_file):
    result = subprocess.run(
        ["ros2", "launch", "-s", str(launch_file)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "status" in result.stdout and "exit status of the short process" in result.stdout


def test_what_is_not_found_is_named(tmp_path):
    with pytest.raises(ValueError, match="launch file .*absent.launch.py does not exist"):
        launch_verb.find_launch_file([str(tmp_path / "absent.launch.py")])
    with pytest.raises(ValueError, match="package no_such_package was not found"):
        launch_verb.find_launch_file(["no_such_package", "a.launch.py"])
    with pytest.raises(ValueError, match="package sparc_ros has 0 files absent.launch.py"):
        launch_verb.find_launch_file(["sparc_ros", "absent.launch.py"])
    with pytest.raises(ValueError, match="a package and a file name"):
        launch_verb.find_launch_file(["a", "b", "c"])


def test_of_two_values_for_one_argument_the_later_counts():
    names, pairs = launch_verb.split_arguments(["pkg", "a:=1", "file", "a:=2", "b:=x:=y"])
    assert names == ["pkg", "file"]
    assert pairs == {"a": "2", "b": "x:=y"}


def test_the_installed_package_is_complete():
    """What colcon installed, apart from the source tree that Python finds first."""
    repo = Path(__file__).resolve().parents[2]
    prefix = Path(get_package_prefix("sparc_ros"))
    (site_packages,) = prefix.glob("lib/python3*/site-packages")
    marker = prefix.parents[1] / ".built"  # left by ./run; what was added since is built by its next call
    built_s = marker.stat().st_mtime if marker.exists() else float("inf")
    for package in ("sparc_ros", "sparc_core"):
        for path in (repo / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.stat().st_ctime < built_s:
                assert (site_packages / path.relative_to(repo)).is_file(), path
    for folder in ("launch", "config", "rviz"):
        for path in (repo / folder).iterdir():
            assert (prefix / "share/sparc_ros" / path.relative_to(repo)).exists(), path
    for name in ("align_node", "demo_camera", "demo_report"):
        assert os.access(prefix / "lib/sparc_ros" / name, os.X_OK)
