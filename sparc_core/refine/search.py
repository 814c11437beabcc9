"""The search over one image: every candidate from four rotations, then the best σ; given poses alone.

All rows are refined and scored once; where an object has more than one, its best few are looked at again,
each time with other pixels and CAD points, and the mean of their logits decides. A network whose σ judges
starts (`score_of`) chooses among them before it refines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose, concatenate
from sparc_core.inputs.select import select_box_pixels
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.perception.samples import PixelSamples
from sparc_core.refine.batch import SearchBatch, SearchRows
from sparc_core.refine.initial import START_NAMES
from sparc_core.refine.loop import CadSurface, StageClock, refine, score
from sparc_core.refine.model import ModelConfig
from sparc_core.types import SCALE_MODES


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The winner of one kept detection: pose as numpy float64, σ, CAD model position, start's name, index of
    its scale mode in SCALE_MODES."""

    detection: int
    model: int
    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    score: float
    start: str
    scale_mode: int


class Search:
    """Refines and scores the rows of one `SearchBatch`. config: an `AlignerConfig`; depth_source: of the
    image, as in `PreparedImage`."""

    def __init__(
        self,
        network: MultiSparcNet,
        model: ModelConfig,
        cad: CadTensors,
        batch: SearchBatch,
        config,
        clock: StageClock | None = None,
        depth_source: str = "sensor",
    ):
        self.depth_source = depth_source
        self.network, self.model, self.cad, self.batch, self.config = network, model, cad, batch, config
        self.clock = clock or StageClock(cad.points.device)
        self.generator = torch.Generator(cad.points.device).manual_seed(config.seed)

    def run(self, rows: torch.Tensor | None = None) -> list[SearchResult]:
        """The best pose of every detection, in their order; rows: only these, by default all."""
        every = torch.arange(len(self.batch.block), device=self.batch.block.device)
        rows = every if rows is None else rows
        if self.model.score_of == "start":
            return self._refine_best_starts(rows)
        pose, logit = self._first_look(rows, refining=True)
        finalists = self._finalists(rows, logit + self.batch.likeness[rows], self.config.finalists)
        mean = self._look_again(rows, finalists, pose, logit)
        column = torch.arange(finalists.shape[2], device=rows.device)
        return self._choose(rows, finalists, pose.map(lambda x: x[finalists, column]), mean)

    def _first_look(self, rows, refining: bool) -> tuple[Pose, torch.Tensor]:
        """Poses (R, N) of the rows, refined or as they start, and their first logits (R, N); −inf where a row
        has no candidate."""
        block_samples = self._new_pixels()
        poses, logits = [], []
        for chunk in rows.split(self.config.max_rows):
            part = self.batch.rows(chunk, block_samples)
            surface = self._surface(part.model, self.batch.extents_m[chunk], part.scale_mode)
            pose = self._refine(part, surface, part.start, part.scale_mode) if refining else part.start
            poses.append(pose)
            logits.append(self._score(part, surface, pose))
        valid = self.batch.valid[rows]
        return concatenate(poses), torch.where(valid, torch.cat(logits), -torch.inf)

    def _refine_best_starts(self, rows) -> list[SearchResult]:
        """Refine the one row of every object whose start has the best σ."""
        starts, logit = self._first_look(rows, refining=False)
        best = self._finalists(rows, logit + self.batch.likeness[rows], 1)
        column = torch.arange(best.shape[2], device=rows.device)
        start, chosen = starts.map(lambda x: x[best[:, 0], column]), logit[best[:, 0], column]
        block_samples = self._new_pixels()
        poses = []
        for block in torch.arange(len(best), device=rows.device).split(self.config.max_rows):
            place = best[block, 0]
            extents, model, scale_mode, valid = (
                x[rows][place, column]
                for x in (self.batch.extents_m, self.batch.model, self.batch.scale_mode, self.batch.valid)
            )
            part = self.batch.blocks(block, valid, block_samples)
            surface = self._surface(model, extents, scale_mode)
            poses.append(self._refine(part, surface, start.map(lambda x, b=block: x[b]), scale_mode))
        return self._choose(rows, best, concatenate(poses).map(lambda x: x[:, None]), chosen[:, None])

    def _refine(self, part, surface: CadSurface, start: Pose, scale_mode) -> Pose:
        return refine(
            self.network, self.model.inputs, part.frame, part.source, surface, start, part.box_samples,
            self.generator, parametrisation=self.model.parametrisation, scale_mode=scale_mode,
            refinements=self.config.refinements, clock=self.clock,
        )  # fmt: skip

    def _finalists(self, rows, logit, count: int) -> torch.Tensor:
        """(K, F, N) positions in `rows` of the F = `count` best rows of every object of every block, the best
        first; a block with fewer rows repeats its last."""
        block = self.batch.block[rows]
        kept = []
        for b in range(len(self.batch.detection)):
            members = (block == b).nonzero()[:, 0]
            best = logit[members].topk(min(count, len(members)), dim=0).indices
            kept.append(members[best])
        most = max(len(best) for best in kept)
        return torch.stack([torch.cat((best, best[-1:].expand(most - len(best), -1))) for best in kept])

    def _look_again(self, rows, finalists, pose: Pose, logit) -> torch.Tensor:
        """(K, F, N) mean logits of the finalists over the first look and `second_looks` more. Blocks with a
        single row have nothing to choose from and keep the first look's."""
        column = torch.arange(finalists.shape[2], device=rows.device)
        total = logit[finalists, column]
        rows_of_block = torch.bincount(self.batch.block[rows], minlength=len(finalists))
        open_blocks = (rows_of_block > 1).nonzero()[:, 0]
        if self.config.second_looks == 0 or not len(open_blocks):
            return total
        flat = finalists[open_blocks].flatten(0, 1)
        block = open_blocks.repeat_interleave(finalists.shape[1])
        again = pose.map(lambda x: x[flat, column])
        expected = self.batch.extents_m[rows][flat, column]
        model, scale_mode = (x[rows][flat, column] for x in (self.batch.model, self.batch.scale_mode))
        surface = self._surface(model, expected, scale_mode)
        valid = self.batch.valid[rows][flat, column]
        for _ in range(self.config.second_looks):
            part = self.batch.blocks(block, valid, self._new_pixels())
            total[open_blocks] += self._score(part, surface, again).view(total[open_blocks].shape)
        total[open_blocks] /= 1 + self.config.second_looks
        return total

    def _choose(self, rows, finalists, pose: Pose, mean) -> list[SearchResult]:
        """The best finalist of every object; pose (K, F, N)."""
        results = []
        column = torch.arange(finalists.shape[2], device=rows.device)
        winner = (mean + self.batch.likeness[rows][finalists, column]).argmax(1)
        for b, detections in enumerate(self.batch.detection.tolist()):
            for n, detection in enumerate(detections):
                if detection < 0:
                    continue
                place = int(finalists[b, winner[b, n], n])
                row = int(rows[place])
                R, T, S = (
                    getattr(pose, name)[b, winner[b, n], n].double().cpu().numpy() for name in ("R", "T", "S")
                )
                start = START_NAMES[int(self.batch.start[row])]
                model = int(self.batch.model[row, n])
                mode = int(self.batch.scale_mode[row, n])
                slope, offset = self.model.calibration.of(self.depth_source, SCALE_MODES[mode])
                sigma = float((slope * mean[b, winner[b, n], n] + offset).sigmoid())
                results.append(SearchResult(detection, model, R, T, S, sigma, start, mode))
        return results

    def _new_pixels(self) -> PixelSamples:
        """Pixels of every block's boxes, newly drawn and read: (K, N, n_bbox)."""
        pixels = select_box_pixels(self.batch.block_frame, self.model.inputs.n_bbox, self.generator)
        return self.clock.measure("assemble", self.batch.source.sample, pixels)

    def _surface(self, model, expected_m, scale_mode) -> CadSurface:
        known = scale_mode == SCALE_MODES.index("fixed")
        return CadSurface(self.cad.surface, model, expected_m, known)

    def _score(self, part: SearchRows, surface: CadSurface, pose: Pose) -> torch.Tensor:
        return score(
            self.network, self.model.inputs, part.frame, part.source, surface, pose, part.box_samples,
            self.generator, self.clock,
        )  # fmt: skip
