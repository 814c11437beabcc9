"""Which way is up, from a depth image alone: the direction most floor- and table-like surfaces share.

Used when neither TF nor an IMU tells. Floors, table tops and seats agree on one normal; walls are at
right angles to it and fall outside the searched cone as long as the camera is not tilted too far.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sparc_core.perception.normals import normals_from_depth

STRIDE = 4  # normals of every fourth pixel are plenty for one direction
CENTRE_PITCH_DEG = -25.0  # middle of the searched cone: cameras of robots look slightly down
CONE_DEG = 45.0
AGREE_DEG = 6.0
MIN_SHARE = 0.08  # of the valid normals, that must agree
CANDIDATES = 400


def estimate_up(depth_m: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor | None:
    """Unit vector against gravity in the camera frame (3,), or None when too few surfaces agree.

    depth_m: (H, W) z-depth in metres, 0 where unknown. intrinsics: (4,) fx, fy, cx, cy.
    """
    small = depth_m[::STRIDE, ::STRIDE].contiguous()
    # pixel centres at integers: every fourth pixel keeps its own centre
    scaled = intrinsics / STRIDE
    normals, valid = normals_from_depth(small[None], scaled[None])
    normals = normals[0][valid[0]]
    if len(normals) < 100:
        return None
    pitch = math.radians(CENTRE_PITCH_DEG)
    middle = normals.new_tensor([0.0, -math.cos(pitch), math.sin(pitch)])
    upward = normals[normals @ middle > math.cos(math.radians(CONE_DEG))]
    if len(upward) < MIN_SHARE * len(normals):
        return None
    candidates = upward[torch.linspace(0, len(upward) - 1, min(CANDIDATES, len(upward))).long()]
    agree = candidates @ upward.T > math.cos(math.radians(AGREE_DEG))
    votes = agree.sum(1)
    best = int(votes.argmax())
    if votes[best] < MIN_SHARE * len(normals):
        return None
    up = candidates[best]
    for _ in range(3):  # the mean of those that agree, found again around itself
        near = upward @ up > math.cos(math.radians(AGREE_DEG))
        up = F.normalize(upward[near].mean(0), dim=0)
    return up
