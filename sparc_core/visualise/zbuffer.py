"""Depth buffers and silhouettes of aligned models, rasterised in numpy.

A plain scan-line rasteriser: all triangles, then all their rows, then all the pixels of those rows are
laid out as flat arrays. It needs no BVH and no GPU, and it is independent of the ray caster that
makes the training data, so that each can be tested against the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparc_core.perception.rectify import Rectifier, rectifier_for
from sparc_core.types import AlignedObject, Camera

NEAR_M = 0.05


@dataclass(frozen=True, eq=False)
class DepthBuffer:
    """Which object is in front at each pixel of a pinhole image.

    z_m: (H, W) float32 z-depth, inf where there is nothing. owner: (H, W) int32 index into the objects,
    -1 for nothing. silhouettes: one (H, W) bool image an object, hidden parts included.
    """

    z_m: np.ndarray
    owner: np.ndarray
    silhouettes: tuple[np.ndarray, ...]


def silhouette_mask(camera: Camera, item: AlignedObject, library) -> np.ndarray:
    """(H, W) bool: the pixels of the raw image whose rays meet the aligned model (distortion included).

    A pixel counts when the ray through its centre meets a face. Pixels beyond 75° off the axis never do.
    """
    rectifier = rectifier_for(camera)
    buffer = render_objects([item], library, render_pinhole(rectifier, 4 * camera.width))
    return rectifier.raw_mask(buffer.silhouettes[0])


def render_objects(objects, library, camera: Camera) -> DepthBuffer:
    """Rasterise aligned objects into one depth buffer of a pinhole camera."""
    z = np.full((camera.height, camera.width), np.inf, dtype=np.float32)
    owner = np.full(z.shape, -1, dtype=np.int32)
    silhouettes = []
    for index, item in enumerate(objects):
        model = library.models[library.index_of(item.model_id)]
        own = rasterise(place(model.vertices, item)[model.faces], camera)
        silhouettes.append(np.isfinite(own))
        front = own < z
        z[front] = own[front]
        owner[front] = index
    return DepthBuffer(z, owner, tuple(silhouettes))


def place(points_cad: np.ndarray, item: AlignedObject) -> np.ndarray:
    """(..., 3) unit-cube points to camera points in metres: R · diag(S) · x + T, float64."""
    return (np.asarray(points_cad, dtype=np.float64) * item.S_m) @ np.asarray(item.R).T + item.T_m


def rasterise(triangles_cam: np.ndarray, camera: Camera) -> np.ndarray:
    """(F, 3, 3) camera-frame triangles to the (H, W) float32 nearest z-depth, inf where there is none.

    Both sides of a face count. Parts nearer than 5 cm or behind the camera are cut off.
    """
    z = np.full((camera.height, camera.width), np.inf, dtype=np.float32)
    triangles = clip_near(np.asarray(triangles_cam, dtype=np.float64), NEAR_M)
    uv = triangles[..., :2] / triangles[..., 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    # 1/z is linear over the image of a plane, z is not.
    inverse_z = 1.0 / triangles[..., 2]
    face, row = _rows(uv, camera.height)
    left, right = _row_ends(uv[face], row)
    left = np.ceil(np.clip(left, 0, camera.width)).astype(np.int64)
    right = np.floor(np.clip(right, -1, camera.width - 1)).astype(np.int64)
    count = np.maximum(right - left + 1, 0)
    gradient = _inverse_z_gradient(uv, inverse_z)
    # 1/z along a row: its value at the row's first pixel plus a constant step.
    start = (
        inverse_z[face, 0]
        + gradient[face, 0] * (left - uv[face, 0, 0])
        + gradient[face, 1] * (row - uv[face, 0, 1])
    )
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    pixel = np.repeat(row * camera.width + left, count) + step
    value = np.repeat(start, count) + np.repeat(gradient[face, 0], count) * step
    # Extrapolation over thin triangles must not leave their own depth range.
    value = np.clip(value, np.repeat(inverse_z.min(1)[face], count), np.repeat(inverse_z.max(1)[face], count))
    np.minimum.at(z.reshape(-1), pixel, (1.0 / value).astype(np.float32))
    return z


def clip_near(triangles: np.ndarray, near_m: float) -> np.ndarray:
    """Cut (F, 3, 3) triangles at z = near_m; what is nearer is dropped. Returns (G, 3, 3)."""
    inside = triangles[..., 2] >= near_m
    count = inside.sum(1)
    whole = triangles[count == 3]
    parts = [whole]
    for wanted in (1, 2):
        some = triangles[count == wanted]
        if not len(some):
            continue
        # Turn each triangle until its odd corner (the only one inside, or outside) comes first.
        odd = np.argmax(inside[count == wanted] == (wanted == 1), axis=1)
        turned = np.take_along_axis(some, ((odd[:, None] + np.arange(3)) % 3)[..., None], axis=1)
        a, b, c = turned[:, 0], turned[:, 1], turned[:, 2]
        ab, ac = _at_depth(a, b, near_m), _at_depth(a, c, near_m)
        if wanted == 1:
            parts.append(np.stack([a, ab, ac], 1))
        else:
            parts += [np.stack([ab, b, c], 1), np.stack([ab, c, ac], 1)]
    return np.concatenate(parts)


def _at_depth(a: np.ndarray, b: np.ndarray, z_m: float) -> np.ndarray:
    t = (z_m - a[:, 2:]) / (b[:, 2:] - a[:, 2:])
    point = a + t * (b - a)
    point[:, 2] = z_m
    return point


def _rows(uv: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel row every triangle crosses: (N,) triangle indices and (N,) rows."""
    low, high = uv[..., 1].min(1), uv[..., 1].max(1)
    first = np.ceil(np.clip(low, 0, height)).astype(np.int64)
    last = np.floor(np.clip(high, -1, height - 1)).astype(np.int64)
    count = np.maximum(last - first + 1, 0)
    face = np.repeat(np.arange(len(uv)), count)
    row = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return face, row


