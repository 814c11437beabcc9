"""The objects of an image in another frame than the camera's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from sparc_core.types import AlignedObject


def in_output_frame(header, objects: Sequence[AlignedObject], T_output_cam: np.ndarray | None, frame_id: str):
    """(header, objects) in the frame `frame_id`, with the image's stamp; as they are without one.

    T_output_cam: (4, 4) camera points to that frame. Boxes stay in the image. Raises ValueError without it.
    """
    if not frame_id:
        return header, tuple(objects)
    if T_output_cam is None:
        raise ValueError(f"T_output_cam must be given for the output frame {frame_id!r}")
    R, t = T_output_cam[:3, :3], T_output_cam[:3, 3]
    moved = tuple(dataclasses.replace(obj, R=R @ obj.R, T_m=R @ obj.T_m + t) for obj in objects)
    return type(header)(stamp=header.stamp, frame_id=frame_id), moved
