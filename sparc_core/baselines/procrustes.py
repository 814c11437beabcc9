"""Weighted Procrustes with a gradient that stays finite (ROCA section 3.3, equations 7 to 9 and 11)."""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

SMALLEST_GAP = 1e-3  # of the largest singular value: below, a rotation is as good as undetermined


class NearestRotation(torch.autograd.Function):
    """Rotation R (..., 3, 3) that maximises tr(Rᵀ M): UDVᵀ of M = UΣVᵀ, with D making the determinant 1.

    The derivative of an SVD divides by differences of singular values, which vanish for round things; the
    rotation's own divides by their sums σᵢ + σⱼ (the last with D's sign), which vanish only where the
    rotation is not determined. There they are kept at `SMALLEST_GAP`.
    """

    @staticmethod
    def forward(ctx, M: torch.Tensor) -> torch.Tensor:
        """M (..., 3, 3), finite."""
        U, sigma, Vt = torch.linalg.svd(M)
        sign = torch.linalg.det(U @ Vt)
        signs = torch.stack((torch.ones_like(sign), torch.ones_like(sign), sign), -1)
        R = (U * signs[..., None, :]) @ Vt
        ctx.save_for_backward(R, Vt, sigma * signs)
        return R

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_R: torch.Tensor) -> torch.Tensor:
        """With M = RP, P = V diag(σ) Vᵀ: dR = RΩ, and ΩP + PΩ is the antisymmetric part of RᵀdM twice."""
        R, Vt, sigma = ctx.saved_tensors
        gap = sigma[..., :, None] + sigma[..., None, :]
        least = SMALLEST_GAP * sigma[..., :1, None].clamp(min=1e-6)
        turned = Vt @ R.transpose(-1, -2) @ grad_R @ Vt.transpose(-1, -2)
        antisymmetric = (turned - turned.transpose(-1, -2)) / gap.clamp(min=least)
        return R @ (Vt.transpose(-1, -2) @ antisymmetric @ Vt)


def nearest_rotation(M: torch.Tensor) -> torch.Tensor:
    """`NearestRotation` of M (..., 3, 3), in the precision of M; finite gradients for every finite M."""
    return NearestRotation.apply(M)


def weighted_procrustes(
    points: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rotation R (..., 3, 3) about the origin with the least Σ w |R·points − target|², and the shift
    (..., 3) that is then left between the weighted means: target ≈ R·points + shift.

    points, target (..., K, 3); weight (..., K), not negative. Where no weight is positive, the rotation is
    some rotation and the shift 0. The rotation is not about the means, as ROCA's is not: its points begin at
    an estimate of the translation.
    """
    share = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    R = nearest_rotation((target * share[..., None]).transpose(-1, -2) @ points)
    mean, mean_target = ((x * share[..., None]).sum(-2) for x in (points, target))
    return R, mean_target - (R @ mean[..., None])[..., 0]
