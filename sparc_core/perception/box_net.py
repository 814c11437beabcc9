"""What is in a detected box, from its part of the picture: how far away, how large, which way it is turned.

Depth and normals that a network guessed are too smooth to tell the front of a cabinet from its back; doors,
drawers and back rests in the picture tell it. Every box is cut out as a square of the same size, however far
away the object is: a network that had to tell fronts pixel by pixel learnt nothing in the same time. The
azimuth θ is the angle about the vertical from facing the camera to where the front (CAD +z) looks
(`azimuth_rad`). What is predicted are expectations of e^{ikθ}: an object that looks the same after half a
turn has a second harmonic and no first, and so has one whose front and back cannot be told apart.

How far away a thing is follows from how large it is, and from where it stands on the floor, if the camera's
height is known. No single chair tells either well. So all boxes of a picture are looked at together: each
has an opinion of the camera's height, and attention weighs them.

The network also judges the category, without being told, and whether the box shows an object at all; a
detector's score can be weighed with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparc_core.geometry.camera import bearing_z1, cut_sides, intrinsics_tensor
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.interfaces import require_size
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.rectify import rectifier_for
from sparc_core.types import AZIMUTH_ORDERS, CATEGORIES, BoxEstimate, Camera, Detection

GROWTH = 1.2  # side of the square over the longer side of the box
PLACE = 18  # numbers of `place_of`
MIN_DOWN = 0.02  # sine of the angle below the horizon at which a floor still has a distance
SIGMA_LOG = (0.01, 2.0)  # standard deviations that are predicted are within
JUDGEMENT = 0.7  # share of the category's probability in a judged score, as an exponent
SMALLEST_PX = 4.0  # side of a box that is looked at


@dataclass(frozen=True)
class BoxNetConfig:
    """size_px of the squares; channels at strides 2, 4, 8 and 16; features of a box; layers of attention
    between the boxes of a picture, with `heads`. categories: in the order of its inputs. background: whether
    it can say that a box shows no object of any category."""

    size_px: int = 64
    channels: tuple[int, int, int, int] = (32, 64, 128, 192)
    features: int = 256
    layers: int = 2
    heads: int = 4
    categories: tuple[str, ...] = CATEGORIES
    background: bool = True

    def __post_init__(self):
        if self.size_px < 32 or self.size_px % 16:
            raise ValueError(f"box_net size_px must be a multiple of 16, at least 32, got {self.size_px}")
        if self.heads < 1 or self.features % self.heads:
            raise ValueError(
                f"box_net features must be a multiple of heads, got {self.features}, {self.heads}"
            )


@dataclass(frozen=True, eq=False)
class BoxInputs:
    """K boxes of one or more pictures. squares (K, 5, S, S): RGB in [0, 1], whether a pixel is in the box,
    whether it is on the picture; place (K, `PLACE`) of `place_of`; category (K,) index, −1 unknown; picture
    (K,) which picture a box is of."""

    squares: torch.Tensor
    place: torch.Tensor
    category: torch.Tensor
    picture: torch.Tensor

    def to(self, device) -> BoxInputs:
        """The same on a device."""
        return BoxInputs(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class BoxOutput:
    """What is expected of K boxes, with logarithms of standard deviations last. harmonics (K, 6), cos kθ and
    sin kθ for every k of AZIMUTH_ORDERS; logits (K, C) of the category, the last one of a network with a
    background for no object; distance (K, 2): ln of the metres to
    the object's centre; centre (K, 3): where its centre is seen, from the middle of the box in halves of its
    sides; extents (K, 4): ln of its metres along its x, y and z; height (K, 2): ln of the camera's metres
    above the floor."""

    harmonics: torch.Tensor
    logits: torch.Tensor
    distance: torch.Tensor
    centre: torch.Tensor
    extents: torch.Tensor
    height: torch.Tensor


class BoxNet(nn.Module):
    """Squares of pictures in, azimuth, category, distance, centre and extents of what is in them out."""

    def __init__(self, config: BoxNetConfig):
        super().__init__()
        self.config = config
        inside, stages = 5, []
        for channels in config.channels:
            stages += [_block(inside, channels, 2), _Residual(channels)]
            inside = channels
        self.stages = nn.Sequential(*stages)
        self.category = nn.Linear(inside, len(config.categories) + config.background)
        self.reduce = _block(inside, inside // 4, 1)
        seen = (inside // 4) * (config.size_px // 16) ** 2
        self.embed = nn.Sequential(
            nn.Linear(seen + PLACE + len(config.categories), config.features), nn.ReLU(),
            nn.Linear(config.features, config.features),
        )  # fmt: skip
        self.between = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.features,
                config.heads,
                2 * config.features,
                dropout=0.0,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(config.features), nn.Linear(config.features, config.features), nn.ReLU(),
            nn.Linear(config.features, 2 * len(AZIMUTH_ORDERS) + 2 + 3 + 4 + 2),
        )  # fmt: skip

    def ends(self) -> list[nn.Parameter]:
        """Weights of the first and last layers, which some optimisers treat apart."""
        return [self.stages[0][0].weight, self.category.weight, self.head[-1].weight]

    def forward(self, boxes: BoxInputs) -> BoxOutput:
        """Boxes of one picture are looked at together: how large all of them are tells how far each is."""
        token, logits = self.look(boxes)
        return self.compare(token, logits, boxes)

    def look(self, boxes: BoxInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Every box by itself: what is kept of it (K, features), and logits of the category (K, C)."""
        squares = boxes.squares
        x = self.stages(torch.cat(((squares[:, :3] - 0.45) / 0.25, squares[:, 3:]), 1))
        known = boxes.category >= 0
        named = F.one_hot(boxes.category.clamp(min=0), len(self.config.categories)) * known[:, None]
        features = (self.reduce(x).flatten(1), boxes.place.to(x.dtype), named.to(x.dtype))
        return self.embed(torch.cat(features, 1)), self.category(x.mean((2, 3))).float()

    def compare(self, token: torch.Tensor, logits: torch.Tensor, boxes: BoxInputs) -> BoxOutput:
        """The boxes of each picture together, from what `look` has kept of them."""
        token, apart = token[None], boxes.picture[:, None] != boxes.picture[None]
        for layer in self.between:
            token = layer(token, src_mask=apart)
        found = self.head(token[0]).float()
        harmonics, distance, centre, extents, height = found.split((2 * len(AZIMUTH_ORDERS), 2, 3, 4, 2), 1)
        # a thing of 1 m, seen at the box's angle, is this far away
        angle = boxes.place[:, SIZE].float().mean(1, keepdim=True)
        distance = distance - F.pad(angle, (0, 1))
        return BoxOutput(harmonics, logits, *map(_bounded, (distance, centre, extents, height)))


