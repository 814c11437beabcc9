"""What was told from a picture is made to stand on the floor.

An object that is moved along its line of sight, its size with it, looks the same: at one distance only it
stands on the floor. Where the height of the camera above it is known, that settles the scale of the room,
which from the picture alone could as well be twice as large; where it is not, there still is one floor for
all.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from sparc_core.geometry.camera import bearing_z1, intrinsics_tensor
from sparc_core.types import Camera

FLOATING = frozenset({"display"})  # categories that hang on walls or stand on other things
MAX_LOG = 0.35  # what is farther off in the logarithm of its scale is not the floor, nor stands on it
ONE_FLOOR = 0.75  # how far objects are brought to a floor that they tell themselves, in the logarithm
OBJECTS_FLOOR = 0.5  # how far a depth image is
FACING_UP = 0.9  # cosine
MIN_FLOOR_SHARE = 0.002  # of an image's pixels
LEAST_BELOW_M = 0.1  # a surface this little below the camera tells no scale


def level_below_m(depth_m: np.ndarray, normals_cam: np.ndarray, camera: Camera) -> float | None:
    """How far below the camera the lowest level surface of a depth image is; None where none is seen.

    depth_m (H, W), normals_cam (H, W, 3) of a pinhole camera that knows gravity.
    """
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    uv = torch.from_numpy(np.stack((u, v), -1)).double()[None]
    ray = bearing_z1(uv, intrinsics_tensor(camera).double()[None])[0].numpy()
    up = np.array(camera.up_cam)
    below = -(ray @ up) * depth_m
    below = below[(normals_cam @ up > FACING_UP) & (below > LEAST_BELOW_M)]
    if below.size < MIN_FLOOR_SHARE * depth_m.size:
        return None
    # tables and beds are level as well, but higher
    return float(np.median(below[below > 0.8 * np.percentile(below, 95)]))


def floor_factor(below_m: float | None, above_floor_m: float | None, told_m: float | None) -> float | None:
    """By what a depth image has to be multiplied for the lowest level surface in it to be the floor.

    below_m: of that surface (`level_below_m`); above_floor_m: the camera's height where it is known;
    told_m: else what the objects in the picture tell of it, of which `OBJECTS_FLOOR` is believed. None where
    there is nothing to compare, or the depth would have to be wrong by more than `MAX_LOG`: a table top that
    fills the picture is no floor.
    """
    height, belief = (told_m, OBJECTS_FLOOR) if above_floor_m is None else (above_floor_m, 1.0)
    if below_m is None or height is None:
        return None
    log_factor = math.log(height / below_m)
    return math.exp(belief * log_factor) if abs(log_factor) <= MAX_LOG else None


def told_height_m(T_m: np.ndarray, height_m: np.ndarray, stands: np.ndarray, camera: Camera) -> float | None:
    """How high a camera is above a floor on which the median object stands; None where none does. Arguments
    as of `standing_factors`."""
    log_below, low = _undersides(T_m, height_m, stands, camera)
    return float(np.exp(np.median(log_below[low]))) if low.any() else None


def standing_factors(T_m: np.ndarray, height_m: np.ndarray, stands: np.ndarray, camera: Camera) -> np.ndarray:
    """(N,) by what distances and extents of objects have to be multiplied for them to stand on the floor.

    T_m (N, 3) centres in the frame of a camera that knows gravity; height_m (N,) extents along the vertical;
    stands (N,) bool: upright, and of a kind that stands on the floor. Where the camera's height is known, the
    others, and those that would have to be moved by more than `MAX_LOG`, take the median of the rest; 1 where
    there is none. Where it is not, the floor is taken to be where the median object has it: they are brought
    nearer to one floor by `ONE_FLOOR`, and the others stay.
    """
    log_below, low = _undersides(T_m, height_m, stands, camera)
    if not low.any():
        return np.ones(len(log_below))
    if camera.above_floor_m is None:
        ratio = np.median(log_below[low]) - log_below
        return np.exp(np.where(low & (np.abs(ratio) <= MAX_LOG), ONE_FLOOR * ratio, 0.0))
    ratio = np.log(camera.above_floor_m) - log_below
    trusted = low & (np.abs(ratio) <= MAX_LOG)
    common = np.median(ratio[trusted]) if trusted.any() else 0.0
    return np.exp(np.where(trusted, ratio, common))


def _undersides(T_m, height_m, stands, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """(N,) ln of how far below the camera the undersides of objects are, and (N,) bool which of them stand on
    something that is below it."""
    below = height_m / 2 - T_m @ np.array(camera.up_cam)
    return np.log(np.maximum(below, LEAST_BELOW_M)), stands & (below > LEAST_BELOW_M)
