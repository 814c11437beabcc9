"""A quick look at accuracy during training: the four-rotation search on images not trained on."""

from __future__ import annotations

import torch

from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.refine.initial import start_poses
from sparc_core.refine.loop import refine, score
from sparc_core.refine.model import ModelConfig
from sparc_core.training.batch import TrainingData
from sparc_core.types import CATEGORIES


@torch.no_grad()
def validate(
    network: MultiSparcNet, model: ModelConfig, data: TrainingData, images: int, seed: int = 1
) -> dict:
    """Accuracy of the search on about `images` images, always the same, read at sampled pixels like in
    training. A σ that judges starts chooses by them, and "score_accuracy" then means little.

    Returns shares of the objects: "right" chosen by σ within 20 cm / 20° / 20 %, "10", "5" the stricter
    regimes, "best_start" where any of the four ends right, "start" where any start already is, and
    "score_accuracy" how often σ > 0.5 tells right from wrong; and "class", the mean over the categories of
    what is "right".
    """
    generator = torch.Generator(data.cad.points.device).manual_seed(seed)
    counts: dict[str, float] = {}
    objects, at_once = 0, min(images, 16)
    by_category = torch.zeros(2, len(CATEGORIES))
    data.seek(0)
    for _ in range(max(1, images // at_once)):
        batch = data.batch(at_once, generator)
        starts = start_poses(batch.frame, batch.box_samples, batch.surface.expected_m, model.inputs.hints)
        looked = (network, model.inputs, batch.frame, batch.source, batch.surface)
        runs = []
        for k in range(4):
            start = starts.map(lambda x, k=k: x[k])
            pose = refine(
                *looked, start, batch.box_samples, generator, parametrisation=model.parametrisation,
                scale_mode=batch.scale_mode,
            )  # fmt: skip
            judged = start if model.score_of == "start" else pose
            runs.append((pose, score(*looked, judged, batch.box_samples, generator)))
        valid = batch.frame.object_valid
        objects += int(valid.sum())
        scores = torch.stack([logit for _, logit in runs]).sigmoid()
        poses = Pose(*(torch.stack([getattr(pose, n) for pose, _ in runs]) for n in ("R", "T", "S")))
        order = batch.symmetry_order.expand(4, -1, -1)
        truth = batch.truth.map(lambda x: x.expand(4, *x.shape))
        errors, start_errors = pose_errors(poses, truth, order), pose_errors(starts, truth, order)
        chosen = scores.argmax(0, keepdim=True)
        right = {name: errors.within(limits) for name, limits in THRESHOLDS.items()}
        coarse = right["20cm/20deg/20%"]
        found = {
            "right": coarse.gather(0, chosen)[0],
            "10": right["10/10/10"].gather(0, chosen)[0],
            "5": right["5/5/5"].gather(0, chosen)[0],
            "best_start": coarse.any(0),
            "start": start_errors.within(THRESHOLDS["20cm/20deg/20%"]).any(0),
            "score_accuracy": ((scores > 0.5) == coarse).float().mean(0),
        }
        for row, mask in zip(by_category, (valid, valid & found["right"]), strict=True):
            row += torch.bincount(batch.category[mask], minlength=len(CATEGORIES)).cpu()
        for name, value in found.items():
            counts[name] = counts.get(name, 0.0) + float((value * valid).sum())
    shares = {name: value / max(1, objects) for name, value in counts.items()}
    seen = by_category[0] > 0
    shares["class"] = float((by_category[1] / by_category[0])[seen].mean()) if objects else 0.0
    return {name: round(value, 4) for name, value in shares.items()} | {"objects": objects}
