"""Training of the retrieval network: contrastive, within the category, with similar models as hard examples.

Regions are sampled pixels of synthetic scenes, as in the aligner's training; nothing needs a whole image. An
auxiliary decoder draws the object's points from the region's vector (ROCA's completion), so that the vector
knows the shape of what is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.inputs.assemble import InputConfig
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.retrieval.network import RetrievalConfig, RetrievalNet, cad_tokens
from sparc_core.retrieval.region import region_tokens
from sparc_core.synth.corrupt import NoiseConfig
from sparc_core.synth.scenes import SceneConfig
from sparc_core.training.data import DataConfig, SyntheticData
from sparc_core.training.predictor_trainer import PredictorTrainConfig, PredictorTrainer
from sparc_core.training.predictors import take_weights

NEIGHBOURS = 8  # most similar models of each, from which hard examples are taken
CHAMFER_POINTS = 128


@dataclass(frozen=True)
class RetrievalTraining:
    """A run. negatives: similar models beside those of the batch, one for each object. completion: weight of
    the auxiliary decoder's loss."""

    network: RetrievalConfig = field(default_factory=RetrievalConfig)
    train: PredictorTrainConfig = field(
        default_factory=lambda: PredictorTrainConfig(pictures=16, learning_rate=1e-3, precision="fp32")
    )
    data: DataConfig = field(default_factory=lambda: DataConfig(
        scenes=SceneConfig(objects=8, clutter=2, free_share=0.0, recoloured_share=0.3),
        noise=NoiseConfig(perfect=0.05, sensor=0.45, monocular=0.45, none=0.05),
        similar_model=0.0, min_visible=0.2,
    ))  # fmt: skip
    completion: float = 0.2


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """D objects: what is seen of them (B, N), which of them are there (B, N), category (B, N), the CAD model
    (B, N) and the true extents (B, N, 3); model numbers (C,) of the candidates, the batch's own among
    them."""

    frame: Frame
    samples: PixelSamples
    valid: torch.Tensor
    category: torch.Tensor
    model: torch.Tensor
    extents_m: torch.Tensor
    candidates: torch.Tensor

    def to(self, device) -> RegionBatch:
        """It is on its device already."""
        return self


class RegionBatches:
    """Draws batches of regions from synthetic scenes, with candidates to tell apart."""

    def __init__(self, library: CadLibrary, settings: RetrievalTraining, device: str = "cpu"):
        inputs = InputConfig(n_bbox=settings.network.n_pixels)
        self.data = SyntheticData(library, settings.data, inputs, device)
        self.images, self.device = settings.train.pictures, device
        self.neighbours = similar_models(self.data.cad, NEIGHBOURS)

    def draw(self, generator: torch.Generator) -> RegionBatch:
        """The next batch, from a CPU generator."""
        seed = int(torch.randint(2**62, (), generator=generator))
        own = torch.Generator(self.device).manual_seed(seed)
        batch = self.data.batch(self.images, own)
        model, valid = batch.surface.model, batch.frame.object_valid
        seen = model[valid]
        column = torch.randint(NEIGHBOURS, seen.shape, generator=own, device=own.device)
        candidates = torch.cat((seen, self.neighbours[seen, column])).unique()
        return RegionBatch(
            batch.frame, batch.box_samples, valid, batch.category, model, batch.truth.S, candidates
        )


def similar_models(cad: CadTensors, count: int) -> torch.Tensor:
    """(M, count) other models of the same category with the smallest Chamfer distance; a model of a small
    category has some of them twice, and itself where it is alone."""
    points = cad.points[:, :CHAMFER_POINTS] * cad.extents_m[:, None]
    similar = torch.arange(len(points), device=points.device)[:, None].repeat(1, count)
    for category in cad.category.unique():
        members = (cad.category == category).nonzero()[:, 0]
        if len(members) < 2:
            continue
        for m in members:
            distance = torch.cdist(points[m].expand(len(members), -1, -1), points[members])
            chamfer = distance.amin(1).mean(-1) + distance.amin(2).mean(-1)
            order = members[torch.where(members == m, torch.inf, chamfer).argsort()[: len(members) - 1]]
            similar[m] = order[torch.arange(count, device=order.device) % len(order)]
    return similar


class RetrievalLosses(torch.nn.Module):
    """The network with its losses; forward takes a `RegionBatch`."""

    def __init__(self, network: RetrievalNet, cad: CadTensors, completion: float):
        super().__init__()
        self.network, self.weight = network, completion
        self.library = cad

    def forward(self, batch: RegionBatch) -> dict[str, torch.Tensor]:
        """Cross entropy of telling the right model among the candidates of the category, both ways round, and
        the Chamfer distance of the completed points."""
        cad, few = self.library, slice(0, self.network.config.n_points)
        tokens, context, inside = region_tokens(batch.frame, batch.samples, batch.category)
        seen = batch.valid
        regions = self.network.region(tokens[seen], context[seen], inside[seen])
        chosen = batch.candidates
        vectors = self.network.cad(*cad_tokens(
            cad.points[chosen, few], cad.normals[chosen, few], cad.colors[chosen, few], cad.extents_m[chosen],
            cad.category[chosen],
        ))  # fmt: skip
        right = (chosen == batch.model[seen][:, None]).int().argmax(1)
        losses = contrastive_losses(
            regions @ vectors.T * self.network.log_scale.exp().clamp(max=100), right,
            cad.category[chosen] == batch.category[seen][:, None],
        )  # fmt: skip
        drawn = self.network.completed(regions)
        true = cad.points[batch.model[seen], : 2 * CHAMFER_POINTS] * batch.extents_m[seen][:, None]
        distance = torch.cdist(drawn, true)
        chamfer = distance.amin(1).mean() + distance.amin(2).mean()
        return {"contrast": losses, "completion": self.weight * chamfer}


def contrastive_losses(similarity: torch.Tensor, right: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Mean of both cross entropies. similarity (D, C) of regions and candidates; right (D,) position of each
    region's model; same (D, C) bool: of the same category, the only ones that are to be told apart."""
    rows = F.cross_entropy(similarity.masked_fill(~same, -torch.inf), right)
    # from the model's side: which of the regions shows it; several may, and all of them are right
    shown = right[:, None] == torch.arange(similarity.shape[1], device=right.device)
    present = shown.any(0)
    shown = shown[:, present]
    columns = similarity.masked_fill(~same, -torch.inf)[:, present].log_softmax(0)
    each = columns.masked_fill(~shown, 0.0).sum(0) / shown.sum(0)
    return 0.5 * (rows - each.mean())


def make_retrieval_trainer(
    settings: RetrievalTraining, library: CadLibrary, device: str = "cpu", init: Path | None = None
) -> PredictorTrainer:
    """The trainer of a run; init as for `make_trainer`."""
    torch.manual_seed(settings.train.seed)
    network = RetrievalNet(settings.network)
    if init is not None:
        take_weights(network, init, RetrievalConfig)
    batches = RegionBatches(library, settings, device)
    losses = RetrievalLosses(network, batches.data.cad, settings.completion)
    return PredictorTrainer(settings.train, losses, network, batches, device)
