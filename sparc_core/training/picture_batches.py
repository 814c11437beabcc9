"""Batches of stored pictures for training: mirrored, cropped and with other colours, intrinsics to match."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from sparc_core.synth.picture_set import PicturedObject, PictureFolder, StoredPicture
from sparc_core.types import CATEGORIES

TENSORS = ("rgb", "intrinsics", "up_cam", "depth_m", "normal", "labelled")
MIN_BOX_PX = 6  # an object cut to less by a crop is no longer to be found


@dataclass(frozen=True)
class AugmentConfig:
    """mirror: share of the pictures that are mirrored. crop: share of which a part is enlarged to the whole,
    at least `smallest` of its sides. colour: how much brightness, contrast and saturation change; grey: share
    without colours. no_gravity: share of which gravity is not told; gravity_off_deg: standard deviation of
    its direction about each axis where it is."""

    mirror: float = 0.5
    crop: float = 0.5
    smallest: float = 0.6
    colour: float = 0.35
    grey: float = 0.05
    no_gravity: float = 0.3
    gravity_off_deg: float = 1.0


@dataclass(frozen=True, eq=False)
class PictureBatch:
    """rgb (B, 3, H, W) in [0, 1]; intrinsics (B, 4); up_cam (B, 3), 0 unknown; depth_m (B, H, W), 0 unknown;
    normal (B, 3, H, W), 0 unknown; labelled (B, H, W) bool: the room and objects that are to be found, not
    the others; objects: for every picture boxes (D, 4) x0, y0, x1, y1 from pixel corners, labels (D,) from 1
    and masks (D, H, W) uint8."""

    rgb: torch.Tensor
    intrinsics: torch.Tensor
    up_cam: torch.Tensor
    depth_m: torch.Tensor
    normal: torch.Tensor
    labelled: torch.Tensor
    objects: list[dict[str, torch.Tensor]]

    def to(self, device) -> PictureBatch:
        """The same on a device."""
        tensors = {n: getattr(self, n).to(device) for n in TENSORS}
        return PictureBatch(
            **tensors, objects=[{k: v.to(device) for k, v in o.items()} for o in self.objects]
        )


class PictureBatches:
    """Draws batches of a folder at random. size_px: (width, height) to which pictures are scaled; None: as
    they are stored. threads read and decode; what is drawn depends on the generator alone."""

    def __init__(
        self, folder: PictureFolder, size: int, augment: AugmentConfig | None, threads: int = 2,
        size_px: tuple[int, int] | None = None,
    ):  # fmt: skip
        self.folder, self.size, self.augment, self.size_px = folder, size, augment, size_px
        self.pool = ThreadPoolExecutor(threads) if threads else None

    def draw(self, generator: torch.Generator) -> PictureBatch:
        """The next batch."""
        positions = torch.randint(len(self.folder), (self.size,), generator=generator).tolist()
        seeds = torch.randint(2**31, (self.size,), generator=generator).tolist()
        return self.collect(positions, seeds)

    def collect(self, positions: list[int], seeds: list[int] | None = None) -> PictureBatch:
        """Certain pictures; seeds of their augmentation, or None for pictures as they are."""
        seeds = seeds if seeds is not None else [None] * len(positions)
        work = self.pool.map if self.pool else map
        return stack_pictures(list(work(self._one, positions, seeds)))

    def _one(self, position: int, seed: int | None) -> StoredPicture:
        picture = self.folder.read(position)
        height, width = picture.rgb.shape[:2]
        size = self.size_px or (width, height)
        if seed is None or self.augment is None:
            return window(picture, (0, 0, width, height), size)
        return augmented(picture, self.augment, np.random.default_rng(seed), size)


def stack_pictures(pictures: list[StoredPicture]) -> PictureBatch:
    """Pictures of one size, with depth and normals, as tensors."""
    return PictureBatch(
        torch.from_numpy(np.stack([p.rgb for p in pictures])).permute(0, 3, 1, 2).float() / 255,
        torch.from_numpy(np.stack([p.intrinsics for p in pictures])).float(),
        torch.from_numpy(np.stack([p.up_cam for p in pictures])).float(),
        torch.from_numpy(np.stack([p.depth_m for p in pictures])),
        torch.from_numpy(np.stack([p.normal_cam for p in pictures])).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([labelled_pixels(p) for p in pictures])),
        [_targets(p) for p in pictures],
    )


def _targets(picture: StoredPicture) -> dict[str, torch.Tensor]:
    boxes, labels, masks = [], [], []
    for item in picture.objects:
        mask = picture.object == item.number + 1
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        if len(rows) < MIN_BOX_PX or len(columns) < MIN_BOX_PX:
            continue
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        labels.append(CATEGORIES.index(item.category) + 1)
        masks.append(mask)
    height, width = picture.object.shape
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.from_numpy(np.array(masks, dtype=np.uint8).reshape(-1, height, width)),
    }


def labelled_pixels(picture: StoredPicture) -> np.ndarray:
    """(H, W) bool, see `PictureBatch`."""
    known = np.zeros(256, dtype=bool)
    known[[0, *(item.number + 1 for item in picture.objects)]] = True
    return known[picture.object]


def augmented(
    picture: StoredPicture, config: AugmentConfig, rng: np.random.Generator,
    size_px: tuple[int, int] | None = None,
) -> StoredPicture:  # fmt: skip
    """Another picture of the same scene by the same kind of camera, of a size (width, height), else its own.
    Poses of objects in a mirror are those of a mirrored CAD model; boxes are those of the picture before."""
    height, width = picture.rgb.shape[:2]
    part = (0, 0, width, height)
    if rng.random() < config.crop:
        part = _random_part(width, height, rng.uniform(config.smallest, 1.0), rng)
    picture = window(picture, part, size_px or (width, height))
    if rng.random() < config.mirror:
        picture = _mirrored(picture)
    rgb = picture.rgb.astype(np.float32)
    brightness, contrast, saturation = rng.uniform(1 - config.colour, 1 + config.colour, 3)
    grey = rgb.mean(-1, keepdims=True)
    rgb = grey + (0.0 if rng.random() < config.grey else saturation) * (rgb - grey)
    rgb = ((rgb - rgb.mean()) * contrast + rgb.mean()) * brightness
    up = Rotation.from_rotvec(np.radians(config.gravity_off_deg) * rng.normal(size=3)).apply(picture.up_cam)
    up *= rng.random() >= config.no_gravity
    return replace(picture, rgb=np.clip(rgb, 0, 255).astype(np.uint8), up_cam=up)


def _mirrored(picture: StoredPicture) -> StoredPicture:
    """Seen in a mirror: x turns round."""
    fx, fy, cx, cy = picture.intrinsics
    turn = np.array([-1, 1, 1], dtype=np.float32)

    return replace(
        picture,
        rgb=picture.rgb[:, ::-1],
        intrinsics=np.array([fx, fy, picture.rgb.shape[1] - 1 - cx, cy]),
        up_cam=picture.up_cam * turn,
        depth_m=np.ascontiguousarray(picture.depth_m[:, ::-1]),
        normal_cam=np.ascontiguousarray(picture.normal_cam[:, ::-1] * turn),
        object=picture.object[:, ::-1],
        objects=tuple(_mirrored_object(item) for item in picture.objects),
    )


def _mirrored_object(item: PicturedObject) -> PicturedObject:
    (x, y, z), (a, b, c), (d, e, f) = item.R
    R = ((x, -y, -z), (-a, b, c), (-d, e, f))  # its own x axis turns round as well
    return replace(item, R=R, T_m=(-item.T_m[0], *item.T_m[1:]))


def _random_part(width: int, height: int, share: float, rng) -> tuple[int, int, int, int]:
    """x, y, width and height of a window of `share` of the width and height."""
    w, h = round(width * share), round(height * share)
    return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h


def window(
    picture: StoredPicture, part: tuple[int, int, int, int], size_px: tuple[int, int]
) -> StoredPicture:
    """The part x, y, width, height of a picture at a size (width, height): as a longer lens, turned aside,
    would take it."""
    x, y, w, h = part
    width, height = size_px
    if part == (0, 0, width, height) and picture.rgb.shape[:2] == (height, width):
        return picture
    sx, sy = width / w, height / h
    fx, fy, cx, cy = picture.intrinsics
    smooth = cv2.INTER_AREA if sx < 1 and sy < 1 else cv2.INTER_LINEAR

    def scaled(image, how=cv2.INTER_NEAREST):
        return cv2.resize(np.ascontiguousarray(image[y : y + h, x : x + w]), size_px, interpolation=how)

    return replace(
        picture,
        rgb=scaled(picture.rgb, smooth),
        intrinsics=np.array([fx * sx, fy * sy, (cx - x + 0.5) * sx - 0.5, (cy - y + 0.5) * sy - 0.5]),
        depth_m=scaled(picture.depth_m),
        normal_cam=scaled(picture.normal_cam),
        object=scaled(picture.object),
    )
