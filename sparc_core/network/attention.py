"""Pre-norm attention layers with padding masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class AttentionLayer(nn.Module):
    """Multi-head attention followed by a two-layer MLP, both residual and pre-normalised.

    With `source_channels` given it is cross-attention (queries read the source), otherwise
    self-attention.
    """

    def __init__(self, channels: int, heads: int, feedforward: int, source_channels: int | None = None):
        super().__init__()
        self.heads = heads
        self.cross = source_channels is not None
        self.query_norm = nn.LayerNorm(channels)
        if self.cross:
            self.source_norm = nn.LayerNorm(source_channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(source_channels or channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, feedforward * channels),
            nn.GELU(),
            nn.Linear(feedforward * channels, channels),
        )

    def forward(self, x, source=None, source_valid=None):
        """x: (B, Q, C). source: (B, M, C') or None for self-attention. source_valid: (B, M) bool or None.

        Sources that are not valid take no part. A row without any valid source attends to nothing:
        its attention output is zero instead of NaN.
        """
        queries = self.query_norm(x)
        keys = self.source_norm(source) if self.cross else queries
        batch, count, channels = x.shape
        q = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(keys).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None
        if source_valid is not None:
            any_valid = source_valid.any(-1)
            # softmax over nothing is NaN: such rows see everything here and are zeroed below
            mask = (source_valid | ~any_valid[:, None])[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended = self.output(attended.transpose(1, 2).reshape(batch, count, channels))
        if source_valid is not None:
            attended = torch.where(any_valid[:, None, None], attended, torch.zeros_like(attended))
        x = x + attended
        return x + self.mlp(x)
