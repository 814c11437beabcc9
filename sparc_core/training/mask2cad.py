"""Training of Mask2CAD on stored regions: contrast with views of CAD models, and the pose branches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sparc_core.baselines.allocentric import to_allocentric
from sparc_core.baselines.mask2cad import Mask2CadConfig, Mask2CadNet
from sparc_core.baselines.mask2cad_loss import Mask2CadLossConfig, contrastive_loss, pose_losses
from sparc_core.baselines.mask2cad_pose import RegionBoxes, fit_statistics, pose_targets
from sparc_core.baselines.view_set import ViewSet
from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.camera import box_ray
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import quaternion_to_matrix
from sparc_core.training.predictor_trainer import PredictorTrainConfig, PredictorTrainer
from sparc_core.training.predictors import take_weights
from sparc_core.training.region_batches import RegionBatch, RegionNoise, region_batch
from sparc_core.training.region_store import RegionStore


@dataclass(frozen=True)
class Mask2CadTraining:
    """A run. views: canonical views of every CAD model in a batch, drawn anew each time; jitter_deg: how far
    the one view from the true side is turned from the truth (standard deviation); distractors: for every
    object so many other models of its category join the views. `train.pictures` counts objects here."""

    network: Mask2CadConfig = field(default_factory=Mask2CadConfig)
    train: PredictorTrainConfig = field(
        default_factory=lambda: PredictorTrainConfig(pictures=48, learning_rate=1e-3, precision="fp32")
    )
    loss: Mask2CadLossConfig = field(default_factory=Mask2CadLossConfig)
    noise: RegionNoise = field(default_factory=RegionNoise)
    views: int = 3
    jitter_deg: float = 5.0
    distractors: int = 1

    def __post_init__(self):
        if not 1 <= self.views <= self.network.bins:
            raise ValueError(f"mask2cad views must be in [1, {self.network.bins}], got {self.views}")
        for name in ("jitter_deg", "distractors"):
            if getattr(self, name) < 0:
                raise ValueError(f"mask2cad {name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class ViewedBatch:
    """Regions, their CAD models (D,) as numbers of the library, and views (V, P, P) with theirs (V,) and its
    category (V,)."""

    batch: RegionBatch
    model: torch.Tensor
    views: torch.Tensor
    view_model: torch.Tensor
    view_category: torch.Tensor

    def to(self, device) -> ViewedBatch:
        """The same on a device."""
        tensors = (self.model, self.views, self.view_model, self.view_category)
        return ViewedBatch(self.batch.to(device), *(x.to(device) for x in tensors))


class ViewedBatches:
    """Draws batches of a store together with views of the library's models.

    Raises ValueError for regions of a CAD model that is not in the library.
    """

    def __init__(self, store: RegionStore, views: ViewSet, settings: Mask2CadTraining):
        self.store, self.views, self.settings = store, views, settings
        self.model = torch.tensor([views.library.index_of(name) for name in store.model_ids])
        own = torch.zeros(len(views.library), dtype=torch.bool)
        own[self.model] = True
        # of models that were never pictured as well: they are as good for telling apart
        self.others = {int(c): (views.category == c).nonzero()[:, 0] for c in views.category[own].unique()}

    def draw(self, generator: torch.Generator) -> ViewedBatch:
        """The next batch, from a CPU generator."""
        settings = self.settings
        rows = torch.randint(len(self.store), (settings.train.pictures,), generator=generator)
        return self.collect(rows, generator)

    def collect(self, rows: torch.Tensor, generator: torch.Generator) -> ViewedBatch:
        """Certain rows (D,) of the store."""
        settings, views = self.settings, self.views
        batch = region_batch(self.store, rows, settings.noise, generator)
        own = self.model[rows]
        shown = torch.cat((own, self._distractors(batch, generator))).unique()
        column = torch.rand(len(shown), views.bins, generator=generator).argsort(1)[:, : settings.views]
        canonical = views.canonical(shown)[torch.arange(len(shown))[:, None], column].flatten(0, 1)
        model = torch.cat((shown.repeat_interleave(settings.views), own))
        pictures = torch.cat((canonical, self._true_side(batch, own, generator)))
        return ViewedBatch(batch, own, pictures, model, views.category[model])

    def _distractors(self, batch: RegionBatch, generator: torch.Generator) -> torch.Tensor:
        drawn = []
        for category in batch.regions.category.tolist():
            members = self.others[category]
            column = torch.randint(len(members), (self.settings.distractors,), generator=generator)
            drawn.append(members[column])
        return torch.cat(drawn)

    def _true_side(self, batch: RegionBatch, own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(D, P, P) views of the objects' models as they are seen, a little turned."""
        regions, spread = batch.regions, math.radians(self.settings.jitter_deg)
        R = to_allocentric(batch.truth.R, box_ray(regions.boxes_xyxy, regions.intrinsics))
        half = 0.5 * spread * torch.randn(len(own), 3, generator=generator)
        jitter = quaternion_to_matrix(torch.cat((torch.ones(len(own), 1), half), 1))
        return self.views.renderer.render(own, jitter @ R, self.views.size_px)


class Mask2CadLosses(torch.nn.Module):
    """The network with its losses; forward takes a `ViewedBatch`."""

    def __init__(self, network: Mask2CadNet, config: Mask2CadLossConfig):
        super().__init__()
        self.network, self.config = network, config

    def forward(self, viewed: ViewedBatch) -> dict[str, torch.Tensor]:
        """Weighted losses by name."""
        regions, batch = viewed.batch.regions, viewed.batch
        answers, views = self.network(regions), self.network.views(viewed.views)
        # rotations and cosines want more digits than mixed precision has
        with torch.autocast(regions.features.device.type, enabled=False):
            targets = pose_targets(self.network, regions, batch.truth, batch.symmetry_order)
            contrast = contrastive_loss(
                answers.vector, views, viewed.view_model == viewed.model[:, None],
                viewed.view_category == regions.category[:, None], self.config,
            )  # fmt: skip
            losses = pose_losses(answers, targets, self.config)
        return {"embedding": self.config.embedding * contrast, **losses}


def make_mask2cad_trainer(
    settings: Mask2CadTraining,
    store: RegionStore,
    library: CadLibrary,
    device: str = "cpu",
    init: Path | None = None,
) -> PredictorTrainer:
    """The trainer of a run. init: weights to begin with, whose bins are kept. Raises ValueError for a store
    that does not fit the network or the library, or holds a category of which `init` knows nothing."""
    channels = store.tensors["features"].shape[1]
    if channels != settings.network.features:
        raise ValueError(
            f"the regions have {channels} features, the network expects {settings.network.features}"
        )
    torch.manual_seed(settings.train.seed)
    network = Mask2CadNet(settings.network)
    if init is None:
        known = store.tensors
        boxes = RegionBoxes(known["boxes_xyxy"], known["intrinsics"], known["category"])
        fit_statistics(network, boxes, Pose(known["R"], known["T"], known["S"]), known["symmetry_order"])
    else:
        take_weights(network, init, Mask2CadConfig)
    batches = ViewedBatches(store, ViewSet(library, network), settings)
    return PredictorTrainer(settings.train, Mask2CadLosses(network, settings.loss), network, batches, device)
