"""Surface normals from a sensor's depth image.

Perception stage: a depth image and its intrinsics come in; unit normals in the camera frame and a
validity mask go out. 1/z of a plane is linear in the pixel coordinates, and a structured-light or
stereo sensor's noise, which grows with z², is constant in 1/z. So planes are fitted to 1/z, in three steps:

1. Blocks of 2×2 pixels are averaged, without mixing a front with what is behind it.
2. Around each block a plane is fitted to its 5×5 neighbours (10×10 pixels), each weighted by how well
   its 1/z agrees with the centre's, so that the fit stops at depth edges and goes round holes.
3. Each pixel takes, among the blocks around it, the one whose plane explains its own 1/z best.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

RADIUS = 2  # in blocks
BORROW = 2  # blocks to the side
BORROW_BELOW, BORROW_GAIN = 23.0, 2.0  # sums of weights, at most 25
NO_VALUE = -1e4
CHUNK_BLOCKS = 8192


@dataclass(frozen=True)
class NormalsConfig:
    """How normals are fitted; the defaults suit structured-light and stereo sensors.

    inverse_depth_noise: standard deviation of 1/z in 1/m (0.0025 is 2.5 mm at 1 m, 1 cm at 2 m).
    max_slope: tangent of the steepest surface still taken for one surface rather than for an edge.
    min_neighbours: a fit with a smaller sum of weights (at most 25) is invalid.
    """

    inverse_depth_noise: float = 0.0025
    max_slope: float = 4.0
    min_neighbours: float = 6.0

    def __post_init__(self):
        for name in ("inverse_depth_noise", "max_slope", "min_neighbours"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")


def normals_from_depth(
    depth_m: torch.Tensor,
    intrinsics: torch.Tensor,
    config: NormalsConfig = NormalsConfig(),
    rois: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normals of the surfaces a depth image shows.

    depth_m: (B, H, W) float32 z-depth in metres; 0, negative, NaN and infinite mean no value.
    intrinsics: (B, 4) fx, fy, cx, cy in pixels. rois: optional (N, 4) integer boxes x0, y0, x1, y1
    (exclusive ends): only their common bounding rectangle is computed, the rest is invalid.

    Returns normals (B, H, W, 3) float32, unit length, facing the camera (n · ray < 0), 0 where invalid,
    and valid (B, H, W) bool. Raises ValueError for other shapes.
    """
    if depth_m.dim() != 3 or not depth_m.is_floating_point():
        raise ValueError(f"depth_m: expected (B, H, W) floats, got {tuple(depth_m.shape)} {depth_m.dtype}")
    if intrinsics.shape != (depth_m.shape[0], 4):
        raise ValueError(f"intrinsics: expected ({depth_m.shape[0]}, 4), got {tuple(intrinsics.shape)}")
    if rois is None:
        return _fit_normals(depth_m, intrinsics, config)
    normals = depth_m.new_zeros((*depth_m.shape, 3))
    valid = torch.zeros_like(depth_m, dtype=torch.bool)
    left, top, right, bottom = _common_rectangle(rois, *depth_m.shape[1:])
    if right > left and bottom > top:
        moved = intrinsics - intrinsics.new_tensor([0, 0, left, top])
        part = _fit_normals(depth_m[:, top:bottom, left:right], moved, config)
        normals[:, top:bottom, left:right], valid[:, top:bottom, left:right] = part
    return normals, valid


def _fit_normals(depth_m, intrinsics, config) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = depth_m.shape[1:]
    usable = (depth_m > 0) & torch.isfinite(depth_m)
    inverse = torch.where(usable, 1 / depth_m, 0.0)
    if width % 2 or height % 2:
        inverse = F.pad(inverse, (0, width % 2, 0, height % 2))
    blocks = _block_means(inverse, config)
    slope_limit = 2 * config.max_slope / intrinsics[:, :2].amin(1)
    plane, weight = _fit_planes(blocks, slope_limit[:, None, None], config)
    plane, weight = _borrow_cleaner_planes(plane, weight, blocks, config)
    normals = _plane_normals(plane, intrinsics)
    fitted = (blocks > 0) & (weight >= config.min_neighbours)
    chosen, valid = _choose_blocks(inverse, plane, fitted, config)
    # One more row, of zeros, for the pixels without a normal.
    table = F.pad(normals.reshape(-1, 3), (0, 0, 0, 1))
    chosen = torch.where(valid, chosen, len(table) - 1)
    normals = table.index_select(0, chosen.reshape(-1)).reshape(*inverse.shape, 3)
    return normals[:, :height, :width], valid[:, :height, :width]


