"""Observation noise: what sensors and predictors do to depth, normals, masks and boxes.

Everything works at single pixels, so that training needs no whole image: what depends on the
neighbourhood (edges) is taken from a second ray through a shifted pixel, what varies smoothly over
the image (warps, holes) is a function of the pixel with parameters drawn once an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

PERFECT, SENSOR, MONOCULAR, NONE = range(4)


@dataclass(frozen=True)
class NoiseConfig:
    """Shares of the depth levels (they add up to 1) and of the mask modes.

    perfect: exact values. sensor: structured-light or time-of-flight depth (axial noise growing with
    z², quantisation, flying pixels, holes). monocular: a predictor's scale, shift, low-frequency
    warps and bleeding edges. none: no depth and no normals. masks_exact, masks_slab, masks_missing:
    predicted masks with ragged borders; masks cut from depth and box; no mask. normals_missing: share of
    images with depth but no normals.
    """

    perfect: float = 0.10
    sensor: float = 0.75
    monocular: float = 0.12
    none: float = 0.03
    masks_exact: float = 0.35
    masks_slab: float = 0.40
    masks_missing: float = 0.25
    masks_astray: float = 0.08
    normals_missing: float = 0.05
    box_jitter: float = 0.05

    def __post_init__(self):
        for names in (
            ("perfect", "sensor", "monocular", "none"),
            ("masks_exact", "masks_slab", "masks_missing"),
        ):
            total = sum(getattr(self, name) for name in names)
            if abs(total - 1) > 1e-6 or any(getattr(self, name) < 0 for name in names):
                raise ValueError(f"noise shares {names} must be >= 0 and add up to 1, got {total:.4f}")


@dataclass(frozen=True, eq=False)
class NoiseBatch:
    """Noise parameters of B images: level (B,), and (B, 1) parameters named as in `draw_noise`;
    waves (B, 4, 3) as frequency x, frequency y (radians a pixel) and phase; dark (B, O) chance that a
    pixel of an object has no sensor depth."""

    level: torch.Tensor
    axial: torch.Tensor
    quantisation: torch.Tensor
    grazing: torch.Tensor
    speckle: torch.Tensor
    blob: torch.Tensor
    max_range_m: torch.Tensor
    edge_px: torch.Tensor
    normal_rad: torch.Tensor
    normal_missing: torch.Tensor
    scale: torch.Tensor
    shift_m: torch.Tensor
    warp: torch.Tensor
    waves: torch.Tensor
    dark: torch.Tensor


def draw_noise(
    config: NoiseConfig,
    batch: int,
    objects: int,
    generator: torch.Generator,
    is_display: torch.Tensor | None = None,
) -> NoiseBatch:
    """Noise parameters of `batch` images with `objects` slots; is_display (B, O) bool raises the
    chance of missing depth on dark glass."""
    device = generator.device

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(shape or (batch, 1), generator=generator, device=device)

    shares = torch.tensor(
        [config.perfect, config.sensor, config.monocular, config.none], dtype=torch.float32, device=device
    )
    level = torch.multinomial(shares, batch, replacement=True, generator=generator)
    mono, sensor = (level == MONOCULAR)[:, None], (level == SENSOR)[:, None]
    edge_px = torch.where(mono, uniform(1.0, 5.0), uniform(0.3, 1.5))
    edge_px = torch.where((level == PERFECT)[:, None], 0.0, edge_px)
    waves = torch.cat((
        uniform(-1, 1, batch, 4, 2) * 2 * math.pi / uniform(120, 900, batch, 4, 1),
        uniform(0, 2 * math.pi, batch, 4, 1),
    ), -1)  # fmt: skip
    dark_share = torch.full((batch, objects), 0.05, device=device)
    if is_display is not None:
        dark_share = torch.where(is_display, 0.3, dark_share)
    dark = torch.where(uniform(0, 1, batch, objects) < dark_share, uniform(0.2, 0.95, batch, objects), 0.0)
    gauss = torch.randn(batch, 2, generator=generator, device=device)
    return NoiseBatch(
        level=level,
        axial=uniform(0.4, 1.8),
        quantisation=uniform(1e-4, 0.003),
        grazing=uniform(0.03, 0.25),
        speckle=uniform(0.0, 0.08),
        blob=torch.where(uniform(0, 1) < 0.7, 9.0, uniform(1.5, 2.3)),
        max_range_m=uniform(5.0, 10.0),
        edge_px=edge_px,
        normal_rad=torch.where(mono, uniform(0.1, 0.4), uniform(0.04, 0.25)),
        normal_missing=torch.where(uniform(0, 1) < config.normals_missing, 1.0, sensor * uniform(0.0, 0.3)),
        scale=1 + 0.06 * gauss[:, :1],
        shift_m=0.05 * gauss[:, 1:],
        warp=uniform(0.0, 0.04),
        waves=waves,
        dark=dark,
    )


def corrupt_depth(
    noise: NoiseBatch,
    uv_px: torch.Tensor,
    depth_m: torch.Tensor,
    shifted_depth_m: torch.Tensor,
    view_cosine: torch.Tensor,
    slot: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy z-depth and its validity, both (B, K).

    uv_px (B, K, 2); depth_m and shifted_depth_m (B, K) exact depth at the pixel and at a pixel
    `edge_px` away, 0 where nothing is; view_cosine (B, K) |normal · ray|; slot (B, K) what was hit.
    """

    def rand():
        return torch.rand(depth_m.shape, generator=generator, device=generator.device)

    level = noise.level[:, None]
    smooth = _smooth_field(noise.waves, uv_px)
    edge = (shifted_depth_m - depth_m).abs() > 0.05
    sensor, hole = _sensor_depth(noise, depth_m, shifted_depth_m, edge, rand, generator)
    hole |= (view_cosine < noise.grazing) & (rand() < 0.7)
    hole |= (smooth.abs() > noise.blob) | (rand() < noise.speckle)
    objects = noise.dark.shape[1]
    dark = noise.dark.gather(1, slot.clamp(0, objects - 1))
    hole |= (slot >= 0) & (slot < objects) & (rand() < dark)
    mono = shifted_depth_m * noise.scale * (1 + noise.warp * smooth) + noise.shift_m
    depth = torch.where(level == SENSOR, sensor, depth_m)
    depth = torch.where(level == MONOCULAR, mono, depth)
    seen = (depth_m > 0) & (depth > 0.05)
    valid = seen & (level != NONE) & ~((level == SENSOR) & hole)
    return torch.where(valid, depth, torch.zeros_like(depth)), valid