def _bounded(found: torch.Tensor) -> torch.Tensor:
    """(K, n + 1) with the last, the ln of a standard deviation, within `SIGMA_LOG`."""
    low, high = (math.log(limit) for limit in SIGMA_LOG)
    return torch.cat((found[:, :-1], found[:, -1:].clamp(low, high)), 1)


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


SIZE = slice(6, 8)  # of `place_of`: ln of the box's size as an angle


def place_of(
    boxes_xyxy: torch.Tensor, intrinsics: torch.Tensor, size_px: torch.Tensor, up_cam: torch.Tensor
) -> torch.Tensor:
    """(B, `PLACE`) how a box is seen: up (0 where gravity is not known), ray through its middle, ln of its
    size as an angle, which of its sides are cut by the picture's border; and where gravity is known, for the
    middle of its lower side, of its upper side and of the box, how far they are below the horizon (sine), and
    ln of the distance at which a floor 1 m below the camera is seen there. boxes (B, 4), intrinsics (B, 4),
    size_px (B, 2), up_cam (B, 3)."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    middle = (low + high) / 2
    points = torch.stack((
        torch.stack((middle[:, 0], high[:, 1]), -1), torch.stack((middle[:, 0], low[:, 1]), -1), middle
    ), 1)  # fmt: skip
    rays = F.normalize(bearing_z1(points, intrinsics), dim=-1)
    down = -(rays @ up_cam[..., None])[..., 0]
    floor = -down.clamp(min=MIN_DOWN).log() * (up_cam.norm(dim=-1, keepdim=True) > 0.5)
    angle = ((high - low).clamp(min=1) / intrinsics[:, :2]).log()
    cut = cut_sides(boxes_xyxy, size_px).to(angle.dtype)
    return torch.cat((up_cam, rays[:, 2], angle, cut, down, floor), 1)


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


class BoxPredictor:
    """An `Estimates` from our own network."""

    def __init__(self, network: BoxNet, device="cpu"):
        self.config = network.config
        self.network = MovableNetwork(network, device, "box network")

    @classmethod
    def load(cls, weights: Path, device="cpu") -> BoxPredictor:
        """From a file of `sparc train-perception boxes`. Raises ValueError naming the file."""
        return cls(load_predictor(weights, BoxNetConfig, BoxNet)[0], device)

    def look(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        judged_min_score: float | None = None,
    ) -> list[Detection]:
        """See `Estimates`. Raises ValueError when image and camera differ in size."""
        require_size(image_rgb, camera)
        rectifier = rectifier_for(camera)
        pinhole, found = rectifier.camera, list(detections)
        boxes = rectifier.boxes(np.array([d.box_xyxy for d in found], dtype=np.float64).reshape(-1, 4))
        boxes = np.clip(boxes, 0, np.tile([pinhole.width - 1, pinhole.height - 1], 2))
        seen = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= SMALLEST_PX).all(1)).tolist()
        if seen:
            given = torch.from_numpy(boxes[seen]).float()
            category = torch.tensor([self._category(found[i].category) for i in seen])
            inputs = self._inputs(rectifier.image(image_rgb), pinhole, given, category)
            token, logits = self.network.run(lambda network, device: network.look(inputs.to(device)))
            kept = torch.arange(len(seen))
            if judged_min_score is not None:
                scores = _judged([found[i].score for i in seen], logits.cpu(), category)
                for i, score in zip(seen, scores.tolist(), strict=True):
                    found[i] = replace(found[i], score=score)
                kept = (scores >= judged_min_score).nonzero()[:, 0]
            for i, estimate in zip(
                kept.tolist(), self._compare(inputs, token, logits, kept, given, pinhole), strict=True
            ):
                found[seen[i]] = replace(found[seen[i]], estimate=estimate)
        if judged_min_score is None:
            return found
        return sorted((d for d in found if d.score >= judged_min_score), key=lambda d: -d.score)

    def _compare(self, inputs: BoxInputs, token, logits, kept, boxes, camera: Camera) -> list[BoxEstimate]:
        """Those of the boxes that are kept, compared with one another."""
        if not len(kept):
            return []
        some = BoxInputs(**{name: value[kept] for name, value in vars(inputs).items()})
        found = self.network.run(
            lambda network, device: network.compare(
                token[kept.to(token.device)].to(device),
                logits[kept.to(token.device)].to(device),
                some.to(device),
            )
        )
        return estimates(
            BoxOutput(**{n: value.cpu() for n, value in vars(found).items()}), boxes[kept], camera
        )

    def _category(self, name: str) -> int:
        return self.config.categories.index(name) if name in self.config.categories else -1

    def _inputs(self, image, camera: Camera, boxes: torch.Tensor, category: torch.Tensor) -> BoxInputs:
        size, count = self.config.size_px, len(boxes)
        centre, half = square_of(boxes)
        squares = np.stack([
            cut_square(image, c, h, size) for c, h in zip(centre.numpy(), half.tolist(), strict=True)
        ])  # fmt: skip
        size_px = torch.tensor([[camera.width, camera.height]], dtype=torch.float32).expand(count, 2)
        intrinsics = intrinsics_tensor(camera).expand(count, 4)
        up = torch.tensor([camera.up_cam or (0.0, 0.0, 0.0)]).float().expand(count, 3)
        flags = flags_of(boxes, centre, half, size_px, size)
        rgb = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        place, picture = place_of(boxes, intrinsics, size_px, up), torch.zeros(count, dtype=torch.int64)
        return BoxInputs(torch.cat((rgb, flags), 1), place, category, picture)


def _judged(scores: list[float], logits: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
    """(K,) scores weighed with the probability of each box's category (K,); of one that is not known, 1."""
    share = logits.softmax(1).gather(1, category.clamp(min=0)[:, None])[:, 0]
    weighed = torch.tensor(scores) ** (1 - JUDGEMENT) * share**JUDGEMENT
    return torch.where(category >= 0, weighed, torch.tensor(scores))


