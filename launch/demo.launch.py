"""The demo: a synthetic camera in a furnished room, and the align node, which sees RGB alone or RGB-D.

ros2 launch sparc_ros demo.launch.py                            runs on, with RViz where it is installed
ros2 launch sparc_ros demo.launch.py rgbd:=false                from RGB alone
ros2 launch sparc_ros demo.launch.py headless:=true frames:=10  prints a table, writes a picture and ends
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# The synthetic camera takes the place of a RealSense: the same topic names.
CAMERA_TOPICS = {
    "image": "/camera/camera/color/image_raw",
    "camera_info": "/camera/camera/color/camera_info",
    "depth": "/camera/camera/aligned_depth_to_color/image_raw",
    "detections": "/detections",
}
# What the align node is told when it has only the colour image.
RGB_ALONE = {
    "use_depth": "false",
    "detections_source": "detector",
    "depth_model": "shipped",
    "retrieval": "shipped",
}
ARGUMENTS = {
    "headless": (
        "false",
        "true: no RViz; report on some images, then end (status 0 when objects were found)",
    ),
    "frames": ("10", "images the headless report watches"),
    "timeout_s": ("180", "longest wait of the headless report (s)"),
    "overlay": ("sparc_demo.png", "picture that the headless report writes"),
    "report": ("", "JSON file that the headless report writes; empty: none"),
    "rviz": ("auto", "auto: RViz where it is installed; true or false"),
    "rate_hz": ("2.0", "images a second"),
    "seed": ("6", "chooses the furniture"),
    "rgbd": (
        "true",
        "true: the node is given a depth camera's images and a detector's boxes; false: RGB alone, it "
        "predicts boxes, depth and CAD models",
    ),
    "publish_model_ids": ("true", "whether the detections name their CAD model (rgbd)"),
    # Seeds that the shipped network has not seen in training.
    "cad_library": ("procedural:1000-1011", "CAD library of room and align node"),
    "weights": ("", "weights file of the align node; empty: the shipped network"),
    "floor_frame": ("", "of the align node; map: it knows how high the camera is above the floor"),
    "device": ("auto", "auto, cpu or cuda"),
}


def _typed(name: str, kind: type) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def _camera() -> Node:
    return Node(
        package="sparc_ros",
        executable="demo_camera",
        parameters=[
            {
                "rate_hz": _typed("rate_hz", float),
                "seed": _typed("seed", int),
                "publish_model_ids": _typed("publish_model_ids", bool),
                "cad_library": _typed("cad_library", str),
            }
        ],
        remappings=list(CAMERA_TOPICS.items()),
        output="screen",
    )


def _align(context) -> list:
    path = PathJoinSubstitution([FindPackageShare("sparc_ros"), "launch", "align.launch.py"])
    names = ("cad_library", "weights", "device", "floor_frame", "rviz")
    passed = {name: LaunchConfiguration(name) for name in names}
    if _is_headless(context):
        passed["rviz"] = "false"
    if LaunchConfiguration("rgbd").perform(context).lower() != "true":
        passed |= RGB_ALONE
    arguments = [*CAMERA_TOPICS.items(), *passed.items()]
    return [IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=arguments)]


def _is_headless(context) -> bool:
    return LaunchConfiguration("headless").perform(context).lower() == "true"


def _report(context) -> list:
    """The headless report, which ends the launch."""
    if not _is_headless(context):
        return []
    report = Node(
        package="sparc_ros",
        executable="demo_report",
        parameters=[
            {
                "frames": _typed("frames", int),
                "timeout_s": _typed("timeout_s", float),
                "overlay_path": _typed("overlay", str),
                "report_path": _typed("report", str),
            }
        ],
        output="screen",
        output_format="{line}",
    )
    done = Shutdown(reason="the demo is done")
    return [report, RegisterEventHandler(OnProcessExit(target_action=report, on_exit=done))]


def _end_on_failure(event, context) -> None:
    """A process that fails ends the launch; an exception is what makes `ros2 launch` end with an error."""
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"the demo failed: {event.process_name} ended with status {event.returncode}")


def generate_launch_description() -> LaunchDescription:
    """Camera, align node, and report or RViz."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    failures = RegisterEventHandler(OnProcessExit(on_exit=_end_on_failure))
    processes = [_camera(), OpaqueFunction(function=_align), OpaqueFunction(function=_report)]
    return LaunchDescription([*arguments, failures, *processes])
