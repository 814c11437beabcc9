"""The file contracts of `sparc align`: camera, detections, images, depth and results.

First and last stage of a run without ROS. Every reader checks what it reads; its error names the
file, the field, what was expected and what came.
"""

from sparc_core.files.cameras import camera_to_json, read_camera, read_depth_scale
from sparc_core.files.detections import read_detections
from sparc_core.files.images import read_depth, read_image, read_mask, write_image
from sparc_core.files.results import RESULT_VERSION, read_result, write_result

__all__ = [
    "RESULT_VERSION",
    "camera_to_json",
    "read_camera",
    "read_depth",
    "read_depth_scale",
    "read_detections",
    "read_image",
    "read_mask",
    "read_result",
    "write_image",
    "write_result",
]
