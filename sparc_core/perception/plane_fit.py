"""The mathematics of `normals.py`: planes fitted to 1/z around blocks of 2×2 pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

RADIUS = 2  # of a window, in blocks
NO_VALUE = -1e4


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

    def explained(self, inverse: torch.Tensor) -> torch.Tensor:
        """How far a plane may be off 1/z and still explain it."""
        return 4 * self.inverse_depth_noise + 0.02 * inverse


DEFAULTS = NormalsConfig()


def block_means(inverse: torch.Tensor, config: NormalsConfig) -> torch.Tensor:
    """(B, 2h, 2w) 1/z to (B, h, w): mean over the pixels of a 2×2 block that belong to its nearest one."""
    corners = [inverse[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    nearest = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
    # Pixels farther than noise and a steep surface explain belong to what lies behind.
    least = (nearest - config.explained(nearest)).clamp_(min=0)
    total, count = torch.zeros_like(nearest), torch.zeros_like(nearest)
    for corner in corners:
        near = (corner > least).to(inverse.dtype)
        total.addcmul_(corner, near)
        count += near
    return total.div_(count.clamp_(min=1))


def fit_planes(around: torch.Tensor, slope_limit: torch.Tensor, config: NormalsConfig) -> torch.Tensor:
    """Robust least squares of 1/z over the 5×5 blocks around each block of T tiles.

    around: (T, h + 4, w + 4) values of the tiles' blocks and those beside, `NO_VALUE` where there is none.
    slope_limit: (T,) largest relative change of 1/z from one block to the next. Returns (T, h, w, 4): 1/z at
    the block's centre, its change per block to the right and down, and the sum of the weights.
    """
    noise, size = 3 * config.inverse_depth_noise, 2 * RADIUS + 1
    centre = around[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    # (25, T·h·w) differences to the centre. No value is far from every value: its weight comes out as 0
    # without a mask.
    windows = around.unfold(1, size, 1).unfold(2, size, 1).permute(3, 4, 0, 1, 2)
    difference = torch.sub(windows, centre, out=around.new_empty(windows.shape)).view(size * size, -1)
    centre = centre.reshape(-1)
    moments, right_sides = _bases(around)
    residual = difference
    per_block = slope_limit.repeat_interleave(difference.shape[1] // len(around))
    scale = RADIUS * per_block * centre.clamp(min=0) + noise
    for final in (False, True):
        t = residual / scale
        w = torch.addcmul(t.new_ones(()), t, t, value=-1).clamp_(min=0).square_()
        m = moments @ w
        plane = _solve(m, right_sides @ w.mul_(difference))
        if not final:
            # Second round: distance from the first plane, against the noise alone.
            residual = torch.addmm(difference, right_sides.T, plane, alpha=-1)
            scale = noise + 0.25 * (scale - noise)
    plane[0] += centre
    return torch.cat((plane, m[:1] * (centre > 0))).T.unflatten(0, windows.shape[2:])


def _bases(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Polynomials over the window's taps: (6, taps) 1, u, v, uu, uv, vv and (3, taps) 1, u, v."""
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=like.dtype, device=like.device)
    v, u = (grid.reshape(-1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    one = torch.ones_like(u)
    return torch.stack([one, u, v, u * u, u * v, v * v]), torch.stack([one, u, v])


def _solve(m: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Solve the 3×3 normal equations: moments m (6, N), right sides r (3, N) -> (3, N).

    Cofactors of the centred system; windows on one line give slope 0 across it.
    """
    weight = m[0].clamp(min=1e-6)
    u, v, uu, uv, vv = (m[1:] / weight).unbind(0)
    d, ud, vd = (r / weight).unbind(0)
    uu, uv, vv = uu - u * u, uv - u * v, vv - v * v
    ud, vd = ud - u * d, vd - v * d
    determinant = (uu * vv - uv * uv).clamp(min=1e-3)
    slope_u = (vv * ud - uv * vd) / determinant
    slope_v = (uu * vd - uv * ud) / determinant
    return torch.stack([d - slope_u * u - slope_v * v, slope_u, slope_v])


def plane_normals(plane: torch.Tensor, u, v, intrinsics: torch.Tensor) -> torch.Tensor:
    """Planes (…, 4) as of `fit_planes`, at blocks centred at pixels u, v, to unit normals (…, 3) facing the
    camera. intrinsics: (…, 4).

    For n · x = c and x = z · ray, 1/z = (n · ray) / c: its gradient per pixel is n_x / (c fx), n_y / (c fy).
    """
    fx, fy, cx, cy = intrinsics.unbind(-1)
    nx, ny = plane[..., 1] * (fx / 2), plane[..., 2] * (fy / 2)
    nz = plane[..., 0] - nx * ((u - cx) / fx) - ny * ((v - cy) / fy)
    # n · ray = c / z has the sign of c, chosen positive here: the normal facing the camera is its opposite.
    return -F.normalize(torch.stack([nx, ny, nz], -1), dim=-1)
