"""Training batches from recorded frames with annotated poses: what fine-tuning on ScanNet25k draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.symmetry import SYMMETRY_ORDERS
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.camera import intrinsics_tensor
from sparc_core.geometry.pose import Pose
from sparc_core.inputs.assemble import InputConfig
from sparc_core.inputs.select import select_box_pixels
from sparc_core.perception.samples import Frame
from sparc_core.refine.loop import CadSurface
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.training.batch import TrainingBatch
from sparc_core.training.frame_order import FrameOrder, FramesAhead
from sparc_core.training.frame_source import FrameSource
from sparc_core.training.frame_store import NORMAL_STEPS, FrameChannels, FrameStore
from sparc_core.training.frame_targets import TrainingFrame
from sparc_core.training.model_draws import ModelDraws, category_ranges
from sparc_core.types import CATEGORIES, ESTIMATE_S, ESTIMATE_T

UP_NOISE = 0.02  # of a known up direction, as in synthetic scenes
HEIGHT_NOISE = 0.02  # standard deviation of the logarithm of a known camera height
_OWN, _CUT, _MISSING = range(3)


@dataclass(frozen=True)
class FrameDataConfig:
    """depth: "sensor", "none", or a depth network as in `PerceptionConfig` ("shipped", a file, "hf:NAME").
    estimates: which box network is asked where one of ours predicts the depth ("shipped", a file, "").
    detections: N, objects looked at per image. min_visible: share of an object's pixels at which the sensor
    sees it, for it to be trained on. box_jitter: of true boxes, as a share of their size: the most, with
    another limit up to it for every box. masks_own, masks_cut, masks_missing: shares of masks as annotated or
    detected, cut from the depth, and withheld. normals_missing: share of images without normals,
    estimates_missing: of images without `Detection.estimate`. known_gravity: share of images whose up
    direction is known, known_height: of those the share whose camera's height above the floor is known too,
    where the frames tell it. similar_model, unknown_extents, known_extents: as in `DataConfig`. threads: that
    read frames ahead.

    Raises ValueError naming the field out of range.
    """

    depth: str = "sensor"
    estimates: str = "shipped"
    detections: int = 5
    min_visible: float = 0.5
    box_jitter: float = 0.09
    masks_own: float = 0.35
    masks_cut: float = 0.40
    masks_missing: float = 0.25
    normals_missing: float = 0.05
    estimates_missing: float = 0.1
    known_gravity: float = 0.5
    known_height: float = 0.3
    similar_model: float = 0.2
    unknown_extents: float = 0.5
    known_extents: float = 0.1
    threads: int = 4

    def __post_init__(self):
        for name in ("detections", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"data {name} must be at least 1, got {getattr(self, name)}")
        for name in (
            "min_visible", "box_jitter", "masks_own", "masks_cut", "masks_missing", "normals_missing",
            "estimates_missing", "known_gravity", "known_height", "similar_model", "unknown_extents",
            "known_extents",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data {name} must be in [0, 1], got {getattr(self, name)}")
        total = self.masks_own + self.masks_cut + self.masks_missing
        if abs(total - 1) > 1e-6:
            raise ValueError(f"data masks_own, masks_cut and masks_missing must add up to 1, got {total:.4f}")


class FrameData:
    """Draws training batches from recorded frames on one device.

    jitter: whether boxes are moved, which a detector's need not be. Raises ValueError for no frames, or a
    target whose CAD model is not in the library.
    """

    def __init__(
        self,
        frames: Sequence[TrainingFrame],
        library: CadLibrary,
        store: FrameStore,
        config: FrameDataConfig,
        inputs: InputConfig,
        device: str = "cpu",
        *,
        order: FrameOrder | None = None,
        jitter: bool = True,
    ):
        if not frames:
            raise ValueError("no frame shows an object to train on")
        self.config, self.inputs, self.device = config, inputs, device
        self.moves_boxes = jitter and store.views is None  # what was looked at stays where it was
        self.cad = CadTensors.from_library(library, device)
        self.draws = ModelDraws(self.cad, config.similar_model, config.unknown_extents, config.known_extents)
        self.table = TargetTable(frames, library, device)
        self._frames = FramesAhead(
            lambda number: store.load(frames[number]), order or FrameOrder(len(frames), 0), config.threads
        )

    def seek(self, images: int) -> None:
        """Go on as if so many images had been given so far."""
        self._frames.seek(images)

    def batch(self, images: int, generator: torch.Generator) -> TrainingBatch:
        """The next `images` frames; the generator lives on the device."""
        numbers, channels = self._frames.take(images)
        table, number = self.table, torch.tensor(numbers, device=self.device)
        chosen = self._chosen(number, generator)
        valid, target = chosen >= 0, table.first[number][:, None] + chosen.clamp(min=0)
        truth = table.pose.map(lambda x: x[target])
        category = table.category[target]
        model = self.draws.similar(table.model[target], category, generator)
        expected, known = self.draws.expected_extents(model, category, truth.S, generator)
        has_up, told = self._known(number, generator)
        views = self._views(channels, generator)
        boxes, estimate = self._boxes(channels, views, chosen, told, self.table.size_px[number], generator)
        frame = self._frame(number, boxes, valid, has_up, generator)
        frame = replace(frame, estimate=estimate, above_floor_m=table.above_floor_m[number] * told)
        factor = self._depth_factor(channels, views, has_up, told)
        source = self._source(channels, chosen.cpu(), factor, generator)
        box_pixels = select_box_pixels(frame, self.inputs.n_bbox, generator)
        return TrainingBatch(
            frame, source, CadSurface(self.cad.surface, model, expected, known), truth,
            table.symmetry_order[target], category, source.sample(box_pixels),
            table.scale_low_m[category], table.scale_high_m[category],
        )  # fmt: skip

    def _chosen(self, number: torch.Tensor, generator) -> torch.Tensor:
        """(B, N) which of its frame's targets each slot holds, in random order, −1 padded."""
        slots = torch.arange(self.table.most, device=self.device)
        there = slots < self.table.count[number][:, None]
        draw = torch.rand(there.shape, generator=generator, device=self.device) + (~there).float()
        order = draw.argsort(1)[:, : self.config.detections]
        order = torch.where(there.gather(1, order), order, -1)
        return F.pad(order, (0, self.config.detections - order.shape[1]), value=-1)

    def _known(self, number: torch.Tensor, generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) bool whether gravity is told of frames, and (B,) what their camera's height is multiplied by
        before it is told: near 1, or 0 where it is not."""
        draw, of_these = torch.rand(2, len(number), generator=generator, device=self.device)
        noise = HEIGHT_NOISE * torch.randn(len(number), generator=generator, device=self.device)
        has_up = draw < self.config.known_gravity
        told = has_up & (of_these < self.config.known_height) & (self.table.above_floor_m[number] > 0)
        return has_up, noise.exp() * told

    def _frame(self, number, boxes, valid, has_up, generator) -> Frame:
        table = self.table
        up = table.up_cam[number]
        noise = UP_NOISE * torch.randn(up.shape, generator=generator, device=self.device)
        return Frame(
            table.intrinsics[number], table.size_px[number],
            torch.where(valid[..., None], boxes, boxes.new_tensor([0.0, 0.0, 1.0, 1.0])), valid,
            F.normalize(up + noise, dim=-1), has_up,
        )  # fmt: skip

    def _views(self, channels: Sequence[FrameChannels], generator) -> list[int]:
        """Of each frame's boxes, which of the ways in which they are moved."""
        draw = torch.rand(len(channels), generator=generator, device=self.device).tolist()
        return [int(share * len(c.boxes_xyxy)) for share, c in zip(draw, channels, strict=True)]

    def _depth_factor(self, channels: Sequence[FrameChannels], views, has_up, told) -> torch.Tensor:
        """(B,) what predicted depth is multiplied by, see `FrameChannels`."""
        factor = np.stack([c.depth_factor[:, view] for c, view in zip(channels, views, strict=True)])
        unknown, known = torch.from_numpy(factor).to(self.device).unbind(-1)
        return torch.where(told > 0, known * told, torch.where(has_up, unknown, 1.0))

    def _boxes(
        self,
        channels: Sequence[FrameChannels],
        views: list[int],
        chosen: torch.Tensor,
        told,
        size_px,
        generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (B, N, 4) of the chosen targets (B, N) of frames of size_px (B, 2), moved, and what was
        predicted of what is in them (B, N, `ESTIMATE_NUMBERS`), standing on the floor where the camera's
        height is told (B,)."""
        rows = list(zip(views, chosen.clamp(min=0).cpu().numpy(), strict=True))

        def stacked(name: str) -> torch.Tensor:
            found = [getattr(c, name)[view][row] for c, (view, row) in zip(channels, rows, strict=True)]
            return torch.from_numpy(np.stack(found)).to(self.device)

        boxes = stacked("boxes_xyxy")
        if self.moves_boxes:
            draw = torch.rand(*chosen.shape, 1, generator=generator, device=self.device)
            boxes = jitter_boxes(boxes, size_px, self.config.box_jitter * draw, generator)
        estimate, factor = stacked("estimate"), stacked("estimate_factor") * told[:, None]
        factor = torch.where(factor > 0, factor, 1.0)[..., None]
        for metric in (ESTIMATE_T, ESTIMATE_S):
            estimate[..., metric] *= factor
        given = torch.rand(len(channels), generator=generator, device=self.device)
        given = (given >= self.config.estimates_missing)[:, None] & (chosen >= 0)
        return boxes, estimate * given[..., None]

    def _source(
        self, channels: Sequence[FrameChannels], chosen: torch.Tensor, factor: torch.Tensor, generator
    ) -> FrameSource:
        """The frames' pixels on the device, depth times factor (B,); chosen (B, N) on the CPU."""
        config = self.config
        shares = torch.tensor([config.masks_own, config.masks_cut, config.masks_missing], device=self.device)
        draws = torch.multinomial(shares, chosen.numel(), replacement=True, generator=generator)
        modes = draws.view(chosen.shape).tolist()
        masks = np.zeros((*chosen.shape, *channels[0].depth_m.shape), dtype=bool)
        has_mask = np.zeros(chosen.shape, dtype=bool)
        for b, (frame, row) in enumerate(zip(channels, chosen.tolist(), strict=True)):
            for n, t in enumerate(row):
                mode = _MISSING if t < 0 or (modes[b][n] == _CUT and not frame.has_cut[t]) else modes[b][n]
                has_mask[b, n] = mode != _MISSING
                if has_mask[b, n]:
                    masks[b, n] = frame.masks[t] if mode == _OWN else frame.cut_masks[t]
        rgb, depth, normals, hints = (
            torch.from_numpy(np.stack([getattr(c, name) for c in channels])).to(self.device)
            for name in ("rgb", "depth_m", "normals_cam", "hints")
        )
        depth = depth * factor[:, None, None]
        draw = torch.rand(len(rgb), generator=generator, device=self.device)
        kept = (draw >= config.normals_missing)[:, None, None, None]
        # zero stays zero: a normal that is not known
        normals = F.normalize(normals.float() / NORMAL_STEPS, dim=-1) * kept
        return FrameSource(
            rgb.float() / 255, depth, normals, hints.float() / NORMAL_STEPS,
            torch.from_numpy(masks).to(self.device), torch.from_numpy(has_mask).to(self.device),
        )  # fmt: skip


class TargetTable:
    """Cameras of all frames and truths of all their targets, as tensors on the device.

    Of frames (F,): first target, count of targets, intrinsics (F, 4), size_px (F, 2), up_cam (F, 3),
    above_floor_m, 0 unknown. Of targets (T,): pose, category, model (position in the library),
    symmetry_order. Of categories (C, 3): the range of the true extents.
    """

    def __init__(self, frames: Sequence[TrainingFrame], library: CadLibrary, device: str):
        targets = [target for frame in frames for target in frame.targets]
        counts = [len(frame.targets) for frame in frames]
        self.count = torch.tensor(counts, device=device)
        self.first, self.most = self.count.cumsum(0) - self.count, max(counts)
        cameras = [frame.camera for frame in frames]
        self.intrinsics = torch.stack([intrinsics_tensor(camera) for camera in cameras]).to(device)
        self.size_px = _floats([(camera.width, camera.height) for camera in cameras], device)
        self.up_cam = _floats([frame.up_cam for frame in frames], device)
        self.above_floor_m = _floats([frame.above_floor_m or 0.0 for frame in frames], device)
        self.pose = Pose(*(_floats([getattr(t.pose, n) for t in targets], device) for n in ("R", "t", "s")))
        self.category = torch.tensor([CATEGORIES.index(t.category) for t in targets], device=device)
        self.model = torch.tensor([library.index_of("_".join(t.cad)) for t in targets], device=device)
        self.symmetry_order = torch.tensor([SYMMETRY_ORDERS[t.symmetry] for t in targets], device=device)
        extents = [self.pose.S[self.category == c] for c in range(len(CATEGORIES))]
        self.scale_low_m, _, self.scale_high_m = category_ranges(extents)


def _floats(rows, device) -> torch.Tensor:
    return torch.from_numpy(np.array(rows, dtype=np.float32)).to(device)
