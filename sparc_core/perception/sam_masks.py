"""Masks by segment-anything, prompted with the detected boxes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.weights_file import read_foreign_weights

_PATCH_PX, _WINDOW, _PROMPT = 16, 14, 256


class SamMasker:
    """A `Masker`: the image is embedded once, all boxes go through the mask decoder in one batch."""

    def __init__(self, model: Sam, device="cpu"):
        self.network = MovableNetwork(model, device, "segment-anything")

    @classmethod
    def load(cls, checkpoint: Path, device="cpu") -> SamMasker:
        """From a file of segment-anything's authors (ViT-B, L or H) or of their layout: sizes are read off
        the parameters. Raises ValueError naming the file when it is missing, unreadable or no SAM."""
        state = read_foreign_weights(checkpoint)
        try:
            model = build_sam(state)
            model.load_state_dict(state)
        except (KeyError, AttributeError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"weights {checkpoint}: not those of a segment-anything model: {error}"
            ) from error
        return cls(model, device)

    def masks(self, image_rgb: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """See `Masker`."""
        boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
        if len(boxes) == 0:
            return np.zeros((0, *image_rgb.shape[:2]), np.float32)

        def predict(model: Sam, device) -> np.ndarray:
            predictor = SamPredictor(model)
            predictor.set_image(np.ascontiguousarray(image_rgb))
            # segment-anything counts from pixel corners
            corners = torch.from_numpy(boxes + 0.5).to(device)
            prompts = predictor.transform.apply_boxes_torch(corners, image_rgb.shape[:2])
            found, _, _ = predictor.predict_torch(None, None, boxes=prompts, multimask_output=False)
            return found[:, 0].float().cpu().numpy()

        return self.network.run(predict)


def build_sam(state: dict[str, torch.Tensor]) -> Sam:
    """A model whose sizes are those of a checkpoint's parameters. Raises KeyError for parameters of something
    else."""
    _, side, _, width = state["image_encoder.pos_embed"].shape
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("image_encoder.blocks."))
    spans = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    everywhere = [i for i, (span, _) in enumerate(spans) if span != 2 * _WINDOW - 1]
    return Sam(
        ImageEncoderViT(
            depth=depth, embed_dim=width, img_size=side * _PATCH_PX, mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), num_heads=width // spans[0][1],
            patch_size=_PATCH_PX, qkv_bias=True, use_rel_pos=True, global_attn_indexes=everywhere,
            window_size=_WINDOW, out_chans=_PROMPT,
        ),
        PromptEncoder(_PROMPT, (side, side), (side * _PATCH_PX,) * 2, mask_in_chans=16),
        MaskDecoder(
            num_multimask_outputs=3, transformer=TwoWayTransformer(2, _PROMPT, 8, 2048),
            transformer_dim=_PROMPT, iou_head_depth=3, iou_head_hidden_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375],
    )  # fmt: skip
