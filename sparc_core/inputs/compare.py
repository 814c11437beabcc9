"""What a pose leaves unexplained: where the lifted pixels lie off the CAD surface, and how far the
projected model's box is from the detected one.

The network could find both by attention alone; given to it, it learns from far fewer images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparc_core.cad.tensors import CadPoints
from sparc_core.geometry.camera import project
from sparc_core.geometry.pose import Pose
from sparc_core.perception.samples import Frame

NEAR_M = 0.1  # CAD points nearer than this to the camera plane are projected as if they were there


@dataclass(frozen=True, eq=False)
class ClosestPoints:
    """Closest of the surface points to each query: offset (..., K, 3) from the query to it and its unit
    normal (..., K, 3), both along object axes, offsets in the unit of the queries."""

    offset: torch.Tensor
    normal: torch.Tensor


def closest_index(queries: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(B, K) index of the closest of the points (B, P, C) to each of the queries (B, K, C)."""
    # |a − b|² up to |a|², which does not change the order
    squares = points.square().sum(-1)[:, None]
    return torch.baddbmm(squares, queries, points.transpose(1, 2), alpha=-2).argmin(-1)


def closest_surface_points(queries: torch.Tensor, surface: CadPoints) -> ClosestPoints:
    """For each of the queries (B, N, K, 3) the closest of the surface points (B, N, P), in the same frame."""
    index = closest_index(queries.flatten(0, 1), surface.points.flatten(0, 1))
    index = index.view(*queries.shape[:-1], 1).expand_as(queries)
    return ClosestPoints(surface.points.gather(2, index) - queries, surface.normals.gather(2, index))


def box_residual(frame: Frame, pose: Pose, surface: torch.Tensor) -> torch.Tensor:
    """(B, N, 4) sides of the projected surface's box minus those of the detected box, as shares of the
    detected box's size, clamped to ±2. Both boxes are cut at the image border."""
    points = pose.transform(surface)
    points = torch.cat((points[..., :2], points[..., 2:].clamp(min=NEAR_M)), -1)
    uv, _ = project(points, frame.intrinsics)
    uv = torch.minimum(uv.clamp(min=0), frame.size_px[:, None, None] - 1)
    projected = torch.cat((uv.amin(2), uv.amax(2)), -1)
    size = (frame.boxes_xyxy[..., 2:] - frame.boxes_xyxy[..., :2]).clamp(min=1)
    return ((projected - frame.boxes_xyxy) / torch.cat((size, size), -1)).clamp(-2, 2)
