"""Every parameter of the align node, in one list: type, default, range, description, when it may change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sparc_core.types import CATEGORIES, SCALE_MODES
from sparc_ros.parameter_list import check_values, parameter


@dataclass(frozen=True)
class NodeParameters:
    """The resolved parameters of one align node.

    Raises ValueError naming the parameter for a value outside its range or list.
    """

    autostart: bool = parameter(
        True,
        "Whether the node configures and activates itself at its start; false: a lifecycle manager does it.",
        at_start=True,
    )
    weights: str = parameter("", "Weights file (safetensors); empty takes the shipped network.")
    cad_library: str = parameter(
        "procedural",
        "CAD models: a folder of meshes, 'procedural', or 'procedural:FIRST-LAST' (seeds, inclusive).",
    )
    device: str = parameter("auto", "Where the network runs.", choices=("auto", "cpu", "cuda"))
    threads: int = parameter(
        0,
        "CPU threads of the network; 0: half of the cores, the others are left to other nodes.",
        minimum=0,
        maximum=256,
    )
    scale_mode: str = parameter(
        "free",
        "free: three scales (9-DoF); uniform: one (7-DoF); fixed: the CAD model's true size (6-DoF).",
        choices=SCALE_MODES,
    )
    scale_modes: tuple[str, ...] = parameter(
        ("",),
        "Scale modes that differ from scale_mode, each 'NAME=mode' with a category or a CAD model's id.",
    )
    max_candidates: int = parameter(
        12, "Most CAD models tried for a detection that names none.", minimum=1, maximum=512
    )
    max_detections: int = parameter(
        50,
        "Most detections aligned in one image; the best scores are kept, and a warning says so.",
        minimum=1,
        maximum=1000,
        read_only=False,
    )
    min_score: float = parameter(
        0.0, "Aligned objects below this score are not published.", minimum=0.0, maximum=1.0, read_only=False
    )
    min_detection_score: float = parameter(
        0.0, "Detections below this score are not aligned.", minimum=0.0, maximum=1.0, read_only=False
    )
    categories: tuple[str, ...] = parameter(
        CATEGORIES, "Categories that are aligned; detections of others are left out.", read_only=False
    )
    class_map: tuple[str, ...] = parameter(
        ("",),
        "Extra class ids, each 'CLASS_ID=category' (a detector with numeric classes: '56=chair').",
        read_only=False,
    )
    trigger_mode: bool = parameter(
        False, "Align nothing until the service `sparc/align_once` asks for it.", read_only=False
    )
    max_rate_hz: float = parameter(
        0.0,
        "Most images aligned a second; 0: as many as it can.",
        minimum=0.0,
        maximum=1000.0,
        read_only=False,
    )
    image_transport: str = parameter(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image`/compressed.",
        choices=("raw", "compressed"),
    )
    image_is_rectified: bool = parameter(
        False, "True when `image` is rectified: the intrinsics are then P, without distortion."
    )
    sync: str = parameter(
        "approximate",
        "How the inputs' stamps are matched: exact, or approximate within sync_slop_s.",
        choices=("exact", "approximate"),
    )
    sync_slop_s: float = parameter(
        0.02, "Largest difference between the stamps of one set of inputs (s).", minimum=1e-6, maximum=1.0
    )
    sync_queue_size: int = parameter(
        30,
        "Messages of each input that wait for their partners; detections may be this many images late.",
        minimum=1,
        maximum=500,
    )
    qos_depth: int = parameter(5, "History depth of the subscriptions.", minimum=1, maximum=100)
    use_depth: bool = parameter(True, "Whether `depth`, aligned to the image, is subscribed and used.")
    depth_unit_m: float = parameter(
        0.001, "Metres per unit of a 16UC1 depth image.", minimum=1e-6, maximum=1.0
    )
    depth_predicted: bool = parameter(
        False, "Whether `depth` is a network's guess from the image: its scale is then corrected."
    )
    detections_source: str = parameter(
        "topic",
        "topic: vision_msgs/Detection2DArray on `detections`; "
        "file: detections_file for every image (a camera that does not move); "
        "detector: the node finds the objects in the image itself.",
        choices=("topic", "file", "detector"),
    )
    detections_file: str = parameter("", "Detections (JSON as for `sparc align`) for detections_source file.")
    detector: str = parameter(
        "shipped",
        "Predictor for detections_source detector: shipped, a file of `sparc train-perception detector`, "
        "coco:FILE (torchvision's Mask R-CNN) or hf:NAME (a folder of transformers).",
    )
    detector_min_score: float = parameter(
        0.4, "Objects that the detector is less sure of are left out.", minimum=0.0, maximum=1.0
    )
    depth_model: str = parameter(
        "none",
        "Depth and normals from the image where `depth` is not subscribed: shipped, a file of `sparc "
        "train-perception depth`, hf:NAME, or none.",
    )
    box_model: str = parameter(
        "shipped",
        "What tells where objects are when depth_model predicts the depth, and corrects the boxes of our "
        "detector: shipped, a file of `sparc train-perception boxes`, or none.",
    )
    fill_holes: bool = parameter(False, "Whether depth_model fills the holes of `depth`.")
    masks: str = parameter("", "sam:FILE: masks by segment-anything; empty: the detector's, or from depth.")
    retrieval: str = parameter(
        "size",
        "How CAD models are chosen for detections that name none: by their size (size), or by their look "
        "(shipped, or a file of `sparc train-perception retrieval`).",
    )
    fixed_frame: str = parameter(
        "map", "TF frame that does not move and whose z axis is up; empty: TF is not read."
    )
    output_frame: str = parameter(
        "",
        "TF frame in which objects, 3D detections, markers and the objects' TF are published; empty: the "
        "image's.",
    )
    up_source: str = parameter(
        "tf",
        "Where gravity comes from. tf: z of fixed_frame; imu: sensor_msgs/Imu on `imu`; "
        "none: estimated from depth.",
        choices=("none", "tf", "imu"),
    )
    floor_frame: str = parameter(
        "",
        "TF frame on the floor with z up (base_footprint): the camera's height above it tells how far away "
        "things are where no sensor measures that; empty: not known.",
    )
    stand_on_floor: bool = parameter(
        True,
        "Without a sensor's depth, furniture is moved along its line of sight until it stands on the floor "
        "or, where the camera's height is not known, nearer to one floor for all; false, and no floor_frame, "
        "where much of it stands on platforms.",
    )
    tf_timeout_s: float = parameter(
        0.1,
        "Longest wait for the transform at an image's stamp (s).",
        minimum=0.0,
        maximum=2.0,
        read_only=False,
    )
    video_mode: bool = parameter(
        True,
        "Each track's last pose is its only start; false: every image is searched anew.",
        read_only=False,
    )
    reinit_score: float = parameter(
        0.4,
        "A track whose score, over its last sightings, is below is searched anew.",
        minimum=0.0,
        maximum=1.0,
        read_only=False,
    )
    smoothing: bool = parameter(
        True, "Publish the mean of a track's sightings while the object stands still.", read_only=False
    )
    map_mode: bool = parameter(
        False,
        "Fuse each object's sightings in fixed_frame over all the time; ids return after an object was away.",
    )
    map_file: str = parameter(
        "", "Where the service `sparc/save_map` writes the map of map_mode (JSON).", read_only=False
    )
    track_max_age_s: float = parameter(
        2.0,
        "A track ends when unseen this long while it should be seen (s).",
        minimum=0.0,
        maximum=600.0,
        read_only=False,
    )
    track_max_hidden_s: float = parameter(
        60.0,
        "A track ends when out of view or behind something this long (s).",
        minimum=0.0,
        maximum=36000.0,
        read_only=False,
    )
    stale_input_s: float = parameter(
        5.0,
        "An input silent this long is a warning that names topic and QoS (s).",
        minimum=0.5,
        maximum=600.0,
    )
    publish_tf: bool = parameter(True, "Broadcast a TF frame for each object.", read_only=False)
    publish_markers: bool = parameter(True, "Publish `sparc/markers`.", read_only=False)
    publish_overlay: bool = parameter(
        True, "Publish `sparc/overlay` while somebody subscribes to it.", read_only=False
    )
    publish_detections: bool = parameter(True, "Publish `sparc/detections`.", read_only=False)
    tf_prefix: str = parameter("sparc", "First part of the objects' TF frames: PREFIX/<category>_<track id>.")
    mesh_folder: str = parameter(
        "", "Where the markers' meshes are written; empty: sparc_ros/meshes in the user's cache folder."
    )

    def __post_init__(self):
        check_values(self)
        for category in self.categories:
            if category not in CATEGORIES:
                raise ValueError(f"parameter categories: {category!r} is not one of {list(CATEGORIES)}")
        parse_class_map(self.class_map)
        parse_scale_modes(self.scale_modes)
        if self.up_source == "tf" and not self.fixed_frame:
            raise ValueError("parameter fixed_frame: must name a frame when up_source is 'tf', got ''")
        if self.map_mode and not self.fixed_frame:
            raise ValueError("parameter fixed_frame: must name a frame when map_mode is on, got ''")
        if self.fill_holes and self.depth_model == "none":
            raise ValueError("parameter fill_holes: needs a depth_model, got 'none'")
        if self.detections_source == "file" and not self.detections_file:
            raise ValueError("parameter detections_file: must name a file when detections_source is 'file'")

    @property
    def thread_count(self) -> int:
        """CPU threads of the network, with 0 resolved to half of the cores this process may use."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // 2)

    @property
    def mesh_path(self) -> Path:
        """Folder of the markers' meshes, with the user's cache folder filled in."""
        if self.mesh_folder:
            return Path(self.mesh_folder).expanduser()
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "sparc_ros" / "meshes"


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


def parse_scale_modes(entries: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Turn ('chair=fixed', …) into (('chair', 'fixed'), …); empty entries are left out."""
    pairs = []
    for entry in entries:
        if not entry:
            continue
        name, separator, mode = entry.rpartition("=")
        if not separator or not name or mode not in SCALE_MODES:
            raise ValueError(
                f"parameter scale_modes: each entry must be 'NAME=mode' with a mode of {list(SCALE_MODES)}, "
                f"got {entry!r}"
            )
        pairs.append((name, mode))
    return tuple(pairs)
