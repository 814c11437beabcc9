"""What is in a detected box, from its part of the picture: how far away, how large, which way it is turned,
and where the object's own box is.

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
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from sparc_core.geometry.camera import bearing_z1
from sparc_core.perception.box_inputs import PLACE, SIZE, BoxInputs, mirrored_sides
from sparc_core.types import AZIMUTH_ORDERS, CATEGORIES

SIGMA_LOG = (0.01, 2.0)  # standard deviations that are predicted are within
USUAL_MOVE = 0.08  # standard deviation of the sides that a new network says
FARTHEST = 0.45  # by which a side of a box is moved, as a share of its size


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
class BoxOutput:
    """What is expected of K boxes, with logarithms of standard deviations last. harmonics (K, 6), cos kθ and
    sin kθ for every k of AZIMUTH_ORDERS; logits (K, C) of the category, the last one of a network with a
    background for no object; distance (K, 2): ln of the metres to
    the object's centre; centre (K, 3): where its centre is seen, from the middle of the box in halves of its
    sides; extents (K, 4): ln of its metres along its x, y and z; height (K, 2): ln of the camera's metres
    above the floor; sides (K, 5): how far the sides of the box around what is seen of the object are from
    those of the given box, as shares of its width and height, x0, y0, x1, y1."""

    harmonics: torch.Tensor
    logits: torch.Tensor
    sides: torch.Tensor
    distance: torch.Tensor
    centre: torch.Tensor
    extents: torch.Tensor
    height: torch.Tensor

    def mirrored(self) -> BoxOutput:
        """What that is of the boxes when it was expected of their mirror images."""
        turn = self.harmonics.new_tensor([1.0, -1.0]).repeat(len(AZIMUTH_ORDERS))
        aside = self.centre.new_tensor([-1.0, 1.0, 1.0])
        sides = torch.cat((mirrored_sides(self.sides[:, :4]), self.sides[:, 4:]), 1)
        return replace(self, harmonics=turn * self.harmonics, centre=aside * self.centre, sides=sides)


@dataclass(frozen=True, eq=False)
class BoxLook:
    """What is kept of K boxes, each by itself: token (K, features); logits and sides as in `BoxOutput`."""

    token: torch.Tensor
    logits: torch.Tensor
    sides: torch.Tensor


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
        self.sides = nn.Sequential(
            nn.LayerNorm(config.features), nn.Linear(config.features, config.features), nn.ReLU(),
            nn.Linear(config.features, 5),
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

        nn.init.constant_(self.sides[-1].bias[-1], math.log(USUAL_MOVE))

    def ends(self) -> list[nn.Parameter]:
        """Weights of the first and last layers, which some optimisers treat apart."""
        last = (self.category, self.head[-1], self.sides[-1])
        return [self.stages[0][0].weight, *(layer.weight for layer in last)]

    def forward(self, boxes: BoxInputs) -> BoxOutput:
        """Boxes of one picture are looked at together: how large all of them are tells how far each is."""
        return self.compare(self.look(boxes), boxes)

    def expect_both_ways(self, boxes: BoxInputs) -> BoxOutput:
        """The mean of what `forward` tells of the boxes and of their mirror images."""
        found, other = vars(self(boxes)), vars(self(boxes.mirrored()).mirrored())
        return BoxOutput(**{name: (found[name] + other[name]) / 2 for name in found})

    def look(self, boxes: BoxInputs) -> BoxLook:
        """Every box by itself."""
        squares = boxes.squares
        x = self.stages(torch.cat(((squares[:, :3] - 0.45) / 0.25, squares[:, 3:]), 1))
        known = boxes.category >= 0
        named = F.one_hot(boxes.category.clamp(min=0), len(self.config.categories)) * known[:, None]
        features = (self.reduce(x).flatten(1), boxes.place.to(x.dtype), named.to(x.dtype))
        token = self.embed(torch.cat(features, 1))
        sides = _bounded(self.sides(token).float())
        return BoxLook(token, self.category(x.mean((2, 3))).float(), sides)

    def look_both_ways(self, boxes: BoxInputs) -> BoxLook:
        """`look` with logits and sides that are means of those of the boxes and of their mirror images."""
        look, mirrored = self.look(boxes), self.look(boxes.mirrored())
        moves = (look.sides[:, :4] + mirrored_sides(mirrored.sides[:, :4])) / 2
        sides = torch.cat((moves, (look.sides[:, 4:] + mirrored.sides[:, 4:]) / 2), 1)
        return BoxLook(look.token, (look.logits + mirrored.logits) / 2, sides)

    def compare(self, look: BoxLook, boxes: BoxInputs) -> BoxOutput:
        """The boxes of each picture together, from what `look` has kept of them."""
        token, apart = look.token[None], boxes.picture[:, None] != boxes.picture[None]
        for layer in self.between:
            token = layer(token, src_mask=apart)
        found = self.head(token[0]).float()
        harmonics, distance, centre, extents, height = found.split((2 * len(AZIMUTH_ORDERS), 2, 3, 4, 2), 1)
        # a thing of 1 m, seen at the box's angle, is this far away
        angle = boxes.place[:, SIZE].float().mean(1, keepdim=True)
        distance = distance - F.pad(angle, (0, 1))
        metric = map(_bounded, (distance, centre, extents, height))
        return BoxOutput(harmonics, look.logits, look.sides, *metric)


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


def corrected(boxes_xyxy: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """Boxes (K, 4) with their sides (K, 4) moved by shares of width and height, up to `FARTHEST`."""
    size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return boxes_xyxy + sides.clamp(-FARTHEST, FARTHEST) * size.repeat(1, 2)


def placed(found: BoxOutput, boxes_xyxy: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """(K, 3) where the centres of objects are expected in the camera frame, in metres; boxes (K, 4),
    intrinsics (K, 4)."""
    half = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / 2
    centre = boxes_xyxy[:, :2] + half + found.centre[:, :2] * half
    return F.normalize(bearing_z1(centre, intrinsics), dim=-1) * found.distance[:, :1].exp()


def shortened(harmonics: torch.Tensor) -> torch.Tensor:
    """(..., 6) pairs no longer than 1."""
    pairs = harmonics.unflatten(-1, (-1, 2))
    return (pairs / pairs.norm(dim=-1, keepdim=True).clamp(min=1)).flatten(-2)
