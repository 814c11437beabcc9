"""Objects before a moving camera, for the tests of the tracker."""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from sparc_core.types import AlignedObject, Camera

CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)


def placed(x, z=3.0, category="chair", size=0.8, R=None):
    """An object on the optical axis' height, with the box of its projected front."""
    half = 500.0 * size / 2 / z
    u = 319.5 + 500.0 * x / z
    box = (u - half, 239.5 - half, u + half, 239.5 + half)
    rotation = np.eye(3) if R is None else R
    return AlignedObject(
        0, category, category + "_0", box, rotation, np.array([x, 0.0, z]), np.full(3, size), 0.9, "azimuth_0"
    )


def camera_at(x, yaw_rad=0.0):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", yaw_rad).as_matrix()
    T[:3, 3] = (x, 0.0, 0.0)
    return T


def seen_from(T_fixed_cam, obj):
    """The same object (given in the fixed frame) in the camera's frame, with the box moved along."""
    T_m = (obj.T_m - T_fixed_cam[:3, 3]) @ T_fixed_cam[:3, :3]
    moved = placed(T_m[0], T_m[2], obj.category, float(obj.S_m[0]))
    return dataclasses.replace(moved, R=T_fixed_cam[:3, :3].T @ obj.R)
