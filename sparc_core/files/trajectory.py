"""Where the camera was: TUM trajectories and JSON files of poses in, one (4, 4) matrix a frame out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from sparc_core.files.fields import Fields, load_json, require_file

MAX_GAP_S = 0.5  # poses further apart are not interpolated
SAME_S = 0.02  # a pose this near to a stamp is taken as it is


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses T_fixed_cam (4, 4), either by stamp (sorted, (K,) s and (K, 4, 4)) or by a frame's
    name."""

    stamps_s: np.ndarray
    poses: np.ndarray
    by_name: dict[str, np.ndarray]

    def at(self, name: str, stamp_s: float) -> np.ndarray | None:
        """(4, 4) of a frame: by its name, else interpolated between the poses around its stamp; None where
        the trajectory has a gap."""
        if name in self.by_name:
            return self.by_name[name]
        if not len(self.stamps_s):
            return None
        after = int(np.searchsorted(self.stamps_s, stamp_s))
        near = [i for i in (after - 1, after) if 0 <= i < len(self.stamps_s)]
        best = min(near, key=lambda i: abs(self.stamps_s[i] - stamp_s))
        if abs(self.stamps_s[best] - stamp_s) < 1e-9:
            return self.poses[best]
        if len(near) == 2 and self.stamps_s[near[1]] - self.stamps_s[near[0]] <= MAX_GAP_S:
            return _between(self.stamps_s[near], self.poses[near], stamp_s)
        return self.poses[best] if abs(self.stamps_s[best] - stamp_s) <= SAME_S else None


def read_trajectory(path: str | Path) -> Trajectory:
    """Read camera poses: camera to a frame that does not move, the camera's axes being optical (z forward).

    A .json file is an object {"NAME": 4 × 4 matrix, …} with the frames' names (file names without their
    ending); anything else is a TUM trajectory, lines of `stamp tx ty tz qx qy qz qw` with # comments. Raises
    FileNotFoundError, or ValueError naming file and line or field.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        return _read_json(path)
    require_file(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a TUM trajectory or a .json file, got a binary file") from error
    rows = [
        _tum_row(line, f"{path}: line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise ValueError(f"{path}: expected lines of 'stamp tx ty tz qx qy qz qw', got none")
    rows = np.array(sorted(rows, key=lambda row: row[0]))
    if len(rows) > 1 and (np.diff(rows[:, 0]) <= 0).any():
        raise ValueError(f"{path}: expected one pose a stamp, got the stamp {_repeated(rows[:, 0])} twice")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(rows[:, 4:]).as_matrix()
    poses[:, :3, 3] = rows[:, 1:4]
    return Trajectory(rows[:, 0], poses, {})


def _read_json(path: Path) -> Trajectory:
    content = load_json(path, dict, "camera poses")
    fields = Fields(content, str(path))
    by_name = {name: _rigid(fields.array(name, (4, 4)), f"{path}: field {name!r}") for name in content}
    return Trajectory(np.zeros(0), np.zeros((0, 4, 4)), by_name)


def _rigid(T: np.ndarray, where: str) -> np.ndarray:
    R = T[:3, :3]
    is_rotation = np.allclose(R @ R.T, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0
    if not is_rotation or not np.allclose(T[3], (0, 0, 0, 1), atol=1e-6):
        raise ValueError(f"{where}: expected a rotation and a translation as a 4×4 matrix, got {T.tolist()}")
    return T


def _tum_row(line: str, where: str) -> list[float]:
    try:
        row = [float(word) for word in line.replace(",", " ").split()]
    except ValueError:
        row = []
    if len(row) != 8 or not np.isfinite(row).all() or not np.linalg.norm(row[4:]) > 1e-6:
        raise ValueError(f"{where}: expected 'stamp tx ty tz qx qy qz qw', got {line.strip()[:80]!r}")
    return row


def _repeated(stamps_s: np.ndarray) -> float:
    return float(stamps_s[1:][np.diff(stamps_s) <= 0][0])


def _between(stamps_s: np.ndarray, poses: np.ndarray, stamp_s: float) -> np.ndarray:
    share = (stamp_s - stamps_s[0]) / (stamps_s[1] - stamps_s[0])
    T = np.eye(4)
    T[:3, :3] = Slerp([0.0, 1.0], Rotation.from_matrix(poses[:, :3, :3]))(share).as_matrix()
    T[:3, 3] = (1 - share) * poses[0, :3, 3] + share * poses[1, :3, 3]
    return T
