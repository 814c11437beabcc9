"""What the retrieval network sees of a detected object: the same sampled pixels as the aligner, lifted.

The lifted points stand in a frame that gravity and the view define, and that no pose needs to be known for: y
up, z horizontal towards the camera, origin at the object's seen depth on the ray through the box centre,
metres.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparc_core.geometry.camera import bearing_z1, cut_sides
from sparc_core.geometry.rotation import level_frame, start_up
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.refine.initial import start_translation
from sparc_core.types import CATEGORIES

TOKEN_CHANNELS = 15
CONTEXT_CHANNELS = 9 + len(CATEGORIES)
LIMIT_M = 3.0


def view_frame(frame: Frame, direction: torch.Tensor) -> torch.Tensor:
    """(B, N, 3, 3) rotations from the camera to frames with y up and z horizontal towards the camera, for
    objects in a direction (B, N, 3)."""
    up = start_up(frame.up_cam, frame.has_up)[:, None].expand_as(direction)
    return level_frame(up, direction)


def region_tokens(
    frame: Frame, samples: PixelSamples, category: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens (B, N, K, 15), context (B, N, 18) and validity (B, N, K) of K sampled pixels of every object.

    category (B, N): index into CATEGORIES. Tokens: RGB 3, point 3 and normal 3 in the view frame, mask,
    whether depth, normal and mask are there, place in the box 2. Context: log of the box's width and height
    in metres at the object's depth, how steep the view is, whether gravity is known, distance, which sides of
    the box are cut, category.
    """
    low, high = frame.boxes_xyxy[..., :2], frame.boxes_xyxy[..., 2:]
    nothing = torch.zeros(*low.shape[:2], 3, device=low.device)
    centre = start_translation(frame, samples, nothing)
    R = view_frame(frame, F.normalize(centre, dim=-1))
    points = bearing_z1(samples.uv_px, frame.intrinsics) * samples.depth_m[..., None]
    local = ((points - centre[:, :, None]) @ R.transpose(-1, -2)).clamp(-LIMIT_M, LIMIT_M)
    local = local * samples.has_depth[..., None]
    normal = samples.normal_cam @ R.transpose(-1, -2)
    middle, size = (low + high)[:, :, None], (high - low).clamp(min=1)[:, :, None]
    place = ((2 * samples.uv_px - middle) / size).clamp(-2, 2)
    flags = torch.stack((samples.has_depth, samples.has_normal, samples.has_mask), -1).to(local.dtype)
    tokens = torch.cat((samples.rgb, local, normal, samples.mask[..., None], flags, place), -1)

    size_m = (high - low).clamp(min=1) * centre[..., 2:] / frame.intrinsics[:, None, :2]
    touches = cut_sides(frame.boxes_xyxy, frame.size_px).to(local.dtype)
    steep = (R[..., 1, :] * F.normalize(centre, dim=-1)).sum(-1, keepdim=True)
    known = frame.has_up[:, None, None].to(local.dtype).expand_as(steep)
    context = torch.cat((
        size_m.clamp(min=1e-2).log(), steep, known, centre.norm(dim=-1, keepdim=True) / 3, touches,
        F.one_hot(category, len(CATEGORIES)).to(local.dtype),
    ), -1)  # fmt: skip
    return tokens, context, samples.inside
