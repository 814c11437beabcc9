"""Plays a recorded bag through the align node and writes the results into a new bag. Needs no rosbag2.

ros2 launch sparc_ros replay.launch.py bag:=office results:=office_aligned
ros2 launch sparc_ros replay.launch.py bag:=office.mcap results:=out camera_model:=oak_d rate:=1.0
"""

import importlib.util
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ARGUMENTS = {
    "bag": (None, "what is played: a rosbag2 folder, an .mcap or a .db3 file"),
    "results": (None, "folder of the new bag; must not exist"),
    "rate": ("0.0", "0: as fast as the node is, every image aligned; 1: as recorded; 2: twice as fast"),
    "storage": ("mcap", "of the new bag: mcap or sqlite3"),
    "with_inputs": ("false", "true: the played messages are put into the new bag as well"),
}
# Arguments of align.launch.py that make no sense here.
NOT_HERE = ("use_sim_time", "rviz", "autostart", "trigger_mode", "namespace")


def _align_launch():
    path = Path(get_package_share_directory("sparc_ros")) / "launch" / "align.launch.py"
    spec = importlib.util.spec_from_file_location("align_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _replay(context) -> list:
    align = _align_launch()

    def value_of(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    model = align.camera_file(value_of("camera_model"))
    camera = value_of("camera") or model["namespace"]
    given = {name: value_of(name) for name in align.INPUTS}
    topics = align.input_topics(camera, model["topics"], given, value_of("detections") or "/detections")
    text = {name: value_of(name) for name in align.PARAMETERS if name not in NOT_HERE}
    words = [value_of("bag"), value_of("results"), "--rate", value_of("rate")]
    words += ["--storage", value_of("storage")]
    if value_of("with_inputs").lower() == "true":
        words.append("--with-inputs")
    default_file = Path(get_package_share_directory("sparc_ros")) / "config" / "align.yaml"
    replay = Node(
        package="sparc_ros",
        executable="replay",
        arguments=words,
        parameters=[
            value_of("params_file") or str(default_file),
            model["parameters"] | align.given_parameters(text),
        ],
        remappings=list(topics.items()),
        output="screen",
    )
    done = Shutdown(reason="the bag was played")
    return [replay, RegisterEventHandler(OnProcessExit(target_action=replay, on_exit=done))]


def generate_launch_description() -> LaunchDescription:
    """One process with player, align node and recorder."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments += [
        argument
        for argument in _align_launch().generate_launch_description().get_launch_arguments()
        if argument.name not in NOT_HERE
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_replay)])
