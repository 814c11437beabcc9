"""The last step of a search: fit the chosen poses of an image to its depth, point to plane.

The network looks at a hundred noisy pixels; a depth image has thousands. Gauss-Newton steps move every
object so that the lifted pixels of its mask lie on its CAD surface and the projected surface keeps
inside the detected box, while the network's pose and the expected extents hold on to what neither of
them shows (the extent away from the camera, say). Residuals are robust: pixels of other things in the
mask lose their weight. Where depth was predicted, its scale and shift are wrong for the whole image;
they are solved for together with all objects, whose sizes and boxes say how far away they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.camera import bearing_z1, intrinsics_tensor, project
from sparc_core.geometry.pose import Pose, where
from sparc_core.geometry.rotation import quaternion_to_matrix
from sparc_core.inputs.compare import closest_index
from sparc_core.perception.observe import ImageChannels
from sparc_core.perception.prepare import PreparedImage
from sparc_core.refine.search import SearchResult
from sparc_core.types import SCALE_MODES

PIXELS = 256
SURFACE_POINTS = 768
MIN_PIXELS = 30  # an object with fewer pixels of depth in its mask is left as it is
NORMAL_UNIT_M = 0.1  # how far a point of opposite normal counts as away, when closest points are searched
MODEL_ERROR_M = 0.02  # distances at which a CAD surface can be off the real one
BOX_ERROR = 0.03  # standard deviation of a detected box's side, as a share of the box
SIZE_SIGMAS = 3.0  # deviation from the expected extents at which these have lost most of their say
MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution from its median absolute value
LARGEST_STEP = 0.3  # of a parameter in one iteration: radians, mean extents, log extents


@dataclass(frozen=True)
class DepthModel:
    """What is believed about a depth image and about the network's poses from it, as standard deviations.

    noise: (constant, square), of a pixel: constant + square · (z − 0.4 m)², plus relative · z. scale (as a
    share) and shift_m: of the whole image's depth, 0 where depth is metric. tilt_rad, turn_rad (about the
    object's vertical), move_m and move_share (of the distance): of the network's pose; extents_log of its
    extents. size_log, axis_log: of the expected extents, as a whole and by axis; 0 leaves them out.
    independent: neighbouring pixels share their errors, so at most this many of an object count.
    """

    noise: tuple[float, float]
    relative: float
    scale: float
    shift_m: float
    tilt_rad: float
    turn_rad: float
    move_m: float
    move_share: float
    extents_log: float
    size_log: float
    axis_log: float
    independent: float
    iterations: int


TILT = math.radians(1.2)
# axial noise of structured light after Nguyen et al. (2012), rounded up for time of flight and stereo
SENSOR = DepthModel(
    noise=(0.006, 0.0025), relative=0.0, scale=0.0, shift_m=0.0, tilt_rad=TILT,
    turn_rad=math.radians(2.5), move_m=0.04, move_share=0.0, extents_log=0.07, size_log=0.15, axis_log=0.05,
    independent=200.0, iterations=3,
)  # fmt: skip
PREDICTED = DepthModel(
    noise=(0.01, 0.0), relative=0.02, scale=0.06, shift_m=0.05, tilt_rad=TILT,
    turn_rad=math.radians(3), move_m=0.05, move_share=0.15, extents_log=0.3, size_log=0.09, axis_log=0.05,
    independent=15.0, iterations=5,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DepthPoints:
    """Pixels of D objects with depth. rays (D, K, 3) with z = 1; depth_m (D, K); normals_cam (D, K, 3), zero
    where unknown; weight (D, K) 1, or 0 for an object with too few pixels."""

    rays: torch.Tensor
    depth_m: torch.Tensor
    normals_cam: torch.Tensor
    weight: torch.Tensor

    def take(self, index: torch.Tensor) -> DepthPoints:
        """Those of the objects (D',)."""
        return DepthPoints(*(x[index] for x in (self.rays, self.depth_m, self.normals_cam, self.weight)))


def fit_search_results(
    results: list[SearchResult], prepared: PreparedImage, cad: CadTensors, depth: DepthModel, seed: int = 0
) -> list[SearchResult]:
    """The results of a search on an image with depth, moved onto what the depth shows."""
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
    fitted = fit_to_depth(
        pose,
        masked_depth_points(prepared.channels, intrinsics, generator).take(detection),
        cad.points[model, :SURFACE_POINTS],
        cad.normals[model, :SURFACE_POINTS],
        cad.extents_m[model],
        torch.from_numpy(prepared.boxes_xyxy).float().to(device)[detection],
        intrinsics,
        torch.tensor([camera.width, camera.height], dtype=torch.float32, device=device),
        scale_mode,
        depth,
    )
    R, T, S = (x.double().cpu().numpy() for x in (fitted.R, fitted.T, fitted.S))
    return [replace(found, R=R[i], T_m=T[i], S_m=S[i]) for i, found in enumerate(results)]


def masked_depth_points(
    channels: ImageChannels, intrinsics: torch.Tensor, generator: torch.Generator, count: int = PIXELS
) -> DepthPoints:
    """`count` pixels with depth of every mask of an image, drawn with replacement.

    intrinsics (4,). Objects without a mask, or with fewer than `MIN_PIXELS` such pixels, get weight 0.
    """
    detections, device = len(channels.masks), channels.depth_m.device
    index = torch.zeros(detections, count, dtype=torch.long, device=device)
    weight = torch.zeros(detections, count, device=device)
    usable = channels.masks & (channels.depth_m > 0) & channels.has_mask[:, None, None]
    for d in range(detections):
        pixels = usable[d].flatten().nonzero()[:, 0]
        if len(pixels) >= MIN_PIXELS:
            drawn = torch.rand(count, generator=generator, device=device)
            index[d] = pixels[(drawn * len(pixels)).long()]
            weight[d] = 1
    width = channels.depth_m.shape[1]
    uv = torch.stack((index % width, index // width), -1).float()
    rays = bearing_z1(uv, intrinsics.expand(detections, 4))
    return DepthPoints(rays, channels.depth_m.flatten()[index], channels.normals_at(index), weight)


def fit_to_depth(
    pose: Pose,
    observed: DepthPoints,
    surface: torch.Tensor,
    surface_normals: torch.Tensor,
    expected_m: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    intrinsics: torch.Tensor,
    size_px: torch.Tensor,
    scale_mode: torch.Tensor,
    depth: DepthModel,
) -> Pose:
    """The poses (D,) of one image moved onto what was observed.

    surface, surface_normals (D, P, 3) of the CAD models in unit-cube coordinates; expected_m (D, 3) extents;
    boxes_xyxy (D, 4); intrinsics (4,); size_px (2,); scale_mode (D,) indices into SCALE_MODES, which are
    obeyed. Objects whose observed points have no weight come back unchanged.
    """
    bound = _scale_projection(scale_mode, pose.S)
    current, moved = pose, torch.zeros(*pose.shape, 9, dtype=pose.T.dtype, device=pose.T.device)
    common = torch.zeros(2, dtype=pose.T.dtype, device=pose.T.device)  # log scale and shift of the depth
    trust = torch.tensor([depth.scale, depth.shift_m]).to(common).clamp(min=1e-6) ** -2
    for _ in range(depth.iterations):
        y = surface * current.S[:, None]
        normals = current.normals_in_object_axes(surface_normals)
        H, g = _prior_terms(current, moved, expected_m, bound, depth)
        by_depth, by_common, weight, residual = _depth_terms(current, observed, y, normals, common, depth)
        by_box, box_weight, box_residual = _box_terms(current, y, boxes_xyxy, intrinsics, size_px)
        by_depth, by_box = _bind(by_depth, bound), _bind(by_box, bound)
        weighted = (by_depth * weight[..., None]).transpose(1, 2)
        weighted_box = (by_box * box_weight[..., None]).transpose(1, 2)
        H = H + weighted @ by_depth + weighted_box @ by_box
        g = g + (weighted @ residual[..., None] + weighted_box @ box_residual[..., None])[..., 0]
        coupling = weighted @ by_common
        weighted_common = (by_common * weight[..., None]).flatten(0, 1).T
        common_H = torch.diag(trust) + weighted_common @ by_common.flatten(0, 1)
        common_g = trust * common + weighted_common @ residual.flatten()
        step, common_step = _solve(H, g, coupling, common_H, common_g)
        step = step.clamp(-LARGEST_STEP, LARGEST_STEP)
        current, moved, common = _stepped(current, step), moved + step, common + common_step
    usable = (observed.weight.sum(-1) > 0) & torch.isfinite(moved).all(-1)
    return where(usable, current, pose)


def _solve(H, g, coupling, common_H, common_g):
    """The step (D, 9) of every object and (2,) of what they share, by the Schur complement.

    H (D, 9, 9), g (D, 9); coupling (D, 9, 2); common_H (2, 2), common_g (2,).
    """
    inner = torch.linalg.solve(H, torch.cat((g[..., None], coupling), -1))
    across = coupling.transpose(1, 2)
    reduced_H = common_H - (across @ inner[..., 1:]).sum(0)
    reduced_g = common_g - (across @ inner[..., :1]).sum(0)[:, 0]
    common_step = -torch.linalg.solve(reduced_H, reduced_g)
    return -inner[..., 0] - inner[..., 1:] @ common_step, common_step


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


def _bind(jacobian: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    """A Jacobian (D, K, 9) by what the scale mode leaves."""
    return torch.cat((jacobian[..., :6], jacobian[..., 6:] @ bound), -1)


def _prior_terms(pose: Pose, moved: torch.Tensor, expected_m: torch.Tensor, bound, depth: DepthModel):
    """H (D, 9, 9) and g (D, 9) of what is believed without looking: the network's pose, from which the
    object has moved (D, 9) so far, and the expected extents."""
    sigma = torch.full_like(moved, depth.tilt_rad)
    sigma[..., 1] = depth.turn_rad
    move_m = depth.move_m + depth.move_share * pose.T.norm(dim=-1, keepdim=True)
    sigma[..., 3:6], sigma[..., 6:] = move_m / pose.mean_extent, depth.extents_log
    weight = sigma**-2
    H, g = torch.diag_embed(weight), weight * moved
    if depth.size_log > 0:
        covariance = torch.full((3, 3), depth.size_log**2) + depth.axis_log**2 * torch.eye(3)
        believed = bound @ torch.linalg.inv(covariance).to(bound) @ bound
        off = (pose.S / expected_m).log()[..., None]
        pull = believed @ off
        # a CAD model of quite another size than the object says nothing about it
        trust = _geman_mcclure((off.transpose(1, 2) @ pull)[..., 0].clamp(min=0).sqrt() / SIZE_SIGMAS)
        H[..., 6:, 6:] += trust[..., None] * believed
        g[..., 6:] += trust * pull[..., 0]
    return H, g


def _depth_terms(pose: Pose, observed: DepthPoints, y, normals, common, depth: DepthModel):
    """Point-to-plane distances: Jacobians (D, K, 9) and by what is shared (D, K, 2), weights (D, K) and
    residuals (D, K) in metres.

    y, normals (D, P, 3): the CAD surface at true size along the object's axes. Closest points are
    searched among points and normals together, so that a table's top is not taken for its underside.
    """
    z = observed.depth_m * common[0].exp() + common[1]
    p = (observed.rays * z[..., None] - pose.T[:, None]) @ pose.R
    n_seen = pose.rotate_normals_to_object(observed.normals_cam)
    closest = closest_index(
        torch.cat((p, NORMAL_UNIT_M * n_seen), -1), torch.cat((y, NORMAL_UNIT_M * normals), -1)
    )
    y, n = (x.gather(1, closest[..., None].expand(-1, -1, 3)) for x in (y, normals))
    offset = p - y
    residual = (n * offset).sum(-1)
    sigma = depth.noise[0] + depth.noise[1] * (z - 0.4).square() + depth.relative * z
    robust = observed.weight * _geman_mcclure(offset.norm(dim=-1) / (3 * sigma + MODEL_ERROR_M))
    shared = (depth.independent / robust.sum(-1, keepdim=True).clamp(min=1e-6)).clamp(max=1)
    # a CAD model that is not the object's leaves distances that no pose explains: they count as noise
    unexplained = residual.abs().median(-1, keepdim=True).values
    sigma = torch.maximum(sigma, MAD_TO_SIGMA * unexplained)
    weight = robust * shared / sigma.square()
    # a turn by ω moves p by p × ω, a shift by −dδ, and growth by σ moves the surface by y ∘ σ
    jacobian = torch.cat((torch.linalg.cross(n, p), -n * pose.mean_extent[:, None], -n * y), -1)
    along = (n * (observed.rays @ pose.R)).sum(-1)
    by_common = torch.stack((along * observed.depth_m * common[0].exp(), along), -1)
    return jacobian, by_common, weight, residual


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
    found = uv.gather(1, place[..., :2]).gather(2, along[..., None])[..., 0]
    residual = found - boxes_xyxy
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


def _geman_mcclure(ratio: torch.Tensor) -> torch.Tensor:
    """Weights between 1 for residuals of 0 and 0 for large ones."""
    return 1 / (1 + ratio.square()).square()
