"""Training of perception's predictors on stored pictures: one cycle, averaged weights, exact resume."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from sparc_core.training.loop import TrainingLoop
from sparc_core.training.optimiser import make_optimiser
from sparc_core.training.picture_batches import PictureBatches

PREDICTOR_OPTIMISERS = ("adamw", "muon")


@dataclass(frozen=True)
class PredictorTrainConfig:
    """steps of `pictures` pictures a process; time_limit_min > 0 ends the run by the clock instead, and the
    schedule follows whichever of the two is further. The learning rate follows one cycle: up over
    `warm_share` of the run, down to nothing along a cosine. ema: decay of the averaged weights. precision:
    "fp32", "bf16" (mixed, also worth it on CPUs that know it). optimiser: "adamw" (the paper's) or "muon"."""

    steps: int = 20_000
    time_limit_min: float = 0.0
    pictures: int = 8
    learning_rate: float = 3.5e-4
    weight_decay: float = 1e-2
    warm_share: float = 0.1
    gradient_clip: float = 5.0
    ema: float = 0.998
    precision: str = "bf16"
    optimiser: str = "adamw"
    seed: int = 0

    def __post_init__(self):
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"training precision must be fp32 or bf16, got {self.precision!r}")
        if self.optimiser not in PREDICTOR_OPTIMISERS:
            raise ValueError(
                f"training optimiser must be one of {PREDICTOR_OPTIMISERS}, got {self.optimiser!r}"
            )
        if not 0 <= self.warm_share < 1:
            raise ValueError(f"training warm_share must be in [0, 1), got {self.warm_share}")
        for name in ("steps", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"training {name} must be at least 1, got {getattr(self, name)}")


class PredictorTrainer(TrainingLoop):
    """Trains `module`, whose forward takes a `PictureBatch` and returns its losses by name; `network` is the
    part of it that is kept. ends: weights of its first and last layers, which Muon leaves to AdamW; None for
    a network that has not been tried with Muon, which is refused then."""

    def __init__(
        self, config: PredictorTrainConfig, module: torch.nn.Module, network: torch.nn.Module,
        batches: PictureBatches, device: str = "cpu", ends: Collection[torch.nn.Parameter] | None = None,
    ):  # fmt: skip
        if ends is None and config.optimiser == "muon":
            raise ValueError("training optimiser must be adamw for this network, got muon")
        accelerator = Accelerator(cpu=device == "cpu")
        module = module.to(accelerator.device, memory_format=torch.channels_last)
        optimiser = make_optimiser(
            config.optimiser, network, config.learning_rate, config.weight_decay, ends or ()
        )
        super().__init__(config, accelerator, module, network, optimiser)
        self.batches = batches

    @property
    def images_a_step(self) -> int:
        """Pictures that all processes together see in a step."""
        return self.config.pictures * self.processes

    def load_state(self, state: dict) -> None:
        """The inverse of `state`, for as many processes as there were."""
        if self.processes != len(state["generators"]):
            raise ValueError(
                f"the checkpoint is of {len(state['generators'])} processes, not {self.processes}"
            )
        super().load_state(state)

    def _draw(self):
        return self.batches.draw(self.generator).to(self.device)

    def _train_on(self, batch) -> dict[str, float]:
        # torchvision's detector draws the regions it learns from with PyTorch's own random state
        torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=mixed):
            losses = self.trained(batch)
        total = sum(losses.values())
        rate = self.config.learning_rate * one_cycle(self.progress, self.config.warm_share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._optimise(total)
        figures = {"loss": total, **losses}
        return {name: value.item() for name, value in figures.items()} | {"learning_rate": rate}


def one_cycle(progress: float, warm_share: float) -> float:
    """Factor of the largest learning rate: along one cosine from 1/25 up to 1, along another down to 0."""
    if progress < warm_share:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * progress / warm_share))
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_share) / (1 - warm_share)))
