"""Losses of the depth network: Gaussian for the depth's logarithm, angular von Mises–Fisher for normals,
cross-entropy for what is an object.

A likelihood learns where it is sure already: the slope of a Gaussian's mean is divided by the variance, that
of a normal multiplied by κ, so that floors and walls, which are easily told, outweigh furniture. β-NLL
(Seitzer et al., ICLR 2022) takes part of that back, and pixels of objects can count more than others.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sparc_core.perception.depth_net import DepthNet, DepthOutput, ray_image


class DepthLosses(torch.nn.Module):
    """The network with its losses, so that training in several processes has one forward pass. beta: see
    `depth_losses`; object_weight: how often a pixel of an object counts, against one of the room."""

    def __init__(self, network: DepthNet, beta: float = 0.0, object_weight: float = 1.0):
        super().__init__()
        self.network, self.beta, self.object_weight = network, beta, object_weight

    def forward(self, batch) -> dict[str, torch.Tensor]:
        """batch: a `PictureBatch`."""
        height, width = batch.rgb.shape[-2:]
        found = self.network(batch.rgb, ray_image(batch.intrinsics, height, width), batch.up_cam)
        on_object = torch.stack([objects["masks"].any(0) for objects in batch.objects])[:, ::2, ::2]
        weight = 1 + (self.object_weight - 1) * on_object
        entropy = F.binary_cross_entropy_with_logits(
            found.on_object, on_object.to(found.on_object.dtype), reduction="none"
        )
        return {
            **depth_losses(found, *halved(batch.depth_m, batch.normal), self.beta, weight),
            "object": _mean(entropy, batch.labelled[:, ::2, ::2].to(entropy.dtype)),
        }


def halved(depth_m: torch.Tensor, normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every second pixel of every second row; a mean would invent depths at edges."""
    return depth_m[:, ::2, ::2], normal[:, :, ::2, ::2]


def depth_losses(
    found: DepthOutput, depth_m: torch.Tensor, normal: torch.Tensor, beta: float = 0.0, weight=1.0
) -> dict[str, torch.Tensor]:
    """Negative log-likelihoods, means over the pixels whose truth is known. depth_m (B, H, W), normal
    (B, 3, H, W) of the output's size, 0 unknown. In the means pixels count by weight (B, H, W), and by the
    variance that is predicted for them to the power beta: 0 is the paper's; errors of depth count alike
    at 1, of normals at 0.5."""
    off = (found.log_depth - depth_m.clamp(min=1e-3).log()) * torch.exp(-found.log_sigma)
    gaussian = 0.5 * off.square() + found.log_sigma
    length = normal.norm(dim=1)
    cosine = (found.normal * F.normalize(normal, dim=1)).sum(1).clamp(-1 + 1e-6, 1 - 1e-6)
    kappa = found.kappa
    angular = (
        kappa * torch.acos(cosine) - torch.log1p(kappa.square()) + torch.log1p(torch.exp(-kappa * math.pi))
    )
    known, faces = weight * (depth_m > 0), weight * (length > 0.5)
    return {
        "depth": _mean(gaussian, known * torch.exp(2 * beta * found.log_sigma.detach())),
        "normal": _mean(angular, faces * (kappa.detach() + 1) ** (-2 * beta)),
    }


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
