"""Nine-degree-of-freedom poses of CAD files, and their way to the project's box poses and back.

Scan2CAD, ROCA and the result CSVs place a CAD *file*: x = R · diag(s) · x_file + t, so t is where the file's
origin comes to lie. We place the unit cube about the centre of the bounding box: S is the full extent, T the
place of the box centre (docs/conventions.md). Quaternions are wxyz, arrays float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

SHEAR_TOLERANCE = 1e-3  # largest entry by which three scaled columns may fail to be a rotation


@dataclass(frozen=True, eq=False)
class CadPose:
    """x = R · diag(s) · x_cad + t. R (3, 3); t (3,) metres; s (3,).

    Of a CAD file, t is the place of its origin and s the factor of its coordinates; as a box pose, t is the
    place of the box centre and s the full extents in metres.
    """

    R: np.ndarray
    t: np.ndarray
    s: np.ndarray

    @classmethod
    def from_quaternion(cls, t, q_wxyz, s) -> CadPose:
        """From three vectors as files hold them. The quaternion is normalised.

        Raises ValueError for values that are not finite, a quaternion without length or a scale that is not
        positive.
        """
        t, q, s = (np.asarray(value, dtype=np.float64) for value in (t, q_wxyz, s))
        for name, value, count in (("translation", t, 3), ("rotation", q, 4), ("scale", s, 3)):
            if value.shape != (count,) or not np.isfinite(value).all():
                raise ValueError(f"{name}: expected {count} finite numbers, got {value.tolist()}")
        if np.linalg.norm(q) < 1e-9:
            raise ValueError("rotation: expected a quaternion, got one of length zero")
        if (s <= 0).any():
            raise ValueError(f"scale: expected positive factors, got {s.tolist()}")
        return cls(Rotation.from_quat(q, scalar_first=True).as_matrix(), t, s)

    @property
    def quaternion_wxyz(self) -> np.ndarray:
        """(4,) unit quaternion with w ≥ 0."""
        return Rotation.from_matrix(self.R).as_quat(canonical=True, scalar_first=True)

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) homogeneous matrix."""
        M = np.eye(4)
        M[:3, :3], M[:3, 3] = self.R * self.s, self.t
        return M

    def moved(self, T_new_old: np.ndarray) -> CadPose:
        """The pose in another frame; T_new_old (4, 4) is a rotation and a shift."""
        return CadPose(T_new_old[:3, :3] @ self.R, T_new_old[:3, :3] @ self.t + T_new_old[:3, 3], self.s)

    def transform(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) CAD points to the frame of the pose."""
        return (points * self.s) @ self.R.T + self.t


@dataclass(frozen=True, eq=False)
class CadBox:
    """The bounding box of a CAD file in its own coordinates: centre (3,) and full extents (3,)."""

    centre: np.ndarray
    extents: np.ndarray

    def to_box_pose(self, pose: CadPose) -> CadPose:
        """A pose of the file as a pose of the unit cube about its box."""
        return CadPose(pose.R, pose.transform(self.centre), pose.s * self.extents)

    def to_file_pose(self, pose: CadPose) -> CadPose:
        """The inverse of `to_box_pose`."""
        s = pose.s / self.extents
        return CadPose(pose.R, pose.t - pose.R @ (s * self.centre), s)


def decompose(M: np.ndarray) -> tuple[CadPose, float]:
    """The pose of an affine (4, 4) matrix, and how far its scaled columns are from a rotation.

    Scale is the length of the columns. Where they are not at right angles (a scene scaled unevenly) or form
    a mirror, R is the nearest rotation, and the second value, the largest entry of the difference, says so.
    Raises ValueError for a singular matrix.
    """
    columns = np.asarray(M, dtype=np.float64)[:3, :3]
    s = np.linalg.norm(columns, axis=0)
    if not np.isfinite(M).all() or abs(np.linalg.det(columns)) < 1e-12:
        raise ValueError(f"a pose must be a finite matrix that can be inverted, got {np.asarray(M).tolist()}")
    unit = columns / s
    U, _, Vt = np.linalg.svd(unit)
    R = U @ np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    return CadPose(R, np.asarray(M, dtype=np.float64)[:3, 3].copy(), s), float(np.abs(R - unit).max())


def rigid_inverse(T: np.ndarray) -> np.ndarray:
    """The inverse of a (4, 4) rotation and shift."""
    inverse = np.eye(4)
    inverse[:3, :3], inverse[:3, 3] = T[:3, :3].T, -T[:3, :3].T @ T[:3, 3]
    return inverse
