"""Rotation matrices and quaternions xyzw: by tf_transformations where it is installed, else by SciPy.

Chosen once, when this module is imported; `BACKEND` says which ("tf_transformations" or "scipy").
Quaternions are xyzw here and in ROS messages only; `sparc_core` uses wxyz.
"""

from __future__ import annotations

import numpy as np

try:
    import tf_transformations
except ImportError:  # it exists only in a ROS distribution
    tf_transformations = None
    from scipy.spatial.transform import Rotation

BACKEND = "scipy" if tf_transformations is None else "tf_transformations"


def quaternion_xyzw(R: np.ndarray) -> np.ndarray:
    """(3, 3) rotation matrix -> (4,) unit quaternion xyzw with w >= 0.

    Raises ValueError for a matrix that is not a rotation (a reflection, a scale, NaN).
    """
    R = np.asarray(R, dtype=np.float64)
    if R.shape != (3, 3) or not np.allclose(R @ R.T, np.eye(3), atol=1e-3) or np.linalg.det(R) < 0:
        raise ValueError(f"R must be a (3, 3) rotation matrix, got {R.tolist()}")
    if tf_transformations is None:
        quaternion = Rotation.from_matrix(R).as_quat()
    else:
        homogeneous = np.eye(4)
        homogeneous[:3, :3] = R
        quaternion = np.asarray(tf_transformations.quaternion_from_matrix(homogeneous), dtype=np.float64)
    return -quaternion if quaternion[3] < 0 else quaternion


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(4,) quaternion xyzw of any length but zero -> (3, 3) rotation matrix. Raises ValueError for zero."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    length = np.linalg.norm(quaternion)
    if quaternion.shape != (4,) or not np.isfinite(length) or length < 1e-6:
        raise ValueError(f"quaternion must be four finite numbers, not all zero, got {quaternion.tolist()}")
    if tf_transformations is None:
        return Rotation.from_quat(quaternion / length).as_matrix()
    return np.asarray(tf_transformations.quaternion_matrix(quaternion / length), dtype=np.float64)[:3, :3]


def matrix_from_transform(transform) -> np.ndarray:
    """geometry_msgs/Transform -> (4, 4) matrix that maps child-frame points to the parent frame."""
    q, t = transform.rotation, transform.translation
    T_parent_child = np.eye(4)
    T_parent_child[:3, :3] = rotation_matrix(np.array([q.x, q.y, q.z, q.w]))
    T_parent_child[:3, 3] = (t.x, t.y, t.z)
    return T_parent_child


def matrix_from_pose(pose) -> np.ndarray:
    """geometry_msgs/Pose -> (4, 4) matrix that maps the posed object's points to the pose's frame."""
    q, t = pose.orientation, pose.position
    T_frame_object = np.eye(4)
    T_frame_object[:3, :3] = rotation_matrix(np.array([q.x, q.y, q.z, q.w]))
    T_frame_object[:3, 3] = (t.x, t.y, t.z)
    return T_frame_object