def _block_means(inverse: torch.Tensor, config: NormalsConfig) -> torch.Tensor:
    """(B, 2h, 2w) 1/z to (B, h, w): mean over the pixels of a 2×2 block that belong to its nearest one."""
    corners = torch.stack([inverse[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    nearest = corners.amax(0)
    # Pixels farther than noise and a steep surface explain belong to what lies behind.
    near = corners > nearest - (4 * config.inverse_depth_noise + 0.02 * nearest)
    near &= corners > 0
    return (corners * near).sum(0) / near.sum(0).clamp(min=1)


def _fit_planes(blocks: torch.Tensor, slope_limit: torch.Tensor, config: NormalsConfig):
    """Robust least squares of 1/z over the 5×5 blocks around each block.

    blocks: (B, h, w), 0 where there is no value. slope_limit: (B, 1, 1) largest relative change of 1/z from
    one block to the next. Returns plane (B, 3, h, w): 1/z at the block's centre, change per block to the
    right and down; and weight (B, h, w), the sum of the weights.
    """
    # No value is far from every value: its weight comes out as 0 without a mask.
    around = F.pad(torch.where(blocks > 0, blocks, NO_VALUE), (RADIUS,) * 4, value=NO_VALUE)
    tolerance = 3 * config.inverse_depth_noise + RADIUS * slope_limit * blocks
    rows = _rows_a_chunk(blocks)
    parts = [
        _fit_chunk(around[:, top : top + rows + 2 * RADIUS], blocks[:, top : top + rows],
                   tolerance[:, top : top + rows], config)
        for top in range(0, blocks.shape[1], rows)
    ]  # fmt: skip
    return torch.cat([plane for plane, _ in parts], 2), torch.cat([weight for _, weight in parts], 1)


def _fit_chunk(around, centre, tolerance, config) -> tuple[torch.Tensor, torch.Tensor]:
    batch, height, width = centre.shape
    size = 2 * RADIUS + 1
    # (B, taps, h, w) differences of 1/z to the centre block.
    windows = around.unfold(1, size, 1).unfold(2, size, 1).permute(0, 3, 4, 1, 2)
    difference = (windows - centre[:, None, None]).reshape(batch, size * size, -1)
    moments, right_sides = _bases(centre)
    residual = difference
    scale = tolerance.reshape(batch, 1, -1)
    for final in (False, True):
        t = residual / scale
        w = torch.addcmul(t.new_ones(()), t, t, value=-1).clamp_(min=0).square_()
        m = moments @ w
        fit = _solve(m, right_sides @ w.mul_(difference))
        if not final:
            # Second round: distance from the first plane, against the noise alone.
            residual = difference - right_sides.T @ fit
            scale = 3 * config.inverse_depth_noise + 0.25 * (scale - 3 * config.inverse_depth_noise)
    plane = fit.reshape(batch, 3, height, width)
    plane[:, 0] += centre
    return plane, m[:, 0].reshape(batch, height, width)


def _bases(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Polynomials over the window's taps: (6, taps) 1, u, v, uu, uv, vv and (3, taps) 1, u, v."""
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=like.dtype, device=like.device)
    v, u = (grid.reshape(-1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    one = torch.ones_like(u)
    return torch.stack([one, u, v, u * u, u * v, v * v]), torch.stack([one, u, v])


def _solve(m: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Solve the 3×3 normal equations: moments m (B, 6, N), right sides r (B, 3, N) -> (B, 3, N).

    Cofactors of the centred system; windows on one line give slope 0 across it.
    """
    weight = m[:, 0].clamp(min=1e-6)
    u, v, d = m[:, 1] / weight, m[:, 2] / weight, r[:, 0] / weight
    uu, uv, vv = m[:, 3] / weight - u * u, m[:, 4] / weight - u * v, m[:, 5] / weight - v * v
    ud, vd = r[:, 1] / weight - u * d, r[:, 2] / weight - v * d
    determinant = (uu * vv - uv * uv).clamp(min=1e-3)
    slope_u = (vv * ud - uv * vd) / determinant
    slope_v = (uu * vd - uv * ud) / determinant
    return torch.stack([d - slope_u * u - slope_v * v, slope_u, slope_v], 1)


def _borrow_cleaner_planes(plane, weight, blocks, config) -> tuple[torch.Tensor, torch.Tensor]:
    """Let a block beside an edge or a crease take the plane of a block two away that fits clearly better.

    A window that straddles two surfaces explains both badly: its sum of weights is low. The borrowed plane
    must pass through the block's own 1/z. Changes plane (B, 3, h, w) and weight (B, h, w) in place.
    """
    batch, height, width = blocks.shape
    poor = torch.nonzero((weight < BORROW_BELOW) & (blocks > 0))
    b, row, column = poor.unbind(1)
    steps = torch.tensor([-BORROW, 0, BORROW], device=blocks.device)
    dv, du = (grid.reshape(-1, 1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    near_row, near_column = row + dv, column + du
    inside = (near_row >= 0) & (near_row < height) & (near_column >= 0) & (near_column < width)
    near = (b, near_row.clamp(0, height - 1), near_column.clamp(0, width - 1))
    # Planes of the nine blocks around, (9, N) each, evaluated at the poor block itself.
    right, down = plane[near[0], 1, near[1], near[2]], plane[near[0], 2, near[1], near[2]]
    here = plane[near[0], 0, near[1], near[2]] - du * right - dv * down
    explains = (here - blocks[b, row, column]).abs_() < 2 * config.inverse_depth_noise
    best_weight, best = torch.where(inside & explains, weight[near], 0.0).max(0)
    gains = best_weight > weight[b, row, column] + BORROW_GAIN
    b, row, column, best = b[gains], row[gains], column[gains], best[gains]
    taken = [values[:, gains].gather(0, best[None])[0] for values in (here, right, down)]
    plane[b, :, row, column] = torch.stack(taken, -1)
    weight[b, row, column] = best_weight[gains]
    return plane, weight


def _plane_normals(plane: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """Planes in 1/z at blocks to unit normals (B, h, w, 3) facing the camera.

    For n · x = c and x = z · ray, 1/z = (n · ray) / c: its gradient per pixel is n_x / (c fx), n_y / (c fy).
    """
    fx, fy, cx, cy = (intrinsics[:, i, None, None] for i in range(4))
    height, width = plane.shape[2:]
    # The centre of block 0 lies between pixels 0 and 1.
    u = 2 * torch.arange(width, device=plane.device, dtype=plane.dtype) + 0.5
    v = (2 * torch.arange(height, device=plane.device, dtype=plane.dtype) + 0.5)[:, None]
    nx, ny = plane[:, 1] * (fx / 2), plane[:, 2] * (fy / 2)
    nz = plane[:, 0] - nx * ((u - cx) / fx) - ny * ((v - cy) / fy)
    # n · ray = c / z has the sign of c, chosen positive here: the normal facing the camera is its opposite.
    return -F.normalize(torch.stack([nx, ny, nz], -1), dim=-1)


def _choose_blocks(inverse, plane, fitted, config) -> tuple[torch.Tensor, torch.Tensor]:
    """For each pixel the block whose plane explains its 1/z: its own, else the best of three beside it.

    inverse (B, 2h, 2w), plane (B, 3, h, w), fitted (B, h, w) bool. Returns index (B, 2h, 2w) int64 into the
    B * h * w blocks and valid (B, 2h, 2w).
    """
    batch, height, width = fitted.shape
    index = torch.arange(batch * height * width, device=plane.device).reshape(batch, height, width)
    index = index.repeat_interleave(2, 1).repeat_interleave(2, 2)
    value, right, down = plane.unbind(1)
    value = torch.where(fitted, value, NO_VALUE)
    error = torch.empty_like(inverse)
    for i in (0, 1):
        for j in (0, 1):
            # From the block's centre to this pixel is a quarter of a block each way.
            there = torch.add(value, right, alpha=(j - 0.5) / 2).add_(down, alpha=(i - 0.5) / 2)
            torch.sub(there, inverse[:, i::2, j::2], out=there)
            error[:, i::2, j::2] = there.abs_()
    valid = error < 4 * config.inverse_depth_noise + 0.02 * inverse
    astray = torch.nonzero(~valid & (inverse > 0))
    b, row, column = astray.unbind(1)
    side_v, side_u = 2 * (row % 2) - 1, 2 * (column % 2) - 1
    dv = torch.stack([0 * side_v, side_v, side_v])
    du = torch.stack([side_u, 0 * side_u, side_u])
    near = (b, (row // 2 + dv).clamp(0, height - 1), (column // 2 + du).clamp(0, width - 1))
    to_v, to_u = row / 2 - 0.25 - near[1], column / 2 - 0.25 - near[2]
    own = inverse[b, row, column]
    off = (value[near] + to_u * right[near] + to_v * down[near] - own).abs_()
    best_off, best = off.min(0)
    index[b, row, column] = ((near[0] * height + near[1]) * width + near[2]).gather(0, best[None])[0]
    valid[b, row, column] = best_off < 4 * config.inverse_depth_noise + 0.02 * own
    return index, valid & (inverse > 0)


def _rows_a_chunk(blocks: torch.Tensor) -> int:
    """All rows at once on a GPU; on a CPU as many as stay in its cache."""
    if blocks.device.type != "cpu":
        return blocks.shape[1]
    return max(1, CHUNK_BLOCKS // (blocks.shape[0] * blocks.shape[2]))


def _common_rectangle(rois: torch.Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Bounding rectangle of the boxes, grown by the window, starting on even pixels, inside the image."""
    rois = torch.as_tensor(rois).reshape(-1, 4)
    if not len(rois):
        return 0, 0, 0, 0
    margin = 2 * (2 * RADIUS + 2)
    (left, top), (right, bottom) = rois[:, :2].amin(0).tolist(), rois[:, 2:].amax(0).tolist()
    left, top = max(0, int(left) - margin) // 2 * 2, max(0, int(top) - margin) // 2 * 2
    return left, top, min(width, int(right) + margin), min(height, int(bottom) + margin)
