"""ROS messages to sparc_core's types and back: pure functions, no node, no graph.

In: sensor_msgs/CameraInfo and vision_msgs/Detection2DArray (anything with their fields will do).
Out: our objects, vision_msgs/Detection3DArray, transforms and the CAD library's message. Images are in
`image_adapter`. Message classes are imported on use, so the reading half works without ROS.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparc_core.types import CATEGORIES, AlignedObject, Camera, Detection
from sparc_ros.category_names import category_of
from sparc_ros.transform_adapter import quaternion_xyzw

_ROS_DISTORTION = {
    "plumb_bob": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "equidistant": "equidistant",
    "fisheye": "equidistant",
}


def camera_from_info(
    info, topic: str, *, rectified: bool = False, up_cam=None, above_floor_m: float | None = None
) -> Camera:
    """CameraInfo -> Camera of the image as delivered: region of interest and binning are applied.

    topic: named in errors. rectified: use P and no distortion. up_cam: gravity's opposite, or None;
    above_floor_m: the camera's height, or None.
    Raises ValueError for K (P) of zeros, a distortion model we cannot undo and wrong coefficients.
    """
    name, values = ("P", info.p) if rectified else ("K", info.k)
    columns = 4 if rectified else 3
    fx, fy, cx, cy = values[0], values[columns + 1], values[2], values[columns + 2]
    if not fx > 0 or not fy > 0:
        raise ValueError(
            f"camera info on {topic}: {name} has focal lengths {fx} and {fy}; the camera is not calibrated "
            "(calibrate it, or have its driver publish intrinsics)"
        )
    model, distortion = ("none", ()) if rectified else _distortion(info, topic)
    region = info.roi
    width, height = (region.width or info.width), (region.height or info.height)
    # 0 and 1 both mean no binning.
    bin_x, bin_y = max(info.binning_x, 1), max(info.binning_y, 1)
    try:
        return Camera(
            width=width // bin_x,
            height=height // bin_y,
            fx=fx / bin_x,
            fy=fy / bin_y,
            # Pixel centres are at integers: the edge at -0.5 stays where it is when pixels are merged.
            cx=(cx - region.x_offset + 0.5) / bin_x - 0.5,
            cy=(cy - region.y_offset + 0.5) / bin_y - 0.5,
            distortion=distortion,
            distortion_model=model,
            up_cam=up_cam,
            above_floor_m=above_floor_m,
        )
    except ValueError as error:
        raise ValueError(f"camera info on {topic}: {error}") from error


def _distortion(info, topic: str) -> tuple[str, tuple[float, ...]]:
    coefficients = tuple(float(value) for value in info.d)
    if not any(coefficients):
        return "none", ()
    if info.distortion_model not in _ROS_DISTORTION:
        raise ValueError(
            f"camera info on {topic}: distortion model {info.distortion_model!r} is not supported; "
            f"supported: {list(_ROS_DISTORTION)}. Rectify the image and set image_is_rectified"
        )
    return _ROS_DISTORTION[info.distortion_model], coefficients


@dataclass(frozen=True)
class DetectionRules:
    """Which detections of a message are taken.

    categories: kept; others are left out without a word. model_ids: an id in Detection2D.id that is
    one of these fixes the CAD model (other ids, a tracker's say, mean nothing here).
    """

    categories: tuple[str, ...] = CATEGORIES
    class_map: Mapping[str, str] | None = None
    model_ids: Collection[str] = ()
    min_score: float = 0.0
    max_count: int = 1000


@dataclass(frozen=True, eq=False)
class ReadDetections:
    """detections: taken ones; index: of each in the message; left_out: (index, reason) for bad ones.

    unknown_classes: class ids that are none of our categories. capped: how many the limit cost.
    """

    detections: tuple[Detection, ...]
    index: tuple[int, ...]
    left_out: tuple[tuple[int, str], ...]
    unknown_classes: tuple[str, ...]
    capped: int


def detections_from_msg(msg, rules: DetectionRules) -> ReadDetections:
    """Detection2DArray -> Detections, the best-scored hypothesis of each; boxes in pixels.

    A rotated box becomes the upright box around it. When there are more than `rules.max_count`, the
    best scores are kept, in the message's order.
    """
    taken, left_out, unknown = [], [], []
    for index, entry in enumerate(msg.detections):
        if not entry.results:
            left_out.append((index, "has no hypothesis (results is empty)"))
            continue
        best = max(entry.results, key=lambda result: result.hypothesis.score).hypothesis
        category = category_of(best.class_id, rules.class_map or {})
        if category is None:
            unknown.append(best.class_id)
            continue
        box = _upright_box(entry.bbox)
        if box is None or not math.isfinite(best.score):
            left_out.append((index, "has a box or score that is not finite"))
            continue
        if category in rules.categories and best.score >= rules.min_score:
            model_id = entry.id if entry.id in rules.model_ids else None
            taken.append((index, Detection(box, category, float(best.score), model_id)))
    return _capped(taken, rules, left_out, unknown)


def select_detections(found: Sequence[Detection], rules: DetectionRules) -> ReadDetections:
    """The same for detections that come from a file or from the node's own detector."""
    taken = [
        (index, detection)
        for index, detection in enumerate(found)
        if detection.category in rules.categories and detection.score >= rules.min_score
    ]
    return _capped(taken, rules, [], [])


def _capped(taken, rules: DetectionRules, left_out, unknown) -> ReadDetections:
    ranked = sorted(taken, key=lambda pair: -pair[1].score)[: rules.max_count]
    kept = sorted(ranked, key=lambda pair: pair[0])
    return ReadDetections(
        detections=tuple(detection for _, detection in kept),
        index=tuple(index for index, _ in kept),
        left_out=tuple(left_out),
        unknown_classes=tuple(sorted(set(unknown))),
        capped=len(taken) - len(kept),
    )


def _upright_box(bbox) -> tuple[float, float, float, float] | None:
    centre, theta = bbox.center.position, bbox.center.theta
    numbers = (centre.x, centre.y, theta, bbox.size_x, bbox.size_y)
    if not all(math.isfinite(value) for value in numbers):
        return None
    cosine, sine = abs(math.cos(theta)), abs(math.sin(theta))
    half_width = (bbox.size_x * cosine + bbox.size_y * sine) / 2
    half_height = (bbox.size_x * sine + bbox.size_y * cosine) / 2
    return (
        centre.x - half_width,
        centre.y - half_height,
        centre.x + half_width,
        centre.y + half_height,
    )


def fill_pose(pose, R: np.ndarray, T_m: np.ndarray):
    """Fill a geometry_msgs/Pose in place from a rotation (3, 3) and a position (3,), and return it."""
    pose.position.x, pose.position.y, pose.position.z = (float(v) for v in T_m)
    x, y, z, w = quaternion_xyzw(R)
    pose.orientation.x, pose.orientation.y = float(x), float(y)
    pose.orientation.z, pose.orientation.w = float(z), float(w)
    return pose


def fill_vector(vector, values):
    """Fill a geometry_msgs/Vector3 or Point in place, and return it."""
    vector.x, vector.y, vector.z = (float(v) for v in values)
    return vector


def objects_msg(
    header,
    objects: Sequence[AlignedObject],
    track_ids: Sequence[int],
    symmetries: Mapping[str, str],
    latency_ms: float = 0.0,
):
    """AlignedObjectArray with the image's header. symmetries: of each model id."""
    from sparc_ros.msg import AlignedObject as ObjectMsg
    from sparc_ros.msg import AlignedObjectArray

    array = AlignedObjectArray(header=header, latency_ms=float(latency_ms))
    for obj, track_id in zip(objects, track_ids, strict=True):
        item = ObjectMsg(
            track_id=int(track_id),
            category=obj.category,
            model_id=obj.model_id,
            score=float(obj.score),
            start=obj.start,
            detection=int(obj.detection),
            symmetry=symmetries[obj.model_id],
        )
        item.box_xyxy = [float(value) for value in obj.box_xyxy]
        fill_pose(item.pose, obj.R, obj.T_m)
        fill_vector(item.scale, obj.S_m)
        array.objects.append(item)
    return array


def detections_3d_msg(header, objects: Sequence[AlignedObject], track_ids: Sequence[int]):
    """vision_msgs/Detection3DArray: oriented boxes whose sizes are along the CAD axes; id = track id."""
    from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

    array = Detection3DArray(header=header)
    for obj, track_id in zip(objects, track_ids, strict=True):
        item = Detection3D(header=header, id=str(track_id))
        fill_pose(item.bbox.center, obj.R, obj.T_m)
        fill_vector(item.bbox.size, obj.S_m)
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = obj.category
        result.hypothesis.score = float(obj.score)
        fill_pose(result.pose.pose, obj.R, obj.T_m)
        item.results.append(result)
        array.detections.append(item)
    return array


def tf_frame_name(prefix: str, category: str, track_id: int) -> str:
    """Name of an object's TF frame: PREFIX/<category>_<track id>."""
    return f"{prefix}/{category}_{track_id}" if prefix else f"{category}_{track_id}"


def transform_msgs(header, objects: Sequence[AlignedObject], track_ids: Sequence[int], prefix: str) -> list:
    """One geometry_msgs/TransformStamped an object: camera frame to object frame (no scale)."""
    from geometry_msgs.msg import TransformStamped

    messages = []
    for obj, track_id in zip(objects, track_ids, strict=True):
        name = tf_frame_name(prefix, obj.category, track_id)
        message = TransformStamped(header=header, child_frame_id=name)
        fill_vector(message.transform.translation, obj.T_m)
        rotation = message.transform.rotation
        rotation.x, rotation.y, rotation.z, rotation.w = (float(v) for v in quaternion_xyzw(obj.R))
        messages.append(message)
    return messages


def cad_library_msg(stamp, models, mesh_uris: Mapping[str, str]):
    """CadLibrary message for `CadModel`s; mesh_uris: file:// URI of each model id."""
    from sparc_ros.msg import CadLibrary, CadModel

    message = CadLibrary()
    message.header.stamp = stamp
    for model in models:
        item = CadModel(
            model_id=model.model_id,
            category=model.category,
            symmetry=model.symmetry,
            mesh_uri=mesh_uris.get(model.model_id, ""),
        )
        fill_vector(item.extents, model.extents_m)
        message.models.append(item)
    return message


def stamp_seconds(stamp) -> float:
    """builtin_interfaces/Time -> seconds."""
    return stamp.sec + 1e-9 * stamp.nanosec
