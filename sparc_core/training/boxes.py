"""Training of the box network on the boxes of stored pictures, all held in memory as small squares."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from sparc_core.perception.box_inputs import (
    BoxInputs,
    flags_of,
    mirrored_place,
    mirrored_sides,
    place_of,
    square_of,
)
from sparc_core.perception.box_net import BoxNet, BoxNetConfig
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.training.box_table import NONE, BoxTable, cut_kept
from sparc_core.training.box_truth import BoxTruth, truth_of
from sparc_core.training.predictor_trainer import PredictorTrainConfig, PredictorTrainer
from sparc_core.training.predictors import take_weights
from sparc_core.training.proposals import PROPOSALS, read_proposals


@dataclass(frozen=True)
class BoxTraining:
    """A run of the box network. kept_px: side of the squares in memory. metric_weight: of the likelihoods of
    distance, centre, extents and the camera's height in the loss, sides_weight: of that of the sides of the
    box; beta: of all (Seitzer et al., ICLR 2022), see `DepthLosses`. The slopes of the former are mostly
    noise, as no picture tells the size of furniture that well: with weights of 1 the network learnt neither
    azimuths nor categories. box_jitter: the most by which the sides of a box are moved, as a share of its
    size, another limit up to it for every box; colour: how much brightness, contrast and saturation change;
    no_gravity: share of the pictures, no_category, missing: shares of the boxes for which gravity and
    category are not told, and which are left out. share: (first, last) of the pictures that are trained on,
    as shares of the folder. proposals: boxes that a detector found (`sparc train-perception proposals`), for
    every picture of a batch; a network with a background needs some to learn it from."""

    network: BoxNetConfig = field(default_factory=BoxNetConfig)
    train: PredictorTrainConfig = field(
        default_factory=lambda: PredictorTrainConfig(pictures=32, learning_rate=1e-3, optimiser="muon")
    )
    kept_px: int = 96
    metric_weight: float = 0.1
    sides_weight: float = 0.5
    beta: float = 0.5
    box_jitter: float = 0.15
    colour: float = 0.35
    no_gravity: float = 0.15
    no_category: float = 0.1
    missing: float = 0.15
    share: tuple[float, float] = (0.0, 1.0)
    proposals: float = 1.5

    def __post_init__(self):
        if self.proposals < 0 or (self.proposals > 0) != self.network.background:
            raise ValueError(
                f"box training proposals must be positive with a network background, else 0, got "
                f"{self.proposals} and {self.network.background}"
            )
        if not 0 <= self.share[0] < self.share[1] <= 1:
            raise ValueError(f"box training share must be within [0, 1], got {self.share}")
        if self.kept_px < self.network.size_px:
            raise ValueError(f"box training kept_px must be at least size_px, got {self.kept_px}")


@dataclass(frozen=True, eq=False)
class BoxBatch:
    """Boxes and what they are."""

    boxes: BoxInputs
    truth: BoxTruth

    def to(self, device) -> BoxBatch:
        """The same on a device."""
        truth = BoxTruth(**{name: value.to(device) for name, value in vars(self.truth).items()})
        return BoxBatch(self.boxes.to(device), truth)


class BoxBatches:
    """Draws pictures at random: their boxes moved, mirrored, with other colours."""

    def __init__(self, table: BoxTable, settings: BoxTraining):
        self.table, self.settings = table, settings

    def draw(self, generator: torch.Generator) -> BoxBatch:
        """The next batch."""
        settings, table, size = self.settings, self.table, self.settings.network.size_px
        pictures = torch.randint(table.pictures, (settings.train.pictures,), generator=generator)
        if settings.proposals:
            count = round(settings.proposals * settings.train.pictures)
            found = torch.randint(table.pictures, len(table.count), (count,), generator=generator)
            pictures = torch.cat((pictures, found))
        index, picture = table.of_pictures(pictures)
        here = torch.rand(len(index), generator=generator) >= settings.missing
        here[0] = True  # a batch is never empty
        index, picture = index[here], picture[here]

        def share(value: float, count: int) -> torch.Tensor:
            return torch.rand(count, generator=generator) < value

        exact, size_px = table.boxes_xyxy[index], table.size_px[index]
        jitter = settings.box_jitter * torch.rand(len(index), 1, 1, generator=generator)
        boxes = jitter_boxes(exact[:, None], size_px, jitter, generator)[:, 0]
        rgb = self._moved(index, exact, boxes)
        flags = flags_of(boxes, *square_of(boxes), size_px, size)
        up = table.up_cam[index] * ~share(settings.no_gravity, len(pictures))[picture][:, None]
        place = place_of(boxes, table.intrinsics[index], size_px, up)
        truth = truth_of(table, index, boxes)
        squares = torch.cat((self._recoloured(rgb, picture, len(pictures), generator), flags), 1)
        mirrored = share(0.5, len(pictures))[picture]
        squares = torch.where(mirrored[:, None, None, None], squares.flip(-1), squares)
        place = torch.where(mirrored[:, None], mirrored_place(place), place)
        turn = torch.tensor([1.0, -1.0]).repeat(3)
        truth = replace(
            truth,
            harmonics=torch.where(mirrored[:, None], truth.harmonics * turn, truth.harmonics),
            centre=torch.where(mirrored[:, None], truth.centre * torch.tensor([-1.0, 1.0]), truth.centre),
            sides=torch.where(mirrored[:, None], mirrored_sides(truth.sides), truth.sides),
        )
        untold = share(settings.no_category, len(index)) | (truth.label == NONE)
        category = torch.where(untold, -1, truth.label)
        return BoxBatch(BoxInputs(squares, place, category, picture), truth)

    def _moved(self, index: torch.Tensor, exact: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) the squares of moved boxes, out of those that are kept."""
        return cut_kept(self.table.squares[index], exact, boxes, self.settings.network.size_px)

    def _recoloured(self, rgb, picture, pictures: int, generator) -> torch.Tensor:
        """The boxes of a picture all in the same way."""
        factors = 1 + self.settings.colour * (2 * torch.rand(3, pictures, generator=generator) - 1)
        brightness, contrast, saturation = factors[:, picture, None, None, None]
        grey = rgb.mean(1, keepdim=True)
        rgb = grey + saturation * (rgb - grey)
        mean = rgb.mean((1, 2, 3), keepdim=True)
        return (((rgb - mean) * contrast + mean) * brightness).clamp(0, 1)


