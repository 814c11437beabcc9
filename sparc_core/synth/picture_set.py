"""Pictures of synthetic rooms on disk, with what predictors are to find in them.

A folder holds, for every picture, NUMBER.jpg, NUMBER_depth.png (16 bit, millimetres, 0 unknown),
NUMBER_normal.png (8 bit, 127 · (n + 1), grey unknown) and NUMBER_object.png (8 bit: 0 room, k + 1 object k),
and one line in pictures.jsonl: camera and objects.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.floor import FLOATING
from sparc_core.synth.observe import detect, take_slots
from sparc_core.synth.pictures import Picture, PictureConfig, PictureRenderer
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.rooms import enclose
from sparc_core.synth.scenes import SceneBatch, SceneConfig, SceneSampler

INDEX = "pictures.jsonl"
MIN_SHARE = 40 / (320 * 240)  # of a picture's pixels for an object that is to be found


@dataclass(frozen=True)
class PictureSetConfig:
    """scenes, pictures: what is rendered. plain_share: pictures in the flat colours of `SceneRenderer`, in
    rooms of two walls, as the demo camera shows. min_visible: share of an object's points that must be seen
    for it to be one that is to be found; others stay in the picture, as do things of no category."""

    scenes: SceneConfig = field(
        default_factory=lambda: SceneConfig(objects=8, clutter=2, free_share=0.0, recoloured_share=0.2)
    )
    pictures: PictureConfig = field(default_factory=PictureConfig)
    plain_share: float = 0.2
    min_visible: float = 0.15


@dataclass(frozen=True)
class PicturedObject:
    """What stands in a picture: its pose in the camera frame, its box of visible pixels (x0, y0, x1, y1),
    pixel centres at integers, and the share of its points that are seen. number: of its pixels in the object
    image; symmetry: of its CAD model."""

    number: int
    category: str
    model_id: str
    symmetry: str
    box_xyxy: tuple[float, float, float, float]
    visible: float
    R: tuple[tuple[float, ...], ...]
    T_m: tuple[float, float, float]
    S_m: tuple[float, float, float]


class PictureLabeller:
    """Finds out what is to be found in a picture of a scene: whatever is of a category and of whose points
    `min_visible` are seen. Clutter counts as well: a detector cannot know that a chair was meant as such."""

    def __init__(self, library: CadLibrary, cad: CadTensors, caster: RayCaster, min_visible: float):
        self.library, self.cad, self.caster, self.min_visible = library, cad, caster, min_visible

    def visible(self, scene: SceneBatch, generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Slots (D,) of a single scene's objects to be found and the share (D,) that is seen of each."""
        count = scene.model.shape[1]
        everything = replace(scene, objects=count)
        found = detect(self.caster, self.cad, everything, count, generator, min_visible=self.min_visible)
        slots = found.slot[0]
        named = found.valid[0] & (self.cad.category[scene.model[0, slots]] >= 0)
        return slots[named], found.visible[0, named]

    def label(self, picture: Picture, scene: SceneBatch, slots, visible) -> list[PicturedObject]:
        """The objects in those slots, without those of fewer than `MIN_SHARE` of the pixels."""
        pose = take_slots(scene.pose, slots[None]).map(lambda x: x[0])
        objects = []
        for i, slot in enumerate(slots.tolist()):
            rows, columns = np.nonzero(picture.object == slot)
            if len(rows) < MIN_SHARE * picture.object.size:
                continue
            model = self.library.models[int(scene.model[0, slot])]
            box = (columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5)
            objects.append(PicturedObject(
                slot, model.category, model.model_id, model.symmetry, tuple(map(float, box)),
                round(float(visible[i]), 3), *(_rounded(x) for x in (pose.R[i], pose.T[i], pose.S[i])),
            ))  # fmt: skip
        return objects


