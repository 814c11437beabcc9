"""Losses of Mask2CAD: contrast of regions and views with hard examples, and the pose branches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparc_core.baselines.mask2cad import RegionAnswers
from sparc_core.baselines.mask2cad_pose import PoseTargets


@dataclass(frozen=True)
class Mask2CadLossConfig:
    """Of the paper's section 3.4: temperature τ, negative_weight C, huber δ, refine_deg θ, and the weights of
    embedding, bins and regression; `positives` and `negatives` are the hard examples of a region (P_h, N_h).
    depth, extents: weights of the b5 variant, 0 leaves them as they began."""

    temperature: float = 0.15
    negative_weight: float = 1.5
    huber: float = 0.15
    refine_deg: float = 30.0
    positives: int = 32
    negatives: int = 128
    embedding: float = 0.5
    bins: float = 0.25
    regression: float = 5.0
    depth: float = 5.0
    extents: float = 5.0

    def __post_init__(self):
        for name in ("temperature", "negative_weight", "huber", "refine_deg", "positives", "negatives"):
            if getattr(self, name) <= 0:
                raise ValueError(f"mask2cad loss {name} must be above 0, got {getattr(self, name)}")


def contrastive_loss(
    regions: torch.Tensor,
    views: torch.Tensor,
    shows: torch.Tensor,
    same: torch.Tensor,
    config: Mask2CadLossConfig,
) -> torch.Tensor:
    """Equation 1, mean over each region's hardest positives and over the regions that have negatives.

    regions (D, E), views (V, E) of length one; shows (D, V) bool: a view of the region's own CAD model; same
    (D, V) bool: of its category. D of equation 2 is used as an exponent, as in noise contrastive estimation
    [31]: printed as it is, the logarithm of a negative cosine would be taken. 0 where no region has both.
    """
    similarity = regions @ views.T / config.temperature
    positive, is_positive = _hardest(-similarity, shows, config.positives)
    negative, is_negative = _hardest(similarity, same & ~shows, config.negatives)
    against = torch.where(is_negative, negative, -torch.inf)
    counted = is_positive.any(1) & is_negative.any(1)
    if not bool(counted.any()):
        return similarity.sum() * 0.0
    against = torch.logsumexp(against[counted], 1, keepdim=True) + math.log(config.negative_weight)
    each = F.softplus(against + positive[counted])  # −log(eᵖ / (eᵖ + C Σ eⁿ)), `positive` being −p
    use = is_positive[counted]
    return ((each * use).sum(1) / use.sum(1)).mean()


def _hardest(value: torch.Tensor, among: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest values (D, at most count) of those among which to choose, and which of them are
    there."""
    found = torch.where(among, value, -torch.inf).topk(min(count, value.shape[1]), 1)
    there = torch.isfinite(found.values)
    return torch.where(there, found.values, 0.0), there


def pose_losses(
    answers: RegionAnswers, targets: PoseTargets, config: Mask2CadLossConfig
) -> dict[str, torch.Tensor]:
    """Weighted losses by name: cross entropy of the bins; Huber losses of the residual, from the bin that the
    network itself chose and only where that is within θ of the truth, of the offset, the depth and the
    extents."""
    chosen = answers.bin_logits.argmax(-1)
    row = torch.arange(len(chosen), device=chosen.device)
    near = targets.angle_rad[row, chosen] <= torch.deg2rad(
        chosen.new_tensor(config.refine_deg, dtype=torch.float32)
    )
    residual = _huber(answers.residual, targets.residual[row, chosen], config).mean(-1)
    residual = torch.where(near, residual, 0.0).sum() / near.sum().clamp(min=1)
    return {
        "bins": config.bins * F.cross_entropy(answers.bin_logits, targets.bin),
        "residual": config.regression * residual,
        "offset": config.regression * _huber(answers.offset, targets.offset, config).mean(),
        "depth": config.depth * _huber(answers.log_depth, targets.log_depth, config).mean(),
        "extents": config.extents * _huber(answers.log_extents, targets.log_extents, config).mean(),
    }


def _huber(value: torch.Tensor, target: torch.Tensor, config: Mask2CadLossConfig) -> torch.Tensor:
    return F.huber_loss(value, target, reduction="none", delta=config.huber)
