"""Training of Multi-SPARC-Net on synthetic scenes or recorded frames (Multi-SPARC sections 3.3, 3.4,
supplement B).

An image batch is refined three times in a row, each time from the network's own detached output, with
one optimiser step each; then new images are drawn. One image in four trains the score instead, on
poses of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from accelerate import Accelerator
from torch.profiler import record_function

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.pose import Pose, where
from sparc_core.geometry.rotation import rotation_y
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.refine.initial import estimated_translation, start_translation
from sparc_core.refine.loop import keep_plausible, observe_tokens, refine
from sparc_core.refine.model import ModelConfig
from sparc_core.refine.update import apply_update
from sparc_core.training.batch import TrainingBatch, TrainingData
from sparc_core.training.data import DataConfig, SyntheticData
from sparc_core.training.loop import TrainingLoop
from sparc_core.training.loss import LossConfig, alignment_loss, score_label, score_loss
from sparc_core.training.optimiser import OPTIMISERS, make_optimiser
from sparc_core.training.perturb import classifier_poses, paper_starts, turned_starts, upright_starts

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """One run, resolved. steps: optimiser steps; the learning rate warms up over `warmup_steps` and
    follows a cosine to 1 % at the end. time_limit_min > 0 ends the run by the clock instead, and the
    cosine follows whichever of the two is further. images: B. classifier_share of the images train σ;
    `converged_share` of those get poses that the network itself reached from one of the four rotations.
    paper_start_share of the other images start as in the paper, the rest as a search with depth would.
    ema: decay of the averaged weights, which are what is evaluated and shipped. precision: "fp32", "bf16"
    (mixed precision in the network; poses, tokens and losses stay fp32) or "auto": bf16 on a GPU."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: str = "muon"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    steps: int = 60_000
    time_limit_min: float = 0.0
    warmup_steps: int = 300
    images: int = 16
    refinements: int = 3
    classifier_share: float = 0.25
    converged_share: float = 0.7
    paper_start_share: float = 0.35
    gradient_clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(f"training precision must be one of {PRECISIONS}, got {self.precision!r}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {OPTIMISERS}, got {self.optimiser!r}")
        for name in ("steps", "images", "refinements"):
            if getattr(self, name) < 1:
                raise ValueError(f"training {name} must be at least 1, got {getattr(self, name)}")
        if self.model.score_of == "start" and self.converged_share > 0:
            raise ValueError(
                "training converged_share must be 0 for a model whose score is of the start, "
                f"got {self.converged_share}"
            )
        if not 0 <= self.classifier_share < 1:
            raise ValueError(f"training classifier_share must be in [0, 1), got {self.classifier_share}")


def synthetic_data(trainer: Trainer, library: CadLibrary) -> SyntheticData:
    """Scenes of a library's CAD models, as the trainer's configuration says."""
    config = trainer.config
    return SyntheticData(library, config.data, config.model.inputs, trainer.device)