class PictureSet:
    """Draws labelled pictures from a CAD library, each from its number alone."""

    def __init__(self, library: CadLibrary, config: PictureSetConfig, seed: int = 0):
        self.library, self.config, self.seed = library, config, seed
        self.cad, self.caster = CadTensors.from_library(library), RayCaster(library)
        self.sampler = SceneSampler(self.cad, config.scenes)
        self.renderer = PictureRenderer(self.caster, config.pictures)
        self.labeller = PictureLabeller(library, self.cad, self.caster, config.min_visible)

    def draw(self, number: int) -> tuple[Picture, list[PicturedObject]]:
        """Picture `number`, with at least one object to be found."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        while True:
            scene = self.sampler.sample(1, generator)
            plain = float(torch.rand((), generator=generator)) < self.config.plain_share
            if not plain:
                scene = enclose(scene, generator)
            slots, visible = self.labeller.visible(scene, generator)
            if len(slots):
                break
        picture = self.renderer.take(scene, 0, generator, plain)
        return picture, self.labeller.label(picture, scene, slots, visible)


def _rounded(tensor: torch.Tensor):
    return [_rounded(x) for x in tensor] if tensor.ndim else round(float(tensor), 5)


def write_picture(folder: Path, number: int, picture: Picture, objects: list[PicturedObject]) -> str:
    """Write the images of a picture and return its line for the index."""
    name = folder / f"{number:06d}"
    normal = np.rint(127 * (picture.normal_cam + 1)).astype(np.uint8)
    depth = np.clip(np.rint(1000 * picture.depth_m), 0, 65535).astype(np.uint16)
    cv2.imwrite(f"{name}.jpg", picture.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    cv2.imwrite(f"{name}_depth.png", depth)
    cv2.imwrite(f"{name}_normal.png", normal[..., ::-1])
    cv2.imwrite(f"{name}_object.png", (picture.object + 1).astype(np.uint8))
    return json.dumps({
        "number": number,
        "intrinsics": [round(float(v), 4) for v in picture.intrinsics],
        "up_cam": [round(float(v), 5) for v in picture.up_cam],
        "objects": [asdict(o) for o in objects],
    })  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredPicture:
    """One picture of a folder, with the channels that were asked for, else None. rgb (H, W, 3) uint8; depth_m
    (H, W) float32; normal_cam (H, W, 3) float32, 0 unknown; object (H, W) uint8; intrinsics (4,); up_cam
    (3,)."""

    number: int
    intrinsics: np.ndarray
    up_cam: np.ndarray
    objects: tuple[PicturedObject, ...]
    rgb: np.ndarray
    depth_m: np.ndarray | None
    normal_cam: np.ndarray | None
    object: np.ndarray | None

    @property
    def above_floor_m(self) -> float | None:
        """How high the camera is above the floor on which the objects stand; None where none does."""
        standing = [o for o in self.objects if o.category not in FLOATING]
        heights = [o.S_m[1] / 2 - float(self.up_cam @ np.array(o.T_m)) for o in standing]
        return max(heights, default=None)


class PictureFolder:
    """Reads pictures that `sparc train-perception pictures` has written.

    Raises ValueError for a folder without an index or with one of another version, naming it, and for a
    picture whose files are missing.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        index = self.folder / INDEX
        if not index.is_file():
            raise ValueError(f"{index}: no such file; write pictures with sparc train-perception pictures")
        lines = [json.loads(line) for line in index.read_text().splitlines()]
        self.entries = sorted(lines, key=lambda entry: entry["number"])
        if any("symmetry" not in item for entry in lines for item in entry["objects"]):
            raise ValueError(f"{index}: written by an older version; write the pictures anew")

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, position: int, channels: tuple[str, ...] = ("depth", "normal", "object")) -> StoredPicture:
        """The picture at a position of the index."""
        entry = self.entries[position]
        name = self.folder / f"{entry['number']:06d}"
        depth = normal = slots = None
        if "depth" in channels:
            depth = self._image(f"{name}_depth.png").astype(np.float32) / 1000
        if "normal" in channels:
            normal = self._image(f"{name}_normal.png")[..., ::-1].astype(np.float32) / 127 - 1
        if "object" in channels:
            slots = self._image(f"{name}_object.png")
        objects = tuple(PicturedObject(**o) for o in entry["objects"])
        return StoredPicture(
            entry["number"], np.array(entry["intrinsics"]), np.array(entry["up_cam"]), objects,
            self._image(f"{name}.jpg")[..., ::-1], depth, normal, slots,
        )  # fmt: skip

    @staticmethod
    def _image(path: str) -> np.ndarray:
        pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError(f"{path}: missing, or not an image")
        return pixels
