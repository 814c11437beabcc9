"""Starts the align node. Inputs default to the names of a RealSense camera.

ros2 launch sparc_ros align.launch.py image:=/cam/color camera_info:=/cam/info use_depth:=false
"""

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

# Topic: (default, description).
INPUTS = {
    "image": (
        "/camera/camera/color/image_raw",
        "colour image (sensor_msgs/Image; always the raw topic's name)",
    ),
    "camera_info": ("/camera/camera/color/camera_info", "its intrinsics (sensor_msgs/CameraInfo)"),
    "depth": ("/camera/camera/aligned_depth_to_color/image_raw", "depth aligned to it (sensor_msgs/Image)"),
    "detections": ("/detections", "detected objects (vision_msgs/Detection2DArray)"),
    "imu": ("/camera/camera/imu", "IMU that gravity is read from with up_source:=imu (sensor_msgs/Imu)"),
}
# Parameters that can be given by name as well; all others are set in the parameter file.
PARAMETERS = {
    "weights": "weights file of the network",
    "cad_library": "folder of CAD models, or procedural",
    "device": "auto, cpu or cuda",
    "scale_mode": "free, uniform or fixed",
    "use_depth": "true or false",
    "detections_source": "topic, file, or detector: the node finds the objects itself",
    "detector": "predictor for it: shipped, a file of weights, coco:FILE or hf:NAME",
    "depth_model": "depth from the image without use_depth: shipped, a file of weights, hf:NAME or none",
    "retrieval": "how CAD models are chosen where detections name none: size, shipped or a file of weights",
    "image_transport": "raw or compressed",
    "up_source": "where gravity comes from: tf, imu or none",
    "fixed_frame": "TF frame that does not move and whose z axis is up",
}


def _align_node(context) -> list[Node]:
    """The node, with the parameter file and, over it, the parameters that were given by name."""
    text = {name: LaunchConfiguration(name).perform(context) for name in PARAMETERS}
    given = {
        name: yaml.safe_load(value) if name == "use_depth" else value for name, value in text.items() if value
    }
    return [
        Node(
            package="sparc_ros",
            executable="align_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), given],
            remappings=[(name, LaunchConfiguration(name)) for name in INPUTS],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """The align node with its inputs remapped."""
    config = PathJoinSubstitution([FindPackageShare("sparc_ros"), "config", "align.yaml"])
    arguments = [
        DeclareLaunchArgument("params_file", default_value=config, description="parameter file (YAML)"),
        DeclareLaunchArgument(
            "namespace", default_value="", description="namespace of the node and its outputs"
        ),
    ]
    for name, (default, description) in INPUTS.items():
        arguments.append(DeclareLaunchArgument(name, default_value=default, description=description))
    for name, description in PARAMETERS.items():
        text = f"{description}; empty: as in params_file"
        arguments.append(DeclareLaunchArgument(name, default_value="", description=text))
    return LaunchDescription([*arguments, OpaqueFunction(function=_align_node)])
