"""Predictors on a GPU whose memory may not suffice: they go on on the CPU, and say so."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

log = logging.getLogger(__name__)


class MovableNetwork:
    """A network on a device; `run` calls a function with the device and moves both to the CPU when the GPU
    runs out of memory."""

    def __init__(self, network: nn.Module, device, name: str):
        self.network = network.to(device).eval().requires_grad_(False)
        self.device, self.name = torch.device(device), name

    @torch.no_grad()
    def run(self, function: Callable):
        """function(network, device), again on the CPU if the GPU's memory does not suffice."""
        try:
            return function(self.network, self.device)
        except torch.cuda.OutOfMemoryError as error:
            if self.device.type == "cpu":
                raise
            log.warning("%s: the GPU is out of memory, it goes on on the CPU: %s", self.name, error)
            self.device = torch.device("cpu")
            self.network.to(self.device)
            torch.cuda.empty_cache()
            return function(self.network, self.device)
