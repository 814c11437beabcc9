"""Metric depth by models of Hugging Face's transformers (Depth Anything V2 metric and its like), with normals
from it."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from sparc_core.geometry.camera import intrinsics_tensor
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.interfaces import DepthPrediction
from sparc_core.perception.normals import normals_from_depth
from sparc_core.types import Camera


class HuggingFaceDepth:
    """A `DepthNormals` from a model that predicts metres."""

    def __init__(self, model, processor, device="cpu"):
        kind = getattr(model.config, "depth_estimation_type", "metric")
        if kind != "metric":
            raise ValueError(f"the depth model predicts {kind} depth; a metric one is needed")
        self.network, self.processor = MovableNetwork(model, device, type(model).__name__), processor

    @classmethod
    def load(cls, name: str, device="cpu", *, download: bool = False) -> HuggingFaceDepth:
        """name: a local folder, or a model's name on the Hub, which is only fetched where `download` allows
        it. Raises ValueError naming it when it is not there, or its depth is only relative."""
        try:
            model = AutoModelForDepthEstimation.from_pretrained(name, local_files_only=not download)
            processor = AutoImageProcessor.from_pretrained(name, local_files_only=not download)
            return cls(model, processor, device)
        except (OSError, ValueError, KeyError) as error:
            hint = "" if download else " (nothing is downloaded unless it is allowed)"
            raise ValueError(f"model {name}: cannot be loaded{hint}: {str(error).splitlines()[0]}") from error

    def predict(self, image_rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        """See `DepthNormals`."""

        def depth_of(model, device) -> np.ndarray:
            inputs = self.processor(images=image_rgb, return_tensors="pt").to(device)
            found = self.processor.post_process_depth_estimation(
                model(**inputs), target_sizes=[image_rgb.shape[:2]]
            )[0]
            return found["predicted_depth"].float().cpu().numpy()

        depth = np.nan_to_num(self.network.run(depth_of), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
        normals, _ = normals_from_depth(torch.from_numpy(depth)[None], intrinsics_tensor(camera)[None])
        return DepthPrediction(depth, normals[0].numpy())
