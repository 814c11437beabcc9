"""Pictures of synthetic rooms as recorded frames: trained on with what our predictors make of them.

Simulated noise (`synth/corrupt.py`) does not look like the errors of a certain depth network. Pictures that
`sparc train-perception pictures` wrote are looked at by that network, as an image is at run time, and the
alignment network learns from its depth, its normals and the masks that are cut from them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np

from sparc_core.cad.library import CadLibrary
from sparc_core.datasets.poses import CadPose
from sparc_core.datasets.prepared import PreparedFrame, encode_mask
from sparc_core.synth.picture_set import INDEX, PicturedObject, PictureFolder, StoredPicture
from sparc_core.training.batch import TrainingBatch, TrainingData
from sparc_core.training.frame_data import FrameDataConfig
from sparc_core.training.frame_targets import MIN_BOX_PX, FrameTarget, TrainingFrame
from sparc_core.training.train import TrainConfig
from sparc_core.types import Camera

SCENE = "pictures"


@dataclass(frozen=True)
class PictureTuneConfig(TrainConfig):
    """A `TrainConfig` of whose batches `picture_share` are pictures, read as `pictures` says; the others are
    scenes with simulated noise. picture_range: (first, last) of the folder's pictures that are trained on, as
    shares; predictors that learnt from pictures are not to be met on these. model: that of the weights to
    begin with."""

    pictures: FrameDataConfig = field(
        default_factory=lambda: FrameDataConfig(depth="shipped", detections=4, min_visible=0.2)
    )
    picture_share: float = 0.5
    picture_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.picture_share <= 1:
            raise ValueError(f"training picture_share must be in (0, 1], got {self.picture_share}")
        if not 0 <= self.picture_range[0] < self.picture_range[1] <= 1:
            raise ValueError(f"training picture_range must be within [0, 1], got {self.picture_range}")
        if self.pictures.depth == "sensor":
            raise ValueError(
                "training pictures.depth must be a depth network or none: pictures have no sensor"
            )


class PictureImages:
    """A folder of pictures with the interface by which `FrameStore` reads recorded frames."""

    has_depth = False

    def __init__(self, pictures: PictureFolder):
        self.pictures, self.folder = pictures, pictures.folder
        self._position = {_name(e["number"]): i for i, e in enumerate(pictures.entries)}

    @property
    def digest(self) -> str:
        """Another one for other pictures."""
        return hashlib.sha256((self.folder / INDEX).read_bytes()).hexdigest()[:16]

    def image(self, frame: PreparedFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises ValueError naming a file that cannot be read."""
        return np.ascontiguousarray(self.pictures.read(self._position[frame.name], ()).rgb)


def picture_frames(
    pictures: PictureFolder, library: CadLibrary, min_visible: float, part: tuple[float, float] = (0.0, 1.0)
) -> list[TrainingFrame]:
    """The pictures that show objects whose visible share is at least min_visible. part: which of them, from
    one share of the folder to another.

    Raises ValueError for a CAD model that is not in the library, naming the picture, and when no object is
    left.
    """
    symmetry = {model.model_id: model.symmetry for model in library.models}
    frames = []
    for position in range(*(round(share * len(pictures)) for share in part)):
        picture = pictures.read(position, ("object",))
        unknown = sorted({o.model_id for o in picture.objects} - symmetry.keys())
        if unknown:
            raise ValueError(f"{pictures.folder}: picture {picture.number}: CAD models {unknown} are missing")
        targets = tuple(
            _target(picture, o, symmetry[o.model_id])
            for o in picture.objects
            if o.visible >= min_visible and _smaller_side(o) >= MIN_BOX_PX
        )
        if targets:
            height, width = picture.rgb.shape[:2]
            camera = Camera(width, height, *(float(v) for v in picture.intrinsics))
            frames.append(TrainingFrame(
                SCENE, _name(picture.number), camera, picture.up_cam, targets, picture.above_floor_m
            ))  # fmt: skip
    if not frames:
        raise ValueError(f"{pictures.folder}: no picture shows an object that is visible enough")
    return frames


def _target(picture: StoredPicture, item: PicturedObject, symmetry: str) -> FrameTarget:
    pose = CadPose(*(np.array(values) for values in (item.R, item.T_m, item.S_m)))
    mask = encode_mask(picture.object == item.number + 1)
    return FrameTarget(tuple(item.box_xyxy), item.category, (item.model_id,), symmetry, pose, mask)


def _smaller_side(item: PicturedObject) -> float:
    x0, y0, x1, y1 = item.box_xyxy
    return min(x1 - x0, y1 - y0)


def _name(number: int) -> str:
    return f"{number:06d}"


class MixedData:
    """Batches of two kinds in turn: `share` of them from `second`, the others from `first`.

    images: of every batch.
    """

    def __init__(self, first: TrainingData, second: TrainingData, share: float, images: int):
        self.first, self.second, self.share, self.images = first, second, share, images
        self.cad = first.cad
        self._batches = 0

    def batch(self, images: int, generator) -> TrainingBatch:
        """The next batch. Raises ValueError for another number of images than was announced."""
        if images != self.images:
            raise ValueError(f"batches of {self.images} images were announced, got {images}")
        before = self._of_second(self._batches)
        self._batches += 1
        source = self.second if self._of_second(self._batches) > before else self.first
        return source.batch(images, generator)

    def seek(self, images: int) -> None:
        """Go on as if so many images had been given so far."""
        self._batches = images // self.images
        second = self._of_second(self._batches)
        self.second.seek(second * self.images)
        self.first.seek((self._batches - second) * self.images)

    def _of_second(self, batches: int) -> int:
        return math.floor(batches * self.share + 1e-9)
