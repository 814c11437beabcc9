"""A small box network, a direction of gravity and a few pictures for tests of what is in a box."""

import functools
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from builders import write_pictures

from sparc_core.perception.box_net import BoxNetConfig

NET = BoxNetConfig(32, channels=(4, 4, 8, 8), features=8, layers=1, heads=2, background=False)
UP = F.normalize(torch.tensor([0.1, -0.9, -0.42426407]), dim=0)


@functools.cache
def pictures() -> Path:
    """A folder of six small pictures, to be read only."""
    return write_pictures(Path(tempfile.mkdtemp(prefix="sparc_boxes_")), 6, 128, 96)
