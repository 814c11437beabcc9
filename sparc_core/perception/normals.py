"""Surface normals from a sensor's depth image, where they are asked for.

Perception stage: a depth image and its intrinsics come in; unit normals in the camera frame and a
validity mask go out. 1/z of a plane is linear in the pixel coordinates, and a structured-light or
stereo sensor's noise, which grows with z², is constant in 1/z. So planes are fitted to 1/z, in three steps:

1. Blocks of 2×2 pixels are averaged, without mixing a front with what is behind it.
2. Around each block a plane is fitted to its 5×5 neighbours (10×10 pixels), each weighted by how well
   its 1/z agrees with the centre's, so that the fit stops at depth edges and goes round holes.
3. Each pixel takes, among the blocks around it, the one whose plane explains its own 1/z best.

The alignment reads a few thousand pixels of an image: planes are fitted in the tiles that these need, once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparc_core.perception.plane_fit import (
    DEFAULTS,
    NO_VALUE,
    RADIUS,
    NormalsConfig,
    block_means,
    fit_planes,
    plane_normals,
)

TILE = 16  # blocks to the side: what is fitted together
BORROW = 2  # blocks to the side
BORROW_BELOW, BORROW_GAIN = 23.0, 2.0  # sums of weights, at most 25
EXPECTED = 0.25  # of a box' size, to each side of it: where most of what is read lies
TILES_AT_ONCE, PIXELS_AT_ONCE = 64, 32768  # on a CPU: what stays in its cache


class DepthNormals:
    """Normals of the surfaces that depth images show, fitted where they are read.

    depth_m: (B, H, W) float z-depth in metres; 0, negative, NaN and infinite mean no value.
    intrinsics: (B, 4) fx, fy, cx, cy in pixels. Reading keeps what was fitted, so one reader at a time.

    Raises ValueError for other shapes.
    """

    def __init__(self, depth_m: torch.Tensor, intrinsics: torch.Tensor, config: NormalsConfig = DEFAULTS):
        if depth_m.dim() != 3 or not depth_m.is_floating_point():
            raise ValueError(
                f"depth_m: expected (B, H, W) floats, got {tuple(depth_m.shape)} {depth_m.dtype}"
            )
        if intrinsics.shape != (depth_m.shape[0], 4):
            raise ValueError(f"intrinsics: expected ({depth_m.shape[0]}, 4), got {tuple(intrinsics.shape)}")
        self.config, self.intrinsics, self.size = config, intrinsics, tuple(depth_m.shape)
        inverse = torch.where((depth_m > 0) & (depth_m < torch.inf), 1 / depth_m, 0.0)
        self.inverse = F.pad(inverse, (0, -self.size[2] % (2 * TILE), 0, -self.size[1] % (2 * TILE)))
        self.blocks = block_means(self.inverse, config)
        self.around = F.pad(
            torch.where(self.blocks > 0, self.blocks, NO_VALUE), (RADIUS,) * 4, value=NO_VALUE
        )
        self.slope_limit = 2 * config.max_slope / intrinsics[:, :2].amin(1)
        # Of every block: plane and sum of weights as fitted, the same after borrowing, and the normal.
        self.fitted, self.final = (self.blocks.new_empty(*self.blocks.shape, 4) for _ in range(2))
        self.normals = self.blocks.new_empty(*self.blocks.shape, 3)
        tiles = _in_tiles(self.blocks).shape[:3]
        self.fit_waits, self.finish_waits = (
            torch.ones(tiles, dtype=torch.bool, device=depth_m.device) for _ in range(2)
        )

    def expect(self, boxes_xyxy: torch.Tensor) -> None:
        """Fit in and around the boxes (N, 4) pixels of every image at once: many small reads cost more."""
        span = 2 * TILE
        grown = EXPECTED * (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])
        low, high = (
            ((boxes_xyxy[:, :2] - grown) // span).long(),
            ((boxes_xyxy[:, 2:] + grown) // span).long() + 1,
        )
        wanted = torch.zeros_like(self.finish_waits)
        for (left, top), (right, bottom) in zip(low.clamp(min=0).tolist(), high.tolist(), strict=True):
            wanted[:, top:bottom, left:right] = True
        batch, row, column = torch.nonzero(wanted).unbind(1)
        self._finish(batch, row * TILE, column * TILE)

    def at(self, index: torch.Tensor) -> torch.Tensor:
        """Normals (…, 3), unit length, facing the camera (n · ray < 0), 0 where invalid, at flat pixel
        indices (…) into (B, H, W)."""
        flat = index.reshape(-1)
        at_once = PIXELS_AT_ONCE if flat.device.type == "cpu" else max(1, len(flat))
        return torch.cat([self._at_pixels(part) for part in flat.split(at_once)]).view(*index.shape, 3)

    def _at_pixels(self, index: torch.Tensor) -> torch.Tensor:
        line = index // self.size[2]
        batch = line // self.size[1]
        row, column = line - batch * self.size[1], index - line * self.size[2]
        inverse = self.inverse[batch, row, column]
        self._finish(batch, row // 2, column // 2)
        block = self._number(batch, row // 2, column // 2)
        # From a block's centre to its pixels is a quarter of a block each way.
        off = self._distance(block, (column % 2) / 2 - 0.25, (row % 2) / 2 - 0.25, inverse)
        valid = off < self.config.explained(inverse)
        astray = torch.nonzero(~valid & (inverse > 0))[:, 0]
        block[astray], valid[astray] = self._blocks_beside(
            *(values[astray] for values in (batch, row, column, inverse))
        )
        return self.normals.view(-1, 3)[block] * (valid & (inverse > 0))[:, None]

    def _blocks_beside(self, batch, row, column, inverse) -> tuple[torch.Tensor, torch.Tensor]:
        """For pixels (N,) that their own block's plane does not explain: the number of the best of the three
        blocks beside them, and whether its plane does."""
        side_v, side_u = 2 * (row % 2) - 1, 2 * (column % 2) - 1
        dv = torch.stack([0 * side_v, side_v, side_v])
        du = torch.stack([side_u, 0 * side_u, side_u])
        near_row = (row // 2 + dv).clamp(0, self.blocks.shape[1] - 1)
        near_column = (column // 2 + du).clamp(0, self.blocks.shape[2] - 1)
        self._finish(batch.expand_as(near_row), near_row, near_column)
        near = self._number(batch, near_row, near_column)
        off = self._distance(near, column / 2 - 0.25 - near_column, row / 2 - 0.25 - near_row, inverse)
        off, best = off.min(0)
        return near.gather(0, best[None])[0], off < self.config.explained(inverse)

    def _distance(self, block, right, down, inverse) -> torch.Tensor:
        """How far 1/z is from the planes of blocks, at offsets from their centres in blocks."""
        value, to_right, to_below, weight = self.final.view(-1, 4)[block].unbind(-1)
        value = torch.where(weight >= self.config.min_neighbours, value, NO_VALUE)
        return (value + right * to_right + down * to_below - inverse).abs_()

    def _finish(self, batch, row, column) -> None:
        """Fill `final` and `normals` in the tiles of the given blocks."""
        tiles = _waiting(self.finish_waits, batch, row, column)
        if not len(tiles[0]):
            return
        fresh = self.fit_waits[tiles]
        self._fit(tuple(values[fresh] for values in tiles))
        b, tile_row, tile_column = tiles
        plane = _in_tiles(self.fitted)[tiles]
        poor = torch.nonzero((plane[..., 3] < BORROW_BELOW) & (plane[..., 3] > 0))
        tile, i, j = poor.unbind(1)
        plane[tile, i, j] = self._borrow_cleaner(
            b[tile], tile_row[tile] * TILE + i, tile_column[tile] * TILE + j
        )
        _in_tiles(self.final)[tiles] = plane
        steps = torch.arange(TILE, device=plane.device)
        # The centre of block 0 lies between pixels 0 and 1.
        u = 2 * (tile_column[:, None, None] * TILE + steps) + 0.5
        v = 2 * (tile_row[:, None, None] * TILE + steps[:, None]) + 0.5
        _in_tiles(self.normals)[tiles] = plane_normals(plane, u, v, self.intrinsics[b][:, None, None])

    def _fit(self, tiles) -> None:
        """Fill `fitted` in the given tiles."""
        if not len(tiles[0]):
            return
        size = TILE + 2 * RADIUS
        around = self.around.unfold(1, size, TILE).unfold(2, size, TILE)
        at_once = TILES_AT_ONCE if self.blocks.device.type == "cpu" else len(tiles[0])
        for part in zip(*(values.split(at_once) for values in tiles), strict=True):
            _in_tiles(self.fitted)[part] = fit_planes(around[part], self.slope_limit[part[0]], self.config)
        self.fit_waits[tiles] = False

    def _borrow_cleaner(self, batch, row, column) -> torch.Tensor:
        """Planes (N, 4) of blocks beside an edge or a crease: that of a block two away if it fits clearly
        better, else their own.

        A window that straddles two surfaces explains both badly: its sum of weights is low. The borrowed
        plane must pass through the block's own 1/z.
        """
        height, width = self.blocks.shape[1:]
        steps = torch.tensor([-BORROW, 0, BORROW], device=row.device)
        dv, du = (grid.reshape(-1, 1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
        near_row, near_column = row + dv, column + du
        inside = (near_row >= 0) & (near_row < height) & (near_column >= 0) & (near_column < width)
        near_row, near_column = near_row.clamp_(0, height - 1), near_column.clamp_(0, width - 1)
        self._fit(_waiting(self.fit_waits, batch.expand_as(near_row), near_row, near_column))
        # Planes of the nine blocks around, (9, N) each, evaluated at the poor block itself.
        planes = self.fitted.view(-1, 4)
        value, right, down, weight = planes[self._number(batch, near_row, near_column)].unbind(-1)
        here = value - du * right - dv * down
        explains = (here - self.blocks[batch, row, column]).abs() < 2 * self.config.inverse_depth_noise
        best_weight, best = torch.where(inside & explains, weight, 0.0).max(0)
        own = planes[self._number(batch, row, column)]
        taken = torch.stack([x.gather(0, best[None])[0] for x in (here, right, down, weight)], -1)
        return torch.where((best_weight > own[:, 3] + BORROW_GAIN)[:, None], taken, own)

    def _number(self, batch, row, column) -> torch.Tensor:
        """Flat indices of blocks."""
        return (batch * self.blocks.shape[1] + row) * self.blocks.shape[2] + column


def normals_from_depth(
    depth_m: torch.Tensor, intrinsics: torch.Tensor, config: NormalsConfig = DEFAULTS
) -> tuple[torch.Tensor, torch.Tensor]:
    """`DepthNormals` at all pixels: normals (B, H, W, 3), 0 where invalid, and valid (B, H, W) bool.

    Arguments and errors are those of `DepthNormals`.
    """
    reader = DepthNormals(depth_m, intrinsics, config)
    pixels = torch.arange(depth_m.numel(), device=depth_m.device)
    normals = reader.at(pixels.view(depth_m.shape))
    return normals, (normals != 0).any(-1)


def _in_tiles(values: torch.Tensor) -> torch.Tensor:
    """(B, h, w, …) values of blocks as a view (B, tile rows, tile columns, TILE, TILE, …)."""
    return values.unflatten(1, (-1, TILE)).unflatten(3, (-1, TILE)).transpose(2, 3)


def _waiting(waits: torch.Tensor, batch, row, column) -> tuple[torch.Tensor, ...]:
    """Image, row and column of the tiles that hold the given blocks and still wait; they do no longer."""
    tiles = batch, row // TILE, column // TILE
    if not waits[tiles].any():
        return (row.new_empty(0),) * 3
    wanted = torch.zeros_like(waits)
    wanted[tiles] = True
    wanted &= waits
    waits &= ~wanted
    return torch.nonzero(wanted).unbind(1)
