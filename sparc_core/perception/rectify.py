"""Lens distortion out: raw image, depth, masks and boxes to those of an ideal pinhole camera.

First step of perception for a camera with distortion; everything behind it knows pinholes only. The
rectified camera shares the raw one's centre and axes, so that poses and z-depth need no conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from sparc_core.geometry.camera import project_points
from sparc_core.types import Camera

# A pinhole image stretches without limit towards 90° off the axis: what lies beyond this angle is cut.
MAX_OFF_AXIS_RAD = np.deg2rad(75.0)
# A pixel whose undistorted ray does not project back onto it lies outside the model's valid range.
MAX_ROUND_TRIP_PX = 0.5
BORDER_SAMPLES = 33
OUTSIDE_PX = -1e4


@lru_cache(maxsize=8)
def rectifier_for(camera: Camera) -> Rectifier:
    """The rectifier of a camera, with its maps, made once per camera."""
    return Rectifier(camera)


@dataclass(frozen=True)
class Rectifier:
    """Maps between a camera's raw pixels and those of `camera`, a pinhole that sees the same field.

    The pinhole image has the raw image's size and just contains the raw image's field of view, up to
    75° off the axis. Without distortion everything is handed through untouched.
    """

    raw_camera: Camera

    @property
    def is_identity(self) -> bool:
        """True when the raw camera is a pinhole already."""
        return not any(self.raw_camera.distortion) and self.raw_camera.distortion_model != "equidistant"

    @cached_property
    def camera(self) -> Camera:
        """The pinhole camera of the rectified images."""
        raw = self.raw_camera
        if self.is_identity:
            intrinsics = (raw.fx, raw.fy, raw.cx, raw.cy)
        else:
            intrinsics = _containing_intrinsics(raw)
        return Camera(
            raw.width, raw.height, *intrinsics, up_cam=raw.up_cam, above_floor_m=raw.above_floor_m
        )  # fmt: skip

    def points(self, uv_px: np.ndarray) -> np.ndarray:
        """(..., 2) raw pixels to rectified pixels; NaN where the lens model has no inverse."""
        uv = np.asarray(uv_px, dtype=np.float64)
        if self.is_identity:
            return uv.copy()
        camera = self.camera
        return undistorted_rays(uv, self.raw_camera) * (camera.fx, camera.fy) + (camera.cx, camera.cy)

    def raw_points(self, uv_px: np.ndarray) -> np.ndarray:
        """(..., 2) rectified pixels to raw pixels; the lens model is applied even outside its valid range."""
        uv = np.asarray(uv_px, dtype=np.float64)
        if self.is_identity:
            return uv.copy()
        camera = self.camera
        rays = (uv - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
        return project_points(np.concatenate([rays, np.ones_like(rays[..., :1])], -1), self.raw_camera)

    def image(self, image_rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 raw image to the rectified one, bilinear, black outside the raw field."""
        return self._rectified(image_rgb, cv2.INTER_LINEAR, "image")

    def depth(self, depth_m: np.ndarray) -> np.ndarray:
        """(H, W) float32 raw z-depth in metres to rectified, nearest neighbour, 0 outside the raw field.

        Interpolation would invent depths between an object and what is behind it.
        """
        return self._rectified(depth_m, cv2.INTER_NEAREST, "depth")

    def normals(self, normals_cam: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32 normals of the raw image to rectified, nearest neighbour, 0 outside the raw
        field. Rectification does not turn the camera, so the vectors stay as they are."""
        return self._rectified(normals_cam, cv2.INTER_NEAREST, "normals")

    def values(self, values: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, C) float32 values of the raw image to rectified, nearest neighbour, 0 outside the
        raw field."""
        return self._rectified(np.ascontiguousarray(values, dtype=np.float32), cv2.INTER_NEAREST, "values")

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """(H, W) bool raw mask to rectified, nearest neighbour."""
        return self._rectified(np.asarray(mask, dtype=np.uint8), cv2.INTER_NEAREST, "mask") > 0

    def raw_mask(self, mask: np.ndarray) -> np.ndarray:
        """(h, w) bool mask of the rectified image, at any resolution, to the (H, W) raw image."""
        raw = self.raw_camera
        pixels = np.ascontiguousarray(mask).view(np.uint8)
        if self.is_identity:
            return cv2.resize(pixels, (raw.width, raw.height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
        # Pixel centres are at integers: the image's edge is at -0.5 at every resolution.
        scale = np.array([pixels.shape[1] / raw.width, pixels.shape[0] / raw.height], dtype=np.float32)
        uv = (self._rectified_pixels + 0.5) * scale - 0.5
        return (
            cv2.remap(pixels, uv, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0) > 0
        )

    def raw_values(self, values: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, C) float32 values of the rectified image to the raw one, nearest neighbour, 0
        where the rectified image has no such pixel."""
        if self.is_identity:
            return values
        return cv2.remap(values, self._rectified_pixels, None, cv2.INTER_NEAREST,
                         borderMode=cv2.BORDER_CONSTANT, borderValue=0)  # fmt: skip

    def boxes(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """(N, 4) raw boxes to the rectified boxes around their mapped borders, float64.

        Not clipped to the image. A box with no border point inside the valid field comes out as NaN.
        """
        boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
        if self.is_identity or not len(boxes):
            return boxes.copy()
        uv = self.points(_box_borders(boxes))
        seen = np.isfinite(uv).all(-1)
        low = np.where(seen[..., None], uv, np.inf).min(1)
        high = np.where(seen[..., None], uv, -np.inf).max(1)
        found = np.concatenate([low, high], 1)
        found[~seen.any(1)] = np.nan
        return found

    @cached_property
    def _to_raw(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Where in the raw image each rectified pixel is found: cv2.remap's maps for each interpolation."""
        grid = _pixel_grid(self.camera)
        raw = self.raw_points(grid)
        # Polynomials fold far rays back into the image: such a pixel does not come back to itself.
        folded = ~(np.abs(self.points(raw) - grid).max(-1) < 1.0)
        raw[folded] = OUTSIDE_PX
        u, v = np.moveaxis(raw.astype(np.float32), -1, 0)
        # OpenCV's nearest neighbour needs maps rounded for it: given the others, it takes wrong neighbours.
        return {
            cv2.INTER_LINEAR: cv2.convertMaps(u, v, cv2.CV_16SC2, nninterpolation=False),
            cv2.INTER_NEAREST: cv2.convertMaps(u, v, cv2.CV_16SC2, nninterpolation=True),
        }

    @cached_property
    def _rectified_pixels(self) -> np.ndarray:
        """(H, W, 2) float32: where in the rectified image each raw pixel is found, far outside if nowhere."""
        uv = np.nan_to_num(self.points(_pixel_grid(self.raw_camera)), nan=OUTSIDE_PX)
        return np.clip(uv, OUTSIDE_PX, -OUTSIDE_PX).astype(np.float32)

    def _rectified(self, pixels: np.ndarray, interpolation: int, name: str) -> np.ndarray:
        _check_size(pixels, self.raw_camera, name)
        if self.is_identity:
            return pixels
        maps = self._to_raw[interpolation]
        return cv2.remap(pixels, *maps, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def undistorted_rays(uv_px: np.ndarray, camera: Camera) -> np.ndarray:
    """(..., 2) raw pixels to the x, y of their rays with z = 1, float64; NaN where there is none.

    There is none beyond 75° off the axis and where the distortion model cannot be inverted.
    """
    uv = np.asarray(uv_px, dtype=np.float64)
    flat = np.ascontiguousarray(uv.reshape(-1, 1, 2))
    coefficients = np.array(camera.distortion, dtype=np.float64)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-7)
    if camera.distortion_model == "equidistant":
        rays = cv2.fisheye.undistortPoints(flat, camera.K, coefficients, criteria=stop)
    else:
        rays = cv2.undistortPointsIter(flat, camera.K, coefficients, None, None, stop)
    rays = rays[:, 0]
    again = project_points(np.concatenate([rays, np.ones_like(rays[:, :1])], 1), camera)
    valid = np.abs(again - flat[:, 0]).max(-1) < MAX_ROUND_TRIP_PX
    valid &= np.linalg.norm(rays, axis=-1) < np.tan(MAX_OFF_AXIS_RAD)
    rays[~valid] = np.nan
    return rays.reshape(uv.shape)


def _containing_intrinsics(raw: Camera) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the pinhole whose image of the raw size just contains the raw field."""
    edges = np.array([[-0.5, -0.5, raw.width - 0.5, raw.height - 0.5]])
    # A grid, not only the border: a fisheye's corners may have no ray at all.
    u, v = np.meshgrid(np.linspace(edges[0, 0], edges[0, 2], 65), np.linspace(edges[0, 1], edges[0, 3], 65))
    rays = undistorted_rays(np.stack([u, v], -1), raw).reshape(-1, 2)
    rays = rays[np.isfinite(rays).all(-1)]
    if len(rays) < 4:
        raise ValueError(
            f"camera distortion: expected a lens model that can be inverted, got {raw.distortion}"
        )
    low, high = rays.min(0), rays.max(0)
    zoom = min(raw.width / (high[0] - low[0]) / raw.fx, raw.height / (high[1] - low[1]) / raw.fy)
    fx, fy = float(raw.fx * zoom), float(raw.fy * zoom)
    middle = ((low + high) / 2).tolist()
    return fx, fy, (raw.width - 1) / 2 - middle[0] * fx, (raw.height - 1) / 2 - middle[1] * fy


def _box_borders(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) boxes to (N, 4 * BORDER_SAMPLES, 2) points along their sides."""
    t = np.linspace(0, 1, BORDER_SAMPLES)
    x0, y0, x1, y1 = (boxes[:, i, None] for i in range(4))
    u, v = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t
    sides = [(u, y0 + 0 * t), (u, y1 + 0 * t), (x0 + 0 * t, v), (x1 + 0 * t, v)]
    return np.concatenate([np.stack(side, -1) for side in sides], 1)


def _pixel_grid(camera: Camera) -> np.ndarray:
    """(H, W, 2) float64 pixel coordinates u, v."""
    u, v = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
    return np.stack([u, v], -1)


def _check_size(pixels: np.ndarray, camera: Camera, name: str) -> None:
    if pixels.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f"{name}: expected the camera's size (H, W) = {(camera.height, camera.width)}, "
            f"got {pixels.shape[:2]}"
        )
