"""Region features for the baselines: the shipped detector, frozen, looks at boxes that are given.

Its box head is not used: boxes and categories come from whatever detector is in use, so that all methods see
the same detections. The mask head runs on those boxes for objects that bring no mask.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.models.detection import MaskRCNN

from sparc_core.baselines.regions import Regions, grid_pixels, read_cells
from sparc_core.geometry.camera import intrinsics_tensor
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.mask_rcnn import MaskRcnnConfig, build_mask_rcnn
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.prepare import PreparedImage
from sparc_core.perception.see import WEIGHTS
from sparc_core.types import CATEGORIES

SHIPPED_DETECTOR = WEIGHTS / "detector.safetensors"


class RegionReader:
    """Features and masks of given boxes, from a Mask R-CNN of ours.

    Raises ValueError for a detector that does not know all nine categories.
    """

    def __init__(self, network: MaskRCNN, categories: tuple[str, ...] = CATEGORIES, device="cpu"):
        missing = sorted(set(CATEGORIES) - set(categories))
        if missing:
            raise ValueError(f"the detector of a baseline must know all nine categories, not {missing}")
        self.network = MovableNetwork(network, device, "Mask R-CNN of the baseline")
        # class of each category among the network's outputs, of which 0 is the background
        self.classes = torch.tensor([1 + categories.index(name) for name in CATEGORIES])
        self.channels = network.backbone.out_channels
        self.grid = network.roi_heads.mask_roi_pool.output_size[0]

    @classmethod
    def load(cls, weights: Path | str | None = None, device="cpu") -> RegionReader:
        """From a file of `sparc train-perception detector`, None for the shipped one. Raises ValueError
        naming the file."""
        file = Path(weights) if weights else SHIPPED_DETECTOR
        network, config = load_predictor(file, MaskRcnnConfig, build_mask_rcnn)
        return cls(network, config.categories, device)

    def look(
        self, rgb: torch.Tensor, boxes_xyxy: torch.Tensor, category: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (D, C, G, G) and mask probabilities (D, G, G) of boxes.

        rgb (3, H, W) in [0, 1]; boxes_xyxy (D, 4), pixel centres at integers; category (D,) index into
        CATEGORIES.
        """

        def pooled(network: MaskRCNN, device) -> tuple[torch.Tensor, torch.Tensor]:
            images, _ = network.transform([rgb.to(device)])
            features = network.backbone(images.tensors)
            height, width = images.image_sizes[0]
            scale = torch.tensor([width / rgb.shape[2], height / rgb.shape[1]], device=device).repeat(2)
            # torchvision's boxes end at pixel corners, ours count from pixel centres
            boxes = (boxes_xyxy.to(device) + 0.5) * scale
            heads = network.roi_heads
            regions = heads.mask_roi_pool(features, [boxes.to(images.tensors.dtype)], images.image_sizes)
            logits = heads.mask_predictor(heads.mask_head(regions))
            row = torch.arange(len(boxes), device=device)
            masks = logits[row, self.classes.to(device)[category.to(device)]].sigmoid()
            return regions, F.adaptive_avg_pool2d(masks, regions.shape[-2:])

        features, masks = self.network.run(pooled)
        return features.to(rgb.device), masks.to(rgb.device)

    def read(self, prepared: PreparedImage, categories: list[str]) -> Regions:
        """The kept detections of a prepared image; categories: theirs, each of the nine.

        Masks that the detections brought are taken as they are. Raises ValueError for another category.
        """
        unknown = sorted(set(categories) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"baselines know the categories {CATEGORIES}, not {unknown}")
        channels, camera = prepared.channels, prepared.camera
        device, count = channels.rgb.device, len(categories)
        boxes = torch.from_numpy(prepared.boxes_xyxy).float().to(device)
        category = torch.tensor([CATEGORIES.index(name) for name in categories], device=device)
        size = torch.tensor([camera.width, camera.height], device=device).float().expand(count, 2)
        uv = grid_pixels(boxes, size, self.grid)
        features, mask = self.look(channels.rgb.permute(2, 0, 1) / 255, boxes, category)
        up = torch.tensor(camera.up_cam or (0.0, 0.0, 0.0), device=device).float()
        up = up.expand(count, 3)
        predicted = torch.full((count,), prepared.depth_source == "predicted", device=device)
        column, row = uv.long().unbind(-1)
        normals = channels.normals_at(row * camera.width + column)
        regions = Regions(
            features, mask, uv, read_cells(channels.depth_m, uv), normals, boxes,
            intrinsics_tensor(camera, device).expand(count, 4), size, up, category, predicted,
        )  # fmt: skip
        if not count:
            return regions
        own = channels.masks[torch.arange(count, device=device)[:, None, None], row, column].float()
        return replace(regions, mask=torch.where(channels.has_mask[:, None, None], own, mask))
