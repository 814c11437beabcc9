"""The channels of prepared frames: images are decoded, what takes long to compute is kept in files.

Normals, predicted depth and masks cut from the depth take a good part of a second a frame, and each frame is
read hundreds of times. They are computed when a frame is read first and kept, one file a frame.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sparc_core.datasets.prepared import PreparedFrame, PreparedScannet
from sparc_core.datasets.scannet import MM_PER_M
from sparc_core.geometry.camera import intrinsics_tensor
from sparc_core.geometry.floor import (
    FLOATING,
    floor_factor,
    level_below_m,
    standing_factors,
    told_height_m,
)
from sparc_core.perception.interfaces import Estimates
from sparc_core.perception.masks import depth_masks
from sparc_core.perception.normals import normals_from_depth
from sparc_core.perception.prepare import packed_estimates
from sparc_core.perception.see import Perception, Seen
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.training.frame_targets import TrainingFrame
from sparc_core.types import ESTIMATE_NUMBERS, ESTIMATE_S, ESTIMATE_T, HINT_CHANNELS, Camera, Detection

MOVES = 4  # ways in which boxes are moved
DEPTH_VERSION, VIEWS_VERSION = 4, 2  # of what the same weights tell: files of before are not read
NORMAL_STEPS = 127  # of a component, kept in a byte: less than half a degree


@dataclass(frozen=True, eq=False)
class FrameChannels:
    """rgb (H, W, 3) uint8; depth_m (H, W) float32, 0 unknown; normals_cam (H, W, 3) and hints (H, W, 2,
    `PixelHints`) int8, in `NORMAL_STEPS`, zero unknown; masks, cut_masks (T, H, W) bool of the targets: as
    annotated or detected, and cut from the depth; has_cut (T,) bool; boxes_xyxy (V, T, 4) float32 of the
    targets, moved in V ways, and estimate (V, T, `ESTIMATE_NUMBERS`) float32 of what is in each of these
    boxes, 0 unknown. What depth and estimates are multiplied by, to agree about the floor
    (`geometry/floor.py`): depth_factor (2, V), first where gravity is known and the camera's height is not,
    then where both are; estimate_factor (V, T) where both are, of distances and extents."""

    rgb: np.ndarray
    depth_m: np.ndarray
    normals_cam: np.ndarray
    hints: np.ndarray
    masks: np.ndarray
    cut_masks: np.ndarray
    has_cut: np.ndarray
    boxes_xyxy: np.ndarray
    estimate: np.ndarray
    depth_factor: np.ndarray
    estimate_factor: np.ndarray


@dataclass(frozen=True, eq=False)
class BoxViews:
    """What is to be predicted of the targets' boxes. predictor: by what; identity: its name, another one for
    other weights. jitter: by how much the boxes are moved before, as `jitter_boxes` does with another limit
    up to it for every box, in `MOVES` ways: what is made of an object depends on where its box is. 0: the
    boxes as they are."""

    predictor: Estimates
    identity: str
    jitter: float


class FrameStore:
    """Reads the channels of training frames; may be used by several threads and processes at once.

    depth: "sensor", "none", or "predicted", by `perception`'s depth network. folder: where computed channels
    are kept. settings: what they depend on beside the dataset; another one has files of its own. sizes_m:
    diagonal of each category's objects, for cutting masks. views: what is predicted of the boxes, kept in
    files of its own.

    Raises ValueError for a sensor's depth that was not prepared.
    """

    def __init__(
        self,
        dataset: PreparedScannet,
        depth: str,
        folder: Path,
        settings: dict,
        sizes_m: Mapping[str, float],
        perception: Perception | None = None,
        views: BoxViews | None = None,
    ):
        if depth == "sensor" and not dataset.has_depth:
            raise ValueError(f"depth is 'sensor', but {dataset.folder} was prepared without depth images")
        self.dataset, self.depth, self.sizes_m, self.views = dataset, depth, sizes_m, views
        self.perception = None if perception is None else Perception(depth=perception.depth)
        told = {"sizes_m": dict(sizes_m), "version": DEPTH_VERSION}
        self.folder = folder / f"{depth}-{_digest(settings | told)}"
        if views is not None:
            told = {"estimates": views.identity, "jitter": views.jitter, "moves": MOVES}
            told["version"] = VIEWS_VERSION
            self.views_folder = folder / f"boxes-{_digest(settings | told)}"
        self._one_at_a_time = threading.Lock()  # a network on one device gains nothing from several threads

    def load(self, frame: TrainingFrame) -> FrameChannels:
        """The channels of a frame. Raises OSError or ValueError naming a file that cannot be read."""
        read = PreparedFrame(frame.scene, frame.name, frame.camera, np.eye(4), ())
        rgb = self.dataset.image(read)
        sensor = self.dataset.depth_m(read) if self.depth == "sensor" else None
        kept = _kept(self.folder, frame, lambda: self._compute(frame, rgb, sensor))
        boxes, estimate = self._boxes(frame, rgb)
        size = rgb.shape[:2]
        cut = np.unpackbits(kept["cut"], axis=-1, count=size[0] * size[1]).reshape(-1, *size).astype(bool)
        depth = sensor if sensor is not None else kept["depth_mm"].astype(np.float32) / np.float32(MM_PER_M)
        masks = np.stack([target.mask for target in frame.targets])
        return FrameChannels(
            rgb, depth, kept["normals"], kept["hints"], masks, cut, kept["has_cut"], boxes, estimate,
            *self._floor_factors(frame, depth, kept["normals"], estimate),
        )  # fmt: skip

    def _floor_factors(self, frame: TrainingFrame, depth, normals, estimate) -> tuple[np.ndarray, np.ndarray]:
        """See `FrameChannels.depth_factor`; 1 where nothing is to be multiplied."""
        of_depth, of_estimates = (
            np.ones((2, len(estimate)), np.float32),
            np.ones(estimate.shape[:2], np.float32),
        )
        camera, above, below = _camera(frame), frame.above_floor_m, None
        if self.depth == "predicted":
            below = level_below_m(depth, normals / np.float32(NORMAL_STEPS), camera)
        stands = np.array([target.category not in FLOATING for target in frame.targets])
        for v, view in enumerate(estimate):
            known = view.any(-1)
            objects = view[known][:, ESTIMATE_T], view[known][:, ESTIMATE_S.start + 1], stands[known]
            of_depth[0, v] = floor_factor(below, None, told_height_m(*objects, camera)) or 1.0
            if above is not None:
                of_depth[1, v] = floor_factor(below, above, None) or 1.0
                of_estimates[v, known] = standing_factors(*objects, replace(camera, above_floor_m=above))
        return of_depth, of_estimates

    def _compute(self, frame: TrainingFrame, rgb, sensor) -> dict[str, np.ndarray]:
        seen = self._see(frame, rgb, sensor)
        depth = seen.depth_m
        none = np.zeros((*depth.shape, HINT_CHANNELS), np.float32)
        hints = none if seen.hints is None else seen.hints.stacked()
        cut, has_cut = (
            np.zeros((len(frame.targets), *rgb.shape[:2]), bool),
            np.zeros(len(frame.targets), bool),
        )
        if depth.any():
            limit = np.tile((rgb.shape[1] - 1, rgb.shape[0] - 1), 2)
            boxes = np.clip([target.box_xyxy for target in frame.targets], 0, limit)
            found = depth_masks(
                depth, frame.camera, boxes, [self.sizes_m[target.category] for target in frame.targets],
                on_object=None if seen.hints is None else seen.hints.object_share > 0.5,
            )  # fmt: skip
            for i, mask in enumerate(found):
                if mask is not None:
                    cut[i], has_cut[i] = mask, True
        return {
            "depth_mm": np.zeros((0, 0), np.uint16) if sensor is not None else _in_mm(depth),
            "normals": _in_steps(seen.normals_cam),
            "hints": _in_steps(hints),
            "cut": np.packbits(cut.reshape(len(cut), -1), axis=-1),
            "has_cut": has_cut,
        }

    def _boxes(self, frame: TrainingFrame, rgb) -> tuple[np.ndarray, np.ndarray]:
        """See `FrameChannels.boxes_xyxy` and `estimate`."""
        if self.views is None:
            exact = np.array([[target.box_xyxy for target in frame.targets]], dtype=np.float32)
            return exact, np.zeros((*exact.shape[:2], ESTIMATE_NUMBERS), np.float32)
        kept = _kept(self.views_folder, frame, lambda: self._look_at_boxes(frame, rgb))
        return kept["boxes"], kept["estimate"]

    def _look_at_boxes(self, frame: TrainingFrame, rgb) -> dict[str, np.ndarray]:
        exact = torch.tensor([target.box_xyxy for target in frame.targets], dtype=torch.float32)
        boxes = exact[None]
        if self.views.jitter:
            generator = torch.Generator().manual_seed(_seed_of(frame))
            limit = self.views.jitter * torch.rand(MOVES, len(exact), 1, generator=generator)
            size = torch.tensor([[rgb.shape[1], rgb.shape[0]]]).expand(MOVES, 2)
            boxes = jitter_boxes(boxes.expand(MOVES, -1, -1), size, limit, generator)
        estimate = []
        for moved in boxes.tolist():
            given = [Detection(tuple(box), t.category) for box, t in zip(moved, frame.targets, strict=True)]
            with self._one_at_a_time:
                estimate.append(packed_estimates(self.views.predictor.look(rgb, _camera(frame), given)))
        return {"boxes": boxes.numpy(), "estimate": np.stack(estimate)}

    def _see(self, frame: TrainingFrame, rgb, sensor) -> Seen:
        targets = tuple(Detection(tuple(t.box_xyxy), t.category) for t in frame.targets)
        if sensor is not None:
            found, _ = normals_from_depth(
                torch.from_numpy(sensor)[None], intrinsics_tensor(frame.camera)[None]
            )
            return Seen(targets, sensor, found[0].numpy(), False)
        if self.depth == "none":
            return Seen(targets, np.zeros(rgb.shape[:2], np.float32), np.zeros(rgb.shape, np.float32), False)
        with self._one_at_a_time:
            return self.perception.see(rgb, _camera(frame), targets)


def _digest(settings: dict) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _kept(folder: Path, frame: TrainingFrame, compute: Callable[[], dict]) -> dict[str, np.ndarray]:
    """What was computed of a frame, now or before. Raises ValueError naming a broken file."""
    path = folder / frame.scene / f"{frame.name}.npz"
    if not path.exists():
        _keep(path, compute())
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected the channels of a frame ({error}); remove it") from error


def _keep(path: Path, values: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}.part.npz")
    np.savez(partial, **values)
    os.replace(partial, path)


def _camera(frame: TrainingFrame) -> Camera:
    return replace(frame.camera, up_cam=tuple(frame.up_cam))


def _seed_of(frame: TrainingFrame) -> int:
    return int.from_bytes(hashlib.sha256(f"{frame.scene}/{frame.name}".encode()).digest()[:6], "big")


def _in_steps(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, -1, 1) * NORMAL_STEPS).astype(np.int8)


def _in_mm(depth_m: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(depth_m * MM_PER_M), 0, np.iinfo(np.uint16).max).astype(np.uint16)
