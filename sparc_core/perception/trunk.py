"""The convolutional trunk of our own predictors: a ResNet-18 without its last stage."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter

STRIDES = (4, 8, 16)
CHANNELS = (64, 128, 256)


def resnet_trunk(in_channels: int = 3) -> IntermediateLayerGetter:
    """Features at `STRIDES` with `CHANNELS` as {"0": …, "1": …, "2": …}; random weights.

    The last stage has three quarters of a ResNet-18's parameters and a stride of 32, at which small pictures
    have nothing left to see.
    """
    network = resnet18(weights=None)
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return IntermediateLayerGetter(network, {"layer1": "0", "layer2": "1", "layer3": "2"})


def features(trunk: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The trunk's features of (B, C, H, W) images, finest first."""
    return tuple(trunk(images).values())
