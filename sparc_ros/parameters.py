"""Every parameter of the align node: name, type, default, range, description, when it may change.

`NodeParameters` is the one list. A field's default fixes the type; its metadata holds the range, the
allowed values and whether it is read-only once the node runs. Nothing above `declare_parameters`
needs ROS, so the list can be checked (and printed) without a graph.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from sparc_core.types import CATEGORIES, SCALE_MODES

# Parameters that every rclpy node has or that carry QoS overrides: not ours, and not typing errors.
FOREIGN_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides", "diagnostic_updater")


def _parameter(default, description, *, choices=(), minimum=None, maximum=None, read_only=True):
    metadata = {
        "description": description,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "read_only": read_only,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NodeParameters:
    """The resolved parameters of one align node.

    Raises ValueError naming the parameter for a value outside its range or list.
    """

    weights: str = _parameter("", "Weights file (safetensors); empty takes the shipped network.")
    cad_library: str = _parameter(
        "procedural",
        "CAD models: a folder of meshes, 'procedural', or 'procedural:FIRST-LAST' (seeds, inclusive).",
    )
    device: str = _parameter("auto", "Where the network runs.", choices=("auto", "cpu", "cuda"))
    scale_mode: str = _parameter(
        "free",
        "free: three scales (9-DoF); uniform: one (7-DoF); fixed: the CAD model's true size (6-DoF).",
        choices=SCALE_MODES,
    )
    max_candidates: int = _parameter(
        8, "Most CAD models tried for a detection that names none.", minimum=1, maximum=512
    )
    max_detections: int = _parameter(
        50,
        "Most detections aligned in one image; the best scores are kept, and a warning says so.",
        minimum=1,
        maximum=1000,
        read_only=False,
    )
    min_score: float = _parameter(
        0.0, "Aligned objects below this score are not published.", minimum=0.0, maximum=1.0, read_only=False
    )
    min_detection_score: float = _parameter(
        0.0, "Detections below this score are not aligned.", minimum=0.0, maximum=1.0, read_only=False
    )
    categories: tuple[str, ...] = _parameter(
        CATEGORIES, "Categories that are aligned; detections of others are left out.", read_only=False
    )
    class_map: tuple[str, ...] = _parameter(
        ("",),
        "Extra class ids, each 'CLASS_ID=category' (a detector with numeric classes: '56=chair').",
        read_only=False,
    )
    image_transport: str = _parameter(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image`/compressed.",
        choices=("raw", "compressed"),
    )
    image_is_rectified: bool = _parameter(
        False, "True when `image` is rectified: the intrinsics are then P, without distortion."
    )
    sync: str = _parameter(
        "approximate",
        "How the inputs' stamps are matched: exact, or approximate within sync_slop_s.",
        choices=("exact", "approximate"),
    )
    sync_slop_s: float = _parameter(
        0.02, "Largest difference between the stamps of one set of inputs (s).", minimum=1e-6, maximum=1.0
    )
    sync_queue_size: int = _parameter(
        30,
        "Messages of each input that wait for their partners; detections may be this many images late.",
        minimum=1,
        maximum=500,
    )
    qos_depth: int = _parameter(5, "History depth of the subscriptions.", minimum=1, maximum=100)
    use_depth: bool = _parameter(True, "Whether `depth`, aligned to the image, is subscribed and used.")
    depth_unit_m: float = _parameter(
        0.001, "Metres per unit of a 16UC1 depth image.", minimum=1e-6, maximum=1.0
    )
    detections_source: str = _parameter(
        "topic",
        "topic: vision_msgs/Detection2DArray on `detections`; "
        "file: detections_file for every image (a camera that does not move).",
        choices=("topic", "file"),
    )
    detections_file: str = _parameter(
        "", "Detections (JSON as for `sparc align`) for detections_source file."
    )
    fixed_frame: str = _parameter(
        "map", "TF frame that does not move and whose z axis is up; empty: TF is not read."
    )
    up_source: str = _parameter(
        "tf",
        "Where gravity comes from. tf: z of fixed_frame; imu: sensor_msgs/Imu on `imu`; none: unknown.",
        choices=("none", "tf", "imu"),
    )
    tf_timeout_s: float = _parameter(
        0.1,
        "Longest wait for the transform at an image's stamp (s).",
        minimum=0.0,
        maximum=2.0,
        read_only=False,
    )
    track_max_age_s: float = _parameter(
        2.0,
        "A track ends when unseen this long while in view (s).",
        minimum=0.0,
        maximum=600.0,
        read_only=False,
    )
    track_max_hidden_s: float = _parameter(
        60.0, "A track ends when out of view this long (s).", minimum=0.0, maximum=36000.0, read_only=False
    )
    stale_input_s: float = _parameter(
        5.0,
        "An input silent this long is a warning that names topic and QoS (s).",
        minimum=0.5,
        maximum=600.0,
    )
    publish_tf: bool = _parameter(True, "Broadcast a TF frame for each object.", read_only=False)
    publish_markers: bool = _parameter(True, "Publish `sparc/markers`.", read_only=False)
    publish_overlay: bool = _parameter(
        True, "Publish `sparc/overlay` while somebody subscribes to it.", read_only=False
    )
    publish_detections: bool = _parameter(True, "Publish `sparc/detections`.", read_only=False)
    tf_prefix: str = _parameter(
        "sparc", "First part of the objects' TF frames: PREFIX/<category>_<track id>."
    )
    mesh_folder: str = _parameter(
        "", "Where the markers' meshes are written; empty: sparc_ros/meshes in the user's cache folder."
    )

    def __post_init__(self):
        for item in dataclasses.fields(self):
            _check_value(item, getattr(self, item.name))
        for category in self.categories:
            if category not in CATEGORIES:
                raise ValueError(f"parameter categories: {category!r} is not one of {list(CATEGORIES)}")
        parse_class_map(self.class_map)
        if self.up_source == "tf" and not self.fixed_frame:
            raise ValueError("parameter fixed_frame: must name a frame when up_source is 'tf', got ''")
        if self.detections_source == "file" and not self.detections_file:
            raise ValueError("parameter detections_file: must name a file when detections_source is 'file'")

    @property
    def mesh_path(self) -> Path:
        """Folder of the markers' meshes, with the user's cache folder filled in."""
        if self.mesh_folder:
            return Path(self.mesh_folder).expanduser()
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "sparc_ros" / "meshes"


def _check_value(item: dataclasses.Field, value) -> None:
    rules = item.metadata
    if rules["choices"] and value not in rules["choices"]:
        raise ValueError(f"parameter {item.name}: must be one of {list(rules['choices'])}, got {value!r}")
    too_small = rules["minimum"] is not None and not value >= rules["minimum"]
    too_large = rules["maximum"] is not None and not value <= rules["maximum"]
    if too_small or too_large:
        raise ValueError(
            f"parameter {item.name}: must be in [{rules['minimum']}, {rules['maximum']}], got {value!r}"
        )


def parse_class_map(entries: tuple[str, ...]) -> dict[str, str]:
    """Turn ('56=chair', …) into {'56': 'chair'}; empty entries are left out.

    (ROS cannot hold an empty list of strings as a default, so [''] stands for it.)
    """
    mapping = {}
    for entry in entries:
        if not entry:
            continue
        class_id, separator, category = entry.partition("=")
        if not separator or not class_id or category not in CATEGORIES:
            raise ValueError(
                f"parameter class_map: each entry must be 'CLASS_ID=category' with a category of "
                f"{list(CATEGORIES)}, got {entry!r}"
            )
        mapping[class_id] = category
    return mapping


def resolve_changes(current: NodeParameters, changes: dict) -> NodeParameters:
    """`current` with some values changed; ValueError naming a read-only or invalid one."""
    rules = {item.name: item.metadata for item in dataclasses.fields(NodeParameters)}
    for name in changes:
        if rules[name]["read_only"]:
            raise ValueError(f"parameter {name}: is read only while the node runs")
    return dataclasses.replace(current, **{name: _to_field(value) for name, value in changes.items()})


def declare_parameters(node) -> NodeParameters:
    """Declare every parameter on an rclpy node (made with overrides declared) and return the values.

    The node must be created with `automatically_declare_parameters_from_overrides=True`: only so can
    a misspelt name in a launch file be seen and reported. Raises ValueError naming the parameter.
    """
    ros = _ros_classes()
    given = node.get_parameters_by_prefix("")
    known = {item.name for item in dataclasses.fields(NodeParameters)}
    for name in sorted(set(given) - known):
        if name.split(".")[0] not in FOREIGN_PARAMETERS:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            node.get_logger().warning(f"parameter {name} is unknown to this node and has no effect{hint}")
    values = {}
    for item in dataclasses.fields(NodeParameters):
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        value = default
        if item.name in given:
            value = _checked_override(item, given[item.name].value)
            node.undeclare_parameter(item.name)
        values[item.name] = _to_field(value)
        _check_value(item, values[item.name])
        node.declare_parameter(item.name, value, _descriptor(item, ros))
    return NodeParameters(**values)


def _ros_classes() -> SimpleNamespace:
    # Imported on use, so that the list above can be read where there is no ROS.
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

    return SimpleNamespace(
        Descriptor=ParameterDescriptor, Type=ParameterType, Float=FloatingPointRange, Integer=IntegerRange
    )


def _descriptor(item: dataclasses.Field, ros: SimpleNamespace):
    rules = item.metadata
    types = {
        bool: ros.Type.PARAMETER_BOOL,
        int: ros.Type.PARAMETER_INTEGER,
        float: ros.Type.PARAMETER_DOUBLE,
        str: ros.Type.PARAMETER_STRING,
        tuple: ros.Type.PARAMETER_STRING_ARRAY,
    }
    descriptor = ros.Descriptor(
        name=item.name,
        type=types[type(item.default)],
        description=rules["description"],
        read_only=rules["read_only"],
    )
    if rules["choices"]:
        descriptor.additional_constraints = f"one of: {', '.join(rules['choices'])}"
    if isinstance(item.default, float) and rules["minimum"] is not None:
        descriptor.floating_point_range = [
            ros.Float(from_value=float(rules["minimum"]), to_value=float(rules["maximum"]), step=0.0)
        ]
    elif isinstance(item.default, int) and rules["minimum"] is not None:
        descriptor.integer_range = [
            ros.Integer(from_value=rules["minimum"], to_value=rules["maximum"], step=1)
        ]
    return descriptor


def _checked_override(item: dataclasses.Field, value):
    """The override with its type checked; a whole number is taken for a float (2 for 2.0)."""
    if isinstance(item.default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(item.default, tuple):
        if isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value):
            return list(value)
        raise ValueError(f"parameter {item.name}: must be a list of strings, got {value!r}")
    if type(value) is not type(item.default):
        raise ValueError(
            f"parameter {item.name}: must be of type {type(item.default).__name__}, "
            f"got {value!r} ({type(value).__name__})"
        )
    return value


def _to_field(value):
    return tuple(value) if isinstance(value, list) else value
