"""Messages with every field set, built alike by the sending and the receiving process."""

from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import Header

from sparc_ros.msg import AlignedObject, AlignedObjectArray, CadLibrary, CadModel


def header(frame_id: str) -> Header:
    """Header with a stamp whose both parts are large."""
    message = Header(frame_id=frame_id)
    message.stamp.sec, message.stamp.nanosec = 2_000_000_000, 999_999_999
    return message


def aligned_object(index: int) -> AlignedObject:
    """An object whose numbers are exact in float32 and differ from index to index."""
    return AlignedObject(
        track_id=-1 - index,
        category="chair",
        model_id=f"chair_{index:07d} ü",
        score=0.25,
        box_xyxy=[-1.5, 2.5, 640.25, 480.75 + index],
        pose=Pose(position=Point(x=0.1, y=-0.2, z=3.3), orientation=Quaternion(x=0.5, y=-0.5, z=0.5, w=0.5)),
        scale=Vector3(x=0.45, y=0.9, z=0.55),
        start="azimuth_90",
        detection=index,
        symmetry="c4",
    )


def aligned_objects(frame_id: str) -> AlignedObjectArray:
    """Three objects."""
    return AlignedObjectArray(
        header=header(frame_id), objects=[aligned_object(i) for i in range(3)], latency_ms=12.5
    )


def cad_library(frame_id: str) -> CadLibrary:
    """Two hundred models, more than fit one UDP packet."""
    extents = Vector3(x=1.0, y=2.0, z=3.0)
    models = [
        CadModel(
            model_id=f"bed_{i}",
            category="bed",
            extents=extents,
            symmetry="none",
            mesh_uri=f"file:///m/{i}.glb",
        )
        for i in range(200)
    ]
    return CadLibrary(header=header(frame_id), models=models)
