"""Whole images of synthetic scenes: what the demo camera and the benchmarks see."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from sparc_core.geometry.camera import bearing_z1
from sparc_core.synth.corrupt import NoiseBatch, corrupt_depth
from sparc_core.synth.raycast import RayCaster, RayHits
from sparc_core.synth.scenes import SceneBatch

_LIGHT_CAM = (-0.35, -0.7, -0.6)


@dataclass(frozen=True, eq=False)
class RenderedView:
    """One image: rgb (H, W, 3) uint8; depth_m (H, W) float32 exact z-depth, 0 where nothing is;
    normal_cam (H, W, 3) float32; slot (H, W) int64 as in `RayHits`."""

    rgb: np.ndarray
    depth_m: np.ndarray
    normal_cam: np.ndarray
    slot: np.ndarray


@dataclass(frozen=True, eq=False)
class PredictedChannels:
    """Predictions from an image: depth_m (H, W) float32 with a wrong scale and shift and bleeding edges;
    normals_cam (H, W, 3) float32 unit, 0 where nothing is; slot (H, W): masks with ragged borders, as in
    `RenderedView`."""

    depth_m: np.ndarray
    normals_cam: np.ndarray
    slot: np.ndarray


class SceneRenderer:
    """Renders single scenes with the colours of their CAD models, and adds sensor noise."""

    def __init__(self, caster: RayCaster):
        self.caster = caster

    def render(self, scene: SceneBatch, index: int = 0) -> RenderedView:
        """The view of scene `index` of a batch, one ray a pixel, without noise."""
        one = single_scene(scene, index)
        width, height = (int(v) for v in one.size_px[0])
        uv = pixel_grid(width, height).to(one.size_px.device)
        hits = self.caster.cast(one, uv)
        shape = (height, width)
        return RenderedView(
            flat_colours(self.caster, one, hits).reshape(*shape, 3),
            hits.depth_m[0].cpu().numpy().reshape(shape),
            hits.normal_cam[0].cpu().numpy().reshape(*shape, 3),
            hits.slot[0].cpu().numpy().reshape(shape),
        )

    def sensor_depth(
        self, scene: SceneBatch, index: int, view: RenderedView, noise: NoiseBatch, generator: torch.Generator
    ) -> np.ndarray:
        """(H, W) float32 depth of the view as a depth camera would give it, 0 in holes.

        noise: parameters of one image (B = 1) at level SENSOR.
        """
        return self._noisy_depth(scene, index, view, noise, generator)[0]

    def predicted(
        self, scene: SceneBatch, index: int, view: RenderedView, noise: NoiseBatch, generator: torch.Generator
    ) -> PredictedChannels:
        """What predictors would make of the image alone: see `PredictedChannels`.

        noise: parameters of one image (B = 1) at level MONOCULAR.
        """
        depth, (x, y) = self._noisy_depth(scene, index, view, noise, generator)
        height, width = depth.shape
        # half of the normals' error is smooth, as a predictor's, half is each pixel's own
        fine = torch.randn(height, width, 3, generator=generator).numpy()
        coarse = torch.randn(height // 16 + 1, width // 16 + 1, 3, generator=generator).numpy()
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        error = float(noise.normal_rad) * (fine + smooth) / math.sqrt(2)
        normals = view.normal_cam[y, x] + error
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        seen = np.linalg.norm(view.normal_cam[y, x], axis=-1, keepdims=True) > 0.5
        normals = np.where(seen, normals / np.maximum(length, 1e-6), 0).astype(np.float32)
        return PredictedChannels(depth, normals, view.slot[y, x])

    def _noisy_depth(self, scene, index, view, noise, generator):
        """(H, W) depth with noise, and the (H, W) columns and rows of the pixels it was taken from."""
        one = single_scene(scene, index)
        height, width = view.depth_m.shape
        uv = pixel_grid(width, height)
        shift = noise.edge_px[..., None] * torch.randn(uv.shape, generator=generator)
        column = (uv + shift).round().long()
        x, y = column[..., 0].clamp(0, width - 1), column[..., 1].clamp(0, height - 1)
        depth = torch.from_numpy(view.depth_m).reshape(1, -1)
        shifted = depth.gather(1, y * width + x)
        rays = F.normalize(bearing_z1(uv, one.intrinsics), dim=-1)
        cosine = (torch.from_numpy(view.normal_cam).reshape(1, -1, 3) * rays).sum(-1).abs()
        slot = torch.from_numpy(view.slot).reshape(1, -1)
        noisy, _ = corrupt_depth(noise, uv, depth, shifted, cosine, slot, generator)
        shape = (height, width)
        return noisy.reshape(shape).numpy(), (x.reshape(shape).numpy(), y.reshape(shape).numpy())


def flat_colours(caster: RayCaster, scene: SceneBatch, hits: RayHits) -> np.ndarray:
    """(K, 3) uint8 colours of what a single scene's rays hit, under one light."""
    light = F.normalize(hits.normal_cam.new_tensor(_LIGHT_CAM), dim=0)
    lambert = (hits.normal_cam[0] @ light).clamp(min=0)[:, None]
    colour = 255 * caster.albedo(scene, hits)[0] * (0.5 + 0.55 * lambert)
    return colour.clamp(0, 255).to(torch.uint8).cpu().numpy()


def single_scene(scene: SceneBatch, index: int) -> SceneBatch:
    """Scene `index` of a batch as a batch of one."""
    cut = {
        f.name: getattr(scene, f.name)[index : index + 1]
        for f in fields(scene)
        if isinstance(getattr(scene, f.name), torch.Tensor)
    }
    return replace(scene, pose=scene.pose.map(lambda x: x[index : index + 1]), **cut)


def pixel_grid(width: int, height: int) -> torch.Tensor:
    """(1, H·W, 2) float pixel centres, row by row."""
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    return torch.stack((x, y), -1).float().reshape(1, -1, 2)
