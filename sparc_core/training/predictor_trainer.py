"""Training of perception's predictors on stored pictures: AdamW, one cycle, averaged weights, exact
resume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator

from sparc_core.training.loop import TrainingLoop
from sparc_core.training.picture_batches import PictureBatches


@dataclass(frozen=True)
class PredictorTrainConfig:
    """steps of `pictures` pictures a process. The learning rate follows one cycle: up over `warm_share` of
    the run, down to nothing along a cosine. ema: decay of the averaged weights. precision: "fp32", "bf16"
    (mixed, also worth it on CPUs that know it)."""

    steps: int = 20_000
    pictures: int = 8
    learning_rate: float = 3.5e-4
    weight_decay: float = 1e-2
    warm_share: float = 0.1
    gradient_clip: float = 5.0
    ema: float = 0.998
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self):
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"training precision must be fp32 or bf16, got {self.precision!r}")
        for name in ("steps", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"training {name} must be at least 1, got {getattr(self, name)}")


class PredictorTrainer(TrainingLoop):
    """Trains `module`, whose forward takes a `PictureBatch` and returns its losses by name; `network` is the
    part of it that is kept."""

    def __init__(
        self, config: PredictorTrainConfig, module: torch.nn.Module, network: torch.nn.Module,
        batches: PictureBatches, device: str = "cpu",
    ):  # fmt: skip
        accelerator = Accelerator(cpu=device == "cpu")
        module = module.to(accelerator.device, memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        super().__init__(config, accelerator, module, network, optimiser)
        self.batches = batches
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=config.steps, pct_start=config.warm_share
        )

    @property
    def images_a_step(self) -> int:
        """Pictures that all processes together see in a step."""
        return self.config.pictures * self.processes

    def state(self) -> dict:
        """See `TrainingLoop.state`."""
        return super().state() | {"schedule": self.schedule.state_dict()}

    def load_state(self, state: dict) -> None:
        """The inverse of `state`, for as many processes as there were."""
        if self.processes != len(state["generators"]):
            raise ValueError(
                f"the checkpoint is of {len(state['generators'])} processes, not {self.processes}"
            )
        super().load_state(state)
        self.schedule.load_state_dict(state["schedule"])

    def _draw(self):
        return self.batches.draw(self.generator).to(self.device)

    def _train_on(self, batch) -> dict[str, float]:
        # torchvision's detector draws the regions it learns from with PyTorch's own random state
        torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=mixed):
            losses = self.trained(batch)
        total = sum(losses.values())
        self._optimise(total)
        rate = self.schedule.get_last_lr()[0]
        self.schedule.step()
        figures = {"loss": total, **losses}
        return {name: value.item() for name, value in figures.items()} | {"learning_rate": rate}
