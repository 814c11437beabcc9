"""Starts the align node for one camera, or one for each of several.

ros2 launch sparc_ros align.launch.py                                              a RealSense
ros2 launch sparc_ros align.launch.py camera_model:=oak_d rviz:=true               another camera, with RViz
ros2 launch sparc_ros align.launch.py camera:=/front/camera,/rear/camera           two cameras
ros2 launch sparc_ros align.launch.py image:=/cam/color camera_info:=/cam/info use_depth:=false
"""

import dataclasses
from pathlib import Path

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from sparc_ros.parameters import NodeParameters

INPUTS = {
    "image": "colour image (sensor_msgs/Image; always the raw topic's name)",
    "camera_info": "its intrinsics (sensor_msgs/CameraInfo)",
    "depth": "depth aligned to it (sensor_msgs/Image)",
    "imu": "IMU that gravity is read from with up_source:=imu (sensor_msgs/Imu)",
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
    "masks": "sam:FILE: masks by segment-anything",
    "depth_model": "depth from the image without use_depth: shipped, a file of weights, hf:NAME or none",
    "box_model": "corrects our detector's boxes, tells where objects are: shipped, a file of weights or none",
    "retrieval": "how CAD models are chosen where detections name none: size, shipped or a file of weights",
    "video_mode": "false: every image is searched anew",
    "image_transport": "raw or compressed",
    "up_source": "where gravity comes from: tf, imu or none",
    "fixed_frame": "TF frame that does not move and whose z axis is up",
    "floor_frame": "TF frame on the floor with z up, for the camera's height above it; empty: not known",
    "output_frame": "TF frame of the published objects; without one they are in the image's",
    "trigger_mode": "true: align only when the service sparc/align_once asks for it",
    "max_rate_hz": "most images aligned a second",
    "autostart": "false: a lifecycle manager configures and activates the node",
}
ARGUMENTS = {
    "camera_model": (
        "realsense_d435",
        "topics and parameters of a camera: realsense_d435, realsense_d455, azure_kinect, oak_d, webcam, or "
        "a file like those in config/cameras",
    ),
    "camera": (
        "",
        "namespace of the camera's topics; several, with commas between: a node for each, in this namespace; "
        "empty: as in camera_model",
    ),
    "detections": (
        "",
        "detected objects (vision_msgs/Detection2DArray); empty: /detections, with several cameras NAMESPACE"
        "/detections",
    ),
    "params_file": ("", "parameter file (YAML); empty: config/align.yaml"),
    "namespace": ("", "namespace of the node and its outputs"),
    "use_sim_time": ("false", "true: the time of the topic /clock"),
    "rviz": ("false", "true: RViz as well; auto: where it is installed"),
}


def camera_file(name: str) -> dict:
    """Contents of a camera's file, by its name in config/cameras or its path."""
    share = Path(get_package_share_directory("sparc_ros"))
    path = Path(name).expanduser() if name.endswith(".yaml") else share / f"config/cameras/{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in (share / "config/cameras").glob("*.yaml"))
        raise ValueError(f"camera_model: expected one of {known} or a .yaml file, got {name!r}")
    return yaml.safe_load(path.read_text())


def input_topics(namespace: str, topics: dict, given: dict, detections: str) -> dict:
    """Topic of each input; names without a leading slash are below the camera's namespace."""
    names = topics | {name: topic for name, topic in given.items() if topic} | {"detections": detections}
    prefix = "/" + namespace.strip("/")
    return {
        name: topic if topic.startswith("/") else f"{prefix.rstrip('/')}/{topic}"
        for name, topic in names.items()
    }


def given_parameters(text: dict) -> dict:
    """Parameters from the launch file's arguments, each in the type that the node declares."""
    kinds = {item.name: type(item.default) for item in dataclasses.fields(NodeParameters)}
    return {
        name: value if kinds[name] is str else kinds[name](yaml.safe_load(value))
        for name, value in text.items()
        if value
    }


def _align_nodes(context) -> list:
    def value_of(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    model = camera_file(value_of("camera_model"))
    cameras = [name.strip() for name in (value_of("camera") or model["namespace"]).split(",")]
    several = len(cameras) > 1
    default_file = Path(get_package_share_directory("sparc_ros")) / "config" / "align.yaml"
    parameters = model["parameters"] | given_parameters({name: value_of(name) for name in PARAMETERS})
    parameters["use_sim_time"] = value_of("use_sim_time").lower() == "true"
    nodes = []
    for camera in cameras:
        detections = value_of("detections") or ("detections" if several else "/detections")
        given = {name: value_of(name) for name in INPUTS}
        topics = input_topics(camera, model["topics"], given, detections)
        # Two nodes must not broadcast the same TF frames.
        own = {"tf_prefix": f"sparc/{camera.strip('/')}"} if several else {}
        nodes.append(
            Node(
                package="sparc_ros",
                executable="align_node",
                namespace=value_of("namespace") + ("/" + camera.strip("/") if several else ""),
                parameters=[value_of("params_file") or str(default_file), parameters | own],
                remappings=list(topics.items()),
                output="screen",
            )
        )
    return nodes


def _rviz(context) -> list:
    wanted = LaunchConfiguration("rviz").perform(context).lower()
    if wanted == "false":
        return []
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        if wanted == "true":
            raise
        return [
            LogInfo(msg="RViz is not installed here: look at the topics with ros2 topic, or install rviz2")
        ]
    config = Path(get_package_share_directory("sparc_ros")) / "rviz" / "sparc.rviz"
    return [Node(package="rviz2", executable="rviz2", arguments=["-d", str(config)], output="log")]


def generate_launch_description() -> LaunchDescription:
    """The align node of each camera with its inputs remapped, and RViz where it is wanted."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    for name, description in INPUTS.items():
        text = f"{description}; empty: as in camera_model"
        arguments.append(DeclareLaunchArgument(name, default_value="", description=text))
    for name, description in PARAMETERS.items():
        text = f"{description}; empty: as in camera_model and params_file"
        arguments.append(DeclareLaunchArgument(name, default_value="", description=text))
    return LaunchDescription(
        [*arguments, OpaqueFunction(function=_align_nodes), OpaqueFunction(function=_rviz)]
    )
