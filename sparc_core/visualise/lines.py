"""Hidden-line drawing: feature edges of placed models to visible and hidden runs of pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from sparc_core.geometry.camera import project_points
from sparc_core.types import AlignedObject, Camera
from sparc_core.visualise.edges import feature_edges
from sparc_core.visualise.zbuffer import NEAR_M, place

# Edges are cut into pieces of about this length, each seen or hidden as a whole.
PIECE_PX = 5.0
MAX_PIECES = 256


@dataclass(frozen=True, eq=False)
class Lines:
    """Polylines in raw pixels: lists of (n, 2) float64 arrays, visible and hidden ones."""

    visible: list[np.ndarray]
    hidden: list[np.ndarray]


def object_lines(item: AlignedObject, model, camera: Camera, pinhole: Camera, z_m: np.ndarray) -> Lines:
    """The model's feature edges in raw pixels of `camera`, split by visibility.

    pinhole and z_m: a camera without distortion that shares the pose of `camera`, and the depth
    buffer rendered with it (H, W), inf where there is nothing. Edges are cut at 5 cm in front of the camera
    and at the pinhole image's border, so nothing behind the camera or far off the image is drawn.
    """
    uv, inverse_z = _clipped_edges(place(feature_edges(model), item), pinhole)
    edge, t0, t1 = _pieces(np.linalg.norm(uv[:, 1] - uv[:, 0], axis=-1))
    middle = (t0 + t1) / 2
    seen = _is_visible(
        _between(uv[edge], middle),
        _between(inverse_z[edge], middle),
        z_m,
        tolerance_m=0.01 * float(np.max(item.S_m)),
    )
    ends = [
        _raw_pixels(_between(uv[edge], t), _between(inverse_z[edge], t), pinhole, camera) for t in (t0, t1)
    ]
    finite = np.isfinite(ends[0]).all(-1) & np.isfinite(ends[1]).all(-1)
    edge, seen, ends = edge[finite], seen[finite], [end[finite] for end in ends]
    # A run ends where the edge does, or where it goes into hiding or out of it.
    cuts = np.flatnonzero((edge[1:] != edge[:-1]) | (seen[1:] != seen[:-1])) + 1
    bounds = [0, *cuts.tolist(), len(edge)] if len(edge) else []
    straight = camera.distortion_model == "none"
    lines = Lines([], [])
    for start, stop in itertools.pairwise(bounds):
        starts = ends[0][start : start + 1] if straight else ends[0][start:stop]
        run = np.concatenate([starts, ends[1][stop - 1 : stop]])
        (lines.visible if seen[start] else lines.hidden).append(run)
    return lines


def _clipped_edges(edges_cam: np.ndarray, pinhole: Camera) -> tuple[np.ndarray, np.ndarray]:
    """(E, 2, 3) camera segments to (G, 2, 2) pixels and (G, 2) 1/z of what is in front and in the image."""
    edges = edges_cam[(edges_cam[..., 2] > NEAR_M).any(1)]
    z = edges[..., 2]
    for i in (0, 1):
        # Where this end is too near, move it along the edge to the near plane.
        t = np.clip(
            (NEAR_M - z[:, 1 - i]) / np.where(z[:, i] == z[:, 1 - i], 1.0, z[:, i] - z[:, 1 - i]), 0, 1
        )
        cut = edges[:, 1 - i] + t[:, None] * (edges[:, i] - edges[:, 1 - i])
        edges[:, i] = np.where((z[:, i] < NEAR_M)[:, None], cut, edges[:, i])
        z = edges[..., 2]
    uv = edges[..., :2] / z[..., None] * (pinhole.fx, pinhole.fy) + (pinhole.cx, pinhole.cy)
    low, high = _inside_image(uv, pinhole)
    kept = low < high
    uv, inverse_z, low, high = uv[kept], 1.0 / z[kept], low[kept], high[kept]
    return (
        np.stack([_between(uv, low), _between(uv, high)], 1),
        np.stack([_between(inverse_z, low), _between(inverse_z, high)], 1),
    )


def _inside_image(uv: np.ndarray, pinhole: Camera) -> tuple[np.ndarray, np.ndarray]:
    """The range of t over which each (E, 2, 2) segment lies in the image (Liang and Barsky's clipping)."""
    low, high = np.zeros(len(uv)), np.ones(len(uv))
    for axis, size in enumerate((pinhole.width, pinhole.height)):
        start, change = uv[:, 0, axis], uv[:, 1, axis] - uv[:, 0, axis]
        step = np.where(change == 0, 1.0, change)
        near, far = np.sort([(-0.5 - start) / step, (size - 0.5 - start) / step], axis=0)
        outside = (start < -0.5) | (start > size - 0.5)
        low = np.where(change == 0, np.where(outside, np.inf, low), np.maximum(low, near))
        high = np.where(change == 0, high, np.minimum(high, far))
    return low, high


def _pieces(length_px: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut edges of these lengths: (N,) edge indices, and start and end of each piece in 0 to 1."""
    count = np.clip(np.ceil(length_px / PIECE_PX), 1, MAX_PIECES).astype(np.int64)
    edge = np.repeat(np.arange(len(count)), count)
    index = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    return edge, index / count[edge], (index + 1) / count[edge]


def _is_visible(uv: np.ndarray, inverse_z: np.ndarray, z_m: np.ndarray, tolerance_m: float) -> np.ndarray:
    """(N,) bool: nothing lies clearly in front of the point."""
    # The farthest depth among the neighbours: an edge on a silhouette is a pixel away from the background.
    around = cv2.dilate(np.minimum(z_m, np.float32(1e6)), np.ones((3, 3), np.uint8))
    height, width = z_m.shape
    column = np.clip(np.rint(uv[:, 0]).astype(np.int64), 0, width - 1)
    row = np.clip(np.rint(uv[:, 1]).astype(np.int64), 0, height - 1)
    return 1.0 / inverse_z <= around[row, column] * 1.005 + tolerance_m


def _raw_pixels(uv: np.ndarray, inverse_z: np.ndarray, pinhole: Camera, camera: Camera) -> np.ndarray:
    rays = (uv - (pinhole.cx, pinhole.cy)) / (pinhole.fx, pinhole.fy)
    points = np.concatenate([rays, np.ones_like(rays[:, :1])], -1) / inverse_z[:, None]
    return project_points(points, camera)


def _between(ends: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Linear interpolation between the (N, 2, ...) ends at (N,) t."""
    t = t.reshape(-1, *(1,) * (ends.ndim - 2))
    return ends[:, 0] * (1 - t) + ends[:, 1] * t
