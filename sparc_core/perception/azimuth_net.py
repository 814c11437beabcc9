"""Which way a detected object is turned, from its part of the picture.

Depth and normals that a network guessed are too smooth to tell the front of a cabinet from its back; doors,
drawers and back rests in the picture tell it. Every box is cut out as a square of the same size, however far
away the object is. The azimuth θ is the angle about the vertical from facing the camera to where the front
(CAD +z) looks (`azimuth_rad`). What is predicted are expectations of e^{ikθ}: an object that looks the same
after half a turn has a second harmonic and no first, and so has one whose front and back cannot be told
apart.

The network also judges the category, without being told; a detector's score can be weighed with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparc_core.geometry.camera import box_ray, cut_sides
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.interfaces import require_size
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.rectify import rectifier_for
from sparc_core.types import AZIMUTH_ORDERS, CATEGORIES, Camera, Detection

GROWTH = 1.2  # side of the square over the longer side of the box
PLACE = 12  # numbers of `place_of`
JUDGEMENT = 3 / 7  # share of the category's probability in a judged score, as an exponent
SMALLEST_PX = 4.0  # side of a box that is looked at


@dataclass(frozen=True)
class AzimuthNetConfig:
    """size_px of the squares; channels at strides 2, 4, 8 and 16; features of the head. categories: in the
    order of its inputs."""

    size_px: int = 64
    channels: tuple[int, int, int, int] = (32, 64, 128, 192)
    features: int = 256
    categories: tuple[str, ...] = CATEGORIES

    def __post_init__(self):
        if self.size_px < 32 or self.size_px % 16:
            raise ValueError(f"azimuth_net size_px must be a multiple of 16, at least 32, got {self.size_px}")


class AzimuthNet(nn.Module):
    """Squares of the picture in, harmonics of the azimuth and the category out."""

    def __init__(self, config: AzimuthNetConfig):
        super().__init__()
        self.config = config
        inside, stages = 5, []
        for channels in config.channels:
            stages += [_block(inside, channels, 2), _Residual(channels)]
            inside = channels
        self.stages = nn.Sequential(*stages)
        self.category = nn.Linear(inside, len(config.categories))
        self.reduce = _block(inside, inside // 4, 1)
        seen = (inside // 4) * (config.size_px // 16) ** 2
        self.head = nn.Sequential(
            nn.Linear(seen + PLACE + len(config.categories), config.features), nn.ReLU(),
            nn.Linear(config.features, config.features), nn.ReLU(),
            nn.Linear(config.features, 2 * len(AZIMUTH_ORDERS)),
        )  # fmt: skip

    def ends(self) -> list[nn.Parameter]:
        """Weights of the first and last layers, which some optimisers treat apart."""
        return [self.stages[0][0].weight, self.category.weight, self.head[-1].weight]

    def forward(self, squares: torch.Tensor, place: torch.Tensor, category: torch.Tensor):
        """squares (B, 5, S, S): RGB in [0, 1], whether a pixel is in the box, whether it is on the picture;
        place (B, `PLACE`) of `place_of`; category (B,) index, −1 unknown.

        Returns harmonics (B, 6), cos kθ and sin kθ for every k of AZIMUTH_ORDERS as expected, and logits of
        the category (B, C).
        """
        x = self.stages(torch.cat(((squares[:, :3] - 0.45) / 0.25, squares[:, 3:]), 1))
        logits = self.category(x.mean((2, 3)))
        named = F.one_hot(category.clamp(min=0), len(self.config.categories)) * (category >= 0)[:, None]
        features = torch.cat((self.reduce(x).flatten(1), place.to(x.dtype), named.to(x.dtype)), 1)
        return self.head(features).float(), logits.float()


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.first = _block(channels, channels, 1)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


def _block(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


def square_of(boxes_xyxy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (B, 2) and half the side (B,) in pixels of the squares for boxes (B, 4)."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    return (low + high) / 2, GROWTH / 2 * (high - low).amax(1)


def flags_of(
    boxes_xyxy: torch.Tensor, centre: torch.Tensor, half: torch.Tensor, size_px: torch.Tensor, size: int
) -> torch.Tensor:
    """(B, 2, size, size): whether the pixels of squares are in their box, and on the picture of size_px
    (B, 2)."""
    step = (torch.arange(size, device=half.device) + 0.5) / size * 2 - 1
    x, y = (centre[:, i, None] + half[:, None] * step for i in (0, 1))

    def both(across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return down[:, :, None] & across[:, None]

    low, high = boxes_xyxy[:, :2, None], boxes_xyxy[:, 2:, None]
    inside = both((x >= low[:, 0]) & (x <= high[:, 0]), (y >= low[:, 1]) & (y <= high[:, 1]))
    limit = size_px[:, :, None] - 0.5
    shown = both((x >= -0.5) & (x <= limit[:, 0]), (y >= -0.5) & (y <= limit[:, 1]))
    return torch.stack((inside, shown), 1).float()


def place_of(
    boxes_xyxy: torch.Tensor, intrinsics: torch.Tensor, size_px: torch.Tensor, up_cam: torch.Tensor
) -> torch.Tensor:
    """(B, `PLACE`) how a box is seen: up (0 where gravity is not known), ray through its middle, logarithms
    of its size as an angle, and which of its sides are cut by the picture's border. boxes (B, 4), intrinsics
    (B, 4), size_px (B, 2), up_cam (B, 3)."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    ray = F.normalize(box_ray(boxes_xyxy, intrinsics), dim=-1)
    angle = ((high - low).clamp(min=1) / intrinsics[:, :2]).log()
    return torch.cat((up_cam, ray, angle, cut_sides(boxes_xyxy, size_px).to(ray.dtype)), 1)


