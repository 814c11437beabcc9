"""What is trained on pictures: the depth network and the detector, each with its losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sparc_core.perception.depth_net import DepthNet, DepthNetConfig
from sparc_core.perception.mask_rcnn import MaskRcnnConfig, build_mask_rcnn
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.training.depth_loss import DepthLosses
from sparc_core.training.picture_batches import AugmentConfig, PictureBatches
from sparc_core.training.predictor_trainer import PredictorTrainConfig, PredictorTrainer


@dataclass(frozen=True)
class DepthTraining:
    """A run of the depth network. beta, object_weight: of its loss (`DepthLosses`), 0 and 1 as in the
    paper."""

    network: DepthNetConfig = field(default_factory=DepthNetConfig)
    train: PredictorTrainConfig = field(default_factory=PredictorTrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    beta: float = 0.0
    object_weight: float = 1.0

    def __post_init__(self):
        if not 0 <= self.beta <= 1:
            raise ValueError(f"depth training beta must be in [0, 1], got {self.beta}")
        if self.object_weight <= 0:
            raise ValueError(f"depth training object_weight must be positive, got {self.object_weight}")

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) to which pictures are scaled."""
        return self.network.width_px, self.network.height_px

    def build(self) -> DepthNet:
        """The network with random weights."""
        return DepthNet(self.network)

    def ends(self, network: DepthNet) -> list[torch.nn.Parameter]:
        """Weights of the first and last layers."""
        return network.ends()

    def with_losses(self, network: DepthNet) -> torch.nn.Module:
        """The network as a module that turns a `PictureBatch` into losses."""
        return DepthLosses(network, self.beta, self.object_weight)


class DetectorLosses(torch.nn.Module):
    """A Mask R-CNN with torchvision's own losses; forward takes a `PictureBatch`."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch) -> dict[str, torch.Tensor]:
        """batch: a `PictureBatch`."""
        return self.network(list(batch.rgb), batch.objects)


@dataclass(frozen=True)
class DetectorTraining:
    """A run of the detector."""

    network: MaskRcnnConfig = field(default_factory=MaskRcnnConfig)
    train: PredictorTrainConfig = field(default_factory=lambda: PredictorTrainConfig(learning_rate=1e-3))
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    size_px = None  # the detector scales pictures itself

    def build(self) -> torch.nn.Module:
        """The network with random weights."""
        return build_mask_rcnn(self.network)

    def ends(self, network) -> list[torch.nn.Parameter]:
        """Weights of the first and last layers."""
        rpn, box = network.rpn.head, network.roi_heads.box_predictor
        last = (rpn.cls_logits, rpn.bbox_pred, box.cls_score, box.bbox_pred)
        last += (network.roi_heads.mask_predictor.mask_fcn_logits,)
        return [layer.weight for layer in (network.backbone.body.conv1, *last)]

    def with_losses(self, network) -> torch.nn.Module:
        """The network as a module that turns a `PictureBatch` into losses."""
        return DetectorLosses(network)


def make_trainer(
    settings: DepthTraining | DetectorTraining,
    pictures: PictureFolder,
    device: str,
    init: Path | None = None,
    trunk: Path | None = None,
) -> PredictorTrainer:
    """The trainer of a run. init: weights of the same network to begin with; trunk: weights of a depth
    network whose trunk a detector begins with. Raises ValueError naming a file that does not fit."""
    torch.manual_seed(settings.train.seed)
    network = settings.build()
    if trunk is not None:
        take_trunk(network, trunk)
    if init is not None:
        take_weights(network, init, type(settings.network))
    batches = PictureBatches(pictures, settings.train.pictures, settings.augment, size_px=settings.size_px)
    return PredictorTrainer(
        settings.train, settings.with_losses(network), network, batches, device, settings.ends(network)
    )


def take_trunk(detector: torch.nn.Module, depth_weights: Path) -> None:
    """Let a detector begin with the trunk of a depth network: what edges and surfaces look like is known
    then. The rays, which a detector does not see, are left out. Raises ValueError naming the file."""
    trunk = load_predictor(depth_weights, DepthNetConfig, DepthNet)[0].trunk.state_dict()
    trunk["conv1.weight"] = trunk["conv1.weight"][:, :3]
    detector.backbone.body.load_state_dict(trunk)


def take_weights(network: torch.nn.Module, path: Path, kind: type) -> None:
    """Fill a network with the weights of a predictor's file. Raises ValueError naming the file when they do
    not fit, or are of another kind of configuration."""
    load_predictor(path, kind, lambda _: network)
    network.train().requires_grad_(True)
