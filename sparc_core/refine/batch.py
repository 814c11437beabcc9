"""All starts, all candidates and all blocks of objects as rows of one batch, and back again."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.perception.observe import ImageSource
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.refine.initial import START_AZIMUTHS_DEG, start_rotations, start_translation
from sparc_core.types import SCALE_MODES


@dataclass(frozen=True, eq=False)
class BlockRows:
    """What scoring needs for some rows: who looks where."""

    frame: Frame
    source: ImageSource
    box_samples: PixelSamples


@dataclass(frozen=True, eq=False)
class SearchRows(BlockRows):
    """What refining needs beside that for rows of the search."""

    model: torch.Tensor
    scale_mode: torch.Tensor
    start: Pose


@dataclass(frozen=True, eq=False)
class SearchBatch:
    """The search over one image. Detections are cut into K blocks of N objects; row r stands for block
    `block[r]`, candidate number `candidate[r]` of each of its objects and start `start[r]`.

    block_frame: Frame of the K blocks; detection (K, N) which of the kept detections, −1 padded; model
    (R, N) CAD model positions; likeness (R, N) added to σ's logit when rows are compared; scale_mode (R, N)
    indices into SCALE_MODES; extents_m (R, N, 3) start extents; valid (R, N).
    """

    block_frame: Frame
    source: ImageSource
    detection: torch.Tensor
    block: torch.Tensor
    candidate: torch.Tensor
    start: torch.Tensor
    model: torch.Tensor
    likeness: torch.Tensor
    scale_mode: torch.Tensor
    extents_m: torch.Tensor
    valid: torch.Tensor

    def rows(self, rows: torch.Tensor, block_samples: PixelSamples) -> SearchRows:
        """Frame, source, models and start poses of the given rows; block_samples: (K, N, n_bbox)."""
        part = self.blocks(self.block[rows], self.valid[rows], block_samples)
        extents = self.extents_m[rows]
        R = start_rotations(part.frame, extents.shape[1])[
            self.start[rows], torch.arange(len(rows), device=rows.device)
        ]
        pose = Pose(R, start_translation(part.frame, part.box_samples, extents), extents)
        return SearchRows(
            part.frame, part.source, part.box_samples, self.model[rows], self.scale_mode[rows], pose
        )

    def blocks(self, block: torch.Tensor, valid: torch.Tensor, block_samples: PixelSamples) -> BlockRows:
        """Rows that look at the given blocks (R',); valid (R', N); block_samples: (K, N, n_bbox)."""
        frame = replace(_take(self.block_frame, block), object_valid=valid)
        detection = self.detection[block].clamp(min=0)
        return BlockRows(frame, self.source.for_rows(detection), _take(block_samples, block))


def build_search(prepared, cad: CadTensors, n_mul: int, config, library: CadLibrary) -> SearchBatch:
    """Lay out the rows. prepared: a `PreparedImage`; config: an `AlignerConfig`; n_mul: objects a block.

    A block has as many candidate rows as its object with the most candidates; objects with fewer sit
    out the others.
    """
    device = cad.points.device
    count = len(prepared.candidates)
    size = min(n_mul, count)
    blocks = -(-count // size)
    detection = torch.full((blocks * size,), -1, dtype=torch.long)
    detection[:count] = torch.arange(count)
    detection = detection.view(blocks, size)
    layout, model, likeness, valid = [], [], [], []
    for b in range(blocks):
        members, alike = (
            [per_object[d] if d >= 0 else np.zeros(0, dtype=np.int64) for d in detection[b].tolist()]
            for per_object in (prepared.candidates, prepared.likeness)
        )
        for c in range(max(len(m) for m in members)):
            for s in range(len(START_AZIMUTHS_DEG)):
                layout.append((b, c, s))
                model.append([int(m[min(c, len(m) - 1)]) if len(m) else 0 for m in members])
                likeness.append([float(a[min(c, len(a) - 1)]) if len(a) else 0.0 for a in alike])
                valid.append([c < len(m) for m in members])
    layout, model = torch.tensor(layout, device=device), torch.tensor(model, device=device)
    detection = detection.to(device)
    scale_mode = _scale_modes(library, config).to(device)[model]
    extents = cad.extents_m[model]
    if config.initial_scale == "category":
        fixed = (scale_mode == SCALE_MODES.index("fixed"))[..., None]
        extents = torch.where(fixed, extents, _category_extents(library, model).to(device))
    return SearchBatch(
        prepared.frame(detection), ImageSource(prepared.channels, detection.clamp(min=0)), detection,
        layout[:, 0], layout[:, 1], layout[:, 2], model,
        config.retrieval_weight * torch.tensor(likeness, device=device), scale_mode, extents,
        torch.tensor(valid, device=device),
    )  # fmt: skip


def _scale_modes(library: CadLibrary, config) -> torch.Tensor:
    """(M,) the scale mode of every CAD model, as an index into SCALE_MODES."""
    modes = dict(config.scale_modes)
    names = [
        modes.get(model.model_id, modes.get(model.category, config.scale_mode)) for model in library.models
    ]
    return torch.tensor([SCALE_MODES.index(name) for name in names])


def _category_extents(library: CadLibrary, model: torch.Tensor) -> torch.Tensor:
    medians = {m.category: library.median_extents_m(m.category) for m in library.models}
    rows = [[medians[library.models[i].category] for i in row] for row in model.tolist()]
    return torch.tensor(np.array(rows), dtype=torch.float32)


def _take(value, index: torch.Tensor):
    """A dataclass of batched tensors, indexed along the batch."""
    return replace(value, **{f.name: getattr(value, f.name)[index] for f in fields(value)})
