"""All starts, all candidates and all blocks of objects as rows of one batch, and back again.

An object that is tracked has one row, its given pose; any other has one for each candidate and start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose, where
from sparc_core.perception.observe import ImageSource
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.refine.initial import (
    GIVEN_START,
    START_AZIMUTHS_DEG,
    estimated_translation,
    start_rotations,
    start_translation,
)
from sparc_core.types import SCALE_MODES, StartPose


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

    block_frame: Frame of the K blocks; detection (K, N) which of the kept detections, −1 padded; start (R,)
    indices into START_NAMES; model (R, N) CAD model positions; likeness (R, N) added to σ's logit when rows
    are compared; scale_mode (R, N) indices into SCALE_MODES; extents_m (R, N, 3) expected extents, which the
    search starts from; given (K, N) start poses of rows whose start is GIVEN_START; valid (R, N).
    from_estimates: whether starts are where `BoxEstimate`s are, which a network with hints knows how far to
    believe.
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
    given: Pose
    valid: torch.Tensor
    from_estimates: bool = False

    def rows(self, rows: torch.Tensor, block_samples: PixelSamples) -> SearchRows:
        """Frame, source, models and start poses of the given rows; block_samples: (K, N, n_bbox)."""
        part = self.blocks(self.block[rows], self.valid[rows], block_samples)
        extents, start, scale_mode = self.extents_m[rows], self.start[rows], self.scale_mode[rows]
        R = start_rotations(part.frame, extents.shape[1])[
            start.clamp(max=GIVEN_START - 1), torch.arange(len(rows), device=rows.device)
        ]
        T = start_translation(part.frame, part.box_samples, extents)
        if self.from_estimates:
            T = estimated_translation(part.frame, T)
        pose = Pose(R, T, extents)
        is_given = (start == GIVEN_START)[:, None].expand_as(scale_mode)
        given = self.given.map(lambda x: x[self.block[rows]])
        fixed = (scale_mode == SCALE_MODES.index("fixed"))[..., None]
        given = replace(given, S=torch.where(fixed, extents, given.S))
        return SearchRows(
            part.frame, part.source, part.box_samples, self.model[rows], scale_mode,
            where(is_given, given, pose),
        )  # fmt: skip

    def blocks(self, block: torch.Tensor, valid: torch.Tensor, block_samples: PixelSamples) -> BlockRows:
        """Rows that look at the given blocks (R',); valid (R', N); block_samples: (K, N, n_bbox)."""
        frame = replace(_take(self.block_frame, block), object_valid=valid)
        detection = self.detection[block].clamp(min=0)
        return BlockRows(frame, self.source.for_rows(detection), _take(block_samples, block))


def build_search(
    prepared,
    cad: CadTensors,
    n_mul: int,
    config,
    library: CadLibrary,
    starts: Sequence[StartPose | None] = (),
    from_estimates: bool = False,
) -> SearchBatch:
    """Lay out the rows. prepared: a `PreparedImage`; config: an `AlignerConfig`; n_mul: objects a block;
    starts: of every kept detection the pose it is given, None for a search; empty: a search for all.
    from_estimates: as in `SearchBatch`.

    A block has as many candidate rows as its object with the most candidates; objects with fewer sit
    out the others. Objects that are only refined come in blocks of their own, of one row each. Raises
    ValueError for a start with a model that the library does not have.
    """
    device = cad.points.device
    count = len(prepared.candidates)
    starts = tuple(starts) or (None,) * count
    detection = _blocks([start is None or start.search for start in starts], min(n_mul, count))
    given_model = [None if s is None else library.index_of(s.model_id) for s in starts]
    rows = [row for b, members in enumerate(detection.tolist())
            for row in _block_rows(b, members, prepared, starts, given_model)]  # fmt: skip
    layout = torch.tensor([row[:3] for row in rows], device=device)
    model, likeness, valid = (
        torch.tensor(column, device=device) for column in list(zip(*rows, strict=True))[3:]
    )
    detection = detection.to(device)
    scale_mode = _scale_modes(library, config).to(device)[model]
    extents = cad.extents_m[model]
    if config.initial_scale == "category":
        fixed = (scale_mode == SCALE_MODES.index("fixed"))[..., None]
        extents = torch.where(fixed, extents, _category_extents(library, model).to(device))
    return SearchBatch(
        prepared.frame(detection), ImageSource(prepared.channels, detection.clamp(min=0)), detection,
        layout[:, 0], layout[:, 1], layout[:, 2], model, config.retrieval_weight * likeness, scale_mode,
        extents, _given_poses(starts, detection), valid, from_estimates,
    )  # fmt: skip


def _blocks(searched: list[bool], size: int) -> torch.Tensor:
    """(K, size) numbers of the detections, −1 padded: blocks of those that are only refined, then blocks of
    those that are searched, in their order."""
    blocks = []
    for wanted in (False, True):
        members = [d for d, is_searched in enumerate(searched) if is_searched == wanted]
        members += [-1] * (-len(members) % size)
        blocks += [members[i : i + size] for i in range(0, len(members), size)]
    return torch.tensor(blocks)


def _block_rows(block: int, members: list[int], prepared, starts, given_model) -> list[tuple]:
    """Rows of one block as (block, candidate, start, models, likeness, valid)."""
    rows = []
    if any(d >= 0 and (starts[d] is None or starts[d].search) for d in members):
        none = np.zeros(0, dtype=np.int64)
        models = [prepared.candidates[d] if d >= 0 else none for d in members]
        alike = [prepared.likeness[d] if d >= 0 else none for d in members]
        for c in range(max(len(m) for m in models)):
            model = [int(m[min(c, len(m) - 1)]) if len(m) else 0 for m in models]
            likeness = [float(a[min(c, len(a) - 1)]) if len(a) else 0.0 for a in alike]
            valid = [c < len(m) for m in models]
            rows += [(block, c, s, model, likeness, valid) for s in range(len(START_AZIMUTHS_DEG))]
    if any(d >= 0 and starts[d] is not None for d in members):
        model = [given_model[d] if d >= 0 and starts[d] is not None else 0 for d in members]
        likeness = [_likeness(prepared, d, m) if d >= 0 else 0.0 for d, m in zip(members, model, strict=True)]
        valid = [d >= 0 and starts[d] is not None for d in members]
        rows.append((block, 0, GIVEN_START, model, likeness, valid))
    return rows


def _likeness(prepared, detection: int, model: int) -> float:
    """What a retrieval found for a given model; one that is not among its candidates is as little alike as
    the last of them."""
    candidates, likeness = prepared.candidates[detection], prepared.likeness[detection]
    place = np.flatnonzero(candidates == model)
    if not len(likeness):
        return 0.0
    return float(likeness[place[0]]) if len(place) else float(likeness.min())


def _given_poses(starts: Sequence[StartPose | None], detection: torch.Tensor) -> Pose:
    """(K, N) given poses; where there is none, an upright unit cube one metre away that no row uses."""
    here = [starts[d] if d >= 0 else None for d in detection.flatten().tolist()]
    empty = (np.eye(3), np.array([0.0, 0.0, 1.0]), np.ones(3))
    values = [empty if s is None else (s.R, s.T_m, s.S_m) for s in here]
    R, T, S = (
        torch.from_numpy(np.stack([v[k] for v in values])).float().to(detection.device) for k in range(3)
    )
    return Pose(R, T, S).map(lambda x: x.unflatten(0, detection.shape))


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
    parts = {f.name: getattr(value, f.name) for f in fields(value)}
    return replace(value, **{name: part[index] for name, part in parts.items() if part is not None})
