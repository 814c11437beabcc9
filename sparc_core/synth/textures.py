"""Procedural textures: noise in space, and the patterns of floors, walls and furniture made of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_LATTICE = 32


class Noise:
    """Smooth value noise in space with a lattice drawn from a generator; it repeats every 32 units."""

    def __init__(self, generator: torch.Generator):
        lattice = torch.rand((_LATTICE,) * 3, generator=generator, device=generator.device)
        # one more on every side, so that interpolation wraps around
        self._lattice = F.pad(lattice[None, None], (0, 1) * 3, mode="circular")

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """(K,) values in [0, 1] at points (K, 3)."""
        place = points.remainder(_LATTICE)
        whole = place.floor()
        smooth = whole + (place - whole).square() * (3 - 2 * (place - whole))
        grid = smooth * (2 / _LATTICE) - 1
        found = F.grid_sample(self._lattice, grid[None, None, None], align_corners=True)
        return found[0, 0, 0, 0]

    def octaves(self, points: torch.Tensor, count: int = 3) -> torch.Tensor:
        """(K,) values around 0, about −1 to 1: octaves of half the size and half the height."""
        total = torch.zeros(len(points), device=points.device)
        for octave in range(count):
            total = total + (2 * self(points * 2.0**octave + 7.3 * octave) - 1) * 0.5**octave
        return total


def scramble(*whole: torch.Tensor) -> torch.Tensor:
    """Values in [0, 1) that look random, one for each tuple of whole numbers."""
    factors = (12.9898, 78.233, 37.719)
    phase = sum(w.double() * f for w, f in zip(whole, factors, strict=False))
    return ((phase.sin() * 43758.5453) % 1.0).float()


def planks(uv_m: torch.Tensor, width_m: float, length_m: float, noise: Noise) -> torch.Tensor:
    """(K,) brightness of boards in staggered rows at uv_m (K, 2), about 1, with grain and dark joints."""
    row = (uv_m[:, 1] / width_m).floor()
    shifted = uv_m[:, 0] / length_m + scramble(row, row * 0)
    board = shifted.floor()
    grain = noise.octaves(torch.stack((uv_m[:, 0] * 3, uv_m[:, 1] * 60, row * 5.1 + board * 3.7), -1))
    shade = 1 + 0.25 * (scramble(row, board) - 0.5) + 0.12 * grain
    beside = (uv_m[:, 1] / width_m - row - 0.5).abs() * width_m
    before = (shifted - board - 0.5).abs() * length_m
    joint = (beside > width_m / 2 - 0.002) | (before > length_m / 2 - 0.002)
    return torch.where(joint, 0.6 * shade, shade)


def tiles(
    uv_m: torch.Tensor, size_m: float, joint_m: float, noise: Noise
) -> tuple[torch.Tensor, torch.Tensor]:
    """(K,) brightness of square tiles at uv_m (K, 2), about 1, and (K,) bool where the joints are."""
    cell = (uv_m / size_m).floor()
    inside = (uv_m / size_m - cell - 0.5).abs().amax(-1) * size_m
    cloud = noise.octaves(torch.cat((uv_m * 4, cell[:, :1]), -1))
    shade = 1 + 0.12 * (scramble(cell[:, 0], cell[:, 1]) - 0.5) + 0.05 * cloud
    return shade, inside > size_m / 2 - joint_m / 2


def wood(points_m: torch.Tensor, axis: int, noise: Noise) -> torch.Tensor:
    """(K,) brightness of wood at points (K, 3), about 1, its grain along an axis."""
    stretch = torch.full((3,), 25.0, device=points_m.device)
    stretch[axis] = 2.0
    return 1 + 0.18 * noise.octaves(points_m * stretch)


def weave(points_m: torch.Tensor, noise: Noise) -> torch.Tensor:
    """(K,) brightness of cloth at points (K, 3), about 1: fine threads, and folds."""
    return 1 + 0.10 * (2 * noise(points_m * 180) - 1) + 0.08 * noise.octaves(points_m * 6, 2)
