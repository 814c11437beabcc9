"""What a camera with noisy predictors sees of synthetic scenes, at chosen pixels only."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.camera import bearing_z1, project
from sparc_core.geometry.pose import Pose
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.synth.corrupt import (
    NONE,
    NoiseBatch,
    NoiseConfig,
    corrupt_depth,
    corrupt_normals,
    jitter_boxes,
)
from sparc_core.synth.raycast import RayCaster, RayHits
from sparc_core.synth.scenes import SceneBatch
from sparc_core.types import HINT_CHANNELS

_EXACT, _SLAB, _MISSING = range(3)
MIN_VISIBLE = 0.15  # of the CAD points, unoccluded and on the image
MIN_BOX_PX = 12.0


@dataclass(frozen=True, eq=False)
class SceneDetections:
    """The visible objects of B scenes, moved to the first of N slots.

    slot (B, N) which scene slot; valid (B, N); boxes_xyxy (B, N, 4) exact boxes of what is visible;
    median_depth_m (B, N) of the visible surface; visible (B, N) share of the CAD points seen.
    """

    slot: torch.Tensor
    valid: torch.Tensor
    boxes_xyxy: torch.Tensor
    median_depth_m: torch.Tensor
    visible: torch.Tensor


def detect(
    caster: RayCaster,
    cad: CadTensors,
    scene: SceneBatch,
    keep: int,
    generator,
    points: int = 192,
    min_visible: float = MIN_VISIBLE,
) -> SceneDetections:
    """Find up to `keep` objects a scene of whose points at least `min_visible` are seen, and box them."""
    model, pose = scene.model[:, : scene.objects], scene.pose.map(lambda x: x[:, : scene.objects])
    present = scene.present[:, : scene.objects]
    uv, in_front = project(pose.transform(cad.points[model]), scene.intrinsics)
    on_image = in_front & ((uv >= 0) & (uv <= scene.size_px[:, None, None] - 1)).all(-1)
    few, inside = uv[:, :, :points], on_image[:, :, :points]
    hits = caster.cast(scene, few.flatten(1, 2))
    slots = torch.arange(scene.objects, device=uv.device)[None, :, None]
    seen = inside & (hits.slot.view(inside.shape) == slots) & present[..., None]
    low, high = _seen_bounds(uv, on_image, few, inside, seen)
    visible = seen.float().mean(-1)
    valid = (visible >= min_visible) & ((high - low) >= MIN_BOX_PX).all(-1)
    depth = torch.where(seen, hits.depth_m.view(inside.shape), torch.nan).nanmedian(-1).values
    # visible objects first, in random order among themselves
    order = torch.rand(valid.shape, generator=generator, device=generator.device) + (~valid).float()
    slot = order.argsort(1)[:, :keep]
    boxes = torch.cat((low, high), -1).nan_to_num(posinf=0.0, neginf=1.0)
    corner = slot[..., None].expand(-1, -1, 4)
    valid = valid.gather(1, slot)
    boxes = torch.where(valid[..., None], boxes.gather(1, corner), boxes.new_tensor([0.0, 0.0, 1.0, 1.0]))
    return SceneDetections(slot, valid, boxes, depth.nan_to_num(3.0).gather(1, slot), visible.gather(1, slot))


def _seen_bounds(uv, on_image, few, inside, seen):
    """(B, N, 2) lower and upper bounds of what is seen of every object.

    A few cast points miss the tips of an object. Where the outermost of them on a side is seen, that side
    is taken from all projected points (uv, on_image); where it is hidden, from the points that are seen.
    """
    far = torch.inf
    bounds = []
    for sign in (1, -1):
        every = torch.where(on_image[..., None], sign * uv, far).amin(2)
        tried = torch.where(inside[..., None], sign * few, far).amin(2)
        found = torch.where(seen[..., None], sign * few, far).amin(2)
        bounds.append(sign * torch.where(found <= tried, every, found))
    return bounds


def take_slots(pose: Pose, slot: torch.Tensor) -> Pose:
    """The poses (B, N) of the slots (B, N) of a (B, O) batch."""
    rows = torch.arange(len(slot), device=slot.device)[:, None]
    return pose.map(lambda x: x[rows, slot])


@dataclass(frozen=True, eq=False)
class Lighting:
    """Light and white balance of B images: direction (B, 3) unit, to the light, in the camera frame; ambient
    (B, 1, 1) share of the light that has no direction; tint (B, 1, 3) factor of the colours."""

    direction: torch.Tensor
    ambient: torch.Tensor
    tint: torch.Tensor


class SceneObserver:
    """A `PixelSource` that casts rays and corrupts what they find.

    Reading the same pixel twice draws the fine noise anew; what is drawn per image stays.
    """

    def __init__(
        self,
        caster: RayCaster,
        scene: SceneBatch,
        detections: SceneDetections,
        noise: NoiseBatch,
        config: NoiseConfig,
        generator: torch.Generator,
    ):
        self.caster, self.scene, self.detections, self.noise = caster, scene, detections, noise
        self.generator = generator
        self.frame = Frame(
            scene.intrinsics,
            scene.size_px,
            jitter_boxes(detections.boxes_xyxy, scene.size_px, config.box_jitter, generator),
            detections.valid,
            self._noisy_up(),
            scene.has_up,
        )
        shares = torch.tensor(
            [config.masks_exact, config.masks_slab, config.masks_missing], dtype=torch.float32
        )
        count = detections.slot.numel()
        mode = torch.multinomial(shares.to(generator.device), count, replacement=True, generator=generator)
        self.mask_mode = mode.view_as(detections.slot)
        half = take_slots(scene.pose, detections.slot).S.norm(dim=-1) / 2
        self.slab_m = half * (0.8 + 0.5 * self._rand(half.shape))
        seed = detections.median_depth_m * (1 + 0.03 * self._randn(half.shape))
        # cut from depth alone, a mask sometimes holds what is in front of the object or behind it
        astray = self._rand(half.shape) < config.masks_astray
        self.slab_seed_m = torch.where(astray, seed * (0.5 + 0.9 * self._rand(half.shape)), seed)
        self.lighting = self._draw_lighting(len(half))

    def sample(self, uv_px: torch.Tensor) -> PixelSamples:
        """Read all channels at uv_px (B, N, K, 2)."""
        shape = uv_px.shape[:-1]
        flat = uv_px.flatten(1, 2)
        exact = self.caster.cast(self.scene, flat)
        shifted_uv = flat + self.noise.edge_px[..., None] * self._randn(flat.shape)
        shifted = self.caster.cast(self.scene, shifted_uv)
        rays = F.normalize(bearing_z1(flat, self.scene.intrinsics), dim=-1)
        cosine = (shifted.normal_cam * rays).sum(-1).abs()
        depth, has_depth = corrupt_depth(
            self.noise, flat, exact.depth_m, shifted.depth_m, cosine, exact.slot, self.generator
        )
        normal, has_normal = corrupt_normals(self.noise, shifted.normal_cam, has_depth, self.generator)
        inside = ((flat >= -0.5) & (flat <= self.scene.size_px[:, None] - 0.5)).all(-1)
        mask, has_mask = self._masks(exact, shifted, depth, has_depth, flat, shape)
        rgb = self._shade(exact)
        back = [x.unflatten(1, shape[1:]) for x in (rgb, normal, depth, has_depth, has_normal, inside)]
        rgb, normal, depth, has_depth, has_normal, inside = back
        keep = inside.float()
        return PixelSamples(
            uv_px, rgb * keep[..., None], normal * keep[..., None], depth * keep, mask * keep,
            has_depth & inside, has_normal & inside, has_mask & inside, inside,
            normal.new_zeros(*normal.shape[:-1], HINT_CHANNELS),
        )  # fmt: skip

    def first_images(self, rows: int) -> SceneObserver:
        """An observer of the first `rows` images only, with the same noise and masks."""

        def cut(value):
            return dataclasses.replace(value, **{
                f.name: cut_one(getattr(value, f.name)) for f in dataclasses.fields(value)
            })  # fmt: skip

        def cut_one(value):
            if isinstance(value, Pose):
                return value.map(lambda x: x[:rows])
            return value[:rows] if isinstance(value, torch.Tensor) else value

        few = copy.copy(self)
        few.scene, few.detections, few.noise = cut(self.scene), cut(self.detections), cut(self.noise)
        few.lighting = cut(self.lighting)
        few.frame, few.mask_mode = cut(self.frame), self.mask_mode[:rows]
        few.slab_m, few.slab_seed_m = self.slab_m[:rows], self.slab_seed_m[:rows]
        return few

    def _masks(self, exact: RayHits, shifted: RayHits, depth, has_depth, flat, shape):
        """(B, N, K) masks in the mode drawn for each object, and whether there is one."""
        own = self.detections.slot[..., None]
        ragged = shifted.slot.unflatten(1, shape[1:]) == own
        depth, has_depth = depth.unflatten(1, shape[1:]), has_depth.unflatten(1, shape[1:])
        points = bearing_z1(flat, self.scene.intrinsics).unflatten(1, shape[1:]) * depth[..., None]
        floor = self.scene.plane_normal[:, 0, None, None]
        height = (points * floor).sum(-1) - self.scene.plane_offset[:, 0, None, None]
        boxes, uv = self.frame.boxes_xyxy[:, :, None], flat.unflatten(1, shape[1:])
        in_box = ((uv >= boxes[..., :2]) & (uv <= boxes[..., 2:])).all(-1)
        near = (depth - self.slab_seed_m[..., None]).abs() < self.slab_m[..., None]
        slab = in_box & near & has_depth & (height > 0.03)
        mode = self.mask_mode[..., None]
        mask = torch.where(mode == _SLAB, slab, ragged).float()
        # a mask cut from depth needs an image that has depth
        with_depth = (self.noise.level != NONE)[:, None, None]
        has_mask = ((mode == _EXACT) | ((mode == _SLAB) & with_depth)).expand_as(mask)
        return mask * has_mask, has_mask

    def _draw_lighting(self, images: int) -> Lighting:
        above = self._randn((images, 3)) * 0.6 + torch.tensor([0.0, -0.7, -0.7], device=self.generator.device)
        exposure = 0.75 + 0.5 * self._rand((images, 1, 1))
        return Lighting(
            F.normalize(above, dim=-1),
            0.35 + 0.35 * self._rand((images, 1, 1)),
            exposure * (1 + 0.06 * self._randn((images, 1, 3))),
        )

    def _shade(self, hits: RayHits) -> torch.Tensor:
        """(B, K, 3) colours of what was hit, lit by one light, with noise."""
        light = self.lighting
        lambert = (hits.normal_cam @ light.direction[..., None]).clamp(min=0)
        brightness = light.ambient + (1.05 - light.ambient) * lambert
        colour = self.caster.albedo(self.scene, hits) * light.tint * brightness
        return (colour + 0.03 * self._randn(colour.shape)).clamp(0, 1)

    def _noisy_up(self) -> torch.Tensor:
        up = self.scene.up_cam
        return F.normalize(up + 0.02 * self._randn(up.shape), dim=-1)

    def _rand(self, shape):
        return torch.rand(shape, generator=self.generator, device=self.generator.device)

    def _randn(self, shape):
        return torch.randn(shape, generator=self.generator, device=self.generator.device)
