"""Between Mask2CAD's answers and poses: bins with residuals, offsets of boxes, depth and extents.

The same conventions make the targets of training and the poses at run time. x_cam = R · diag(S) · x_cad + T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparc_core.baselines.allocentric import to_allocentric, to_camera
from sparc_core.baselines.mask2cad import Mask2CadNet, RegionAnswers, box_extent
from sparc_core.baselines.medoids import nearest_turn, rotation_bins
from sparc_core.baselines.regions import Regions
from sparc_core.geometry.camera import bearing_z1, box_ray
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import matrix_to_quaternion, quaternion_to_matrix
from sparc_core.types import CATEGORIES

MIN_QUATERNION = 1e-6


@dataclass(frozen=True, eq=False)
class RegionBoxes:
    """What `Regions` knows of D boxes alone: boxes_xyxy (D, 4), intrinsics (D, 4), category (D,)."""

    boxes_xyxy: torch.Tensor
    intrinsics: torch.Tensor
    category: torch.Tensor


@dataclass(frozen=True, eq=False)
class PoseTargets:
    """What the network is to answer about D regions.

    bin (D,) nearest to the truth; residual (D, K, 4) quaternion with w ≥ 0 from every bin to the nearest
    symmetric turn of the truth, and angle_rad (D, K) of it, inf for bins that the category has not; offset
    (D, 2), log_depth (D,) and log_extents (D, 3) as in `RegionAnswers`.
    """

    bin: torch.Tensor
    residual: torch.Tensor
    angle_rad: torch.Tensor
    offset: torch.Tensor
    log_depth: torch.Tensor
    log_extents: torch.Tensor


def pose_targets(
    network: Mask2CadNet, regions: Regions, pose: Pose, symmetry_order: torch.Tensor
) -> PoseTargets:
    """Targets of regions with their true poses (D,); symmetry_order (D,) int of their CAD models. Raises
    ValueError for a category of which the network has no bins."""
    _check_bins(network, regions.category)
    bins = quaternion_to_matrix(_unit(network.bins))[regions.category]
    allocentric = to_allocentric(pose.R, _rays(regions))
    angle, turned = nearest_turn(allocentric, bins, symmetry_order)
    angle = torch.where(network.has_bin[regions.category], angle, torch.inf)
    residual = matrix_to_quaternion(turned @ bins.transpose(-1, -2))
    return PoseTargets(
        angle.argmin(-1), residual, angle, _offset(regions, pose.T), _log_depth(regions, pose.T), pose.S.log()
    )


def poses_of(network: Mask2CadNet, regions: Regions, answers: RegionAnswers) -> tuple[Pose, torch.Tensor]:
    """Poses (D,) in the camera frame and the probability (D,) of the rotation's bin. Raises ValueError for a
    category of which the network has no bins."""
    _check_bins(network, regions.category)
    row = torch.arange(len(regions), device=answers.offset.device)
    probability, chosen = answers.bin_logits.softmax(-1).max(-1)
    bins = quaternion_to_matrix(network.bins[regions.category, chosen])
    R = to_camera(quaternion_to_matrix(_unit(answers.residual)) @ bins, _rays(regions))
    low, high = regions.boxes_xyxy[:, :2], regions.boxes_xyxy[:, 2:]
    centre_px = (low + high) / 2 + answers.offset * (high - low).clamp(min=1)
    z = answers.log_depth.exp() / box_extent(regions).norm(dim=-1)
    T = bearing_z1(centre_px[row], regions.intrinsics) * z[:, None]
    return Pose(R, T, answers.log_extents.exp()), probability


def fit_statistics(
    network: Mask2CadNet, boxes: RegionBoxes, pose: Pose, symmetry_order: torch.Tensor
) -> None:
    """Take bins, usual depths and usual extents of the categories from a training set (D,)."""
    allocentric = to_allocentric(pose.R, _rays(boxes))
    depth, extents = _log_depth(boxes, pose.T), pose.S.log()
    for number in range(len(CATEGORIES)):
        own = boxes.category == number
        if not bool(own.any()):
            continue
        bins = rotation_bins(allocentric[own], symmetry_order[own], network.config.bins)
        network.bins[number] = 0.0
        network.bins[number, : len(bins)] = matrix_to_quaternion(bins)
        network.usual_depth[number] = depth[own].median()
        network.usual_extents[number] = extents[own].median(0).values


def _rays(regions: Regions | RegionBoxes) -> torch.Tensor:
    return box_ray(regions.boxes_xyxy, regions.intrinsics)


def _offset(regions: Regions | RegionBoxes, T: torch.Tensor) -> torch.Tensor:
    """(D, 2) from the middle of the box to the projected centre, in widths and heights of the box."""
    low, high = regions.boxes_xyxy[:, :2], regions.boxes_xyxy[:, 2:]
    focal, middle = regions.intrinsics[:, :2], regions.intrinsics[:, 2:]
    centre_px = T[:, :2] / T[:, 2:] * focal + middle
    return (centre_px - (low + high) / 2) / (high - low).clamp(min=1)


def _log_depth(regions: Regions | RegionBoxes, T: torch.Tensor) -> torch.Tensor:
    """(D,) log of z times the box's diagonal in units of the focal length: about the object's size."""
    return (T[:, 2] * box_extent(regions).norm(dim=-1)).log()


def _unit(quaternion: torch.Tensor) -> torch.Tensor:
    """Quaternions as they are; the identity for those without length, which name no rotation."""
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0], device=quaternion.device)
    return torch.where(quaternion.norm(dim=-1, keepdim=True) > MIN_QUATERNION, quaternion, identity)


def _check_bins(network: Mask2CadNet, category: torch.Tensor) -> None:
    unknown = sorted({CATEGORIES[i] for i in category.tolist() if not bool(network.has_bin[i].any())})
    if unknown:
        raise ValueError(
            f"Mask2CAD has seen no {', '.join(unknown)} in training: it has no rotations of them"
        )
