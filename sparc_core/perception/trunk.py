"""The convolutional trunk of our own predictors: a ResNet-18 without its last stage."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18

CHANNELS = (64, 128, 256)


class ResnetTrunk(nn.Module):
    """Images to features at strides 4, 8 and 16 with `CHANNELS`; random weights.

    The last stage of a ResNet-18 has three quarters of its parameters and a stride of 32, at which small
    pictures have nothing left to see. Parameters have torchvision's names.
    """

    def __init__(self, in_channels: int = 3):
        super().__init__()
        network = resnet18(weights=None)
        if in_channels != 3:
            network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3 = network.layer1, network.layer2, network.layer3

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, C, H, W) images -> features, finest first."""
        at_4 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        at_8 = self.layer2(at_4)
        return at_4, at_8, self.layer3(at_8)
