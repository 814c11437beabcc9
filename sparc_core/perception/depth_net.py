"""Depth and normals from one image, each pixel with a distribution (Multi-SPARC section 4, after Bae et al.).

Beyond the paper it says what is an object at all. A light encoder–decoder. Beside the colours it sees the ray
of every pixel, so that it can serve cameras of any field of view, and gravity where it is known: a floor's
depth is then known but for the camera's height.
Depth is a Gaussian about the predicted mean; a normal has an angular von Mises–Fisher
distribution, whose concentration says how far off it may be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.interfaces import DepthPrediction, require_size
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.surface_fit import fit_to_normals, upright_room
from sparc_core.perception.trunk import CHANNELS, ResnetTrunk
from sparc_core.types import Camera, PixelHints

MIN_LOG_SIGMA, MAX_LOG_SIGMA = -4.0, 1.0
MIN_KAPPA = 0.01
MIN_DESCENT = 0.05  # per metre of depth, of rays that will meet a floor
HEADS = 4  # of the attention
GEOMETRY = 7  # channels of `geometry_image`
OUTPUTS = (1, 1, 3, 1, 1)  # log depth, log σ, normal, κ, logit of an object


@dataclass(frozen=True)
class DepthNetConfig:
    """width_px, height_px: the size in training; images of another shape are scaled to about as many pixels
    of their own shape (`working_size`). channels of the decoder at strides 2, 4 and 8. attention: layers in
    which all of the image is compared with all of it, at stride 16. depth_m: what an output of 0 means;
    outputs are logarithms against it."""

    width_px: int = 320
    height_px: int = 240
    channels: tuple[int, int, int] = (48, 64, 96)
    attention: int = 2
    depth_m: float = 2.5

    def __post_init__(self):
        for name in ("width_px", "height_px"):
            if getattr(self, name) < 32 or getattr(self, name) % 16:
                raise ValueError(
                    f"depth_net {name} must be a multiple of 16, at least 32, got {getattr(self, name)}"
                )
        if self.attention < 0:
            raise ValueError(f"depth_net attention must be at least 0, got {self.attention}")
        if self.attention and self.channels[2] % HEADS:
            raise ValueError(
                f"depth_net channels: attention needs a last one that {HEADS} divides, got {self.channels[2]}"
            )


@dataclass(frozen=True, eq=False)
class DepthOutput:
    """log_depth, log_sigma (B, H, W): mean and standard deviation of the depth's logarithm (metres); normal
    (B, 3, H, W) unit; kappa (B, H, W) its concentration; on_object (B, H, W) logit of an object of one of the
    categories, and no part of the room. Half the input's size."""

    log_depth: torch.Tensor
    log_sigma: torch.Tensor
    normal: torch.Tensor
    kappa: torch.Tensor
    on_object: torch.Tensor


