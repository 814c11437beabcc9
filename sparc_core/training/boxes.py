"""Training of the box network on the boxes of stored pictures, all held in memory as small squares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sparc_core.cad.symmetry import SYMMETRY_ORDERS
from sparc_core.geometry.camera import box_ray, project
from sparc_core.geometry.rotation import azimuth_rad, level_frame
from sparc_core.perception.box_net import (
    GROWTH,
    BoxInputs,
    BoxNet,
    BoxNetConfig,
    BoxOutput,
    cut_square,
    flags_of,
    place_of,
    placed,
    square_of,
)
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.synth.picture_set import PicturedObject, PictureFolder, StoredPicture
from sparc_core.training.predictor_trainer import PredictorTrainConfig, PredictorTrainer
from sparc_core.training.predictors import take_weights
from sparc_core.training.proposals import PROPOSALS, labelled, read_proposals
from sparc_core.types import AZIMUTH_ORDERS, CATEGORIES

MARGIN = 1.6  # side of a kept square over the longer side of the box: room for boxes that are moved
MIN_BOX_PX = 10.0
FAR_OFF = 1.5  # half sides of a box: a centre that is seen further from its middle counts as there
HUNG = CATEGORIES.index("display")  # the category that does not stand on the floor
NONE = len(CATEGORIES)  # the label of a box that shows no object


@dataclass(frozen=True)
class BoxTraining:
    """A run of the box network. kept_px: side of the squares in memory. metric_weight: of the likelihoods of
    distance, centre, extents and the camera's height in the loss; beta: of the same (Seitzer et al., ICLR
    2022), see `DepthLosses`. Their slopes are mostly noise, as no picture tells the size of furniture that
    well: with weights of 1 the network learnt neither azimuths nor categories. box_jitter: of every side of a
    box, as a share of its size; colour: how much brightness, contrast and saturation change; no_gravity:
    share of the pictures, no_category, missing: shares of the boxes for which gravity and category are not
    told, and which are left out. share: (first, last) of the pictures that are trained on, as shares of the
    folder. proposals: boxes that a detector found (`sparc train-perception proposals`), for every picture of
    a batch; a network with a background needs some to learn it from."""

    network: BoxNetConfig = field(default_factory=BoxNetConfig)
    train: PredictorTrainConfig = field(
        default_factory=lambda: PredictorTrainConfig(pictures=32, learning_rate=1e-3, optimiser="muon")
    )
    kept_px: int = 96
    metric_weight: float = 0.1
    beta: float = 0.5
    box_jitter: float = 0.06
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
class BoxTruth:
    """What a network is to say of K boxes. label (K,) the category, `NONE` for no object, of which nothing
    else counts; harmonics (K, 6) and turned (K, 3), which
    of the harmonics an object of this symmetry has; distance (K, 1), centre (K, 2), extents (K, 3) and height
    (K, 1) as in `BoxOutput`; stands (K,) bool, whether the height is known."""

    label: torch.Tensor
    harmonics: torch.Tensor
    turned: torch.Tensor
    distance: torch.Tensor
    centre: torch.Tensor
    extents: torch.Tensor
    height: torch.Tensor
    stands: torch.Tensor


@dataclass(frozen=True, eq=False)
class BoxBatch:
    """Boxes and what they are."""

    boxes: BoxInputs
    truth: BoxTruth

    def to(self, device) -> BoxBatch:
        """The same on a device."""
        truth = BoxTruth(**{name: value.to(device) for name, value in vars(self.truth).items()})
        return BoxBatch(self.boxes.to(device), truth)


class BoxTable:
    """All boxes of a folder's pictures in memory, (N, …): squares (N, 3, P, P) uint8 around them, boxes_xyxy,
    intrinsics, size_px, up_cam, R, T, S, height (NaN unknown), label and symmetry_order; the boxes of a
    picture lie together: first, count of every picture's.

    proposals: boxes by the pictures' numbers, that a detector found. They come behind the others, each as if
    it were a picture of its own, from picture `pictures` on."""

    def __init__(self, pictures: PictureFolder, kept_px: int, positions=None, proposals=None):
        groups, alone = [], []
        for position in range(len(pictures)) if positions is None else positions:
            picture = pictures.read(position, ())
            picture = replace(picture, rgb=np.ascontiguousarray(picture.rgb))
            height = _camera_height(picture)
            true = [(np.array(item.box_xyxy), item) for item in picture.objects]
            groups.append([_row(picture, height, *pair, kept_px) for pair in true if _large(pair[0])])
            found = labelled((proposals or {}).get(picture.number, ()), picture.objects)
            alone += [[_row(picture, height, *pair, kept_px)] for pair in found if _large(pair[0])]
        groups = [group for group in groups if group]
        if not groups:
            raise ValueError(f"{pictures.folder}: no picture shows an object of {MIN_BOX_PX:.0f} pixels")
        self.pictures = len(groups)
        rows = [row for group in groups + alone for row in group]
        columns = [np.stack(values) for values in zip(*rows, strict=True)]
        self.squares = torch.from_numpy(columns[0]).permute(0, 3, 1, 2)
        self.boxes_xyxy, self.intrinsics, self.size_px, self.up_cam, self.R, self.T, self.S, self.height = (
            torch.from_numpy(values).float() for values in columns[1:9]
        )
        self.label, self.symmetry_order = (torch.from_numpy(values) for values in columns[9:])
        self.count = torch.tensor([len(group) for group in groups + alone])
        self.first = self.count.cumsum(0) - self.count

    def __len__(self) -> int:
        return len(self.label)

    def of_pictures(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (K,) of the boxes of pictures (P,), one picture after the other, and for each which of the
        P it is of."""
        place = torch.repeat_interleave(torch.arange(len(pictures)), self.count[pictures])
        within = torch.arange(len(place)) - (self.count[pictures].cumsum(0) - self.count[pictures])[place]
        return self.first[pictures][place] + within, place