class BoxLosses(torch.nn.Module):
    """The network with its losses: squared distance of every known harmonic, cross-entropy of the category,
    Gaussian likelihoods of distance, centre, extents, the camera's height and the sides of the box."""

    def __init__(self, network: BoxNet, settings: BoxTraining):
        super().__init__()
        self.network, self.settings = network, settings

    def forward(self, batch: BoxBatch) -> dict[str, torch.Tensor]:
        found, truth, settings = self.network(batch.boxes), batch.truth, self.settings
        off = (found.harmonics - truth.harmonics).unflatten(-1, (-1, 2)).square().sum(-1)
        there = (truth.label != NONE).to(off.dtype)
        turned = truth.turned * there[:, None]
        gaussians = {
            name: _gaussian(getattr(found, name), getattr(truth, name), settings.beta)
            for name in ("distance", "centre", "extents", "height", "sides")
        }
        counts = dict.fromkeys(gaussians, there) | {"height": there * truth.stands}
        means = {
            name: (values * counts[name]).sum() / counts[name].sum().clamp(min=1)
            for name, values in gaussians.items()
        }
        weight = dict.fromkeys(means, settings.metric_weight) | {"sides": settings.sides_weight}
        return {
            "azimuth": (off * turned).sum() / turned.sum().clamp(min=1),
            "category": F.cross_entropy(found.logits, truth.label),
            **{name: weight[name] * value for name, value in means.items()},
        }


def _gaussian(found: torch.Tensor, truth: torch.Tensor, beta: float) -> torch.Tensor:
    """(K,) negative log-likelihoods of truths (K, n) for found (K, n + 1), weighed with the variance to the
    power beta and divided by n."""
    log_sigma = found[:, -1]
    off = (found[:, :-1] - truth) * torch.exp(-log_sigma)[:, None]
    return (0.5 * off.square().mean(1) + log_sigma) * torch.exp(2 * beta * log_sigma.detach())


def make_box_trainer(
    settings: BoxTraining, pictures: PictureFolder, device: str = "cpu", init: Path | None = None
) -> PredictorTrainer:
    """The trainer of a run; init as for `make_trainer`."""
    torch.manual_seed(settings.train.seed)
    network = BoxNet(settings.network)
    if init is not None:
        take_weights(network, init, BoxNetConfig)
    first, last = (round(share * len(pictures)) for share in settings.share)
    proposals = read_proposals(pictures.folder) if settings.proposals else None
    table = BoxTable(pictures, settings.kept_px, range(first, max(first + 1, last)), proposals)
    if settings.proposals and len(table.count) == table.pictures:
        raise ValueError(f"{pictures.folder / PROPOSALS}: it has no boxes of the pictures to train on")
    losses = BoxLosses(network, settings)
    batches = BoxBatches(table, settings)
    return PredictorTrainer(settings.train, losses, network, batches, device, network.ends())
