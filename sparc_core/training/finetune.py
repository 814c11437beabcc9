"""Fine-tuning on recorded frames: the run's configuration, and its data from a prepared ScanNet25k.

What the paper says of it (Multi-SPARC sections 3.3, 4 and supplement B) are the defaults of `FinetuneConfig`;
`config/training/finetune_scannet25k.yaml` says which are the paper's and which are ours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from sparc_core.datasets.prepared import PreparedScannet
from sparc_core.datasets.scan2cad import CadKey
from sparc_core.datasets.shapenet import CadFile
from sparc_core.refine.model import Calibration, ModelConfig
from sparc_core.training.frame_data import FrameDataConfig
from sparc_core.training.loss import LossConfig
from sparc_core.training.train import TrainConfig


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """A `TrainConfig` whose data are recorded frames. epochs > 0: how often every frame is trained on, from
    which `steps` follow; 0: `steps` count. model: that of the weights to begin with."""

    data: FrameDataConfig = field(default_factory=FrameDataConfig)
    loss: LossConfig = field(default_factory=lambda: LossConfig(size_exponent=0.0))
    optimiser: str = "lamb"
    images: int = 20
    converged_share: float = 0.0
    paper_start_share: float = 1.0
    epochs: float = 500.0

    def __post_init__(self):
        super().__post_init__()
        if not self.epochs >= 0:
            raise ValueError(f"training epochs must not be negative, got {self.epochs}")

    def resolved(self, model: ModelConfig, frames: int, processes: int = 1) -> FinetuneConfig:
        """The configuration for a number of frames: steps, and the model, whose calibration was that of the
        weights before."""
        steps = self.steps
        if self.epochs:
            batches = math.ceil(self.epochs * frames / (self.images * processes))
            steps = batches * self.refinements
        return replace(self, model=replace(model, calibration=Calibration()), steps=steps)


def sized_cad(dataset: PreparedScannet, scenes: Iterable[str]) -> dict[CadKey, CadFile]:
    """The dataset's CAD models at the median size of their category in these scenes: ShapeNet's have none of
    their own, and scenes that are measured on must not tell it.

    Categories that these scenes lack keep the size that the dataset was prepared with.
    """
    factors = defaultdict(list)
    for scene in scenes:
        for item in dataset.annotations.scenes[scene]:
            factors[item.category].append(float(np.prod(item.pose.s)) ** (1 / 3))
    metres = {category: float(np.median(values)) for category, values in factors.items()}
    return {
        key: replace(file, metres_per_unit=metres.get(file.category, file.metres_per_unit))
        for key, file in dataset.cad.items()
    }
