"""The plane an object stands on, from the depth along the lower border of its box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparc_core.types import Camera

HYPOTHESES = 96
MAX_SAMPLES = 500
# Residuals are judged in 1/z, where a structured-light or stereo sensor's noise is the same everywhere.
INLIER_INVERSE_M = 0.006
MIN_INLIER_SHARE = 0.25
# A support's normal lies within this of `up_cam`; without it, of the image's upward direction.
MAX_TILT_KNOWN_RAD = np.deg2rad(15.0)
MAX_TILT_UNKNOWN_RAD = np.deg2rad(75.0)
# Less than this above the plane still counts as the plane.
CLEARANCE_M = 0.02


@dataclass(frozen=True)
class SupportPlane:
    """Points x with up_cam · x = offset_m, in the camera frame; up_cam (3,) has unit length."""

    up_cam: tuple[float, float, float]
    offset_m: float

    def height_m(self, depth_m: np.ndarray, camera: Camera, left: int = 0, top: int = 0) -> np.ndarray:
        """(h, w) heights in metres above the plane of a crop of a depth image whose corner is (left, top)."""
        rows, columns = depth_m.shape
        x = (np.arange(left, left + columns, dtype=np.float32) - camera.cx) / camera.fx
        y = (np.arange(top, top + rows, dtype=np.float32) - camera.cy) / camera.fy
        along = (self.up_cam[0] * x)[None] + (self.up_cam[1] * y + self.up_cam[2])[:, None]
        return (depth_m * along - self.offset_m).astype(np.float32)

    def is_above(self, depth_m: np.ndarray, camera: Camera, left: int = 0, top: int = 0) -> np.ndarray:
        """(h, w) bool: clearly above the plane, by 2 cm and the sensor's noise."""
        # The noise along the ray counts as height only as far as the ray is steep.
        noise = INLIER_INVERSE_M * np.square(depth_m) * self._steepness(depth_m.shape, camera, left, top)
        return self.height_m(depth_m, camera, left, top) > CLEARANCE_M + noise

    def _steepness(self, shape, camera: Camera, left: int, top: int) -> np.ndarray:
        y = (np.arange(top, top + shape[0], dtype=np.float32) - camera.cy) / camera.fy
        return np.abs(self.up_cam[1] * y + self.up_cam[2])[:, None]


def find_support(
    depth_m: np.ndarray, camera: Camera, bounds, up_cam, rng: np.random.Generator
) -> SupportPlane | None:
    """The plane through most points along and below the lower border of a box, or None.

    depth_m: (H, W) metres. bounds: left, top, right, bottom, integer, ends exclusive. up_cam: gravity's
    opposite, or None: the plane must then merely face upwards in the image.
    """
    u, v, inverse = _border_points(depth_m, bounds, rng)
    if len(u) < 12:
        return None
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    # For n · X = c: 1/z = (n / c) · (x, y, 1). The unknown is n / c.
    rays = np.stack([x, y, np.ones_like(x)], -1)
    planes = _hypotheses(rays, inverse, rng)
    planes = planes[_faces_up(planes, up_cam)]
    if not len(planes):
        return None
    inliers = np.abs(planes @ rays.T - inverse) < INLIER_INVERSE_M
    best = inliers[np.argmax(inliers.sum(1))]
    if best.mean() < MIN_INLIER_SHARE:
        return None
    refined = np.linalg.lstsq(rays[best], inverse[best], rcond=None)[0]
    if not _faces_up(refined[None], up_cam)[0]:
        return None
    length = np.linalg.norm(refined)
    # Seen from above, n · X = c has c < 0 for the upward n: the camera is above the plane.
    return SupportPlane(tuple(float(value) for value in -refined / length), float(-1 / length))


def _border_points(depth_m: np.ndarray, bounds, rng: np.random.Generator):
    """Pixels u, v and 1/z in the band around the lower border, a tenth of the box's height either side."""
    left, top, right, bottom = bounds
    band = max(3, (bottom - top) // 10)
    aside = (right - left) // 10
    rows = slice(bottom - band, min(depth_m.shape[0], bottom + band))
    columns = slice(max(0, left - aside), min(depth_m.shape[1], right + aside))
    part = depth_m[rows, columns]
    v, u = np.nonzero(np.isfinite(part) & (part > 0))
    if len(v) > MAX_SAMPLES:
        chosen = rng.integers(0, len(v), MAX_SAMPLES)
        v, u = v[chosen], u[chosen]
    return u + float(columns.start), v + float(rows.start), 1.0 / part[v, u].astype(np.float64)


def _hypotheses(rays: np.ndarray, inverse: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(M, 3) planes n / c through random triples of points; triples nearly on one line are dropped."""
    triples = rng.integers(0, len(rays), (HYPOTHESES, 3))
    matrices = rays[triples]
    good = np.abs(np.linalg.det(matrices)) > 1e-5
    return np.linalg.solve(matrices[good], inverse[triples[good]][..., None])[..., 0]


def _faces_up(planes: np.ndarray, up_cam) -> np.ndarray:
    """(M,) bool: the plane's upper side, seen from the camera, points up."""
    up = np.array([0.0, -1.0, 0.0] if up_cam is None else up_cam)
    tilt = MAX_TILT_UNKNOWN_RAD if up_cam is None else MAX_TILT_KNOWN_RAD
    # n / c with n · X = c and X in front has n facing away from the camera: the visible side is its opposite.
    length = np.linalg.norm(planes, axis=-1)
    return -(planes @ up) > np.cos(tilt) * np.maximum(length, 1e-12)
