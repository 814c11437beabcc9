"""Multi-SPARC-Net: tokens of all objects in, pose updates and scores out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sparc_core.network.config import NetworkConfig
from sparc_core.network.perceiver import PerceiverTrunk

UPDATE_CHANNELS = 10


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """raw_update: (B, N, 10), decoded by `refine.update`. score_logit: (B, N), σ before the sigmoid."""

    raw_update: torch.Tensor
    score_logit: torch.Tensor


class MultiSparcNet(nn.Module):
    """The alignment network of Multi-SPARC, section 3.3.

    Decoding takes the mean over an object's latents through one shared MLP to 11 outputs; joint
    decoding (the paper's ablation) takes the mean over all latents to N_mul · 11 outputs. With joint encoding
    or decoding the embedded tokens carry a learned mark of their object.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        width = config.channels
        if config.embed_tokens:
            self.embed_token = nn.Linear(config.token_channels, width)
            self.embed_context = (
                nn.Linear(config.context_channels, width) if config.context_channels else None
            )
            self.embed_output = nn.Sequential(nn.GELU(), nn.Linear(width, width))
        # joint options must be able to tell whose token it is; raw tokens bring the paper's detection id
        self.marks = None
        if config.embed_tokens and "joint" in (config.encoding, config.decoding):
            self.marks = nn.Parameter(torch.randn(config.joint_objects, width) * 0.1)
        self.trunk = PerceiverTrunk(config, width if config.embed_tokens else config.token_channels)
        outputs = UPDATE_CHANNELS + 1
        if config.decoding == "joint":
            outputs *= config.joint_objects
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, outputs)
        )
        # near-identity updates at the start of training
        nn.init.normal_(self.head[-1].weight, std=0.01)
        nn.init.zeros_(self.head[-1].bias)

    def ends(self) -> list[nn.Parameter]:
        """Weights of the first and last layers, which some optimisers treat apart."""
        first = [self.embed_token.weight] if self.config.embed_tokens else []
        return [*first, self.head[-1].weight]

    def forward(self, tokens, context, token_valid, object_valid) -> NetworkOutput:
        """tokens: (B, N, M, C_input), context: (B, N, C_context) or None, token_valid: (B, N, M) bool,
        object_valid: (B, N) bool. Outputs of padded objects are meaningless and must not be read.

        Raises ValueError when the channels do not fit the config, or joint options meet more objects
        than the config allows.
        """
        self._check(tokens, context)
        precision = tokens.dtype
        if self.config.embed_tokens:
            embedded = self.embed_token(tokens)
            if self.embed_context is not None:
                embedded = embedded + self.embed_context(context)[:, :, None]
            if self.marks is not None:
                embedded = embedded + self.marks[: tokens.shape[1], None]
            tokens = self.embed_output(embedded)
        latents = self.trunk(tokens, token_valid, object_valid)
        if self.config.decoding == "joint":
            output = self._decode_jointly(latents, object_valid)
        else:
            output = self.head(latents.mean(2))
        output = output.to(precision)  # under autocast it is bfloat16, too coarse for poses
        return NetworkOutput(output[..., :UPDATE_CHANNELS], output[..., UPDATE_CHANNELS])

    def _decode_jointly(self, latents, object_valid):
        weight = object_valid[..., None, None].to(latents.dtype)
        pooled = (latents * weight).sum((1, 2)) / (weight.sum((1, 2)) * latents.shape[2]).clamp(min=1)
        return self.head(pooled).unflatten(-1, (self.config.joint_objects, -1))[:, : latents.shape[1]]

    def _check(self, tokens, context):
        config = self.config
        if tokens.shape[-1] != config.token_channels:
            raise ValueError(f"tokens need {config.token_channels} channels, got {tokens.shape[-1]}")
        channels = 0 if context is None else context.shape[-1]
        if channels != config.context_channels:
            raise ValueError(f"context needs {config.context_channels} channels, got {channels}")
        if "joint" in (config.encoding, config.decoding) and tokens.shape[1] > config.joint_objects:
            raise ValueError(
                f"joint encoding or decoding takes at most {config.joint_objects} objects "
                f"(joint_objects), got {tokens.shape[1]}"
            )