def placed(found: BoxOutput, boxes_xyxy: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """(K, 3) where the centres of objects are expected in the camera frame, in metres; boxes (K, 4),
    intrinsics (K, 4)."""
    half = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / 2
    centre = boxes_xyxy[:, :2] + half + found.centre[:, :2] * half
    return F.normalize(bearing_z1(centre, intrinsics), dim=-1) * found.distance[:, :1].exp()


def estimates(found: BoxOutput, boxes_xyxy: torch.Tensor, camera: Camera) -> list[BoxEstimate]:
    """What was found of the boxes (K, 4) of a pinhole camera."""
    T = placed(found, boxes_xyxy, intrinsics_tensor(camera).expand(len(boxes_xyxy), 4))
    columns = (
        shortened(found.harmonics), T, found.distance[:, 1].exp(), found.extents[:, :3].exp(),
        found.extents[:, 3].exp(),
    )  # fmt: skip
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [BoxEstimate(tuple(azimuth), tuple(T), d, tuple(S), e) for azimuth, T, d, S, e in rows]


def shortened(harmonics: torch.Tensor) -> torch.Tensor:
    """(..., 6) pairs no longer than 1."""
    pairs = harmonics.unflatten(-1, (-1, 2))
    return (pairs / pairs.norm(dim=-1, keepdim=True).clamp(min=1)).flatten(-2)
