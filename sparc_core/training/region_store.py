"""Regions of stored pictures, prepared once: the detector and the depth network are frozen, so a baseline
that learns from what they see need not run them in every step.

A folder holds regions_NUMBER.safetensors, each with the objects of `SHARD` pictures. Colours of the pictures
are changed and boxes jittered once, as they are prepared. Pictures are not mirrored or cropped: the poses of
their objects would no longer be true, and a mirrored CAD model is another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sparc_core.baselines.reader import RegionReader
from sparc_core.baselines.regions import grid_pixels, read_cells
from sparc_core.cad.library import CadLibrary
from sparc_core.cad.symmetry import SYMMETRY_ORDERS
from sparc_core.config import to_dict
from sparc_core.perception.interfaces import DepthNormals
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.synth.picture_set import PictureFolder, StoredPicture
from sparc_core.training.picture_batches import AugmentConfig, augmented
from sparc_core.types import CATEGORIES, Camera
from sparc_core.weights_file import read_weights, write_weights

SHARD = 64
MILLIMETRES = 1000.0
BYTE = 127.0  # what a normal's component of 1 is stored as


@dataclass(frozen=True)
class RegionStoreConfig:
    """variants: how often every picture is looked at, each time with other colours and boxes. box_jitter:
    how far every side of a box is moved, as a share of its size. colour, grey: as in `AugmentConfig`; 0 and 0
    leave the pictures as they are."""

    variants: int = 1
    box_jitter: float = 0.08
    colour: float = 0.25
    grey: float = 0.05
    seed: int = 0

    def __post_init__(self):
        if self.variants < 1:
            raise ValueError(f"regions variants must be at least 1, got {self.variants}")
        for name in ("box_jitter", "colour", "grey"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"regions {name} must be in [0, 1), got {getattr(self, name)}")


class RegionWriter:
    """Turns pictures into stored regions. made_with: names the weights of the predictors, so that regions of
    different ones are not mixed."""

    def __init__(
        self,
        config: RegionStoreConfig,
        reader: RegionReader,
        depth: DepthNormals,
        library: CadLibrary,
        made_with: str,
    ):
        self.config, self.reader, self.depth = config, reader, depth
        self.order = {m.model_id: SYMMETRY_ORDERS[m.symmetry] for m in library.models}
        self.made = {"config": json.dumps(to_dict(config)), "made_with": made_with, "grid": str(reader.grid)}

    def write(self, pictures: PictureFolder, out: Path, limit: int = 0) -> int:
        """Write the shards that are not there yet, of the first `limit` pictures (0: all); returns how many
        were written. Raises ValueError for a folder that was prepared otherwise, naming it, and for a picture
        of a CAD model that is not in the library."""
        count = min(limit, len(pictures)) if limit else len(pictures)
        done = 0
        for first in range(0, count, SHARD):
            path = Path(out) / f"regions_{first:06d}.safetensors"
            stop = min(first + SHARD, count)
            if path.exists() and self._holds(path, stop - first):
                continue
            state, models = self._shard(pictures, range(first, stop))
            told = {"pictures": str(stop - first), "models": json.dumps(models)}
            write_weights(path, state, self.made | told)
            done += 1
        return done

    def _holds(self, path: Path, pictures: int) -> bool:
        """Whether a shard has as many pictures. Raises ValueError when it was prepared in another way."""
        _, metadata = read_weights(path)
        for name, value in self.made.items():
            if metadata.get(name) != value:
                was = metadata.get(name)
                raise ValueError(f"{path}: prepared with {name} {was}, not {value}; take another folder")
        return int(metadata["pictures"]) >= pictures

    def _shard(self, pictures: PictureFolder, positions: range) -> tuple[dict, list[str]]:
        rows, models = [], []
        for position in positions:
            picture = pictures.read(position)
            for variant in range(self.config.variants if picture.objects else 0):
                rows.append(self.look(picture, variant))
                models += [o.model_id for o in picture.objects]
        if not rows:
            return {}, []
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}, models

    def look(self, picture: StoredPicture, variant: int = 0) -> dict[str, torch.Tensor]:
        """The stored tensors of a picture with objects, one row each."""
        config, objects = self.config, picture.objects
        seed = (config.seed * 1_000_003 + picture.number) * 101 + variant
        colours = AugmentConfig(mirror=0.0, crop=0.0, colour=config.colour, grey=config.grey)
        rgb = augmented(picture, colours, np.random.default_rng(seed)).rgb
        height, width = rgb.shape[:2]
        size = torch.tensor([[width, height]], dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed)
        exact = torch.tensor([o.box_xyxy for o in objects])
        boxes = jitter_boxes(exact[None], size, config.box_jitter, generator)[0]
        truth = self._truth(picture)
        image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float() / 255
        features, mask = self.reader.look(image, boxes, truth["category"])
        uv = grid_pixels(boxes, size.expand(len(objects), 2), self.reader.grid)
        beside = (uv + torch.randn(uv.shape, generator=generator).sign()).clamp(min=0)
        beside = torch.minimum(beside, size[:, None, None] - 1)
        seen = self.depth.predict(
            rgb, Camera(width, height, *picture.intrinsics, up_cam=tuple(picture.up_cam))
        )
        return truth | {
            "boxes_xyxy": boxes,
            "size_px": size.expand(len(objects), 2),
            "features": features.half(),
            "mask": (mask * 255).round().to(torch.uint8),
            "own": _cells(picture.object, uv) == truth["number"][:, None, None],
            "depth_true": _millimetres(picture.depth_m, uv),
            "depth_beside": _millimetres(picture.depth_m, beside),
            "depth_seen": _millimetres(seen.depth_m, uv),
            "normal_true": _bytes(picture.normal_cam, uv),
            "normal_seen": _bytes(seen.normals_cam, uv),
        }

    def _truth(self, picture: StoredPicture) -> dict[str, torch.Tensor]:
        objects = picture.objects
        unknown = sorted({o.model_id for o in objects} - self.order.keys())
        if unknown:
            raise ValueError(f"picture {picture.number}: CAD models {unknown} are not in the library")
        count = len(objects)
        return {
            "picture": torch.full((count,), picture.number),
            "number": torch.tensor([o.number + 1 for o in objects], dtype=torch.uint8),
            "category": torch.tensor([CATEGORIES.index(o.category) for o in objects]),
            "symmetry_order": torch.tensor([self.order[o.model_id] for o in objects]),
            "visible": torch.tensor([o.visible for o in objects]),
            "R": torch.tensor([o.R for o in objects]),
            "T": torch.tensor([o.T_m for o in objects]),
            "S": torch.tensor([o.S_m for o in objects]),
            "intrinsics": torch.from_numpy(picture.intrinsics).float().expand(count, 4),
            "up_cam": torch.from_numpy(picture.up_cam).float().expand(count, 3),
        }


def _cells(image: np.ndarray, uv: torch.Tensor) -> torch.Tensor:
    return read_cells(torch.from_numpy(np.ascontiguousarray(image)), uv)


def _millimetres(depth_m: np.ndarray, uv: torch.Tensor) -> torch.Tensor:
    return (_cells(depth_m, uv) * MILLIMETRES).round().clamp(max=32_767).to(torch.int16)


def _bytes(normal_cam: np.ndarray, uv: torch.Tensor) -> torch.Tensor:
    return (_cells(normal_cam, uv) * BYTE).round().to(torch.int8)


@dataclass(frozen=True, eq=False)
class RegionStore:
    """All stored regions of a folder, in memory: tensors (M, …) by name as `RegionWriter.look` makes them,
    and model_ids, of each row the CAD model."""

    tensors: dict[str, torch.Tensor]
    model_ids: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, report: Callable[[str], None] = lambda text: None) -> RegionStore:
        """Read a folder. Raises ValueError naming it when it holds no regions, or of several grids."""
        files = sorted(Path(folder).glob("regions_*.safetensors"))
        if not files:
            raise ValueError(f"{folder}: holds no regions; write them with sparc train-baseline regions")
        parts, models, made = [], [], set()
        for file in files:
            state, metadata = read_weights(file)
            models += json.loads(metadata.get("models", "[]"))
            if state:
                parts.append(state)
            made.add(str([metadata.get(name) for name in ("config", "made_with", "grid")]))
        if len(made) > 1:
            raise ValueError(f"{folder}: its regions were prepared in different ways: {sorted(made)}")
        if not parts:
            raise ValueError(f"{folder}: its regions hold no object")
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        report(f"{len(models)} objects of {len(files)} files in {folder}")
        return cls(tensors, tuple(models))

    def __len__(self) -> int:
        return len(self.model_ids)

    def subset(self, rows: torch.Tensor) -> RegionStore:
        """The rows of an index (K,)."""
        return replace(
            self, tensors={n: v[rows] for n, v in self.tensors.items()},
            model_ids=tuple(self.model_ids[i] for i in rows.tolist()),
        )  # fmt: skip
