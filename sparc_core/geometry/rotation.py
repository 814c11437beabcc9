"""Rotations as batched torch matrices and quaternions (wxyz).

Every function takes leading batch dimensions, keeps the dtype and device, and has finite gradients
at the identity and at half turns, where the textbook formulas divide by zero.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

DEFAULT_ELEVATION_DEG = -30.0  # camera pitch assumed when gravity is not known


def quaternion_to_matrix(quaternion_wxyz: torch.Tensor) -> torch.Tensor:
    """(..., 4) quaternions wxyz of any non-zero length -> (..., 3, 3) rotation matrices."""
    w, x, y, z = F.normalize(quaternion_wxyz, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(R: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotation matrices -> (..., 4) unit quaternions wxyz with w >= 0.

    All four algebraic candidates are formed and the best-conditioned one is kept, so the result and
    its gradient are well defined everywhere, half turns included.
    """
    m = R.flatten(-2).unbind(-1)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    # |2q_i|² for each component; the largest is at least 1, so its square root is safe to divide by.
    squares = torch.stack(
        (1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22), -1
    )
    best = squares.argmax(-1, keepdim=True)
    norm = 2 * squares.gather(-1, best).sqrt()
    a, b, c = m21 - m12, m02 - m20, m10 - m01
    d, e, f = m10 + m01, m02 + m20, m21 + m12
    candidates = torch.stack(
        (
            torch.stack((squares[..., 0], a, b, c), -1),
            torch.stack((a, squares[..., 1], d, e), -1),
            torch.stack((b, d, squares[..., 2], f), -1),
            torch.stack((c, e, f, squares[..., 3]), -1),
        ),
        -2,
    )
    chosen = candidates.gather(-2, best[..., None].expand(*best.shape, 4))[..., 0, :] / norm
    return F.normalize(torch.where(chosen[..., :1] < 0, -chosen, chosen), dim=-1)


def rotation_angle_rad(R: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) -> (...) rotation angle in [0, π] radians.

    atan2 of |2 sin| and |2 cos| instead of acos of the trace: exact near 0 and π, and its gradient
    stays finite there (zero at the two ends, where the angle has a kink).
    """
    trace = R.diagonal(dim1=-2, dim2=-1).sum(-1)
    axis = torch.stack(
        (R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]), -1
    )
    squared = (axis * axis).sum(-1)
    safe = torch.where(squared > 0, squared, torch.ones_like(squared))
    sine = torch.where(squared > 0, safe.sqrt(), torch.zeros_like(squared))
    return torch.atan2(sine, trace - 1)


def rotation_x(angle_rad: torch.Tensor) -> torch.Tensor:
    """(...) angles in radians -> (..., 3, 3) rotations about x."""
    return _axis_rotation(angle_rad, 1, 2, 0)


def rotation_y(angle_rad: torch.Tensor) -> torch.Tensor:
    """(...) angles in radians -> (..., 3, 3) rotations about y (turns +z towards +x)."""
    return _axis_rotation(angle_rad, 2, 0, 1)


def rotation_z(angle_rad: torch.Tensor) -> torch.Tensor:
    """(...) angles in radians -> (..., 3, 3) rotations about z."""
    return _axis_rotation(angle_rad, 0, 1, 2)


def _axis_rotation(angle_rad: torch.Tensor, first: int, second: int, axis: int) -> torch.Tensor:
    R = torch.zeros(*angle_rad.shape, 3, 3, dtype=angle_rad.dtype, device=angle_rad.device)
    cosine, sine = angle_rad.cos(), angle_rad.sin()
    R[..., axis, axis] = 1
    R[..., first, first] = cosine
    R[..., second, second] = cosine
    R[..., second, first] = sine
    R[..., first, second] = -sine
    return R


def upright_rotation(up_cam: torch.Tensor, azimuth_rad: torch.Tensor) -> torch.Tensor:
    """Object rotation whose y axis is `up_cam` and whose front is turned by `azimuth_rad`.

    up_cam: (..., 3) unit vectors in the camera frame. azimuth_rad: (...). Returns (..., 3, 3) object
    to camera. At azimuth 0 the object's front (+z) faces the camera: it points against the optical
    axis as far as an upright object can.
    """
    towards_camera = torch.zeros_like(up_cam)
    towards_camera[..., 2] = -1
    # Looking straight up or down leaves no horizontal part of the optical axis: use image-up instead.
    image_up = torch.zeros_like(up_cam)
    image_up[..., 1] = -1
    degenerate = up_cam[..., 2:].abs() > 0.99
    front = torch.where(degenerate, image_up, towards_camera)
    front = F.normalize(front - (front * up_cam).sum(-1, keepdim=True) * up_cam, dim=-1)
    side = torch.linalg.cross(up_cam, front)
    return torch.stack((side, up_cam, front), -1) @ rotation_y(azimuth_rad)


def level_frame(up_cam: torch.Tensor, direction_cam: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotations from the camera to frames with y along up_cam (..., 3, unit) and z horizontal
    towards the camera, for things seen in a direction_cam (..., 3, unit)."""
    towards = -direction_cam
    level = towards - (towards * up_cam).sum(-1, keepdim=True) * up_cam
    # straight from above there is no horizontal direction: take the image's
    image_x = torch.zeros_like(up_cam)
    image_x[..., 0] = 1
    level = torch.where(level.norm(dim=-1, keepdim=True) > 1e-3, level, torch.linalg.cross(image_x, up_cam))
    z = F.normalize(level, dim=-1)
    return torch.stack((torch.linalg.cross(up_cam, z), up_cam, z), -2)


def azimuth_rad(R: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """(...) angle about the vertical from facing the camera to where the front (+z) of objects with rotations
    R (..., 3, 3) looks, in a `level_frame` (..., 3, 3). A turn of the object about its y axis adds to it."""
    front = (level @ R[..., 2:])[..., 0]
    return torch.atan2(front[..., 0], front[..., 2])


def start_up(up_cam: torch.Tensor, has_up: torch.Tensor) -> torch.Tensor:
    """(B, 3) up directions for the starts: gravity where known, else a camera looking 30° down."""
    pitch = math.radians(DEFAULT_ELEVATION_DEG)
    assumed = up_cam.new_tensor([0.0, -math.cos(pitch), math.sin(pitch)])
    return torch.where(has_up[:, None], up_cam, assumed)
