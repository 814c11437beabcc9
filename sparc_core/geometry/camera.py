"""Pinhole projection: batched torch for the network, OpenCV with lens distortion for drawing."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from sparc_core.types import Camera

MIN_DEPTH_M = 0.05


def bearing_z1(uv_px: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """Rays through pixels with z = 1, so that z-depth times the ray is the 3D point.

    uv_px: (B, ..., 2). intrinsics: (B, 4) as fx, fy, cx, cy. Returns (B, ..., 3).
    """
    fx, fy, cx, cy = _broadcast(intrinsics, uv_px.dim() - 1)
    x = (uv_px[..., 0] - cx) / fx
    y = (uv_px[..., 1] - cy) / fy
    return torch.stack((x, y, torch.ones_like(x)), -1)


def box_ray(boxes_xyxy: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """(B, ..., 3) rays with z = 1 through the middles of boxes (B, ..., 4); intrinsics (B, 4)."""
    return bearing_z1((boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2, intrinsics)


def cut_sides(boxes_xyxy: torch.Tensor, size_px: torch.Tensor) -> torch.Tensor:
    """(B, ..., 4) bool: which sides of boxes (B, ..., 4) lie on the border of images of size_px (B, 2)."""
    size = size_px.view(len(size_px), *[1] * (boxes_xyxy.dim() - 2), 2)
    return torch.cat((boxes_xyxy[..., :2] <= 2, boxes_xyxy[..., 2:] >= size - 3), -1)


def project(points_cam: torch.Tensor, intrinsics: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Project camera points to pixels.

    points_cam: (B, ..., 3) metres. intrinsics: (B, 4). Returns uv_px (B, ..., 2) and in_front
    (B, ...) bool; points nearer than `MIN_DEPTH_M` or behind the camera are flagged False and their
    pixel is meaningless but finite.
    """
    fx, fy, cx, cy = _broadcast(intrinsics, points_cam.dim() - 1)
    in_front = points_cam[..., 2] > MIN_DEPTH_M
    z = points_cam[..., 2].clamp(min=MIN_DEPTH_M)
    uv = torch.stack((points_cam[..., 0] / z * fx + cx, points_cam[..., 1] / z * fy + cy), -1)
    return uv, in_front


def intrinsics_tensor(camera: Camera, device="cpu") -> torch.Tensor:
    """(4,) float32 tensor fx, fy, cx, cy."""
    return torch.tensor([camera.fx, camera.fy, camera.cx, camera.cy], dtype=torch.float32, device=device)


def project_points(points_cam: np.ndarray, camera: Camera) -> np.ndarray:
    """Project (..., 3) camera points in metres to (..., 2) pixels, lens distortion included.

    Points at or behind the camera plane come out as NaN.
    """
    points = np.asarray(points_cam, dtype=np.float64)
    flat = points.reshape(-1, 3)
    uv = np.full((len(flat), 2), np.nan)
    front = flat[:, 2] > 1e-6
    if front.any():
        uv[front] = _project_front(flat[front], camera)
    return uv.reshape(*points.shape[:-1], 2)


def _project_front(points: np.ndarray, camera: Camera) -> np.ndarray:
    coefficients = np.array(camera.distortion, dtype=np.float64)
    zero = np.zeros(3)
    if camera.distortion_model == "none":
        normalised = points[:, :2] / points[:, 2:]
        return normalised * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    if camera.distortion_model == "equidistant":
        return cv2.fisheye.projectPoints(points[:, None], zero, zero, camera.K, coefficients)[0][:, 0]
    return cv2.projectPoints(points[:, None], zero, zero, camera.K, coefficients)[0][:, 0]


def _broadcast(intrinsics: torch.Tensor, batch_dims: int) -> tuple[torch.Tensor, ...]:
    """fx, fy, cx, cy, each shaped (B, 1, ..., 1) with `batch_dims` dimensions."""
    shape = (intrinsics.shape[0],) + (1,) * (batch_dims - 1)
    return tuple(intrinsics[:, i].reshape(shape) for i in range(4))