def _large(box: np.ndarray) -> bool:
    return (box[2:] - box[:2]).min() >= MIN_BOX_PX


def _row(
    picture: StoredPicture, camera_height: float, box: np.ndarray, item: PicturedObject | None, kept_px: int
) -> tuple:
    """A row of the table. What is not known of a box without an object is that of a cube around the camera's
    principal ray."""
    height, width = picture.rgb.shape[:2]
    half = MARGIN / 2 * (box[2:] - box[:2]).max()
    square = cut_square(picture.rgb, (box[:2] + box[2:]) / 2, half, kept_px)
    R, T, S = (np.eye(3), (0, 0, 1), (1, 1, 1)) if item is None else (item.R, item.T_m, item.S_m)
    label, order = (NONE, 1) if item is None else (
        CATEGORIES.index(item.category), SYMMETRY_ORDERS[item.symmetry]
    )  # fmt: skip
    return (
        square, box, picture.intrinsics, np.array([width, height]), picture.up_cam, np.array(R),
        np.array(T), np.array(S), np.array(camera_height), np.array(label), np.array(order),
    )  # fmt: skip


def _camera_height(picture: StoredPicture) -> float:
    """Metres of the camera above the floor on which the objects stand; NaN where none does."""
    up = picture.up_cam
    standing = [o for o in picture.objects if CATEGORIES.index(o.category) != HUNG]
    return max((o.S_m[1] / 2 - float(up @ np.array(o.T_m)) for o in standing), default=math.nan)


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
        boxes = jitter_boxes(exact[:, None], size_px, settings.box_jitter, generator)[:, 0]
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


