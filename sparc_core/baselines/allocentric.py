"""Rotations as a region of the image shows them: relative to the ray through its middle.

Two chairs that are turned alike in the camera frame look different at the left and at the right border of an
image, and features of a region do not know where it was cut from. The rotation relative to the viewing ray
(allocentric) is what they can tell; the camera's (egocentric) follows from the ray.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def ray_rotation(ray: torch.Tensor) -> torch.Tensor:
    """(..., 3) rays with z > 0, of any length -> (..., 3, 3) the smallest rotations that turn the optical
    axis to them. Raises ValueError for rays that do not point ahead."""
    if not bool((ray[..., 2] > 0).all()):
        raise ValueError("rays must point ahead of the camera (z > 0)")
    x, y, z = F.normalize(ray, dim=-1).unbind(-1)
    # Rodrigues' formula with the axis e_z × ray = (−y, x, 0) and cosine z
    k = 1 / (1 + z)
    rows = (1 - x * x * k, -x * y * k, x, -x * y * k, 1 - y * y * k, y, -x, -y, z)
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def to_allocentric(R_cam: torch.Tensor, ray: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) object rotations in the camera frame -> relative to the rays (..., 3)."""
    return ray_rotation(ray).transpose(-1, -2) @ R_cam


def to_camera(R_allocentric: torch.Tensor, ray: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_allocentric`."""
    return ray_rotation(ray) @ R_allocentric
