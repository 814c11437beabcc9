"""What training trains on: a batch of images with the true poses of their objects, wherever it comes from.

`SyntheticData` draws scenes, `FrameData` reads recorded frames; `Trainer` and `validate` know neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.perception.samples import Frame, PixelSamples, PixelSource
from sparc_core.refine.loop import CadSurface
from sparc_core.types import SCALE_MODES


class TrainingSource(PixelSource, Protocol):
    """Reads the images of a batch at pixels."""

    def first_images(self, rows: int) -> TrainingSource:
        """The same for the first `rows` images only."""
        ...


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B images with N objects each. truth (B, N); symmetry_order, category (B, N); surface: the CAD
    models to align; box_samples: the τ = 0 pixels, read once an image as at run time; scale_low_m,
    scale_high_m (B, N, 3) the category's range."""

    frame: Frame
    source: TrainingSource
    surface: CadSurface
    truth: Pose
    symmetry_order: torch.Tensor
    category: torch.Tensor
    box_samples: PixelSamples
    scale_low_m: torch.Tensor
    scale_high_m: torch.Tensor

    @property
    def scale_mode(self) -> torch.Tensor:
        """(B, N) index into SCALE_MODES: "fixed" where the extents are known, else "free"."""
        known = self.surface.extents_known
        return torch.where(known, SCALE_MODES.index("fixed"), SCALE_MODES.index("free"))


class TrainingData(Protocol):
    """Gives training batches; cad: the CAD models they are about."""

    cad: CadTensors

    def batch(self, images: int, generator: torch.Generator) -> TrainingBatch:
        """The next `images` images; the generator lives on the device."""
        ...

    def seek(self, images: int) -> None:
        """Go on as if so many images had been given so far."""
        ...