def cut_square(image_rgb: np.ndarray, centre, half: float, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the square around a centre (x, y) with half a side in pixels; grey beyond the
    picture."""
    shrink = min(1.0, size / (2 * half))
    if shrink < 0.75:  # smaller at once, else a bilinear read would skip pixels
        height, width = image_rgb.shape[:2]
        smaller = max(1, round(width * shrink)), max(1, round(height * shrink))
        image_rgb = cv2.resize(image_rgb, smaller, interpolation=cv2.INTER_AREA)
        scale = np.array([smaller[0] / width, smaller[1] / height])
    else:
        scale = np.ones(2)
    # output pixel (i, j) shows centre + half · ((i + 0.5) · 2 / size − 1)
    step = 2 * half / size * scale
    first = (np.asarray(centre, dtype=np.float64) + 0.5) * scale - 0.5 + step * (0.5 - size / 2)
    matrix = np.array([[step[0], 0, first[0]], [0, step[1], first[1]]])
    return cv2.warpAffine(
        image_rgb, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(114, 114, 114),
    )  # fmt: skip


class AzimuthPredictor:
    """An `Azimuths` from our own network."""

    def __init__(self, network: AzimuthNet, device="cpu"):
        self.config = network.config
        self.network = MovableNetwork(network, device, "azimuth network")

    @classmethod
    def load(cls, weights: Path, device="cpu") -> AzimuthPredictor:
        """From a file of `sparc train-perception azimuth`. Raises ValueError naming the file."""
        return cls(load_predictor(weights, AzimuthNetConfig, AzimuthNet)[0], device)

    def look(
        self, image_rgb: np.ndarray, camera: Camera, detections: Sequence[Detection], judge: bool = False
    ) -> list[Detection]:
        """See `Azimuths`. Raises ValueError when image and camera differ in size."""
        require_size(image_rgb, camera)
        rectifier = rectifier_for(camera)
        pinhole = rectifier.camera
        boxes = rectifier.boxes(np.array([d.box_xyxy for d in detections], dtype=np.float64).reshape(-1, 4))
        boxes = np.clip(boxes, 0, np.tile([pinhole.width - 1, pinhole.height - 1], 2))
        seen = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= SMALLEST_PX).all(1))
        if not len(seen):
            return list(detections)
        given = torch.from_numpy(boxes[seen]).float()
        category = torch.tensor([self._category(detections[i].category) for i in seen])
        harmonics, share = self._look(rectifier.image(image_rgb), pinhole, given, category)
        found = list(detections)
        for i, azimuth, probability in zip(seen, harmonics.tolist(), share.tolist(), strict=True):
            score = found[i].score
            if judge:
                score = score ** (1 - JUDGEMENT) * probability**JUDGEMENT
            found[i] = replace(found[i], azimuth=tuple(azimuth), score=score)
        return found

    def _category(self, name: str) -> int:
        return self.config.categories.index(name) if name in self.config.categories else -1

    def _look(self, image, camera: Camera, boxes: torch.Tensor, category: torch.Tensor):
        """Harmonics (B, 6), and the probability (B,) of each box's category; 1 of one that is not known."""
        size, count = self.config.size_px, len(boxes)
        centre, half = square_of(boxes)
        squares = np.stack([
            cut_square(image, c, h, size) for c, h in zip(centre.numpy(), half.tolist(), strict=True)
        ])  # fmt: skip
        size_px = torch.tensor([[camera.width, camera.height]], dtype=torch.float32).expand(count, 2)
        intrinsics = torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]]).float().expand(count, 4)
        up = torch.tensor([camera.up_cam or (0.0, 0.0, 0.0)]).float().expand(count, 3)
        flags = flags_of(boxes, centre, half, size_px, size)
        rgb = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        inputs = (torch.cat((rgb, flags), 1), place_of(boxes, intrinsics, size_px, up), category)
        found = self.network.run(lambda network, device: network(*(x.to(device) for x in inputs)))
        harmonics, logits = (x.cpu() for x in found)
        share = logits.softmax(1).gather(1, category.clamp(min=0)[:, None])[:, 0]
        return shortened(harmonics), torch.where(category >= 0, share, 1.0)


def shortened(harmonics: torch.Tensor) -> torch.Tensor:
    """(..., 6) pairs no longer than 1."""
    pairs = harmonics.unflatten(-1, (-1, 2))
    return (pairs / pairs.norm(dim=-1, keepdim=True).clamp(min=1)).flatten(-2)
