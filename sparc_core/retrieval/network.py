"""Two encoders into one space (after ROCA section 3.3 and Mask2CAD): image regions and CAD models.

Both read sets, pixels there and surface points here, through the Perceiver trunk of the aligner.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sparc_core.network.config import NetworkConfig
from sparc_core.network.perceiver import PerceiverTrunk
from sparc_core.retrieval.region import CONTEXT_CHANNELS, TOKEN_CHANNELS
from sparc_core.types import CATEGORIES

CAD_CHANNELS = 12  # point in metres and in the unit cube, normal, colour
CAD_CONTEXT = 3 + len(CATEGORIES)


@dataclass(frozen=True)
class RetrievalConfig:
    """n_pixels of a region and n_points of a CAD model are read. latents, channels, heads, blocks: of both
    trunks. embedding: length of the vectors. completed: points that the auxiliary decoder draws."""

    n_pixels: int = 96
    n_points: int = 256
    latents: int = 8
    channels: int = 96
    heads: int = 3
    blocks: int = 2
    embedding: int = 128
    completed: int = 64

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"retrieval {name} must be at least 1, got {value}")
        if self.channels % self.heads:
            raise ValueError(
                f"retrieval channels must be a multiple of heads, got {self.channels} and {self.heads}"
            )


class SetEncoder(nn.Module):
    """Sets of tokens with a context each -> unit vectors."""

    def __init__(self, config: RetrievalConfig, tokens: int, context: int):
        super().__init__()
        width = config.channels
        self.token, self.context = nn.Linear(tokens, width), nn.Linear(context, width)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(width, width))
        trunk = NetworkConfig(
            token_channels=tokens, latents=config.latents, channels=width, heads=config.heads,
            blocks=config.blocks, self_layers=1,
        )  # fmt: skip
        self.trunk = PerceiverTrunk(trunk, width)
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(),
            nn.Linear(2 * width, config.embedding),
        )  # fmt: skip

    def forward(self, tokens: torch.Tensor, context: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """tokens (D, K, C), context (D, C'), valid (D, K) -> (D, E) of length one."""
        embedded = self.mix(self.token(tokens) + self.context(context)[:, None])
        alone = torch.ones(len(tokens), 1, dtype=torch.bool, device=tokens.device)
        latents = self.trunk(embedded[:, None], valid[:, None], alone)
        return F.normalize(self.head(latents[:, 0].mean(1)).float(), dim=-1)


class RetrievalNet(nn.Module):
    """Regions and CAD models to vectors; their scalar product says how well they go together."""

    def __init__(self, config: RetrievalConfig):
        super().__init__()
        self.config = config
        self.region = SetEncoder(config, TOKEN_CHANNELS, CONTEXT_CHANNELS)
        self.cad = SetEncoder(config, CAD_CHANNELS, CAD_CONTEXT)
        self.log_scale = nn.Parameter(torch.tensor(2.5))  # of the softmax in training
        self.complete = nn.Sequential(
            nn.Linear(config.embedding, 2 * config.channels), nn.GELU(),
            nn.Linear(2 * config.channels, 3 * config.completed),
        )  # fmt: skip

    def completed(self, regions: torch.Tensor) -> torch.Tensor:
        """(D, completed, 3) points in metres along the object's axes that a region's vector stands for."""
        return self.complete(regions).unflatten(-1, (-1, 3))


def cad_tokens(
    points, normals, colors, extents_m, category
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens (D, K, 12), context (D, 12) and validity (D, K) of CAD models: points, normals (D, K, 3) in
    unit-cube coordinates, colors (D, K, 3), extents_m (D, 3), category (D,), −1 for none of the nine."""
    outside = category < 0
    named = F.one_hot(category.clamp(min=0), len(CATEGORIES)).to(points.dtype) * (~outside)[:, None]
    tokens = torch.cat((points * extents_m[:, None], points, normals, colors), -1)
    context = torch.cat((extents_m.log(), named), -1)
    return tokens, context, torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
