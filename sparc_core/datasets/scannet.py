"""ScanNet25k: colour, depth and camera poses of single frames, brought to the benchmark's 480 × 360 pixels.

`<scene>/color/000000.jpg`, `depth/000000.png` (uint16 mm), `pose/000000.txt` (camera to world),
`intrinsics_color.txt`, `intrinsics_depth.txt` (4 × 4 each).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sparc_core.types import Camera

WIDTH, HEIGHT = 480, 360
MM_PER_M = 1000.0


@dataclass(frozen=True)
class SceneFiles:
    """The frames of one scene that are complete, and what is missing of the others, in words."""

    folder: Path
    frames: tuple[str, ...]
    problems: tuple[str, ...]


def list_scene(folder: Path, need_depth: bool = True) -> SceneFiles:
    """Which frames of `<scene>` have all their files; every missing file is a line of `problems`."""
    problems = [
        f"{folder / name}: no such file"
        for name in ("intrinsics_color.txt", *(["intrinsics_depth.txt"] if need_depth else []))
        if not (folder / name).is_file()
    ]
    frames = []
    for image in sorted((folder / "color").glob("*.jpg")):
        needed = [folder / "pose" / f"{image.stem}.txt"]
        needed += [folder / "depth" / f"{image.stem}.png"] if need_depth else []
        missing = [f"{path}: no such file" for path in needed if not path.is_file()]
        problems += missing
        if not missing:
            frames.append(image.stem)
    if not (folder / "color").is_dir():
        problems.append(f"{folder / 'color'}: no such folder")
    elif not frames:
        problems.append(f"{folder / 'color'}: no complete frame")
    return SceneFiles(folder, tuple(frames), tuple(problems))


def read_matrix(path: Path) -> np.ndarray:
    """A (4, 4) text file as float64; entries may be infinite (frames whose pose is not known).

    Raises FileNotFoundError, or ValueError naming the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: expected 4 × 4 numbers ({error})") from error
    if matrix.shape != (4, 4):
        raise ValueError(f"{path}: expected 4 × 4 numbers, got shape {matrix.shape}")
    return matrix


def read_pose(path: Path) -> np.ndarray | None:
    """T_scan_cam (4, 4), or None where ScanNet has no pose (entries that are not finite).

    Raises ValueError for a matrix that is no rotation with a shift.
    """
    T = read_matrix(path)
    if not np.isfinite(T).all():
        return None
    R = T[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-2 or np.linalg.det(R) < 0:
        raise ValueError(f"{path}: expected a rotation and a shift, got {T.tolist()}")
    U, _, Vt = np.linalg.svd(R)  # the text has six digits; what follows relies on right angles
    T[:3, :3] = U @ Vt
    return T


def read_intrinsics(path: Path, width: int, height: int) -> Camera:
    """The pinhole of a 4 × 4 intrinsics file, for images of this size. Raises ValueError naming the file."""
    K = read_matrix(path)
    try:
        return Camera(width, height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def fit_camera(camera: Camera) -> Camera:
    """The camera of the image resized to height 360 and centre-cropped to 480 × 360.

    Pixel centres are at integers: the image's edge stays at −0.5. Raises ValueError for an image that is too
    narrow.
    """
    width, crop = _resized(camera.width, camera.height)
    sx, sy = width / camera.width, HEIGHT / camera.height
    return Camera(
        WIDTH, HEIGHT, camera.fx * sx, camera.fy * sy,
        (camera.cx + 0.5) * sx - 0.5 - crop, (camera.cy + 0.5) * sy - 0.5,
    )  # fmt: skip


def fit_image(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 resized and cropped to (360, 480, 3), as `fit_camera` says."""
    height, width = image.shape[:2]
    new_width, crop = _resized(width, height)
    smaller = cv2.INTER_AREA if new_width < width else cv2.INTER_LINEAR
    resized = cv2.resize(image, (new_width, HEIGHT), interpolation=smaller)
    return np.ascontiguousarray(resized[:, crop : crop + WIDTH])


def fit_depth(depth: np.ndarray, depth_camera: Camera, camera: Camera) -> np.ndarray:
    """Depth (h, w) of `depth_camera` at the pixels of `camera`, both at the same place: nearest pixel, 0
    outside. The two sensors of ScanNet differ in their intrinsics, so a resize would shift the depth."""
    u = (np.arange(camera.width) - camera.cx) / camera.fx * depth_camera.fx + depth_camera.cx
    v = (np.arange(camera.height) - camera.cy) / camera.fy * depth_camera.fy + depth_camera.cy
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    inside = ((row >= 0) & (row < depth.shape[0]))[:, None] & ((column >= 0) & (column < depth.shape[1]))
    sampled = depth[np.clip(row, 0, depth.shape[0] - 1)[:, None], np.clip(column, 0, depth.shape[1] - 1)]
    return np.where(inside, sampled, 0).astype(depth.dtype)


def _resized(width: int, height: int) -> tuple[int, int]:
    """Width at height 360, and how many columns are cut off at the left."""
    resized = round(width * HEIGHT / height)
    if resized < WIDTH:
        raise ValueError(f"an image of {width} × {height} is too narrow to be cropped to {WIDTH} × {HEIGHT}")
    return resized, (resized - WIDTH) // 2
