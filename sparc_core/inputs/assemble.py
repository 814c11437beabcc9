"""Sampled pixels and CAD points -> tokens of the network. The same code trains and runs.

Three kinds of token (Multi-SPARC section 3.2), told apart by τ: 0 a pixel in the box, 1 a pixel onto
which a CAD point was reprojected, 2 a CAD point itself.

- "paper" layout: `[RGB 3, normal 3, depth 1, mask 1, bearing 3, τ 1, detection id 1]`.
- "object" layout (default): the same camera-frame channels with flags for what is missing, τ one-hot,
  no id (separate encoding already tells the objects apart), and beside them the sample lifted by its
  depth into the current object frame with its normal, the CAD point and normal that were reprojected
  there, the cosine between CAD normal and view, and the pixel's place in the detected box. What is
  the same for all tokens of an object goes into the pose context.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparc_core.geometry.camera import bearing_z1
from sparc_core.geometry.pose import Pose
from sparc_core.inputs.samples import CadSamples, Frame, PixelSamples

LAYOUTS = ("object", "paper")
DEPTH_UNIT_M = 3.0  # brings depths of a room to about 1
OBJECT_LIMIT = 2.0  # object-frame coordinates are clamped here: 0.5 is the surface of the box


@dataclass(frozen=True)
class InputConfig:
    """How many tokens, and in which layout. Raises ValueError naming the field out of range."""

    layout: str = "object"
    n_bbox: int = 64
    n_cad: int = 48

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise ValueError(f"input layout must be one of {LAYOUTS}, got {self.layout!r}")
        for name in ("n_bbox", "n_cad"):
            if getattr(self, name) < 1:
                raise ValueError(f"input {name} must be at least 1, got {getattr(self, name)}")

    @property
    def token_channels(self) -> int:
        """C_input."""
        return 13 if self.layout == "paper" else 31

    @property
    def context_channels(self) -> int:
        """Channels of the pose context (none in the paper's layout)."""
        return 0 if self.layout == "paper" else 18


@dataclass(frozen=True, eq=False)
class Tokens:
    """features (B, N, M, C_input), context (B, N, C_context) or None, valid (B, N, M) bool."""

    features: torch.Tensor
    context: torch.Tensor | None
    valid: torch.Tensor


def assemble_tokens(
    config: InputConfig,
    frame: Frame,
    pose: Pose,
    box_samples: PixelSamples,
    reprojected: PixelSamples,
    reprojected_in_front: torch.Tensor,
    cad: CadSamples,
) -> Tokens:
    """Tokens of every object in its current pose.

    pose: (B, N). box_samples: K = n_bbox. reprojected: K = n_cad, read where the CAD points project;
    reprojected_in_front: (B, N, n_cad) bool. Off-image and behind-camera tokens are marked invalid.
    """
    on_image = reprojected.inside & reprojected_in_front
    cad_cam = pose.transform(cad.points)
    cad_normal_cam = pose.transform_normals(cad.normals)
    groups = (
        _camera_channels(frame, box_samples),
        _camera_channels(frame, reprojected),
        _cad_camera_channels(cad_cam, cad_normal_cam),
    )
    if config.layout == "paper":
        features = torch.cat([_with_paper_tags(group, tau) for tau, group in enumerate(groups)], 2)
        context = None
    else:
        view_cosine = (cad_normal_cam * F.normalize(cad_cam, dim=-1)).sum(-1, keepdim=True)
        cad_object = torch.cat((cad.points, pose.normals_in_object_axes(cad.normals)), -1)
        places = (
            _lift(frame, pose, box_samples),
            _lift(frame, pose, reprojected),
            cad_object,
        )
        pairs = (None, torch.cat((cad_object, view_cosine), -1), torch.cat((cad_object, view_cosine), -1))
        pixels = (box_samples.uv_px, reprojected.uv_px, reprojected.uv_px)
        features = torch.cat(
            [
                _with_object_tags(frame, *parts, tau)
                for tau, parts in enumerate(zip(groups, places, pairs, pixels, strict=True))
            ],
            2,
        )
        context = pose_context(frame, pose)
    always = torch.ones_like(on_image)
    return Tokens(features, context, torch.cat((box_samples.inside, on_image, always), -1))


def pose_context(frame: Frame, pose: Pose) -> torch.Tensor:
    """(B, N, 18): log S, log |T|, T/|T|, the same direction and gravity's opposite in object axes,
    whether gravity is known, and which sides of the box touch the image border."""
    distance = pose.T.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    direction = pose.T / distance
    has_up = frame.has_up[:, None, None].to(pose.T.dtype).expand(*pose.shape, 1)
    up_object = (frame.up_cam[:, None, None] @ pose.R)[..., 0, :] * has_up
    limit = torch.cat((torch.full_like(frame.size_px, 2.0), frame.size_px - 3), -1)[:, None]
    low, high = frame.boxes_xyxy[..., :2], frame.boxes_xyxy[..., 2:]
    touches = torch.cat((low <= limit[..., :2], high >= limit[..., 2:]), -1).to(pose.T.dtype)
    view_object = (direction[..., None, :] @ pose.R)[..., 0, :]
    return torch.cat((pose.S.log(), distance.log(), direction, view_object, up_object, has_up, touches), -1)


def _camera_channels(frame: Frame, samples: PixelSamples) -> torch.Tensor:
    """(B, N, K, 13): RGB, normal, depth, mask, bearing, and whether depth and mask are there."""
    bearing = F.normalize(bearing_z1(samples.uv_px, frame.intrinsics), dim=-1)
    # a pixel projected from far outside the frustum has no meaningful bearing and is masked anyway
    return torch.cat(
        (
            samples.rgb,
            samples.normal_cam,
            samples.depth_m[..., None] / DEPTH_UNIT_M,
            samples.mask[..., None],
            bearing,
            samples.has_depth[..., None].to(bearing.dtype),
            samples.has_mask[..., None].to(bearing.dtype),
        ),
        -1,
    )


def _cad_camera_channels(cad_cam: torch.Tensor, cad_normal_cam: torch.Tensor) -> torch.Tensor:
    """The same 13 channels for CAD points: their own normal, depth and bearing; RGB and mask zero."""
    zero = torch.zeros_like(cad_cam[..., :1])
    bearing = F.normalize(cad_cam, dim=-1)
    depth = cad_cam[..., 2:] / DEPTH_UNIT_M
    return torch.cat((zero, zero, zero, cad_normal_cam, depth, zero, bearing, zero + 1, zero), -1)


def _with_paper_tags(channels: torch.Tensor, tau: int) -> torch.Tensor:
    """The paper's 13 channels: without our flags, with τ and the detection's number in its block."""
    objects = channels.shape[1]
    number = torch.arange(objects, device=channels.device, dtype=channels.dtype)[None, :, None, None]
    shape = (*channels.shape[:-1], 1)
    tags = (torch.full(shape, float(tau), dtype=channels.dtype, device=channels.device), number.expand(shape))
    return torch.cat((channels[..., :11], *tags), -1)


def _with_object_tags(frame, channels, place, pair, uv_px, tau):
    """31 channels: camera frame 13, τ one-hot 3, object frame 6, CAD pair 7, place in the box 2."""
    shape = (*channels.shape[:-1], 1)
    tags = torch.zeros(*shape[:-1], 3, dtype=channels.dtype, device=channels.device)
    tags[..., tau] = 1
    if pair is None:
        pair = torch.zeros(*shape[:-1], 7, dtype=channels.dtype, device=channels.device)
    low, high = frame.boxes_xyxy[:, :, None, :2], frame.boxes_xyxy[:, :, None, 2:]
    in_box = ((2 * uv_px - low - high) / (high - low).clamp(min=1)).clamp(-2, 2)
    return torch.cat((channels, tags, place, pair, in_box), -1)


def _lift(frame: Frame, pose: Pose, samples: PixelSamples) -> torch.Tensor:
    """(B, N, K, 6): the sample's 3D point and normal in the current object frame, zero without depth."""
    points_cam = bearing_z1(samples.uv_px, frame.intrinsics) * samples.depth_m[..., None]
    q = pose.to_object(points_cam).clamp(-OBJECT_LIMIT, OBJECT_LIMIT)
    q = torch.where(samples.has_depth[..., None], q, torch.zeros_like(q))
    return torch.cat((q, pose.rotate_normals_to_object(samples.normal_cam)), -1)
