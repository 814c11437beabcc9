"""Sizes and options of Multi-SPARC-Net."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that fixes the network's parameters.

    token_channels: C_input, channels of one token. context_channels: pose-context channels added to
    every token of an object (0 for the paper's layout). latents, channels: N_latent and C_latent per
    object. blocks: how often (cross-attention, `self_layers` × self-attention) is repeated.
    feedforward: hidden width of the transformer MLPs, as a multiple of `channels`.
    embed_tokens: embed tokens by a two-layer MLP before the cross-attention (the paper attends to the
    raw channels). encoding, decoding: "separate" (the paper's choice) or "joint" (its ablation).
    joint_objects: N_mul, only needed by joint decoding, whose MLP has N_mul · 11 outputs.

    Raises ValueError naming the field that is out of range.
    """

    token_channels: int
    context_channels: int = 0
    latents: int = 16
    channels: int = 96
    heads: int = 3
    blocks: int = 3
    self_layers: int = 2
    feedforward: int = 3
    embed_tokens: bool = True
    encoding: str = "separate"
    decoding: str = "separate"
    joint_objects: int = 5

    def __post_init__(self):
        for name in (
            "token_channels",
            "latents",
            "channels",
            "heads",
            "blocks",
            "feedforward",
            "joint_objects",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"network {name} must be at least 1, got {getattr(self, name)}")
        for name in ("context_channels", "self_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"network {name} must not be negative, got {getattr(self, name)}")
        if self.channels % self.heads:
            raise ValueError(f"network channels ({self.channels}) must be a multiple of heads ({self.heads})")
        for name in ("encoding", "decoding"):
            if getattr(self, name) not in ("separate", "joint"):
                raise ValueError(f"network {name} must be 'separate' or 'joint', got {getattr(self, name)!r}")
        if self.context_channels and not self.embed_tokens:
            raise ValueError("network context_channels needs embed_tokens: raw tokens carry no context")