def _row_ends(uv: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) left and right end, in pixels, of row `row` inside the (N, 3, 2) triangles."""
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for i in range(3):
        a, b = uv[:, i], uv[:, (i + 1) % 3]
        rise = b[:, 1] - a[:, 1]
        crosses = (np.minimum(a[:, 1], b[:, 1]) <= row) & (row <= np.maximum(a[:, 1], b[:, 1])) & (rise != 0)
        x = a[:, 0] + (row - a[:, 1]) / np.where(crosses, rise, 1.0) * (b[:, 0] - a[:, 0])
        left = np.where(crosses, np.minimum(left, x), left)
        right = np.where(crosses, np.maximum(right, x), right)
    return left, right


def _inverse_z_gradient(uv: np.ndarray, inverse_z: np.ndarray) -> np.ndarray:
    """(F, 2) change of 1/z per pixel to the right and down; 0 for triangles seen edge-on."""
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    da, db = inverse_z[:, 1] - inverse_z[:, 0], inverse_z[:, 2] - inverse_z[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    safe = np.where(np.abs(area) > 1e-9, area, np.inf)
    return np.stack([(da * b[:, 1] - db * a[:, 1]) / safe, (db * a[:, 0] - da * b[:, 0]) / safe], -1)


def render_pinhole(rectifier: Rectifier, max_width: int) -> Camera:
    """The pinhole to rasterise with: the rectified camera at another resolution.

    Rectifying a wide lens shrinks the image's middle: the pinhole is enlarged to make up for it. It is no
    wider than `max_width`. `Rectifier.raw_mask` takes its masks.
    """
    camera = rectifier.camera
    scale = min(max(1.0, rectifier.raw_camera.fx / camera.fx), max_width / camera.width)
    width, height = max(1, round(camera.width * scale)), max(1, round(camera.height * scale))
    scale_x, scale_y = width / camera.width, height / camera.height
    # Pixel centres are at integers: the image's edge is at -0.5 at every scale.
    return Camera(
        width=width, height=height, fx=camera.fx * scale_x, fy=camera.fy * scale_y,
        cx=(camera.cx + 0.5) * scale_x - 0.5, cy=(camera.cy + 0.5) * scale_y - 0.5,
    )  # fmt: skip
