"""A few small pictures, predictors with random weights, and the regions they make, for tests of baselines."""

import functools
import tempfile
from pathlib import Path

import torch
from builders import furniture

from sparc_core.baselines.reader import RegionReader
from sparc_core.perception.depth_net import DepthNet, DepthNetConfig, OurDepthNormals
from sparc_core.perception.mask_rcnn import MaskRcnnConfig, build_mask_rcnn
from sparc_core.synth.picture_set import PictureFolder, PictureSet, PictureSetConfig, write_picture
from sparc_core.synth.pictures import PictureConfig
from sparc_core.training.region_store import RegionStore, RegionStoreConfig, RegionWriter

DEPTH = DepthNetConfig(64, 48, channels=(8, 8, 8))
DETECTOR = MaskRcnnConfig(
    short_px=72, long_px=96, channels=8, box_features=16, mask_channels=8, box_samples=8
)
AS_IT_IS = RegionStoreConfig(box_jitter=0.0, colour=0.0, grey=0.0)


@functools.cache
def pictures() -> PictureFolder:
    """Eight pictures of 96 × 72."""
    folder = Path(tempfile.mkdtemp(prefix="sparc_pictures_"))
    drawn = PictureSet(furniture(), PictureSetConfig(pictures=PictureConfig(96, 72)))
    lines = [write_picture(folder, i, *drawn.draw(i)) for i in range(8)]
    (folder / "pictures.jsonl").write_text("\n".join(lines) + "\n")
    return PictureFolder(folder)


@functools.cache
def reader() -> RegionReader:
    """A detector with random weights."""
    torch.manual_seed(0)
    return RegionReader(build_mask_rcnn(DETECTOR))


def writer(config=AS_IT_IS, made_with="test") -> RegionWriter:
    """Regions of `pictures` with predictors of random weights."""
    detector = reader()
    torch.manual_seed(1)
    return RegionWriter(config, detector, OurDepthNormals(DepthNet(DEPTH)), furniture(), made_with)


@functools.cache
def region_folder() -> Path:
    """All regions of `pictures`, as they are."""
    folder = Path(tempfile.mkdtemp(prefix="sparc_regions_"))
    writer().write(pictures(), folder)
    return folder


@functools.cache
def store() -> RegionStore:
    """`region_folder` in memory."""
    return RegionStore.open(region_folder())