class DepthNet(nn.Module):
    """RGB, rays and gravity in, `DepthOutput` at half the size out."""

    def __init__(self, config: DepthNetConfig):
        super().__init__()
        self.config = config
        fine, middle, coarse = config.channels
        self.trunk = ResnetTrunk(in_channels=3 + GEOMETRY)
        self.context = nn.Sequential(
            _block(CHANNELS[2], coarse, 1),
            _block(coarse, coarse, 3, dilation=2),
            _block(coarse, coarse, 3, dilation=4),
        )
        self.place = nn.Conv2d(GEOMETRY, coarse, 1)
        self.attention = nn.ModuleList([
            nn.TransformerEncoderLayer(coarse, HEADS, 2 * coarse, 0.0, batch_first=True, norm_first=True)
            for _ in range(config.attention)
        ])  # fmt: skip
        self.lateral = nn.ModuleList([_block(CHANNELS[1], coarse, 1), _block(CHANNELS[0], middle, 1)])
        self.merge = nn.ModuleList([_block(coarse, middle, 3), _block(middle, fine, 3)])
        self.shallow = _block(3 + GEOMETRY, 16, 5, stride=2)
        self.last = _block(fine + 16, fine, 3)
        self.head = nn.Conv2d(fine, sum(OUTPUTS), 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def ends(self) -> list[nn.Parameter]:
        """Weights of the first and last layers, which some optimisers treat apart."""
        layers = (self.trunk.conv1, self.shallow[0], self.place, self.head)
        return [layer.weight for layer in layers]

    def forward(self, rgb: torch.Tensor, rays: torch.Tensor, up_cam: torch.Tensor) -> DepthOutput:
        """rgb (B, 3, H, W) in [0, 1]; rays (B, 2, H, W) x/z and y/z; up_cam (B, 3) against gravity, unit, or
        zero where that is not known."""
        geometry = geometry_image(rays, up_cam)
        images = torch.cat(((rgb - 0.45) / 0.25, geometry), 1)
        at_4, at_8, at_16 = self.trunk(images)
        x = _twice(self._compared(self.context(at_16), geometry), at_8)
        x = self.merge[0](x + self.lateral[0](at_8))
        x = _twice(x, at_4)
        x = self.merge[1](x + self.lateral[1](at_4))
        shallow = self.shallow(images)
        x = self.last(torch.cat((_twice(x, shallow), shallow), 1))
        depth, sigma, normal, kappa, on_object = self.head(x).float().split(OUTPUTS, 1)
        # the ray's own direction as the normal to begin with: every surface that is seen faces the camera
        rays = F.interpolate(rays, depth.shape[-2:], mode="area")
        facing = -F.normalize(torch.cat((rays, torch.ones_like(rays[:, :1])), 1), dim=1)
        return DepthOutput(
            math.log(self.config.depth_m) + depth[:, 0],
            (sigma[:, 0] - 1.5).clamp(MIN_LOG_SIGMA, MAX_LOG_SIGMA),
            F.normalize(facing + normal, dim=1),
            F.softplus(kappa[:, 0] + 1) + MIN_KAPPA,
            on_object[:, 0],
        )

    def expect_both_ways(self, rgb: torch.Tensor, rays: torch.Tensor, up_cam: torch.Tensor) -> DepthOutput:
        """The mean of what `forward` tells of images and of their mirror images."""
        turn = rgb.new_tensor([-1.0, 1.0, 1.0])
        mirrored = rgb.flip(-1), rays.flip(-1) * turn[:2, None, None], up_cam * turn
        both = self(*(torch.cat(pair) for pair in zip((rgb, rays, up_cam), mirrored, strict=True)))
        means = {}
        for name, (seen, other) in ((name, value.chunk(2)) for name, value in vars(both).items()):
            other = other.flip(-1) * turn[:, None, None] if name == "normal" else other.flip(-1)
            means[name] = (seen + other) / 2
        return DepthOutput(**means | {"normal": F.normalize(means["normal"], dim=1)})

    def _compared(self, x: torch.Tensor, geometry: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) features after attention among all their places."""
        x = x + self.place(F.interpolate(geometry, x.shape[-2:], mode="area"))
        places = x.flatten(2).transpose(1, 2)
        for layer in self.attention:
            places = layer(places)
        return places.transpose(1, 2).reshape(x.shape)


def _block(inside: int, outside: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def _twice(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def ray_image(intrinsics: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, 2, H, W) x/z and y/z of the rays through the pixel centres; intrinsics (B, 4)."""
    x = torch.arange(width, device=intrinsics.device, dtype=intrinsics.dtype)
    y = torch.arange(height, device=intrinsics.device, dtype=intrinsics.dtype)
    fx, fy, cx, cy = (v[:, None, None] for v in intrinsics.unbind(-1))
    shape = (len(intrinsics), height, width)
    return torch.stack((((x - cx) / fx).expand(shape), ((y[:, None] - cy) / fy).expand(shape)), 1)


def geometry_image(rays: torch.Tensor, up_cam: torch.Tensor) -> torch.Tensor:
    """(B, `GEOMETRY`, H, W) what is known of every pixel's ray, in small numbers: its x and y, up as three
    channels, how much it rises per metre of depth, and the logarithm of the depth of a floor one metre below
    the camera. All but the first two are 0 where gravity is not known. rays (B, 2, H, W); up_cam (B, 3)."""
    up = up_cam[:, :, None, None]
    known = (up.square().sum(1, keepdim=True) > 0.25).to(rays.dtype)
    rise = (up[:, :2] * rays).sum(1, keepdim=True) + up[:, 2:]
    floor = -torch.log((-rise).clamp(min=MIN_DESCENT))
    shape = (-1, -1, *rays.shape[-2:])
    return torch.cat((rays / 0.5, up.expand(shape), rise, known * floor), 1)


def normal_error_deg(kappa: torch.Tensor) -> torch.Tensor:
    """Expected angle of error in degrees of an angular von Mises–Fisher distribution of a concentration."""
    decay = torch.exp(-kappa * math.pi)
    return torch.rad2deg(2 * kappa / (kappa.square() + 1) + decay * math.pi / (1 + decay))


def working_size(width: int, height: int, config: DepthNetConfig) -> tuple[int, int]:
    """(width, height) at which the network sees an image: as many pixels as in training, in the image's own
    shape as far as multiples of 16 allow."""
    scale = math.sqrt(config.width_px * config.height_px / (width * height))
    return max(32, 16 * round(width * scale / 16)), max(32, 16 * round(height * scale / 16))


class OurDepthNormals:
    """A `DepthNormals` from our own network."""

    def __init__(self, network: DepthNet, device="cpu"):
        self.config = network.config
        self.network = MovableNetwork(network, device, "depth network")

    @classmethod
    def load(cls, weights: Path, device="cpu") -> OurDepthNormals:
        """From a file of `sparc train-perception depth`. Raises ValueError naming the file."""
        return cls(load_predictor(weights, DepthNetConfig, DepthNet)[0], device)

    def predict(self, image_rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        """See `DepthNormals`. Raises ValueError when image and camera differ in size."""
        height, width = image_rgb.shape[:2]
        require_size(image_rgb, camera)
        size = working_size(width, height, self.config)
        small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)

        def distributions(network: DepthNet, device) -> DepthOutput:
            intrinsics = _scaled_intrinsics(camera, *size).float().to(device)
            rgb = torch.from_numpy(small).to(device).permute(2, 0, 1)[None].float() / 255
            up = torch.tensor([camera.up_cam or (0.0, 0.0, 0.0)], dtype=torch.float32, device=device)
            return network.expect_both_ways(rgb, ray_image(intrinsics, size[1], size[0]), up)

        found = self.network.run(distributions)
        log_depth, log_sigma, kappa, object_share, normal_error = (
            values[0].float().cpu().numpy()
            for values in (
                found.log_depth, found.log_sigma, found.kappa, found.on_object.sigmoid(),
                normal_error_deg(found.kappa),
            )
        )  # fmt: skip
        normal = found.normal[0].permute(1, 2, 0).float().cpu().numpy()
        if camera.up_cam is not None:
            normal = upright_room(normal, object_share > 0.5, np.array(camera.up_cam, normal.dtype))
        rays = ray_image(_scaled_intrinsics(camera, *log_depth.shape[::-1]), *log_depth.shape)[0]
        rays = np.stack((*rays.numpy(), np.ones(log_depth.shape)), -1)
        log_depth = fit_to_normals(log_depth, log_sigma, normal, kappa, rays)

        def resized(values: np.ndarray) -> np.ndarray:
            return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)

        # mode of a log-normal distribution, where the expected error relative to the truth is least
        depth = resized(np.exp(log_depth - np.exp(2 * log_sigma)))
        sigma_log = resized(np.exp(log_sigma))
        normal = resized(normal)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
        hints = PixelHints(resized(object_share), sigma_log)
        return DepthPrediction(depth, normal, sigma_log * depth, resized(normal_error), hints)


def _scaled_intrinsics(camera: Camera, width: int, height: int) -> torch.Tensor:
    """(1, 4) fx, fy, cx, cy of the camera's image scaled to another size, double precision."""
    x, y = width / camera.width, height / camera.height
    centre = (camera.cx + 0.5) * x - 0.5, (camera.cy + 0.5) * y - 0.5
    return torch.tensor([[camera.fx * x, camera.fy * y, *centre]], dtype=torch.float64)
