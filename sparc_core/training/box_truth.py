"""What the box network is to say of the boxes of stored pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparc_core.geometry.camera import box_ray, project
from sparc_core.geometry.rotation import azimuth_rad, level_frame
from sparc_core.training.box_table import BoxTable
from sparc_core.types import AZIMUTH_ORDERS

FAR_OFF = 1.5  # half sides of a box: a centre that is seen further from its middle counts as there


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """What a network is to say of K boxes. label (K,) the category, `NONE` for no object, of which nothing
    else counts; harmonics (K, 6) and turned (K, 3), which of the harmonics an object of this symmetry has;
    distance (K, 1), centre (K, 2), extents (K, 3), height (K, 1) and sides (K, 4) as in `BoxOutput`; stands
    (K,) bool, whether the height is known."""

    label: torch.Tensor
    harmonics: torch.Tensor
    turned: torch.Tensor
    distance: torch.Tensor
    centre: torch.Tensor
    extents: torch.Tensor
    height: torch.Tensor
    sides: torch.Tensor
    stands: torch.Tensor


def truth_of(table: BoxTable, index: torch.Tensor, boxes_xyxy: torch.Tensor) -> BoxTruth:
    """What is to be said of the boxes of a table, moved to boxes_xyxy (K, 4)."""
    intrinsics, T, symmetry = table.intrinsics[index], table.T[index], table.symmetry_order[index]
    rays = F.normalize(box_ray(boxes_xyxy, intrinsics), dim=-1)
    theta = azimuth_rad(table.R[index], level_frame(table.up_cam[index], rays))
    orders = torch.tensor(AZIMUTH_ORDERS)
    phase = theta[:, None] * orders
    seen = project(T[:, None], intrinsics)[0][:, 0]
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    centre = (seen - (low + high) / 2) / ((high - low) / 2)
    height = table.height[index]
    sides = (table.object_xyxy[index] - boxes_xyxy) / (high - low).repeat(1, 2)
    return BoxTruth(
        table.label[index], torch.stack((phase.cos(), phase.sin()), -1).flatten(1),
        orders[None] % symmetry[:, None] == 0, T.norm(dim=-1, keepdim=True).log(),
        centre.clamp(-FAR_OFF, FAR_OFF), table.S[index].log(),
        height.nan_to_num(1.0).clamp(min=0.1).log()[:, None], sides, ~height.isnan(),
    )  # fmt: skip