def corrupt_normals(noise: NoiseBatch, normal_cam, has_depth, generator):
    """Noisy unit normals (B, K, 3) and their validity (B, K): Gaussian tilt, some missing."""
    shape = has_depth.shape
    jitter = torch.randn(*shape, 3, generator=generator, device=generator.device)
    exact = (noise.level == PERFECT)[:, None]
    sigma = torch.where(exact, 0.0, noise.normal_rad)[..., None]
    noisy = F.normalize(normal_cam + sigma * jitter, dim=-1)
    missing = torch.rand(shape, generator=generator, device=generator.device) < noise.normal_missing
    valid = has_depth & ~missing & (normal_cam.norm(dim=-1) > 0.5)
    return torch.where(valid[..., None], noisy, torch.zeros_like(noisy)), valid


def jitter_boxes(boxes_xyxy, size_px, amount: float | torch.Tensor, generator):
    """Boxes (B, N, 4) with every side moved by up to `amount` of the box's size, cut at the image. amount: of
    all, or (B, N, 1)."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    size = torch.cat((high - low, high - low), -1)
    draw = torch.rand(boxes_xyxy.shape, generator=generator, device=generator.device) * 2 - 1
    limit = torch.cat((size_px, size_px), -1)[:, None] - 1
    return torch.minimum((boxes_xyxy + draw * amount * size).clamp(min=0), limit)


def _sensor_depth(noise, depth_m, shifted_depth_m, edge, rand, generator):
    """Axial noise, quantisation, flying pixels and range limits of a depth camera."""
    flying = edge & (rand() < 0.3)
    depth = torch.where(flying, torch.lerp(depth_m, shifted_depth_m, rand()), shifted_depth_m)
    # axial noise of structured light after Nguyen et al. (2012), scaled per image
    sigma = noise.axial * (0.0012 + 0.0019 * (depth - 0.4).square())
    depth = depth + sigma * torch.randn(depth.shape, generator=generator, device=generator.device)
    # the sensor counts steps of disparity, so steps of depth grow with its square
    step = noise.quantisation.clamp(min=1e-5)
    depth = 1 / ((1 / (depth.clamp(min=0.05) * step)).round().clamp(min=1) * step)
    hole = edge & (rand() < 0.3)
    hole |= (depth > noise.max_range_m) | (depth < 0.3) | (shifted_depth_m <= 0)
    return depth, hole


def _smooth_field(waves: torch.Tensor, uv_px: torch.Tensor) -> torch.Tensor:
    """(B, K) sum of four plane waves with unit amplitude: standard deviation √2."""
    phase = uv_px @ waves[..., :2].transpose(1, 2) + waves[:, None, :, 2]
    return phase.sin().sum(-1)
