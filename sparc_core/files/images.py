"""Colour images, depth images and masks: any usual file in, one layout out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from sparc_core.files.fields import require_file

# A furniture scene whose typical depth is beyond this was read in the wrong unit.
MAX_MEDIAN_DEPTH_M = 100.0


def read_image(path: str | Path) -> np.ndarray:
    """Read a colour image as (H, W, 3) uint8 RGB.

    Takes 8-bit and 16-bit grey, RGB and RGBA; alpha is dropped. Pixels stay as stored: an EXIF
    rotation is not applied, because the intrinsics belong to the stored pixels. Raises
    FileNotFoundError or ValueError naming the file.
    """
    pixels = _decode(Path(path), "an image")
    if pixels.dtype == np.uint16:
        # 65535 must become 255: 65535 / 257 = 255 exactly.
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{path}: expected an 8 or 16 bit image, got {pixels.dtype}")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    conversions = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if pixels.shape[2] not in conversions:
        raise ValueError(f"{path}: expected 1, 3 or 4 channels, got {pixels.shape[2]}")
    return cv2.cvtColor(pixels, conversions[pixels.shape[2]])


def read_depth(path: str | Path, units_per_m: float = 1000.0) -> np.ndarray:
    """Read a depth image as (H, W) float32 metres, 0 where there is no value.

    Integer images (16-bit PNG or TIFF, integer .npy) are divided by `units_per_m`; floating point ones
    (.npy, .exr, .tiff) are metres already. NaN and infinities become 0. Raises FileNotFoundError, or
    ValueError naming the file for other types, more than one channel, negative depth, or a median
    beyond 100 m (the unit is then surely another one).
    """
    path = Path(path)
    if not np.isfinite(units_per_m) or units_per_m <= 0:
        raise ValueError(f"depth scale: expected a positive number of units per metre, got {units_per_m}")
    pixels = _load_npy(path) if path.suffix.lower() == ".npy" else _decode(path, "a depth image")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise ValueError(f"{path}: expected depth with one channel, got shape {pixels.shape}")
    if pixels.dtype == np.uint8 or pixels.dtype.kind not in "uif":
        raise ValueError(f"{path}: expected 16-bit or floating point depth, got {pixels.dtype}")
    depth = pixels.astype(np.float32)
    if pixels.dtype.kind != "f":
        depth /= np.float32(units_per_m)
    depth[~np.isfinite(depth)] = 0
    _check_depth(depth, path)
    return depth


def read_mask(path: str | Path) -> np.ndarray:
    """Read an instance mask as (H, W) bool: a pixel is in where any colour channel is not 0."""
    pixels = _decode(Path(path), "a mask image")
    if pixels.ndim == 2:
        return pixels != 0
    # The alpha of an ordinary picture is 255 everywhere and says nothing.
    return (pixels[..., :3] != 0).any(-1)


def write_image(path: str | Path, image_rgb: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB; the file's extension chooses the format.

    Raises ValueError for an unknown extension or another layout.
    """
    path = Path(path)
    if image_rgb.dtype != np.uint8 or image_rgb.ndim != 3 or image_rgb.shape[2] != 3:
        raise ValueError(f"image: expected (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}")
    require_image_suffix(path)
    encoded = cv2.imencode(path.suffix, np.ascontiguousarray(image_rgb[..., ::-1]))[1]
    path.write_bytes(encoded.tobytes())


def require_image_suffix(path: Path) -> None:
    """Raise ValueError when no image can be written under this name."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        raise ValueError(f"{path}: expected a name ending in .png, .jpg, .webp or .bmp")


def _decode(path: Path, what: str) -> np.ndarray:
    require_file(path)
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if path.suffix.lower() == ".exr":
        # OpenCV reads EXR only when the process allows it, and asks at the first EXR file.
        os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error as error:
        raise ValueError(f"{path}: expected {what}, got a file OpenCV refuses ({error.err})") from error
    if pixels is None:
        raise ValueError(f"{path}: expected {what}, got a file in no image format OpenCV reads")
    return pixels


def _load_npy(path: Path) -> np.ndarray:
    require_file(path)
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: expected a NumPy array, got a file that does not load ({error})"
        ) from error


def _check_depth(depth: np.ndarray, path: Path) -> None:
    if depth.size and depth.min() < 0:
        raise ValueError(f"{path}: expected depth of 0 or more, got {depth.min():g} m")
    valid = depth[depth > 0]
    if valid.size and np.median(valid) > MAX_MEDIAN_DEPTH_M:
        raise ValueError(
            f"{path}: expected depth in metres, got a median of {np.median(valid):g} m: "
            "wrong depth scale, or millimetres stored as floating point?"
        )