class Trainer(TrainingLoop):
    """Trains Multi-SPARC-Net."""

    def __init__(
        self,
        config: TrainConfig,
        library: CadLibrary,
        device: str = "cpu",
        open_data: Callable[[Trainer, CadLibrary], TrainingData] = synthetic_data,
    ):
        """device: "cpu", or "cuda" for this process' GPU. open_data: what to train on, for this process
        (`rank` of `processes`) on its `device`."""
        mixed = config.precision == "bf16" or (config.precision == "auto" and device != "cpu")
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision="bf16" if mixed else "no")
        torch.manual_seed(config.seed)
        network = MultiSparcNet(config.model.network).to(accelerator.device)
        optimiser = make_optimiser(
            config.optimiser, network, config.learning_rate, config.weight_decay, network.ends()
        )
        super().__init__(config, accelerator, network, network, optimiser, accelerator.device)
        self.data = open_data(self, library)

    @property
    def images_a_step(self) -> int:
        """Images that all processes together see in a step."""
        return self.config.images * self.processes

    def load_state(self, state: dict) -> None:
        """The inverse of `state`; the data go on behind the images of before."""
        super().load_state(state)
        self.data.seek(self.step // self.config.refinements * self.config.images)

    def averaged_network(self) -> MultiSparcNet:
        """The network with the averaged weights, in evaluation mode."""
        network = MultiSparcNet(self.config.model.network).to(self.device)
        network.load_state_dict(self.averaged)
        return network.eval().requires_grad_(False)

    def _draw(self) -> TrainingBatch:
        with record_function("scenes"):
            return self.data.batch(self.config.images, self.generator)

    def _train_on(self, batch: TrainingBatch) -> dict[str, float]:
        config = self.config
        pose = update_starts(batch, config, self.generator)
        scoring = torch.arange(config.images, device=self.device) < round(
            config.images * config.classifier_share
        )
        scoring = scoring[:, None].expand(pose.shape)
        sums = torch.zeros(3, device=self.device)
        pose, travelled = self._travelled_poses(batch, pose, scoring)
        turned = turned_starts(pose, self.generator) if config.model.score_of == "start" else None
        for _ in range(config.refinements):
            drawn = turned
            if drawn is None:
                drawn = known_extents_kept(classifier_poses(batch.truth, self.generator), batch)
            pose = where(scoring & ~travelled, drawn, pose)
            losses, updated = self._losses(batch, pose, scoring)
            self._optimise(losses["loss"])
            sums += torch.stack([loss.detach() for loss in losses.values()]) / config.refinements
            pose = rescue_lost(keep_plausible(updated.detach()), batch, self.generator)
        # one wait for the GPU per image batch, not one per number
        return dict(zip(losses, sums.tolist(), strict=True)) | {
            "learning_rate": self.optimiser.param_groups[0]["lr"]
        }

    def _losses(self, batch: TrainingBatch, pose: Pose, scoring: torch.Tensor):
        config = self.config
        model = config.model
        tokens = observe_tokens(
            model.inputs, batch.frame, batch.source, batch.surface, pose, batch.box_samples, self.generator
        )
        with record_function("forward"):
            output = self.trained(tokens.features, tokens.context, tokens.valid, batch.frame.object_valid)
        updated = apply_update(pose, output.raw_update, model.parametrisation, batch.scale_mode)
        cad_points = batch.surface.samples.points
        windows = cad_points.shape[1] - config.loss.points + 1
        first = int(torch.randint(windows, (1,), generator=self.generator, device=self.device))
        points = cad_points[batch.surface.model][:, :, first : first + config.loss.points]
        align = alignment_loss(updated, batch.truth, batch.symmetry_order, points, config.loss.size_exponent)
        correct = score_label(pose, batch.truth, batch.symmetry_order, model.score_of)
        score = score_loss(output.score_logit, correct)
        valid = batch.frame.object_valid
        align, score = masked_mean(align, valid & ~scoring), masked_mean(score, valid & scoring)
        total = config.loss.align_weight * align + config.loss.score_weight * score
        return {"loss": total, "align_loss": align, "score_loss": score}, updated

    def _travelled_poses(self, batch: TrainingBatch, pose: Pose, scoring: torch.Tensor):
        """Put some of the poses to be classified where a search really ends up, and say which.

        They are refined without gradient from one of the four rotations, and refined on with the others:
        what the score meets at test time, while the regions around the truth do not hold it.
        """
        config = self.config
        rows = round(config.images * config.classifier_share)
        travelled = torch.rand(scoring.shape, generator=self.generator, device=self.device)
        travelled = scoring & (travelled < config.converged_share)
        if not travelled.any():
            return pose, travelled
        # the half turn is what a search mistakes for the truth most often
        shares = torch.tensor([0.35, 0.15, 0.35, 0.15], device=self.device).expand(config.images, -1)
        turns = torch.multinomial(shares, scoring.shape[1], replacement=True, generator=self.generator)
        start = Pose(pose.R @ rotation_y(turns * (math.pi / 2)), pose.T, pose.S).map(lambda x: x[:rows])
        few = first_images(batch, rows)
        reached = refine(
            self.network, config.model.inputs, few.frame, few.source, few.surface, start, few.box_samples,
            self.generator, parametrisation=config.model.parametrisation, scale_mode=few.scale_mode,
            refinements=config.refinements,
        )  # fmt: skip
        reached = Pose(*(torch.cat((getattr(reached, n), getattr(pose, n)[rows:])) for n in ("R", "T", "S")))
        return where(travelled, reached, pose), travelled

    def _optimise(self, loss: torch.Tensor) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule()
        super()._optimise(loss)

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress)))


def update_starts(batch: TrainingBatch, config: TrainConfig, generator: torch.Generator) -> Pose:
    """Start poses for updates: per image the paper's wide ones, or those of a search with depth."""
    wide = paper_starts(batch.truth, batch.frame, batch.scale_low_m, batch.scale_high_m, generator)
    # a search starts from the expected extents; some starts are rougher
    shape = (*batch.truth.shape, 1)
    rough = torch.randn((*batch.truth.shape, 3), generator=generator, device=generator.device)
    sure = torch.rand(shape, generator=generator, device=generator.device) < 0.7
    S = torch.where(sure, batch.surface.expected_m, batch.truth.S * (0.25 * rough).exp())
    T = start_translation(batch.frame, batch.box_samples, S)
    if config.model.inputs.hints:
        T = estimated_translation(batch.frame, T)
    searched = Pose(upright_starts(batch.truth, batch.frame, generator), T, S)
    draw = torch.rand(len(S), generator=generator, device=generator.device)
    start = where((draw < config.paper_start_share)[:, None].expand(batch.truth.shape), wide, searched)
    return known_extents_kept(start, batch)


def known_extents_kept(pose: Pose, batch: TrainingBatch) -> Pose:
    """The poses with the true extents where these are known."""
    known = batch.surface.extents_known
    return Pose(pose.R, pose.T, torch.where(known[..., None], batch.surface.expected_m, pose.S))


def rescue_lost(pose: Pose, batch: TrainingBatch, generator: torch.Generator) -> Pose:
    """Put poses that left the room (nearer than 0.2 m, farther than 15 m) back near the truth."""
    lost = (pose.T[..., 2] < 0.2) | (pose.T.norm(dim=-1) > 15)
    jitter = torch.randn(pose.T.shape, generator=generator, device=generator.device)
    return where(lost, Pose(pose.R, batch.truth.T + 0.3 * jitter, batch.truth.S), pose)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the values where the mask holds; 0 with no entry."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def first_images(batch: TrainingBatch, rows: int) -> TrainingBatch:
    """The batch cut to its first `rows` images."""

    def cut(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return replace(value, **{name: part[:rows] for name, part in parts.items() if part is not None})

    return replace(
        batch,
        frame=cut(batch.frame),
        surface=replace(
            batch.surface,
            **{
                name: getattr(batch.surface, name)[:rows] for name in ("model", "expected_m", "extents_known")
            },
        ),
        box_samples=cut(batch.box_samples),
        source=batch.source.first_images(rows),
    )
