"""Losses of the depth network: Gaussian for the depth's logarithm, angular von Mises–Fisher for normals."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sparc_core.perception.depth_net import DepthNet, DepthOutput, ray_image


class DepthLosses(torch.nn.Module):
    """The network with its losses, so that training in several processes has one forward pass."""

    def __init__(self, network: DepthNet):
        super().__init__()
        self.network = network

    def forward(self, batch) -> dict[str, torch.Tensor]:
        """batch: a `PictureBatch`."""
        height, width = batch.rgb.shape[-2:]
        found = self.network(batch.rgb, ray_image(batch.intrinsics, height, width))
        return depth_losses(found, *halved(batch.depth_m, batch.normal))


def halved(depth_m: torch.Tensor, normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every second pixel of every second row; a mean would invent depths at edges."""
    return depth_m[:, ::2, ::2], normal[:, :, ::2, ::2]


def depth_losses(found: DepthOutput, depth_m: torch.Tensor, normal: torch.Tensor) -> dict[str, torch.Tensor]:
    """Negative log-likelihoods, means over the pixels whose truth is known. depth_m (B, H, W), normal
    (B, 3, H, W) of the output's size, 0 unknown."""
    known = depth_m > 0
    off = (found.log_depth - depth_m.clamp(min=1e-3).log()) * torch.exp(-found.log_sigma)
    gaussian = 0.5 * off.square() + found.log_sigma
    length = normal.norm(dim=1)
    cosine = (found.normal * F.normalize(normal, dim=1)).sum(1).clamp(-1 + 1e-6, 1 - 1e-6)
    kappa = found.kappa
    angular = (
        kappa * torch.acos(cosine) - torch.log1p(kappa.square()) + torch.log1p(torch.exp(-kappa * math.pi))
    )
    return {"depth": _mean(gaussian, known), "normal": _mean(angular, length > 0.5)}


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
