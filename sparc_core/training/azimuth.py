"""Training of the azimuth network on the boxes of stored pictures, all held in memory as small squares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sparc_core.cad.symmetry import SYMMETRY_ORDERS
from sparc_core.geometry.camera import box_ray
from sparc_core.geometry.rotation import azimuth_rad, level_frame
from sparc_core.perception.azimuth_net import (
    GROWTH,
    AzimuthNet,
    AzimuthNetConfig,
    cut_square,
    flags_of,
    place_of,
    square_of,
)
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.synth.picture_set import PictureFolder, StoredPicture
from sparc_core.training.predictor_trainer import PredictorTrainConfig, PredictorTrainer
from sparc_core.training.predictors import take_weights
from sparc_core.types import AZIMUTH_ORDERS, CATEGORIES

MARGIN = 1.6  # side of a kept square over the longer side of the box: room for boxes that are moved
MIN_BOX_PX = 10.0


@dataclass(frozen=True)
class AzimuthTraining:
    """A run of the azimuth network. kept_px: side of the squares in memory. category_weight: of the
    category's cross-entropy in the loss. box_jitter: of every side of a box, as a share of its size; colour:
    how much brightness, contrast and saturation change; no_gravity, no_category: shares for which they are
    not told. share: (first, last) of the pictures that are trained on, as shares of the folder."""

    network: AzimuthNetConfig = field(default_factory=AzimuthNetConfig)
    train: PredictorTrainConfig = field(
        default_factory=lambda: PredictorTrainConfig(pictures=128, learning_rate=1e-3, optimiser="muon")
    )
    kept_px: int = 96
    category_weight: float = 0.3
    box_jitter: float = 0.06
    colour: float = 0.35
    no_gravity: float = 0.2
    no_category: float = 0.1
    share: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        if not 0 <= self.share[0] < self.share[1] <= 1:
            raise ValueError(f"azimuth training share must be within [0, 1], got {self.share}")
        if self.kept_px < self.network.size_px:
            raise ValueError(f"azimuth training kept_px must be at least size_px, got {self.kept_px}")


@dataclass(frozen=True, eq=False)
class AzimuthBatch:
    """What `AzimuthNet` takes: squares (B, 5, S, S), place (B, 12), category (B,), −1 where it is not told;
    and what it is to say: label (B,) the category, harmonics (B, 6) and known (B, 3), which of the harmonics
    an object of this symmetry has."""

    squares: torch.Tensor
    place: torch.Tensor
    category: torch.Tensor
    label: torch.Tensor
    harmonics: torch.Tensor
    known: torch.Tensor

    def to(self, device) -> AzimuthBatch:
        """The same on a device."""
        return AzimuthBatch(**{name: value.to(device) for name, value in vars(self).items()})


class BoxTable:
    """All boxes of a folder's pictures in memory, (N, …): squares (N, 3, P, P) uint8 around them, boxes_xyxy,
    intrinsics, size_px, up_cam, R, label and symmetry_order."""

    def __init__(self, pictures: PictureFolder, kept_px: int, positions=None):
        rows = []
        for position in range(len(pictures)) if positions is None else positions:
            rows += _rows(pictures.read(position, ()), kept_px)
        if not rows:
            raise ValueError(f"{pictures.folder}: no picture shows an object of {MIN_BOX_PX:.0f} pixels")
        columns = [np.stack(values) for values in zip(*rows, strict=True)]
        self.squares = torch.from_numpy(columns[0]).permute(0, 3, 1, 2)
        self.boxes_xyxy, self.intrinsics, self.size_px, self.up_cam, self.R = (
            torch.from_numpy(values).float() for values in columns[1:6]
        )
        self.label, self.symmetry_order = (torch.from_numpy(values) for values in columns[6:])

    def __len__(self) -> int:
        return len(self.label)


def _rows(picture: StoredPicture, kept_px: int) -> list[tuple]:
    rows = []
    height, width = picture.rgb.shape[:2]
    rgb = np.ascontiguousarray(picture.rgb)
    for item in picture.objects:
        box = np.array(item.box_xyxy)
        if (box[2:] - box[:2]).min() < MIN_BOX_PX:
            continue
        half = MARGIN / 2 * (box[2:] - box[:2]).max()
        square = cut_square(rgb, (box[:2] + box[2:]) / 2, half, kept_px)
        rows.append((
            square, box, picture.intrinsics, np.array([width, height]), picture.up_cam, np.array(item.R),
            np.array(CATEGORIES.index(item.category)), np.array(SYMMETRY_ORDERS[item.symmetry]),
        ))  # fmt: skip
    return rows


class AzimuthBatches:
    """Draws boxes at random: moved, mirrored, with other colours."""

    def __init__(self, table: BoxTable, settings: AzimuthTraining):
        self.table, self.settings = table, settings

    def draw(self, generator: torch.Generator) -> AzimuthBatch:
        """The next batch."""
        settings, table = self.settings, self.table
        count, size = settings.train.pictures, settings.network.size_px
        index = torch.randint(len(table), (count,), generator=generator)

        def share(value: float) -> torch.Tensor:
            return torch.rand(count, generator=generator) < value

        exact, size_px = table.boxes_xyxy[index], table.size_px[index]
        boxes = jitter_boxes(exact[:, None], size_px, settings.box_jitter, generator)[:, 0]
        rgb = self._moved(index, exact, boxes)
        centre, half = square_of(boxes)
        flags = flags_of(boxes, centre, half, size_px, size)
        up = table.up_cam[index] * ~share(settings.no_gravity)[:, None]
        place = place_of(boxes, table.intrinsics[index], size_px, up)
        harmonics, known = targets(table, index, exact)
        squares = torch.cat((_recoloured(rgb, settings.colour, generator), flags), 1)
        mirrored = share(0.5)
        squares = torch.where(mirrored[:, None, None, None], squares.flip(-1), squares)
        place = torch.where(mirrored[:, None], mirrored_place(place), place)
        harmonics = torch.where(mirrored[:, None], harmonics * torch.tensor([1.0, -1.0]).repeat(3), harmonics)
        label = table.label[index]
        category = torch.where(share(settings.no_category), -1, label)
        return AzimuthBatch(squares, place, category, label, harmonics, known)

    def _moved(self, index: torch.Tensor, exact: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) the squares of moved boxes, out of those that are kept."""
        size = self.settings.network.size_px
        kept_centre, kept_half = square_of(exact)
        kept_half = kept_half * (MARGIN / GROWTH)
        centre, half = square_of(boxes)
        matrix = torch.zeros(len(index), 2, 3)
        matrix[:, 0, 0] = matrix[:, 1, 1] = half / kept_half
        matrix[:, :, 2] = (centre - kept_centre) / kept_half[:, None]
        grid = F.affine_grid(matrix, (len(index), 3, size, size), align_corners=False)
        kept = self.table.squares[index].float() / 255
        return F.grid_sample(kept, grid, padding_mode="border", align_corners=False)