def cut_kept(kept: torch.Tensor, exact: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, size, size) in [0, 1] the squares of boxes (B, 4), out of squares (B, 3, P, P) uint8 that were
    kept of the exact ones."""
    kept_centre, kept_half = square_of(exact)
    kept_half = kept_half * (MARGIN / GROWTH)
    centre, half = square_of(boxes)
    matrix = torch.zeros(len(boxes), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = half / kept_half
    matrix[:, :, 2] = (centre - kept_centre) / kept_half[:, None]
    grid = F.affine_grid(matrix, (len(boxes), 3, size, size), align_corners=False)
    return F.grid_sample(kept.float() / 255, grid, padding_mode="border", align_corners=False)


def truth_of(table: BoxTable, index: torch.Tensor, boxes_xyxy: torch.Tensor) -> BoxTruth:
    """What is to be said of the boxes of a table, moved to boxes_xyxy (K, 4)."""
    intrinsics, T, symmetry = table.intrinsics[index], table.T[index], table.symmetry_order[index]
    rays = F.normalize(box_ray(boxes_xyxy, intrinsics), dim=-1)
    theta = azimuth_rad(table.R[index], level_frame(table.up_cam[index], rays))
    orders = torch.tensor(AZIMUTH_ORDERS)
    phase = theta[:, None] * orders
    seen = project(T[:, None], intrinsics)[0][:, 0]
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    centre = (seen - (low + high) / 2) / ((high - low) / 2)
    height = table.height[index]
    return BoxTruth(
        table.label[index], torch.stack((phase.cos(), phase.sin()), -1).flatten(1),
        orders[None] % symmetry[:, None] == 0, T.norm(dim=-1, keepdim=True).log(),
        centre.clamp(-FAR_OFF, FAR_OFF), table.S[index].log(),
        height.nan_to_num(1.0).clamp(min=0.1).log()[:, None], ~height.isnan(),
    )  # fmt: skip


def mirrored_place(place: torch.Tensor) -> torch.Tensor:
    """`place_of` (..., `PLACE`) in a mirror: x of up and ray turn round, left and right change places."""
    sign = torch.ones(place.shape[-1])
    sign[0] = sign[3] = -1
    order = torch.arange(place.shape[-1])
    order[[8, 10]] = order[[10, 8]]
    return (place * sign)[..., order]


class BoxLosses(torch.nn.Module):
    """The network with its losses: squared distance of every known harmonic, cross-entropy of the category,
    Gaussian likelihoods of distance, centre, extents and the camera's height."""

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
            for name in ("distance", "centre", "extents", "height")
        }
        counts = dict.fromkeys(gaussians, there) | {"height": there * truth.stands}
        means = {
            name: (values * counts[name]).sum() / counts[name].sum().clamp(min=1)
            for name, values in gaussians.items()
        }
        return {
            "azimuth": (off * turned).sum() / turned.sum().clamp(min=1),
            "category": F.cross_entropy(found.logits, truth.label),
            **{name: settings.metric_weight * value for name, value in means.items()},
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


@torch.no_grad()
def look_at_table(network: BoxNet, table: BoxTable, named: bool = True) -> BoxOutput:
    """What a network says of all boxes of a table; named: told the categories."""
    network, size, parts = network.eval(), network.config.size_px, []
    for pictures in torch.arange(len(table.count)).split(50):
        index, picture = table.of_pictures(pictures)
        boxes, size_px = table.boxes_xyxy[index], table.size_px[index]
        rgb = cut_kept(table.squares[index], boxes, boxes, size)
        squares = torch.cat((rgb, flags_of(boxes, *square_of(boxes), size_px, size)), 1)
        place = place_of(boxes, table.intrinsics[index], size_px, table.up_cam[index])
        category = table.label[index] if named else torch.full_like(index, -1)
        parts.append(vars(network(BoxInputs(squares, place, category, picture))))
    return BoxOutput(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def measure_boxes(network: BoxNet, table: BoxTable) -> dict[str, float]:
    """Shares of the boxes whose azimuth is found within 20° and 45°, where the object's symmetry leaves one,
    up to that; of those without a symmetry alone ("front_…"); of those whose category is found, where it is
    not told; whose centre is found within 20 cm ("place_20cm"); whose extents are all within 20 %. Medians:
    distance_off (share of the distance), place_off_m; height_off (share of the camera's height)."""
    found = look_at_table(network, table)
    every = torch.arange(len(table))
    truth = truth_of(table, every, table.boxes_xyxy)
    pairs, true_pairs = (x.harmonics.unflatten(-1, (-1, 2)) for x in (found, truth))
    angle = torch.atan2(pairs[..., 1], pairs[..., 0]) - torch.atan2(true_pairs[..., 1], true_pairs[..., 0])
    off_deg = torch.rad2deg(torch.atan2(angle.sin(), angle.cos()).abs()) / torch.tensor(AZIMUTH_ORDERS)
    lowest = truth.turned.float().argmax(1)  # the lowest harmonic that there is
    turned = truth.turned.any(1)
    own = off_deg[every, lowest]
    figures = {}
    for limit in (20, 45):
        figures[f"azimuth_{limit}"] = (own[turned] <= limit).float().mean()
        figures[f"front_{limit}"] = (own[turned & (lowest == 0)] <= limit).float().mean()
    logits = look_at_table(network, table, named=False).logits
    figures["category"] = (logits[:, :NONE].argmax(1) == table.label).float().mean()
    off_m = (placed(found, table.boxes_xyxy, table.intrinsics) - table.T).norm(dim=-1)
    figures["place_20cm"] = (off_m <= 0.2).float().mean()
    figures["place_off_m"] = off_m.median()
    figures["distance_off"] = (found.distance[:, 0] - truth.distance[:, 0]).abs().median().expm1()
    figures["height_off"] = (found.height[:, 0] - truth.height[:, 0]).abs()[truth.stands].nanmedian().expm1()
    wrong = (found.extents[:, :3] - truth.extents).exp() - 1
    figures["extents_20"] = (wrong.abs() <= 0.2).all(1).float().mean()
    return {name: round(float(v), 4) for name, v in figures.items() if not math.isnan(v)}
