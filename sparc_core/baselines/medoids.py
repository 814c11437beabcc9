"""K-medoids of rotations: the bins that Mask2CAD classifies into (section 3.3).

A bin is one of the rotations that were seen. How far a rotation is from a bin is the smallest angle over the
symmetric turns of its CAD model, so that a round table falls into a bin whichever way it was annotated.
"""

from __future__ import annotations

import numpy as np
import torch

from sparc_core.geometry.errors import symmetric_turns
from sparc_core.geometry.rotation import rotation_angle_rad, rotation_y

CHUNK = 64  # rotations whose angles to all bins are held at once
SAME_RAD = 1e-4  # rotations nearer to a bin than this make no second one


def nearest_turn(
    R: torch.Tensor, bins: torch.Tensor, symmetry_order: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Angles in radians (D, K) of rotations R (D, 3, 3) to bins (D, K, 3, 3), or (K, 3, 3) for all alike, and
    the symmetric turn of R that has them (D, K, 3, 3). symmetry_order (D,) int: turns about the object's y
    that leave it unchanged."""
    turns, exists = symmetric_turns(symmetry_order)
    turned = R[:, None] @ rotation_y(turns.to(R.dtype))
    bins = bins.expand(len(R), *bins.shape[-3:])
    angle = rotation_angle_rad(bins[:, :, None].transpose(-1, -2) @ turned[:, None])
    angle = torch.where(exists[:, None], angle, torch.inf)
    best, which = angle.min(-1)
    return best, turned.gather(1, which[..., None, None].expand(*which.shape, 3, 3))


def bin_costs(R: torch.Tensor, symmetry_order: torch.Tensor) -> np.ndarray:
    """(D, D) angles in radians: of every rotation (row), with its symmetry, to every rotation as a bin
    (column)."""
    costs = [
        nearest_turn(R[i : i + CHUNK], R, symmetry_order[i : i + CHUNK])[0] for i in range(0, len(R), CHUNK)
    ]
    return torch.cat(costs).cpu().numpy().astype(np.float64)


def k_medoids(costs: np.ndarray, count: int) -> np.ndarray:
    """Columns (at most `count`,) of a cost matrix (D, M) whose smallest cost a row has the smallest sum that
    exchanging any one of them can reach (PAM: greedy choice, then the best exchange as long as one helps).

    Deterministic; fewer come back where more would not lower any cost. Raises ValueError for costs that are
    not finite or no matrix, and for a count below 1.
    """
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 2 or 0 in costs.shape or not np.isfinite(costs).all():
        raise ValueError(f"costs must be a matrix of finite numbers, got shape {costs.shape}")
    if count < 1:
        raise ValueError(f"the number of medoids must be at least 1, got {count}")
    chosen = [int(costs.sum(0).argmin())]
    while len(chosen) < min(count, costs.shape[1]):
        nearest = costs[:, chosen].min(1)
        gain = np.maximum(nearest[:, None] - costs, 0).sum(0)
        if gain.max() <= SAME_RAD:
            break
        chosen.append(int(gain.argmax()))
    total = costs[:, chosen].min(1).sum()
    while True:
        exchange, reached = _best_exchange(costs, chosen)
        if reached >= total - 1e-9 * max(1.0, total):
            return np.array(sorted(chosen))
        chosen[exchange[0]] = exchange[1]
        total = reached


def _best_exchange(costs: np.ndarray, chosen: list[int]) -> tuple[tuple[int, int], float]:
    """Which of the chosen columns (by position) to give up for which other, and the sum that is left."""
    best, reached = (0, chosen[0]), np.inf
    for position in range(len(chosen)):
        others = chosen[:position] + chosen[position + 1 :]
        without = costs[:, others].min(1) if others else np.full(len(costs), np.inf)
        totals = np.minimum(without[:, None], costs).sum(0)
        column = int(totals.argmin())
        if totals[column] < reached:
            best, reached = (position, column), float(totals[column])
    return best, reached


def rotation_bins(R: torch.Tensor, symmetry_order: torch.Tensor, count: int, most: int = 800) -> torch.Tensor:
    """(at most `count`, 3, 3) medoids of rotations (D, 3, 3); of more than `most` rotations evenly spaced
    ones are clustered. Raises ValueError when there are none."""
    if len(R) == 0:
        raise ValueError("no rotations to take bins from")
    few = torch.linspace(0, len(R) - 1, min(most, len(R))).round().long()
    R, order = R[few].double(), symmetry_order[few]
    return R[torch.from_numpy(k_medoids(bin_costs(R, order), count))].float()