def targets(table: BoxTable, index: torch.Tensor, boxes_xyxy: torch.Tensor):
    """Harmonics (B, 6) of the true azimuths and which of them are known (B, 3)."""
    rays = F.normalize(box_ray(boxes_xyxy, table.intrinsics[index]), dim=-1)
    theta = azimuth_rad(table.R[index], level_frame(table.up_cam[index], rays))
    orders = torch.tensor(AZIMUTH_ORDERS)
    phase = theta[:, None] * orders
    known = orders[None] % table.symmetry_order[index][:, None] == 0
    return torch.stack((phase.cos(), phase.sin()), -1).flatten(1), known


def mirrored_place(place: torch.Tensor) -> torch.Tensor:
    """`place_of` as a mirrored camera sees it: x of up and ray turn round, left and right change places."""
    sign = torch.ones(place.shape[-1])
    sign[0] = sign[3] = -1
    order = [0, 1, 2, 3, 4, 5, 6, 7, 10, 9, 8, 11]
    return (place * sign)[:, order]


def _recoloured(rgb: torch.Tensor, colour: float, generator: torch.Generator) -> torch.Tensor:
    factors = 1 + colour * (2 * torch.rand(3, len(rgb), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors
    grey = rgb.mean(1, keepdim=True)
    rgb = grey + saturation * (rgb - grey)
    mean = rgb.mean((1, 2, 3), keepdim=True)
    return (((rgb - mean) * contrast + mean) * brightness).clamp(0, 1)


class AzimuthLosses(torch.nn.Module):
    """The network with its losses: squared distance of every known harmonic, and the category."""

    def __init__(self, network: AzimuthNet, category_weight: float):
        super().__init__()
        self.network, self.category_weight = network, category_weight

    def forward(self, batch: AzimuthBatch) -> dict[str, torch.Tensor]:
        harmonics, logits = self.network(batch.squares, batch.place, batch.category)
        off = (harmonics - batch.harmonics).unflatten(-1, (-1, 2)).square().sum(-1)
        known = batch.known.to(off.dtype)
        return {
            "azimuth": (off * known).sum() / known.sum().clamp(min=1),
            "category": self.category_weight * F.cross_entropy(logits, batch.label),
        }


def make_azimuth_trainer(
    settings: AzimuthTraining, pictures: PictureFolder, device: str = "cpu", init: Path | None = None
) -> PredictorTrainer:
    """The trainer of a run; init as for `make_trainer`."""
    torch.manual_seed(settings.train.seed)
    network = AzimuthNet(settings.network)
    if init is not None:
        take_weights(network, init, AzimuthNetConfig)
    first, last = (round(share * len(pictures)) for share in settings.share)
    table = BoxTable(pictures, settings.kept_px, range(first, max(first + 1, last)))
    losses = AzimuthLosses(network, settings.category_weight)
    batches = AzimuthBatches(table, settings)
    return PredictorTrainer(settings.train, losses, network, batches, device, network.ends())


@torch.no_grad()
def measure_azimuth(network: AzimuthNet, table: BoxTable) -> dict[str, float]:
    """Shares of the boxes whose azimuth is found within 20° and 45°, where the object's symmetry leaves one,
    up to that; of those without a symmetry alone ("front_…"); and of those whose category is found, where it
    is not told."""
    network = network.eval()
    size, found, logits = network.config.size_px, [], []
    for index in torch.arange(len(table)).split(256):
        boxes, size_px = table.boxes_xyxy[index], table.size_px[index]
        kept_half = square_of(boxes)[1] * (MARGIN / GROWTH)
        centre, half = square_of(boxes)
        edge = (half / kept_half)[:, None, None]
        matrix = torch.cat((torch.eye(2).expand(len(index), 2, 2) * edge, torch.zeros(len(index), 2, 1)), -1)
        grid = F.affine_grid(matrix, (len(index), 3, size, size), align_corners=False)
        rgb = F.grid_sample(table.squares[index].float() / 255, grid, align_corners=False)
        squares = torch.cat((rgb, flags_of(boxes, centre, half, size_px, size)), 1)
        place = place_of(boxes, table.intrinsics[index], size_px, table.up_cam[index])
        found.append(network(squares, place, table.label[index])[0])
        logits.append(network(squares, place, torch.full_like(index, -1))[1])
    every = torch.arange(len(table))
    truth, known = targets(table, every, table.boxes_xyxy)
    figures = {}
    pairs, true_pairs = (x.unflatten(-1, (-1, 2)) for x in (torch.cat(found), truth))
    angle = torch.atan2(pairs[..., 1], pairs[..., 0]) - torch.atan2(true_pairs[..., 1], true_pairs[..., 0])
    off_deg = torch.rad2deg(torch.atan2(angle.sin(), angle.cos()).abs()) / torch.tensor(AZIMUTH_ORDERS)
    lowest = known.float().argmax(1)  # the lowest harmonic that there is
    turned = known.any(1)
    own = off_deg[every, lowest]
    for limit in (20, 45):
        figures[f"azimuth_{limit}"] = float((own[turned] <= limit).float().mean())
        figures[f"front_{limit}"] = float((own[turned & (lowest == 0)] <= limit).float().mean())
    figures["category"] = float((torch.cat(logits).argmax(1) == table.label).float().mean())
    return {name: round(value, 4) for name, value in figures.items() if not math.isnan(value)}
