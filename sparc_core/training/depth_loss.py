"""Losses of the depth network: Gaussian for the depth's logarithm, angular von Mises–Fisher for normals,
squared for the direction of the front, cross-entropy for the category.

A likelihood learns where it is sure already: the slope of a Gaussian's mean is divided by the variance, that
of a normal multiplied by κ, so that floors and walls, which are easily told, outweigh furniture. β-NLL
(Seitzer et al., ICLR 2022) takes part of that back, and pixels of objects can count more than others. The
front of an object that looks the same after some turns may be any of several; which is decided by the whole
object.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sparc_core.perception.depth_net import DepthNet, DepthOutput, ray_image
from sparc_core.training.picture_batches import UNLABELLED


class DepthLosses(torch.nn.Module):
    """The network with its losses, so that training in several processes has one forward pass. beta: see
    `depth_losses`; object_weight: how often a pixel of an object counts, against one of the room;
    front_weight, category_weight: of these losses in the sum."""

    def __init__(
        self, network: DepthNet, beta: float = 0.0, object_weight: float = 1.0,
        front_weight: float = 1.0, category_weight: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.network, self.beta, self.object_weight = network, beta, object_weight
        self.front_weight, self.category_weight = front_weight, category_weight

    def forward(self, batch) -> dict[str, torch.Tensor]:
        """batch: a `PictureBatch`."""
        height, width = batch.rgb.shape[-2:]
        found = self.network(batch.rgb, ray_image(batch.intrinsics, height, width), batch.up_cam)
        on_object = torch.stack([objects["masks"].any(0) for objects in batch.objects])[:, ::2, ::2]
        weight = 1 + (self.object_weight - 1) * on_object
        category = F.cross_entropy(
            found.category, batch.category[:, ::2, ::2], ignore_index=UNLABELLED, reduction="none"
        )
        labelled = weight * (batch.category[:, ::2, ::2] != UNLABELLED)
        return {
            **depth_losses(found, *halved(batch.depth_m, batch.normal), self.beta, weight),
            "front": self.front_weight * front_loss(found.front, batch.objects),
            "category": self.category_weight * _mean(category, labelled),
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


def front_loss(front: torch.Tensor, objects: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Squared distance between the predicted direction (B, 3, H, W) and the true one: mean over the pixels of
    every object, of its `fronts` the nearest, and mean over the objects that have a front. objects: see
    `PictureBatch`; their masks have twice the size."""
    distances = []
    for predicted, truth in zip(front.flatten(2), objects, strict=True):
        pixels = truth["masks"][:, ::2, ::2].flatten(1).to(predicted.dtype)
        share = pixels / pixels.sum(-1, keepdim=True).clamp(min=1)
        mean = share @ predicted.T
        square = share @ predicted.square().sum(0)
        # |f − f*|² with |f*| = 1, for each of the directions that f* may be
        each = square[:, None] - 2 * (truth["fronts"] @ mean[..., None])[..., 0] + 1
        has_front = (truth["fronts"][:, 0].norm(dim=-1) > 0.5) & (pixels.sum(-1) > 0)
        distances.append(each.min(-1).values[has_front])
    found = torch.cat(distances)
    return found.sum() / max(1, len(found))


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
