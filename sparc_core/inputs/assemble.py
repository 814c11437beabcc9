"""Sampled pixels and CAD points -> tokens of the network. The same code trains and runs.

Three kinds of token (Multi-SPARC section 3.2), told apart by τ: 0 a pixel in the box, 1 a pixel onto
which a CAD point was reprojected, 2 a CAD point itself.

- "paper" layout: `[RGB 3, normal 3, depth 1, mask 1, bearing 3, τ 1, detection id 1]`.
- "object" layout (default): the same camera-frame channels with flags for what is missing, and beside
  them the sample lifted by its depth into the current object frame with its normal, the closest point
  of the CAD surface to it, and the pixel's place in the detected box. A CAD point and the pixel it
  falls on share one token (τ = 1), so there are no tokens of their own for CAD points, and no id
  (separate encoding already tells the objects apart). What is the same for all tokens of an object
  goes into the pose context.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from sparc_core.cad.tensors import CadPoints
from sparc_core.geometry.camera import bearing_z1, box_ray, cut_sides
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import azimuth_rad, level_frame, start_up
from sparc_core.inputs.compare import box_residual, closest_surface_points
from sparc_core.perception.samples import CadSamples, Frame, PixelSamples
from sparc_core.types import AZIMUTH_ORDERS

LAYOUTS = ("object", "paper")
DEPTH_UNIT_M = 3.0  # brings depths of a room to about 1
# groups of channels of the object layout that can be left out, to see what they are worth
GROUPS = {
    "camera": slice(0, 13),
    "mean extents": slice(13, 16),
    "unit cube": slice(16, 19),
    "closest point": slice(19, 27),
    "object normal": slice(27, 31),
    "CAD point": slice(31, 42),
    "place in box": slice(43, 45),
    "hints": slice(45, 47),
}
AZIMUTH_CHANNELS = 2 * len(AZIMUTH_ORDERS)
ESTIMATE_CHANNELS = AZIMUTH_CHANNELS + 10  # of `estimate_context`
FLOOR_CHANNELS = 2  # of `floor_context`
CUBE_LIMIT = 1.5  # unit-cube coordinates are clamped here: 0.5 is the surface of the box
OBJECT_LIMIT = 3.0  # coordinates in mean extents are clamped here
RATIO_LIMIT = 1.5  # logarithms of expected over current sizes and distances are clamped here


@dataclass(frozen=True)
class InputConfig:
    """How many tokens, and in which layout. n_bbox pixels of the box, n_cad reprojected CAD points,
    n_surface CAD points among which closest points are searched. hints: tokens of the object layout also hold
    `PixelHints`, and the context how the pose fits to what was expected
    of the box (`BoxEstimate`) and to the camera's height above the floor. left_out: names in `GROUPS`,
    whose channels are zero, and "context", in the object layout.

    Raises ValueError naming the field out of range.
    """

    layout: str = "object"
    n_bbox: int = 64
    n_cad: int = 48
    n_surface: int = 384
    hints: bool = False
    left_out: tuple[str, ...] = ()

    def __post_init__(self):
        if self.hints and self.layout != "object":
            raise ValueError(f"inputs hints: the {self.layout} layout has none")
        for name in self.left_out:
            if name == "hints" and not self.hints:
                raise ValueError("inputs left_out: there are no hints to leave out")
            if self.layout != "object" or name not in (*GROUPS, "context"):
                raise ValueError(
                    f"inputs left_out: the {self.layout} layout has no group {name!r}; the object layout has "
                    + ", ".join((*GROUPS, "context"))
                )
        if self.layout not in LAYOUTS:
            raise ValueError(f"input layout must be one of {LAYOUTS}, got {self.layout!r}")
        for name in ("n_bbox", "n_cad", "n_surface"):
            if getattr(self, name) < 1:
                raise ValueError(f"input {name} must be at least 1, got {getattr(self, name)}")

    @property
    def token_channels(self) -> int:
        """C_input."""
        return 13 if self.layout == "paper" else 47 if self.hints else 45

    @property
    def context_channels(self) -> int:
        """Channels of the pose context (none in the paper's layout)."""
        return 0 if self.layout == "paper" else 26 + (ESTIMATE_CHANNELS + FLOOR_CHANNELS) * self.hints


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
    if config.layout == "paper":
        return _paper_tokens(frame, pose, box_samples, reprojected, on_image, cad)
    both = _join(box_samples, reprojected)
    groups = [
        _camera_channels(frame, both),
        _lifted_channels(frame, pose, both, cad),
        F.pad(_cad_channels(pose, cad), (0, 0, config.n_bbox, 0)),
        _place_in_box(frame, both.uv_px),
    ]
    if config.hints:
        groups.append(both.hints)
    features = torch.cat(groups, -1)
    context = pose_context(frame, pose, cad)
    if config.hints:
        context = torch.cat((context, estimate_context(frame, pose), floor_context(frame, pose)), -1)
    for name in config.left_out:
        if name == "context":
            context = torch.zeros_like(context)
        else:
            features[..., GROUPS[name]] = 0
    valid = torch.cat((box_samples.inside, on_image), -1)
    return Tokens(features, context, valid)


def pose_context(frame: Frame, pose: Pose, cad: CadSamples) -> torch.Tensor:
    """(B, N, 26): log S, log |T|, T/|T|, the same direction and gravity's opposite in object axes,
    whether gravity is known, which sides of the box touch the image border, log of S over the expected
    extents, how far the projected model's box is from the detected one, and whether the extents are known."""
    distance = pose.T.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    direction = pose.T / distance
    has_up = frame.has_up[:, None, None].to(pose.T.dtype).expand(*pose.shape, 1)
    up_object = (frame.up_cam[:, None, None] @ pose.R)[..., 0, :] * has_up
    touches = cut_sides(frame.boxes_xyxy, frame.size_px).to(pose.T.dtype)
    view_object = (direction[..., None, :] @ pose.R)[..., 0, :]
    return torch.cat((
        pose.S.log(), distance.log(), direction, view_object, up_object, has_up, touches,
        (pose.S / cad.expected_m).log(), box_residual(frame, pose, cad.surface.points),
        cad.extents_known[..., None].to(pose.T.dtype),
    ), -1)  # fmt: skip


def estimate_context(frame: Frame, pose: Pose) -> torch.Tensor:
    """(B, N, 16): how poses fit to what was expected of the objects (`BoxEstimate`); 0 where nothing was.

    The expected cos k(θ − θ') and sin k(θ − θ') for every k of AZIMUTH_ORDERS, θ the object's azimuth and θ'
    that of the pose: (1, 0) where they agree without a doubt. Where the centre is expected, from the pose's,
    in object axes and mean extents; ln of the distance over the pose's, and its standard deviation; ln of the
    extents over the pose's, and theirs; and 1.
    """
    if frame.estimate is None:
        return pose.T.new_zeros(*pose.shape, ESTIMATE_CHANNELS)
    azimuth, T, distance_sigma, S, extents_sigma = frame.estimate.split((AZIMUTH_CHANNELS, 3, 1, 3, 1), -1)
    known = (frame.estimate != 0).any(-1, keepdim=True)
    offset = ((T - pose.T)[..., None, :] @ pose.R)[..., 0, :] / pose.mean_extent
    distance, there = (x.norm(dim=-1, keepdim=True).clamp(min=1e-3) for x in (T, pose.T))
    context = torch.cat((
        _turned_back(frame, pose, azimuth), offset.clamp(-OBJECT_LIMIT, OBJECT_LIMIT),
        (distance / there).log().clamp(-RATIO_LIMIT, RATIO_LIMIT), distance_sigma,
        (S.clamp(min=1e-3) / pose.S).log().clamp(-RATIO_LIMIT, RATIO_LIMIT), extents_sigma,
        torch.ones_like(distance),
    ), -1)  # fmt: skip
    return torch.where(known, context, torch.zeros_like(context))


def floor_context(frame: Frame, pose: Pose) -> torch.Tensor:
    """(B, N, 2): ln of how far the underside of an object is below the camera, over the camera's height: 0
    where it stands on the floor; and 1. Both 0 where that height or gravity is not known."""
    if frame.above_floor_m is None:
        return pose.T.new_zeros(*pose.shape, FLOOR_CHANNELS)
    known = ((frame.above_floor_m > 0) & frame.has_up)[:, None, None]
    up = frame.up_cam[:, None]
    half = ((up[..., None, :] @ pose.R)[..., 0, :].abs() * pose.S).sum(-1) / 2
    below = (half - (pose.T * up).sum(-1)).clamp(min=1e-3)
    ratio = (below / frame.above_floor_m[:, None].clamp(min=1e-3)).log().clamp(-RATIO_LIMIT, RATIO_LIMIT)
    context = torch.stack((ratio, torch.ones_like(ratio)), -1)
    return torch.where(known, context, torch.zeros_like(context))


def _turned_back(frame: Frame, pose: Pose, azimuth: torch.Tensor) -> torch.Tensor:
    """(B, N, 6) harmonics of an azimuth, less that of the pose."""
    rays = box_ray(frame.boxes_xyxy, frame.intrinsics)
    up = start_up(frame.up_cam, frame.has_up)[:, None].expand_as(rays)
    current = azimuth_rad(pose.R, level_frame(up, F.normalize(rays, dim=-1)))
    phase = current[..., None] * torch.tensor(AZIMUTH_ORDERS, device=current.device)
    cos, sin = azimuth.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack(
        (cos * phase.cos() + sin * phase.sin(), sin * phase.cos() - cos * phase.sin()), -1
    ).flatten(-2)


def _join(a: PixelSamples, b: PixelSamples) -> PixelSamples:
    """Both sets of samples as one, along the pixels."""
    return PixelSamples(*(torch.cat((getattr(a, f.name), getattr(b, f.name)), 2) for f in fields(a)))


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


def _lifted_channels(frame: Frame, pose: Pose, samples: PixelSamples, cad: CadSamples) -> torch.Tensor:
    """(B, N, K, 18): the sample's 3D point in mean extents and in unit-cube coordinates, its normal, and
    against the closest CAD point: offset, its normal, distance, distance along the normal, the
    cosine between both normals. All along the current object's axes; zero without depth."""
    size = pose.mean_extent[..., None]
    q = pose.to_object(bearing_z1(samples.uv_px, frame.intrinsics) * samples.depth_m[..., None])
    scaled = q * (pose.S[..., None, :] / size)
    normal = pose.rotate_normals_to_object(samples.normal_cam)
    shape = pose.S[..., None, :] / size
    surface = CadPoints(cad.surface.points * shape, pose.normals_in_object_axes(cad.surface.normals))
    closest = closest_surface_points(scaled, surface)
    offset = closest.offset.clamp(-OBJECT_LIMIT, OBJECT_LIMIT)
    lifted = torch.cat((
        scaled.clamp(-OBJECT_LIMIT, OBJECT_LIMIT), q.clamp(-CUBE_LIMIT, CUBE_LIMIT),
        offset, closest.normal, offset.norm(dim=-1, keepdim=True),
        (offset * closest.normal).sum(-1, keepdim=True),
    ), -1)  # fmt: skip
    lifted = torch.where(samples.has_depth[..., None], lifted, torch.zeros_like(lifted))
    agreement = (normal * closest.normal).sum(-1, keepdim=True) * samples.has_depth[..., None]
    return torch.cat((lifted, normal, agreement), -1)


def _cad_channels(pose: Pose, cad: CadSamples) -> torch.Tensor:
    """(B, N, K, 12): the reprojected CAD point in mean extents and in unit-cube coordinates, its normal,
    its own depth, the cosine between normal and view, and a 1 that tells these tokens (τ = 1) apart."""
    points, normals = cad.reprojected.points, cad.reprojected.normals
    points_cam = pose.transform(points)
    view = F.normalize(points_cam, dim=-1)
    cosine = (pose.transform_normals(normals) * view).sum(-1, keepdim=True)
    shape = pose.S[..., None, :] / pose.mean_extent[..., None]
    return torch.cat((
        points * shape, points, pose.normals_in_object_axes(normals),
        points_cam[..., 2:] / DEPTH_UNIT_M, cosine, torch.ones_like(cosine),
    ), -1)  # fmt: skip


def _place_in_box(frame: Frame, uv_px: torch.Tensor) -> torch.Tensor:
    """(B, N, K, 2): −1 to 1 from one side of the detected box to the other, clamped to ±2."""
    low, high = frame.boxes_xyxy[:, :, None, :2], frame.boxes_xyxy[:, :, None, 2:]
    return ((2 * uv_px - low - high) / (high - low).clamp(min=1)).clamp(-2, 2)


def _paper_tokens(frame, pose, box_samples, reprojected, on_image, cad) -> Tokens:
    """The paper's layout: pixels and CAD points as tokens of their own, with τ and detection id."""
    groups = (
        _camera_channels(frame, box_samples),
        _camera_channels(frame, reprojected),
        _cad_camera_channels(pose, cad),
    )
    features = torch.cat([_with_paper_tags(group[..., :11], tau) for tau, group in enumerate(groups)], 2)
    return Tokens(features, None, torch.cat((box_samples.inside, on_image, torch.ones_like(on_image)), -1))


def _cad_camera_channels(pose: Pose, cad: CadSamples) -> torch.Tensor:
    """(B, N, K, 11) channels of CAD points: their own normal, depth and bearing; RGB and mask zero."""
    points_cam = pose.transform(cad.reprojected.points)
    zero = torch.zeros_like(points_cam[..., :1])
    bearing = F.normalize(points_cam, dim=-1)
    depth = points_cam[..., 2:] / DEPTH_UNIT_M
    return torch.cat(
        (zero, zero, zero, pose.transform_normals(cad.reprojected.normals), depth, zero, bearing), -1
    )


def _with_paper_tags(channels: torch.Tensor, tau: int) -> torch.Tensor:
    """The 11 channels with τ and the detection's number in its block."""
    objects = channels.shape[1]
    number = torch.arange(objects, device=channels.device, dtype=channels.dtype)[None, :, None, None]
    shape = (*channels.shape[:-1], 1)
    tags = (torch.full(shape, float(tau), dtype=channels.dtype, device=channels.device), number.expand(shape))
    return torch.cat((channels, *tags), -1)
