"""Rectangular rooms around synthetic scenes: floor, ceiling and four walls, so that every pixel sees
something."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from sparc_core.synth.scenes import SceneBatch

FLOOR, CEILING, WALLS = 0, 1, slice(2, 6)
MIN_GAP_M = 0.02  # between a wall and what stands before it
HEIGHT_M = (2.3, 3.2)


def enclose(scene: SceneBatch, generator: torch.Generator) -> SceneBatch:
    """The scenes with a rectangular room in place of their planes: floor, ceiling and four walls, in this
    order.

    The room holds the camera and all objects that are present; its direction, its height and how much space
    is left behind the objects are random. The floor stays where it is.
    """
    batch = len(scene.model)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)

    up = scene.up_cam
    floor = -scene.plane_offset[:, 0]  # the camera's height above it
    along, across = _horizontal_axes(up, uniform(0, math.pi / 2, batch))
    normals, offsets = [up, -up], [-floor]
    radius = scene.pose.S.norm(dim=-1) / 2
    reach = torch.where(scene.present, radius, torch.zeros_like(radius))
    centre = scene.pose.T * scene.present[..., None]
    top = ((centre * up[:, None]).sum(-1) + reach).amax(1).clamp(min=0) + 0.2
    offsets.append(-torch.maximum(uniform(*HEIGHT_M, batch) - floor, top))
    for axis in (along, across):
        for direction in (axis, -axis):
            farthest = ((centre * direction[:, None]).sum(-1) + reach).amax(1).clamp(min=0.4)
            gap = MIN_GAP_M + uniform(0.0, 1.5, batch) ** 2
            normals.append(-direction)
            offsets.append(-(farthest + gap))
    albedo = scene.albedo[:, : scene.model.shape[1]]
    planes = uniform(0.05, 0.95, batch, len(normals), 3)
    return replace(
        scene,
        plane_normal=torch.stack(normals, 1),
        plane_offset=torch.stack(offsets, 1),
        albedo=torch.cat((albedo, planes), 1),
    )


def _horizontal_axes(up: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two horizontal unit axes (B, 3) at right angles, the first turned by `angle` from straight ahead."""
    ahead = torch.tensor([0.0, 0.0, 1.0], device=up.device).expand_as(up)
    right = torch.nn.functional.normalize(torch.linalg.cross(-up, ahead), dim=-1)
    ahead = torch.linalg.cross(right, -up)
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    return c * ahead + s * right, c * right - s * ahead
