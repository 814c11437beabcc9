"""torchvision's Mask R-CNN: our small one with the nine categories, or the one with COCO's classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import (
    MaskRCNN_ResNet50_FPN_Weights,
    MaskRCNNHeads,
    MaskRCNNPredictor,
)
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from sparc_core.cad.names import exact_category
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.trunk import CHANNELS, ResnetTrunk
from sparc_core.types import CATEGORIES, Detection
from sparc_core.weights_file import fill_network, read_foreign_weights

LEVELS = ("0", "1", "2")
COCO_CLASSES = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]


@dataclass(frozen=True)
class MaskRcnnConfig:
    """The small network. categories: in the order of its outputs. short_px, long_px: images are scaled to
    fit. channels of the pyramid; box_features of the box head; mask_channels of the mask head. box_samples:
    regions an image in training."""

    categories: tuple[str, ...] = CATEGORIES
    short_px: int = 240
    long_px: int = 320
    channels: int = 96
    box_features: int = 256
    mask_channels: int = 96
    box_samples: int = 96
    anchors_px: tuple[tuple[int, ...], ...] = field(
        default=((14, 22), (32, 46), (68, 100), (145, 210)),
    )

    def __post_init__(self):
        if len(self.anchors_px) != len(LEVELS) + 1:
            levels = len(LEVELS) + 1
            raise ValueError(f"mask_rcnn anchors_px needs {levels} levels, got {len(self.anchors_px)}")
        for name in ("short_px", "long_px", "channels", "box_features", "mask_channels", "box_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"mask_rcnn {name} must be at least 1, got {getattr(self, name)}")


class PyramidBackbone(nn.Module):
    """The trunk with a feature pyramid: `LEVELS`, and one more at twice the last one's stride."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = ResnetTrunk()
        self.fpn = FeaturePyramidNetwork(list(CHANNELS), channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels  # torchvision's detectors ask for it

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) images -> features by level, finest first."""
        return self.fpn(dict(zip(LEVELS, self.body(images), strict=True)))


def build_mask_rcnn(config: MaskRcnnConfig) -> MaskRCNN:
    """The network with random weights; class 0 is the background."""
    classes = len(config.categories) + 1
    anchors = AnchorGenerator(config.anchors_px, ((0.5, 1.0, 2.0),) * len(config.anchors_px))
    mask_channels = config.mask_channels
    return MaskRCNN(
        PyramidBackbone(config.channels),
        min_size=config.short_px, max_size=config.long_px,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(config.channels, anchors.num_anchors_per_location()[0]),
        rpn_pre_nms_top_n_train=600, rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=300, rpn_post_nms_top_n_test=100,
        box_roi_pool=MultiScaleRoIAlign(list(LEVELS), 7, 2),
        box_head=TwoMLPHead(config.channels * 49, config.box_features),
        box_predictor=FastRCNNPredictor(config.box_features, classes),
        box_batch_size_per_image=config.box_samples,
        box_detections_per_img=50,
        mask_roi_pool=MultiScaleRoIAlign(list(LEVELS), 14, 2),
        mask_head=MaskRCNNHeads(config.channels, (mask_channels, mask_channels), 1),
        mask_predictor=MaskRCNNPredictor(mask_channels, mask_channels, classes),
    )  # fmt: skip


class MaskRcnnDetector:
    """A `Detector` and `Masker` from a Mask R-CNN.

    names: what each class of the network is called here, None for classes to leave out; index 0 is the
    background. min_score: boxes below are dropped.
    """

    def __init__(
        self, network: MaskRCNN, names: tuple[str | None, ...], device="cpu", min_score: float = 0.3
    ):
        if not 0 <= min_score <= 1:
            raise ValueError(f"detector min_score must be in [0, 1], got {min_score}")
        self.network = MovableNetwork(network, device, "Mask R-CNN")
        self.names, self.min_score = names, min_score

    @classmethod
    def load(cls, weights: Path, device="cpu", min_score: float = 0.3) -> MaskRcnnDetector:
        """Our network from a file of `sparc train-perception detector`. Raises ValueError naming the file."""
        network, config = load_predictor(weights, MaskRcnnConfig, build_mask_rcnn)
        return cls(network, (None, *config.categories), device, min_score)

    @classmethod
    def load_coco(cls, weights: Path, device="cpu", min_score: float = 0.3) -> MaskRcnnDetector:
        """torchvision's `maskrcnn_resnet50_fpn` with COCO's classes, from its own .pth file, which users
        download; chair, couch, bed, dining table and tv are kept. Raises ValueError naming the file."""
        network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=len(COCO_CLASSES))
        fill_network(network, read_foreign_weights(weights), weights)
        names = tuple(exact_category(name) for name in COCO_CLASSES)
        return cls(network, names, device, min_score)

    def detect(self, image_rgb: np.ndarray) -> list[Detection]:
        """See `Detector`."""

        def predict(network: MaskRCNN, device) -> dict[str, torch.Tensor]:
            found = network([_tensor(image_rgb, device)])[0]
            return found | {"masks": found["masks"] > 0.5}

        found = self.network.run(predict)
        detections = []
        for box, label, score, mask in zip(
            found["boxes"], found["labels"].tolist(), found["scores"].tolist(), found["masks"], strict=True
        ):
            if score >= self.min_score and self.names[label] is not None:
                # torchvision's boxes end at pixel corners, ours count from pixel centres
                corners = tuple(float(v) - 0.5 for v in box)
                detections.append(Detection(corners, self.names[label], score, mask=mask[0].cpu().numpy()))
        return detections

    def detect_boxes(self, image_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (D, 4) and scores (D,) of `detect`, the best first, without the time that masks take."""

        def predict(network: MaskRCNN, device) -> dict[str, torch.Tensor]:
            image = _tensor(image_rgb, device)
            images, _ = network.transform([image])
            features = network.backbone(images.tensors)
            regions, _ = network.rpn(images, features)
            heads, sizes = network.roi_heads, images.image_sizes
            seen = heads.box_head(heads.box_roi_pool(features, regions, sizes))
            boxes, scores, labels = heads.postprocess_detections(*heads.box_predictor(seen), regions, sizes)
            found = [{"boxes": boxes[0], "scores": scores[0], "labels": labels[0]}]
            return network.transform.postprocess(found, sizes, [tuple(image.shape[-2:])])[0]

        found = self.network.run(predict)
        scores, names = found["scores"].cpu().numpy(), [self.names[i] for i in found["labels"].tolist()]
        kept = (scores >= self.min_score) & np.array([name is not None for name in names], dtype=bool)
        return found["boxes"].cpu().numpy()[kept] - 0.5, scores[kept]


def _tensor(image_rgb: np.ndarray, device) -> torch.Tensor:
    """(3, H, W) in [0, 1], as torchvision's detectors take images."""
    return torch.from_numpy(np.ascontiguousarray(image_rgb)).to(device).permute(2, 0, 1).float() / 255
