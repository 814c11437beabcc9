"""Training of ROCA on stored regions: the losses of its section 3.3, aware of symmetry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sparc_core.baselines.roca import RocaConfig, RocaNet, RocaOutput
from sparc_core.geometry.errors import symmetric_turns
from sparc_core.geometry.rotation import rotation_y
from sparc_core.training.predictor_trainer import PredictorTrainConfig, PredictorTrainer
from sparc_core.training.predictors import take_weights
from sparc_core.training.region_batches import RegionBatch, RegionBatches, RegionNoise
from sparc_core.training.region_store import RegionStore
from sparc_core.types import CATEGORIES


@dataclass(frozen=True)
class RocaLossConfig:
    """Weights of the losses; those of rotation and coordinates are the paper's, the others are 1 there.
    balance: objects count inversely to the logarithm of how often their category occurs, as in the paper."""

    rotation: float = 2.0
    noc: float = 3.0
    scale: float = 1.0
    translation: float = 1.0
    translation_first: float = 1.0
    balance: bool = True

    def __post_init__(self):
        for name in ("rotation", "noc", "scale", "translation", "translation_first"):
            if getattr(self, name) < 0:
                raise ValueError(f"roca loss {name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class RocaTraining:
    """A run; train.pictures is the number of objects a step."""

    network: RocaConfig = field(default_factory=RocaConfig)
    train: PredictorTrainConfig = field(
        default_factory=lambda: PredictorTrainConfig(pictures=64, learning_rate=1e-3, precision="fp32")
    )
    loss: RocaLossConfig = field(default_factory=RocaLossConfig)
    noise: RegionNoise = field(default_factory=RegionNoise)


class RocaLosses(torch.nn.Module):
    """The network with its losses; forward takes a `RegionBatch`. category_weight (9,): of the objects of
    each category.

    Depth is not learned here, so its losses are left out. Objects with too few cells for a pose count for
    the scale alone.
    """

    def __init__(self, network: RocaNet, config: RocaLossConfig, category_weight: torch.Tensor):
        super().__init__()
        self.network, self.config = network, config
        self.register_buffer("category_weight", category_weight)

    def forward(self, batch: RegionBatch) -> dict[str, torch.Tensor]:
        """Weighted losses by name."""
        config, found = self.config, self.network(batch.regions)
        with torch.autocast(found.noc.device.type, enabled=False):
            each = roca_losses(found, batch, config)
        weight = self.category_weight[batch.regions.category]
        posed = weight * found.enough
        losses = {}
        for name, values in each.items():
            mass = weight if name == "scale" else posed
            losses[name] = getattr(config, name) * (mass * values).sum() / mass.sum().clamp(min=1e-6)
        return losses


def roca_losses(
    found: RocaOutput, batch: RegionBatch, config: RocaLossConfig | None = None
) -> dict[str, torch.Tensor]:
    """(D,) losses without their weights: scale, translation_first, translation, and rotation and noc, these
    two at the turn of the symmetric model at which they are smallest together.

    The L1 norms of rotation and scale are means over their entries, that of the coordinates is the sum over
    the three and the mean over the cells. (The paper does not say. With a sum over the nine entries the
    rotation drowns the coordinates, which then serve Procrustes without being right.)
    """
    config, truth = config or RocaLossConfig(), batch.truth
    angles, exists = symmetric_turns(batch.symmetry_order)
    turn = rotation_y(angles.to(truth.R.dtype))
    rotation = (found.pose.R[:, None] - truth.R[:, None] @ turn).abs().mean((-1, -2))
    # a turn g of the model before its pose: R' = R·g and q' = gᵀ·q, which for rows is q·g
    noc = batch.noc.flatten(1, 2)[:, None] @ turn
    cells = (batch.own.flatten(1) & (found.weight > 0)).to(noc.dtype)
    distance = (found.noc[:, None] - noc).abs().sum(-1)
    noc = (distance * cells[:, None]).sum(-1) / cells.sum(1, keepdim=True).clamp(min=1)
    together = (config.rotation * rotation + config.noc * noc).masked_fill(~exists, torch.inf)
    best = together.argmin(1, keepdim=True)
    return {
        "rotation": rotation.gather(1, best)[:, 0],
        "noc": noc.gather(1, best)[:, 0],
        "scale": (found.pose.S - truth.S).abs().mean(-1),
        "translation": length(found.pose.T - truth.T),
        "translation_first": length(found.T_first - truth.T),
    }


def length(vector: torch.Tensor) -> torch.Tensor:
    """(...) lengths of (..., 3) whose gradient is finite at zero."""
    return (vector.square().sum(-1) + 1e-12).sqrt()


def category_weights(category: torch.Tensor) -> torch.Tensor:
    """(9,) inverse logarithms of how often each category occurs in (M,), 1 on average over the objects."""
    count = torch.bincount(category, minlength=len(CATEGORIES)).float()
    weight = 1 / (count + 1).log().clamp(min=1)
    return weight * count.sum() / (weight * count).sum()


def with_extents_of(settings: RocaTraining, store: RegionStore) -> RocaTraining:
    """The run with the scale of every category beginning at the store's median extents (1 m where it has
    none), and the store's feature channels."""
    category, extents = store.tensors["category"], store.tensors["S"]
    medians = []
    for number in range(len(CATEGORIES)):
        own = extents[category == number]
        values = own.median(0).values if len(own) else torch.ones(3)
        medians.append(tuple(round(float(v), 4) for v in values))
    channels = store.tensors["features"].shape[1]
    return replace(
        settings,
        network=replace(settings.network, median_extents_m=tuple(medians), feature_channels=channels),
    )


def make_roca_trainer(
    settings: RocaTraining, store: RegionStore, device: str = "cpu", init: Path | None = None
) -> PredictorTrainer:
    """The trainer of a run; init: weights of the same network to begin with. Raises ValueError naming a file
    that does not fit."""
    torch.manual_seed(settings.train.seed)
    network = RocaNet(settings.network)
    if init is not None:
        take_weights(network, init, RocaConfig)
    batches = RegionBatches(store, settings.train.pictures, settings.noise)
    losses = RocaLosses(network, settings.loss, category_weights(store.tensors["category"]))
    return PredictorTrainer(settings.train, losses, network, batches, device)
