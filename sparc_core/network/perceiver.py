"""The Perceiver trunk: per-object cross-attention, then self-attention over all objects' latents."""

from __future__ import annotations

import torch
from torch import nn

from sparc_core.network.attention import AttentionLayer
from sparc_core.network.config import NetworkConfig


class PerceiverTrunk(nn.Module):
    """Three blocks of (cross-attention, self-attention × 2), Multi-SPARC section 3.3.

    With separate encoding each object's latents read only that object's tokens and all objects share
    the layers' weights; the self-attention lets the objects exchange information. Joint encoding (the
    paper's ablation) lets every latent read every object's tokens, so the objects need latents of
    their own to be told apart.
    """

    def __init__(self, config: NetworkConfig, source_channels: int):
        super().__init__()
        self.config = config
        objects = config.joint_objects if config.encoding == "joint" else 1
        self.latents = nn.Parameter(torch.randn(objects, config.latents, config.channels) * 0.02)
        sizes = (config.channels, config.heads, config.feedforward)
        self.cross = nn.ModuleList(AttentionLayer(*sizes, source_channels) for _ in range(config.blocks))
        self.mix = nn.ModuleList(
            nn.ModuleList(AttentionLayer(*sizes) for _ in range(config.self_layers))
            for _ in range(config.blocks)
        )

    def forward(self, tokens, token_valid, object_valid):
        """tokens: (B, N, M, C'), token_valid: (B, N, M) bool, object_valid: (B, N) bool.

        Returns the latents (B, N, L, C). Padded objects neither give to nor take from the others.
        """
        batch, objects, count, _ = tokens.shape
        token_valid = token_valid & object_valid[..., None]
        latents = self.latents[:objects].expand(batch, objects, -1, -1)
        per_object = self.config.encoding == "separate"
        latent_valid = object_valid[..., None].expand(-1, -1, self.config.latents).flatten(1)
        # one object an image (training singly, tracking one) has no padding to hide
        latent_valid = None if objects == 1 else latent_valid
        for cross, mix in zip(self.cross, self.mix, strict=True):
            if per_object:
                read = cross(latents.flatten(0, 1), tokens.flatten(0, 1), token_valid.flatten(0, 1))
            else:
                read = cross(latents.flatten(1, 2), tokens.flatten(1, 2), token_valid.flatten(1))
            shared = read.reshape(batch, objects * self.config.latents, -1)
            for layer in mix:
                shared = layer(shared, source_valid=latent_valid)
            latents = shared.unflatten(1, (objects, -1))
        return latents
