"""Floor and walls of a depth image: the planes that have nothing behind them."""

from __future__ import annotations

import numpy as np

from sparc_core.types import Camera

SAMPLES = 2500
HYPOTHESES = 250
MAX_PLANES = 4
# Residuals are judged in 1/z, where a structured-light or stereo sensor's noise is the same everywhere.
INLIER_INVERSE_M = 0.006
MIN_SHARE = 0.04  # of the samples must lie on a plane
MAX_BEHIND = 0.03  # of the samples may lie behind it: a table top has the floor behind it
CLEARANCE_M = 0.02  # less than this in front of a plane still counts as the plane


def foreground(depth_m: np.ndarray, camera: Camera, boxes_xyxy, seed: int = 0) -> np.ndarray:
    """(H, W) bool: pixels with depth that lie clearly in front of floor and walls.

    depth_m: (H, W) z-depth in metres, 0 or NaN where there is none. camera: a pinhole. boxes_xyxy: (D, 4) of
    the detected objects. seed: of the random plane hypotheses.
    """
    front = (depth_m > 0) & (depth_m < np.inf)
    inverse = inverse_depth(depth_m, front)
    x = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)
    y = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)
    for plane in background_planes(depth_m, camera, boxes_xyxy, seed):
        a, b, c = plane.tolist()  # Python's floats, which leave float32 images what they are
        # In front of the plane by the clearance, measured along its normal, and by the sensor's noise; both
        # as differences of 1/z.
        apart = np.maximum(CLEARANCE_M * float(np.linalg.norm(plane)) * inverse, INLIER_INVERSE_M)
        ahead = np.subtract(inverse, a * x)
        ahead -= (b * y + c)[:, None]
        front &= ahead > apart
    return front


def inverse_depth(depth_m: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(H, W) float32 1/z, 0 outside `where`."""
    inverse = np.zeros(depth_m.shape, dtype=np.float32)
    np.divide(1, depth_m, out=inverse, where=where)
    return inverse


def background_planes(depth_m: np.ndarray, camera: Camera, boxes_xyxy, seed: int = 0) -> list[np.ndarray]:
    """Planes as (a, b, c) with 1/z = a·x + b·y + c at normalised pixel (x, y), largest first.

    They are found outside the boxes: the front of a wardrobe has nothing behind it either.
    """
    rng = np.random.default_rng(seed)
    pixels = np.flatnonzero((depth_m > 0) & (depth_m < np.inf))
    if len(pixels) > SAMPLES:
        pixels = pixels[rng.integers(0, len(pixels), SAMPLES)]
    v, u = np.divmod(pixels, depth_m.shape[1])
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(len(u))], -1)
    inverse = 1.0 / depth_m[v, u].astype(np.float64)
    free = np.ones(len(rays), dtype=bool)
    for left, top, right, bottom in np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4):
        free &= (u < left) | (u > right) | (v < top) | (v > bottom)
    found: list[np.ndarray] = []
    while len(found) < MAX_PLANES and free.sum() >= max(12, MIN_SHARE * len(rays)):
        plane = _best_plane(rays, inverse, free, rng)
        if plane is None:
            break
        found.append(plane)
        free &= rays @ plane - inverse < -INLIER_INVERSE_M
    return found


def _best_plane(rays, inverse, free, rng) -> np.ndarray | None:
    """The plane through most of the free samples with next to nothing behind it, or None."""
    candidates = np.flatnonzero(free)
    triples = _local_triples(rays, candidates, rng)
    matrices = rays[triples]
    good = np.abs(np.linalg.det(matrices)) > 1e-5
    planes = np.linalg.solve(matrices[good], inverse[triples[good]][..., None])[..., 0]
    if not len(planes):
        return None
    # Residuals are positive where a sample lies behind a plane. Single precision does for counting.
    samples = np.concatenate([rays, inverse[:, None]], 1).astype(np.float32).T
    homogeneous = np.concatenate([planes, np.full((len(planes), 1), -1.0)], 1).astype(np.float32)
    residual = homogeneous @ samples[:, free]
    support = np.count_nonzero(np.abs(residual, out=residual) < INLIER_INVERSE_M, axis=1) / len(rays)
    for best in np.argsort(-support, kind="stable"):
        if support[best] < MIN_SHARE:
            return None
        residual = homogeneous[best] @ samples
        if np.count_nonzero(residual > 2 * INLIER_INVERSE_M) <= MAX_BEHIND * len(rays):
            break
    else:
        return None
    inliers = free & (np.abs(residual) < INLIER_INVERSE_M)
    return np.linalg.lstsq(rays[inliers], inverse[inliers], rcond=None)[0]


def _local_triples(rays, candidates, rng) -> np.ndarray:
    """(M, 3) indices of samples: a random one and two others at most a third of the image away."""
    first = rng.choice(candidates, HYPOTHESES)
    others = rng.choice(candidates, (HYPOTHESES, 12))
    distance = np.abs(rays[others] - rays[first][:, None]).max(-1)
    order = np.argsort(np.where(distance > 0.02, distance, np.inf), axis=1)[:, [2, 5]]
    return np.concatenate([first[:, None], np.take_along_axis(others, order, 1)], 1)
