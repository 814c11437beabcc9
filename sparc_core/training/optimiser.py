"""The optimisers training can use."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

OPTIMISERS = ("muon", "adamw", "lamb")


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for the weights of the hidden layers, AdamW for everything else.

    The weight of a convolution counts as the matrix that maps a patch to the outputs. Muon's steps are scaled
    to the size of AdamW's, so that one learning rate and one schedule serve both.
    """

    def __init__(self, network: nn.Module, ends: Collection[nn.Parameter], lr: float, weight_decay: float):
        """ends: weights of the first and last layers, which are AdamW's."""
        outer = {id(parameter) for parameter in ends}
        self.hidden, other = [], []
        for parameter in network.parameters():
            inside = parameter.ndim in (2, 4) and id(parameter) not in outer
            (self.hidden if inside else other).append(parameter)
        self.matrices = [nn.Parameter(as_matrix(parameter.data)) for parameter in self.hidden]
        self.parts = (
            torch.optim.Muon(self.matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(other, lr=lr, weight_decay=weight_decay),
        )
        self.other = other
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure=None) -> None:
        """One step of both; no closure."""
        for matrix, parameter in zip(self.matrices, self.hidden, strict=True):
            # with several processes the wrapper of the network puts its parameters elsewhere in memory
            matrix.data = as_matrix(parameter.data)
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad, like=parameter)
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of both."""
        for parameter in (*self.hidden, *self.other):
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def state_dict(self) -> dict:
        """The states of both parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """The inverse of `state_dict`."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def as_matrix(weight: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
    """(out, …) weight as a matrix (out, rest) that shares its memory; of a convolution the columns are in the
    order of the memory of `like` (by default the weight itself), which must be contiguous in it."""
    like = weight if like is None else like
    if like.ndim == 4 and not like.is_contiguous():
        return weight.permute(0, 2, 3, 1).flatten(1)
    return weight.flatten(1)


def make_optimiser(
    name: str, network: nn.Module, lr: float, weight_decay: float, ends: Collection[nn.Parameter]
) -> torch.optim.Optimizer:
    """An optimiser of `OPTIMISERS` over the network's parameters; "lamb" is the paper's (from timm). ends:
    weights of the first and last layers, which Muon leaves to AdamW."""
    if name == "muon":
        return MuonWithAdamW(network, ends, lr, weight_decay)
    if name == "lamb":
        from timm.optim import Lamb

        return Lamb(network.parameters(), lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
