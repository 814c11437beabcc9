"""What all training has in common: processes, the loop, averaged weights, and checkpoints to resume from."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.profiler import record_function

_GO_ON, _SAVE, _STOP = range(3)


class TrainingLoop(ABC):
    """Holds network, averaged weights and random state; `run` trains, `state` resumes.

    Started by torchrun (or any launcher that Accelerate knows), every process draws its own batches and the
    gradients are averaged; the first process' clock decides when the run ends.

    A kind of training draws batches (`_draw`) and takes optimiser steps on them (`_train_on`, `_optimise`).
    """

    def __init__(
        self, config, accelerator: Accelerator, module: torch.nn.Module, network: torch.nn.Module,
        optimiser: torch.optim.Optimizer, generator_device="cpu",
    ):  # fmt: skip
        """config: with steps, time_limit_min (0: none), gradient_clip, ema and seed. module: what is called
        in training, on the accelerator's device; network: the part of it that `optimiser` trains and that is
        kept. generator_device: of the random state that batches are drawn with."""
        self.config, self.accelerator = config, accelerator
        device = accelerator.device
        self.device = "cpu" if device.type == "cpu" else str(device)
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        # the same parameters; with several processes its backward pass averages the gradients
        self.trained = accelerator.prepare_model(module)
        self.network, self.optimiser = network, optimiser
        self.averaged = {name: value.clone() for name, value in network.state_dict().items()}
        self.generator = torch.Generator(generator_device).manual_seed(config.seed + self.rank)
        self.step, self.elapsed_s = 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the run that is done, by steps or by the clock, whichever is further."""
        limit_s = self.config.time_limit_min * 60
        by_clock = self.elapsed_s / limit_s if limit_s > 0 else 0.0
        return min(1.0, max(self.step / self.config.steps, by_clock))

    def start_from(self, network: torch.nn.Module) -> None:
        """Take over the weights of a network of the same configuration."""
        self.network.load_state_dict(network.state_dict())
        self.averaged = {name: value.clone() for name, value in self.network.state_dict().items()}

    @property
    @abstractmethod
    def images_a_step(self) -> int:
        """Images that all processes together see in a step."""

    @abstractmethod
    def _draw(self):
        """The next batch, from `generator`."""

    @abstractmethod
    def _train_on(self, batch) -> dict[str, float]:
        """One or more optimiser steps on a batch; "loss", its parts and "learning_rate"."""

    def run(
        self,
        report: Callable[[dict], None],
        stop: Callable[[], bool] = lambda: False,
        save: Callable[[dict], None] = lambda state: None,
        save_now: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train until `progress` is 1, or `stop()` says so after a batch.

        `report` gets {"step", "elapsed_s"} and the figures of `_train_on` after every batch; `save` gets
        `state()` whenever `save_now()` says so, and at the end. What the first process' functions say counts
        for all; only it reports and saves.
        """
        self.trained.train()
        order = self._agree(_GO_ON if self.progress < 1 and not stop() else _STOP)
        while order != _STOP:
            began = time.perf_counter()
            metrics = self._train_on(self._draw())
            self.elapsed_s += time.perf_counter() - began
            if self.rank == 0:
                report({"step": self.step, "elapsed_s": self.elapsed_s, **metrics})
            wish = _STOP if self.progress >= 1 or stop() else _SAVE if save_now() else _GO_ON
            order = self._agree(wish)
            if order == _SAVE:
                self._save(save)
        self._save(save)

    def leave(self) -> None:
        """End this process, with status 0, when it is one of several and all have run to the end; a process
        that is alone goes on.

        Gloo lets go of the tensors of a collective in threads of its own, which PyTorch's wrapper of the
        network keeps alive; one that does so while Python is taken apart aborts the process.
        """
        if self.processes > 1:
            self.accelerator.wait_for_everyone()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def state(self) -> dict:
        """Everything needed to go on as if the run had not been interrupted. With several processes all of
        them must call it: the random states of all are in it."""
        own = self.generator.get_state().to(self.device)
        generators = [torch.empty_like(own) for _ in range(self.processes)]
        if self.processes > 1:
            dist.all_gather(generators, own)
        else:
            generators = [own]
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
            "generators": [g.cpu() for g in generators],
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }

    def load_state(self, state: dict) -> None:
        """The inverse of `state`; with another number of processes the added ones draw new batches."""
        self.network.load_state_dict(state["network"])
        self.averaged = {name: value.to(self.device) for name, value in state["averaged"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        if self.rank < len(state["generators"]):
            self.generator.set_state(state["generators"][self.rank].cpu())
        else:
            self.generator.manual_seed(hash((self.config.seed, self.rank, self.step)) % 2**62)

    def _optimise(self, loss: torch.Tensor) -> None:
        """One step of the optimiser and of the averaged weights."""
        self.optimiser.zero_grad(set_to_none=True)
        with record_function("backward"):
            self.accelerator.backward(loss)
        with record_function("optimiser"):
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
            self.optimiser.step()
        self.step += 1
        self._average()

    def _average(self) -> None:
        current = self.network.state_dict()
        floats = [name for name, value in current.items() if value.is_floating_point()]
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        average = get_ema_multi_avg_fn(decay)
        average([self.averaged[name] for name in floats], [current[name] for name in floats], None)
        for name in current.keys() - set(floats):  # batch norm counts its batches
            self.averaged[name].copy_(current[name])

    def _save(self, save: Callable[[dict], None]) -> None:
        state = self.state()  # all processes take part
        if self.rank == 0:
            save(state)

    def _agree(self, order: int) -> int:
        """The first process' order and clock, so that all take the same steps at the same rate."""
        if self.processes == 1:
            return order
        shared = torch.tensor([float(order), self.elapsed_s], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        self.elapsed_s = float(shared[1])
        return int(shared[0])
