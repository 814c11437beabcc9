"""How well the extents of CAD models fit to those that are expected of a detected object."""

from __future__ import annotations

import torch

from sparc_core.types import ESTIMATE_S

MODEL_SPREAD_LOG = 0.12  # standard deviation of an object's extents over those of its own CAD model
MOST_OFF = 4.0  # standard deviations at which a model is as unlikely as can be


def extents_likelihood(estimate: torch.Tensor, extents_m: torch.Tensor) -> torch.Tensor:
    """(D, M) log-likelihoods of CAD models with extents_m (M, 3) for what is expected of objects
    (D, `ESTIMATE_NUMBERS`), the mean of the three axes, 0 for the best that there could be; and 0 for objects
    of which nothing is expected."""
    expected, sigma = estimate[:, ESTIMATE_S], estimate[:, ESTIMATE_S.stop]
    known = (estimate != 0).any(-1)
    spread = (sigma.square() + MODEL_SPREAD_LOG**2).sqrt()[:, None, None]
    off = (extents_m.log()[None] - expected.clamp(min=1e-3).log()[:, None]) / spread
    likelihood = -0.5 * off.clamp(-MOST_OFF, MOST_OFF).square().mean(-1)
    return torch.where(known[:, None], likelihood, torch.zeros_like(likelihood))
