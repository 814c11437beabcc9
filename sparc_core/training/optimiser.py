"""The optimisers training can use."""

from __future__ import annotations

import torch
from torch import nn

OPTIMISERS = ("muon", "adamw", "lamb")


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for the weight matrices of the hidden layers, AdamW for everything else.

    Muon's steps are scaled to the size of AdamW's, so that one learning rate and one schedule serve both.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float):
        first_and_last = {id(network.head[-1].weight)}
        if network.config.embed_tokens:
            first_and_last.add(id(network.embed_token.weight))
        hidden, other = [], []
        for parameter in network.parameters():
            inside = parameter.ndim == 2 and id(parameter) not in first_and_last
            (hidden if inside else other).append(parameter)
        self.parts = (
            torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(other, lr=lr, weight_decay=weight_decay),
        )
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure=None) -> None:
        """One step of both; no closure."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of both."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict:
        """The states of both parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """The inverse of `state_dict`."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def make_optimiser(name: str, network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """An optimiser of `OPTIMISERS` over the network's parameters; "lamb" is the paper's (from timm)."""
    if name == "muon":
        return MuonWithAdamW(network, lr, weight_decay)
    if name == "lamb":
        from timm.optim import Lamb

        return Lamb(network.parameters(), lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
