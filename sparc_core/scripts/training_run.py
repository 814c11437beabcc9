"""What every training command does around its trainer: checkpoints, weights, log, curves, interruption."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from sparc_core.scripts.errors import report_bad_input

CHECKPOINT_EVERY_S = 180.0
VALIDATE_EVERY_S = 600.0


@dataclass(frozen=True)
class RunOptions:
    """What every training command is told about its run; `options.py` says what each means."""

    out: Path
    config: Path | None
    device: str
    threads: int
    stop_after_min: float
    resume: bool

    def settings(self, kind: type):
        """The configuration of a kind from the YAML file. Raises ValueError for a wrong one, and, before
        anything is loaded, for a device that is not there, and where the run would overwrite another or has
        none to resume."""
        from sparc_core.config import from_dict, load_yaml
        from sparc_core.device import find_device

        find_device(self.device)
        checkpoint = self.out / "checkpoint.pt"
        if checkpoint.exists() and not self.resume:
            raise ValueError(f"{checkpoint} exists: give --resume to go on, or another --out")
        if self.resume and not checkpoint.exists():
            raise ValueError(f"nothing to resume: {checkpoint} does not exist")
        return from_dict(kind, load_yaml(self.config) if self.config else {}, str(self.config))

    def use_device(self) -> str:
        """The device to train on, with `auto` resolved; sets the number of CPU threads. Raises ValueError for
        one that is not there, and for a certain GPU where several processes have one each."""
        import torch

        from sparc_core.device import find_device

        if self.threads:
            torch.set_num_threads(self.threads)
        device = find_device(self.device)
        if ":" in device:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ValueError(f"device is {device!r}, but every process has a GPU of its own: give cuda")
            torch.cuda.set_device(device)  # Accelerate and Warp take the current one
        return device


class TrainingRun:
    """Files, log lines, curves and interruptions of one training run.

    settings: of the whole run, written beside the weights. trainer: with step, progress, rank, images_a_step,
    run, state and load_state. measure: figures of the network so far on data it has not seen, by name.
    write_weights: writes the averaged weights to a path.
    """

    def __init__(
        self,
        options: RunOptions,
        settings,
        trainer,
        measure: Callable[[], dict],
        write_weights: Callable[[Path], None],
    ):
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.out, self.resume = options.out, options.resume
        self.settings, self.trainer = settings, trainer
        self.measure, self.write_weights = measure, write_weights
        limit_s = options.stop_after_min * 60
        self.deadline = time.monotonic() + limit_s if limit_s > 0 else float("inf")
        self.interrupted = False
        self.smooth: dict[str, float] = {}
        self.last_checkpoint = self.last_validation = time.monotonic()
        self.progress = Progress(
            TextColumn("step {task.fields[step]}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[rate]:.0f} images/s"),
            disable=trainer.rank != 0 or not sys.stdout.isatty(),
        )  # fmt: skip
        self.task = self.progress.add_task(
            "training", total=1.0, step=trainer.step, loss=float("nan"), rate=0.0
        )
        self.board = None

    def start(self) -> None:
        """Prepare the folder; take over the checkpoint in it when the run is resumed."""
        import torch
        import yaml
        from tensorboardX import SummaryWriter

        from sparc_core.config import to_dict

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        self.out.mkdir(parents=True, exist_ok=True)
        if self.resume:
            stored = torch.load(
                self.out / "checkpoint.pt", map_location=self.trainer.device, weights_only=True
            )
            self.trainer.load_state(stored)
        if self.trainer.rank == 0:
            if self.resume:
                typer.echo(f"resumed at step {self.trainer.step}")
            plain = json.loads(json.dumps(to_dict(self.settings)))
            (self.out / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
            self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.trainer.step)

    def go(self) -> None:
        """Train to the end, or until it is interrupted."""
        with self.progress:
            self.trainer.run(self.report, self.should_stop, self.save, self.save_now)
        self.finish()
        self.trainer.leave()

    def should_stop(self) -> bool:
        return self.interrupted or time.monotonic() > self.deadline

    def save_now(self) -> bool:
        return time.monotonic() - self.last_checkpoint > CHECKPOINT_EVERY_S

    def report(self, metrics: dict) -> None:
        """Takes the figures of every image batch; validates now and then."""
        seconds = metrics["elapsed_s"] - self.smooth.get("elapsed_s", 0.0)
        for name, value in metrics.items():
            previous = self.smooth.get(name, value)
            self.smooth[name] = (
                value if name in ("step", "elapsed_s", "learning_rate") else 0.98 * previous + 0.02 * value
            )
        rate = self.trainer.images_a_step / max(seconds, 1e-9)
        for name in set(metrics) - {"step", "elapsed_s"}:
            self.board.add_scalar(f"train/{name}", metrics[name], metrics["step"])
        self.progress.update(
            self.task,
            completed=self.trainer.progress,
            step=metrics["step"],
            loss=self.smooth["loss"],
            rate=rate,
        )
        if time.monotonic() - self.last_validation > VALIDATE_EVERY_S:
            self._validate()
            self.last_validation = time.monotonic()

    def save(self, state: dict) -> None:
        """Write checkpoint, weights and log line."""
        import torch

        self.last_checkpoint = time.monotonic()
        partial = self.out / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.out / "checkpoint.pt")
        self.write_weights(self.out / "weights.safetensors")
        if self.smooth:
            self._log(self.smooth)

    def finish(self) -> None:
        if self.trainer.rank != 0:
            return
        if self.smooth:  # a run that was finished before has nothing new to show
            self._validate()
        self.board.close()
        how = "finished" if self.trainer.progress >= 1 else "stopped"
        typer.echo(f"{how} at step {self.trainer.step}: {self.out / 'weights.safetensors'}")

    def _validate(self) -> None:
        found = self.measure()
        for name, value in found.items():
            self.board.add_scalar(f"validation/{name}", value, self.trainer.step)
        self._log({**self.smooth, "validation": found})
        self._draw()

    def _log(self, values: dict) -> None:
        line = json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()})
        with (self.out / "train.jsonl").open("a") as file:
            file.write(line + "\n")
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        """The curves so far, as a picture."""
        from sparc_core.evaluation.plots import plot_training

        lines = (self.out / "train.jsonl").read_text().splitlines()
        plot_training([json.loads(line) for line in lines], self.out / "curves.png")

    def _interrupt(self, *_) -> None:
        self.interrupted = True


def train_predictor(told: RunOptions, settings, trainer, figures: Callable[[], dict]) -> None:
    """Train to the end; the averaged weights are written with the network's configuration."""
    from sparc_core.perception.predictor_file import save_predictor

    def write(path: Path) -> None:
        save_predictor(path, trainer.averaged, settings.network, half=True)

    with report_bad_input():
        run = TrainingRun(told, settings, trainer, figures, write)
        run.start()
    run.go()
