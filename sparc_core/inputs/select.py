"""Which pixels and which CAD points are looked at (Multi-SPARC section 3.2)."""

from __future__ import annotations

import torch

from sparc_core.cad.tensors import CadPoints
from sparc_core.perception.samples import Frame

BOX_GROWTH = 0.10  # the box is extended by 10 % of its size in all


def grown_boxes(frame: Frame) -> torch.Tensor:
    """(B, N, 4) detected boxes extended by 10 % and cut at the image border."""
    low, high = frame.boxes_xyxy[..., :2], frame.boxes_xyxy[..., 2:]
    margin = (high - low) * BOX_GROWTH / 2
    limit = frame.size_px[:, None] - 1
    low = torch.minimum((low - margin).clamp(min=0), limit)
    high = torch.minimum((high + margin).clamp(min=0), limit)
    return torch.cat((low, torch.maximum(high, low)), -1)


def select_box_pixels(frame: Frame, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` pixels drawn uniformly in every grown box: (B, N, count, 2), at integer pixel centres."""
    boxes = grown_boxes(frame)[:, :, None]
    shape = (*frame.boxes_xyxy.shape[:2], count, 2)
    draw = torch.rand(shape, generator=generator, device=generator.device).to(boxes.device)
    return (boxes[..., :2] + draw * (boxes[..., 2:] - boxes[..., :2])).round()


def select_cad_points(
    library: CadPoints, model: torch.Tensor, count: int, generator: torch.Generator
) -> CadPoints:
    """Random surface points (B, N, count) of every object's CAD model.

    library: (M, P) points of all models. model: (B, N) indices. A random window of the stored
    points is read: they are in random order, so any window is a uniform sample of the surface.
    """
    total = library.points.shape[1]
    if count > total:
        raise ValueError(f"n_cad is {count}, but the library stores {total} points a model")
    first = torch.randint(0, total, model.shape, generator=generator, device=generator.device).to(
        model.device
    )
    index = (first[..., None] + torch.arange(count, device=model.device)) % total
    chosen = model[..., None].expand_as(index)
    return library[chosen, index]
