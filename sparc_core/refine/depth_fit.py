"""The last step of a search: fit the chosen poses to the sensor's depth, point to plane.

The network looks at a hundred noisy pixels; a sensor gives thousands. Gauss-Newton steps move every
object so that the lifted pixels of its mask lie on its CAD surface and the projected surface keeps
inside the detected box, while the network's pose holds on to what neither of them shows (the extent
away from the camera, say). Residuals are robust: pixels of other things in the mask lose their weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.camera import bearing_z1, intrinsics_tensor, project
from sparc_core.geometry.pose import Pose, where
from sparc_core.geometry.rotation import quaternion_to_matrix
from sparc_core.perception.observe import ImageChannels
from sparc_core.perception.prepare import PreparedImage
from sparc_core.refine.search import SearchResult
from sparc_core.types import SCALE_MODES

PIXELS = 256
SURFACE_POINTS = 768
ITERATIONS = 3
MIN_PIXELS = 30  # an object with fewer pixels of depth in its mask is left as it is
INDEPENDENT = 60.0  # neighbouring pixels share their errors: at most this many count as independent
NORMAL_UNIT_M = 0.1  # how far a point of opposite normal counts as away, when closest points are searched
MODEL_ERROR_M = 0.02  # distances at which a CAD surface can be off the real one
BOX_ERROR = 0.03  # standard deviation of a detected box's side, as a share of the box
# standard deviations of the network's pose: metres, radians, log extents
PRIOR_M, PRIOR_RAD, PRIOR_LOG = 0.04, math.radians(2.5), 0.05
LARGEST_STEP = 0.3  # of a parameter in one iteration: radians, mean extents, log extents


@dataclass(frozen=True, eq=False)
class DepthPoints:
    """Lifted pixels of D objects. points_cam, normals_cam (D, K, 3), the latter zero where unknown;
    sigma_m (D, K) depth noise; weight (D, K) 1, or 0 for an object with too few pixels."""

    points_cam: torch.Tensor
    normals_cam: torch.Tensor
    sigma_m: torch.Tensor
    weight: torch.Tensor

    def take(self, index: torch.Tensor) -> DepthPoints:
        """Those of the objects (D',)."""
        return DepthPoints(
            *(x[index] for x in (self.points_cam, self.normals_cam, self.sigma_m, self.weight))
        )


def fit_search_results(
    results: list[SearchResult], prepared: PreparedImage, cad: CadTensors, seed: int = 0
) -> list[SearchResult]:
    """The results of a search on an image with sensor depth, moved onto what the sensor saw."""
    device = cad.points.device
    detection, model, scale_mode = (
        torch.tensor([getattr(found, name) for found in results], device=device)
        for name in ("detection", "model", "scale_mode")
    )
    pose = Pose(*(
        torch.stack([torch.from_numpy(getattr(found, name)).float() for found in results]).to(device)
        for name in ("R", "T_m", "S_m")
    ))  # fmt: skip
    camera = prepared.camera
    intrinsics = intrinsics_tensor(camera, device)
    generator = torch.Generator(device).manual_seed(seed)
    observed = masked_depth_points(prepared.channels, intrinsics, generator).take(detection)
    fitted = fit_to_depth(
        pose,
        observed,
        cad.points[model, :SURFACE_POINTS],
        cad.normals[model, :SURFACE_POINTS],
        torch.from_numpy(prepared.boxes_xyxy).float().to(device)[detection],
        intrinsics,
        torch.tensor([camera.width, camera.height], dtype=torch.float32, device=device),
        scale_mode,
    )
    R, T, S = (x.double().cpu().numpy() for x in (fitted.R, fitted.T, fitted.S))
    return [replace(found, R=R[i], T_m=T[i], S_m=S[i]) for i, found in enumerate(results)]


def sensor_sigma_m(depth_m: torch.Tensor) -> torch.Tensor:
    """Standard deviation of a structured-light camera's depth, after Nguyen et al. (2012), rounded up
    for time of flight and stereo."""
    return 0.006 + 0.0025 * (depth_m - 0.4).square()


def masked_depth_points(
    channels: ImageChannels, intrinsics: torch.Tensor, generator: torch.Generator, count: int = PIXELS
) -> DepthPoints:
    """`count` pixels with depth of every mask of an image, drawn with replacement and lifted.

    intrinsics (4,). Objects without a mask, or with fewer than `MIN_PIXELS` such pixels, get weight 0.
    """
    detections, device = len(channels.masks), channels.depth_m.device
    index = torch.zeros(detections, count, dtype=torch.long, device=device)
    weight = torch.zeros(detections, count, device=device)
    usable = (channels.masks > 0.5) & (channels.depth_m > 0) & channels.has_mask[:, None, None]
    for d in range(detections):
        pixels = usable[d].flatten().nonzero()[:, 0]
        if len(pixels) >= MIN_PIXELS:
            drawn = torch.rand(count, generator=generator, device=device)
            index[d] = pixels[(drawn * len(pixels)).long()]
            weight[d] = 1
    width = channels.depth_m.shape[1]
    depth = channels.depth_m.flatten()[index]
    uv = torch.stack((index % width, index // width), -1).float()
    points = bearing_z1(uv, intrinsics.expand(detections, 4)) * depth[..., None]
    normals = channels.normal_cam.flatten(0, 1)[index]
    return DepthPoints(points, normals, sensor_sigma_m(depth), weight)


def fit_to_depth(
    pose: Pose,
    observed: DepthPoints,
    surface: torch.Tensor,
    surface_normals: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    intrinsics: torch.Tensor,
    size_px: torch.Tensor,
    scale_mode: torch.Tensor,
    iterations: int = ITERATIONS,
) -> Pose:
    """The (D,) poses moved onto what was observed.

    surface, surface_normals (D, P, 3) of the CAD models in unit-cube coordinates; boxes_xyxy (D, 4);
    intrinsics (4,); size_px (2,); scale_mode (D,) indices into SCALE_MODES, which are obeyed. Objects
    whose observed points have no weight come back unchanged.
    """
    bound = _scale_projection(scale_mode, pose.S)
    current = pose
    moved = torch.zeros(*pose.shape, 9, dtype=pose.T.dtype, device=pose.T.device)
    for _ in range(iterations):
        prior = _prior_weights(current)
        H, g = torch.diag_embed(prior), prior * moved
        y = surface * current.S[:, None]
        normals = current.normals_in_object_axes(surface_normals)
        for jacobian, weight, residual in (
            _depth_terms(current, observed, y, normals),
            _box_terms(current, y, boxes_xyxy, intrinsics, size_px),
        ):
            jacobian = torch.cat((jacobian[..., :6], jacobian[..., 6:] @ bound), -1)
            weighted = (jacobian * weight[..., None]).transpose(1, 2)
            H = H + weighted @ jacobian
            g = g + (weighted @ residual[..., None])[..., 0]
        step = -torch.linalg.solve(H, g).clamp(-LARGEST_STEP, LARGEST_STEP)
        moved = moved + step
        current = _stepped(current, step)
    usable = (observed.weight.sum(-1) > 0) & torch.isfinite(moved).all(-1)
    return where(usable, current, pose)


def _stepped(pose: Pose, step: torch.Tensor) -> Pose:
    """The pose after a (D, 9) step: a rotation vector and a shift in mean extents along the object's
    axes, and log factors of the extents."""
    turn = quaternion_to_matrix(torch.cat((torch.ones_like(step[..., :1]), step[..., :3] / 2), -1))
    shift = (pose.R @ (step[..., 3:6] * pose.mean_extent)[..., None])[..., 0]
    return Pose(pose.R @ turn, pose.T + shift, pose.S * step[..., 6:].exp())


def _scale_projection(scale_mode: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """(D, 3, 3): what a scale mode leaves of the log factors of the extents."""
    modes = {"free": torch.eye(3), "uniform": torch.full((3, 3), 1 / 3), "fixed": torch.zeros(3, 3)}
    return torch.stack([modes[name] for name in SCALE_MODES]).to(S)[scale_mode]


def _prior_weights(pose: Pose) -> torch.Tensor:
    """(D, 9) inverse variances of the network's pose."""
    sigma = torch.ones(*pose.shape, 9, dtype=pose.T.dtype, device=pose.T.device)
    sigma[..., :3], sigma[..., 3:6], sigma[..., 6:] = PRIOR_RAD, PRIOR_M / pose.mean_extent, PRIOR_LOG
    return 1 / sigma.square()


def _depth_terms(pose: Pose, observed: DepthPoints, y: torch.Tensor, normals: torch.Tensor):
    """Point-to-plane distances: Jacobian (D, K, 9), weights (D, K) and residuals (D, K) in metres.

    y, normals (D, P, 3): the CAD surface at true size along the object's axes. Closest points are
    searched among points and normals together, so that a table's top is not taken for its underside.
    """
    p = (observed.points_cam - pose.T[:, None]) @ pose.R
    n_seen = pose.rotate_normals_to_object(observed.normals_cam)
    closest = _closest(
        torch.cat((p, NORMAL_UNIT_M * n_seen), -1), torch.cat((y, NORMAL_UNIT_M * normals), -1)
    )
    y, n = (x.gather(1, closest[..., None].expand(-1, -1, 3)) for x in (y, normals))
    offset = p - y
    residual = (n * offset).sum(-1)
    scale = 3 * observed.sigma_m + MODEL_ERROR_M
    robust = observed.weight * _geman_mcclure(offset.norm(dim=-1) / (2 * scale))
    shared = (INDEPENDENT / robust.sum(-1, keepdim=True).clamp(min=1e-6)).clamp(max=1)
    weight = robust * shared / observed.sigma_m.square()
    # a turn by ω moves p by p × ω, a shift by −dδ, and growth by σ moves the surface by y ∘ σ
    jacobian = torch.cat((torch.linalg.cross(n, p), -n * pose.mean_extent[:, None], -n * y), -1)
    return jacobian, weight, residual


def _box_terms(pose: Pose, y: torch.Tensor, boxes_xyxy: torch.Tensor, intrinsics, size_px):
    """Sides of the projected surface's box against the detected one: Jacobian (D, 4, 9), weights (D, 4)
    and residuals (D, 4) in pixels. A side on the image border says nothing."""
    points = y @ pose.R.transpose(1, 2) + pose.T[:, None]
    points = torch.cat((points[..., :2], points[..., 2:].clamp(min=0.1)), -1)
    uv, _ = project(points, intrinsics.expand(len(points), 4))
    extreme = torch.cat((uv.argmin(1), uv.argmax(1)), -1)
    along = torch.tensor([0, 1, 0, 1], device=uv.device).expand_as(extreme)
    place = extreme[..., None].expand(-1, -1, 3)
    x, y = points.gather(1, place), y.gather(1, place)
    residual = (
        uv.gather(1, extreme[..., None].expand(-1, -1, 2)).gather(2, along[..., None])[..., 0] - boxes_xyxy
    )
    focal = intrinsics[:2][along]
    gradient = torch.zeros_like(x).scatter(2, along[..., None], (focal / x[..., 2])[..., None])
    gradient[..., 2] = -focal * x.gather(2, along[..., None])[..., 0] / x[..., 2].square()
    g = gradient @ pose.R
    jacobian = torch.cat((torch.linalg.cross(y, g), g * pose.mean_extent[:, None], g * y), -1)
    size = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=1).repeat(1, 2)
    sigma = BOX_ERROR * size + 1
    limit = torch.cat((torch.full_like(size_px, 2.0), size_px - 3))
    inside = torch.cat((boxes_xyxy[:, :2] > limit[:2], boxes_xyxy[:, 2:] < limit[2:]), -1)
    weight = inside * _geman_mcclure(residual / (3 * sigma)) / sigma.square()
    return jacobian, weight, residual


def _closest(queries: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(D, K) index of the closest of the points (D, P, C) to each of the queries (D, K, C)."""
    # |a − b|² up to |a|², which does not change the order
    squares = points.square().sum(-1)[:, None]
    return torch.baddbmm(squares, queries, points.transpose(1, 2), alpha=-2).argmin(-1)


def _geman_mcclure(ratio: torch.Tensor) -> torch.Tensor:
    """Weights between 1 for residuals of 0 and 0 for large ones."""
    return 1 / (1 + ratio.square()).square()
