"""Training of perception's predictors on stored pictures: AdamW, one cycle, averaged weights, exact
resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate import Accelerator

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


class PredictorTrainer:
    """Trains `module`, whose forward takes a `PictureBatch` and returns its losses by name; `network` is the
    part of it that is kept. Started by torchrun, every process draws its own pictures."""

    def __init__(
        self, config: PredictorTrainConfig, module: torch.nn.Module, network: torch.nn.Module,
        batches: PictureBatches, device: str = "cpu",
    ):  # fmt: skip
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.config, self.batches, self.device = config, batches, self.accelerator.device
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        self.module = module.to(self.device, memory_format=torch.channels_last)
        self.network = network
        self.trained = self.accelerator.prepare_model(self.module)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, config.learning_rate, total_steps=config.steps, pct_start=config.warm_share
        )
        self.averaged = {name: value.clone() for name, value in network.state_dict().items()}
        self.generator = torch.Generator().manual_seed(config.seed + self.rank)
        self.step, self.elapsed_s = 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return min(1.0, self.step / self.config.steps)

    @property
    def images_a_step(self) -> int:
        """Pictures that all processes together see in a step."""
        return self.config.pictures * self.processes

    def run(
        self,
        report: Callable[[dict], None],
        stop: Callable[[], bool] = lambda: False,
        save: Callable[[dict], None] = lambda state: None,
        save_now: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train until the steps are used up or `stop()` says so; as in `Trainer.run`."""
        self.module.train()
        order = self._agree(2 if self.step >= self.config.steps or stop() else 0)
        while order != 2:
            began = time.perf_counter()
            metrics = self._train_on(self.batches.draw(self.generator).to(self.device))
            self.elapsed_s += time.perf_counter() - began
            if self.rank == 0:
                report({"step": self.step, "elapsed_s": self.elapsed_s, **metrics})
            done = self.step >= self.config.steps or stop()
            order = self._agree(2 if done else 1 if save_now() else 0)
            if order == 1:
                self._save(save)
        self._save(save)

    def _train_on(self, batch) -> dict[str, float]:
        # torchvision's detector draws the regions it learns from with PyTorch's own random state
        torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            losses = self.trained(batch)
        total = sum(losses.values())
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        rate = self.schedule.get_last_lr()[0]
        self.schedule.step()
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.averaged[name].lerp_(value, 1 - decay)
                else:
                    self.averaged[name].copy_(value)
        figures = {"loss": total, **losses}
        return {name: value.item() for name, value in figures.items()} | {"learning_rate": rate}

    def _save(self, save: Callable[[dict], None]) -> None:
        state = self.state()
        if self.rank == 0:
            save(state)

    def state(self) -> dict:
        """Everything needed to go on as if the run had not been interrupted; all processes must call it."""
        own = self.generator.get_state().to(self.device)
        generators = [torch.empty_like(own) for _ in range(self.processes)]
        if self.processes > 1:
            dist.all_gather(generators, own)
        else:
            generators = [own]
        return {
            "network": self.network.state_dict(), "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            "generators": [g.cpu() for g in generators], "step": self.step, "elapsed_s": self.elapsed_s,
        }  # fmt: skip

    def load_state(self, state: dict) -> None:
        """The inverse of `state`, for as many processes as there were."""
        if self.processes != len(state["generators"]):
            raise ValueError(
                f"the checkpoint is of {len(state['generators'])} processes, not {self.processes}"
            )
        self.network.load_state_dict(state["network"])
        self.averaged = {name: value.to(self.device) for name, value in state["averaged"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.generator.set_state(state["generators"][self.rank].cpu())

    def _agree(self, order: int) -> int:
        """The first process' order, so that all take the same steps."""
        if self.processes == 1:
            return order
        shared = torch.tensor([order], device=self.device)
        dist.broadcast(shared, 0)
        return int(shared[0])
