"""`sparc pretrain`: train Multi-SPARC-Net on synthetic scenes of procedural and given CAD models."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts.errors import report_bad_input

CHECKPOINT_EVERY_S = 180.0
VALIDATE_EVERY_S = 600.0


def command(
    out: Annotated[Path, typer.Option(help="Folder for weights, config, log and checkpoint.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML with a TrainConfig; unnamed options keep their defaults.")
    ] = None,
    cad_library: Annotated[
        list[str] | None, typer.Option(help="Folder of CAD models, or procedural:FIRST-LAST; repeatable.")
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="Leave out CAD models whose id begins so, a source kept for tests; repeatable."),
    ] = None,
    validation: Annotated[
        str, typer.Option(help="CAD library for validation, unseen in training.")
    ] = "procedural:1000000-1000009",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves PyTorch's choice.")] = 0,
    stop_after_min: Annotated[
        float, typer.Option(help="Save and stop after this many minutes; resume later.")
    ] = 0.0,
    init: Annotated[
        Path | None, typer.Option(help="Start from the weights of this file instead of random ones.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in --out.")] = False,
) -> None:
    """Train the alignment network on the fly; Ctrl-C saves a checkpoint to resume from.

    Several processes, GPUs or machines: torchrun --nproc-per-node N -m sparc_core.scripts.main pretrain …
    """
    with report_bad_input():
        _check_out(out, resume)
        library = _open_libraries(cad_library or ["procedural:0-59"], hold_out or [])
        run = _prepare(out, config, library, validation, device, threads, stop_after_min, init, resume)
    with run.progress:
        run.trainer.run(run.report, run.should_stop, run.save, run.save_now)
    run.finish()


def _check_out(out: Path, resume: bool) -> None:
    """Refuse to overwrite a run, or to resume none, before anything is loaded."""
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise ValueError(f"{checkpoint} exists: give --resume to go on, or another --out")
    if resume and not checkpoint.exists():
        raise ValueError(f"nothing to resume: {checkpoint} does not exist")


def _prepare(out, config, library, validation, device, threads, stop_after_min, init, resume) -> _Run:
    import torch

    from sparc_core.cad.library import CadLibrary
    from sparc_core.config import from_dict, load_yaml
    from sparc_core.refine.model import load_network
    from sparc_core.training.data import SyntheticData
    from sparc_core.training.train import TrainConfig, Trainer

    if threads:
        torch.set_num_threads(threads)
    settings = from_dict(TrainConfig, load_yaml(config) if config else {}, str(config))
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    trainer = Trainer(settings, library, chosen)
    if trainer.rank == 0:
        typer.echo(
            f"training on {len(library)} CAD models, {trainer.processes} × {trainer.device}, "
            f"{trainer.accelerator.mixed_precision} mixed precision, {torch.get_num_threads()} threads"
        )
    if init:
        trainer.start_from(load_network(init, trainer.device, settings.model)[0])
    unseen = SyntheticData(CadLibrary.open(validation), settings.data, settings.model.inputs, trainer.device)
    run = _Run(out, trainer, unseen, stop_after_min)
    run.start(resume)
    return run


def _open_libraries(specs: list[str], hold_out: list[str]):
    from sparc_core.cad.library import CadLibrary

    library = None
    for spec in specs:
        is_folder = not spec.startswith("procedural")
        part = CadLibrary.from_folder(Path(spec), include_other=True) if is_folder else CadLibrary.open(spec)
        for path, reason in part.skipped:
            typer.echo(f"skipped {path}: {reason}", err=True)
        library = part if library is None else library.merged(part)
    for prefix in hold_out:
        kept = [i for i, model in enumerate(library.models) if not model.model_id.startswith(prefix)]
        if len(kept) == len(library):
            raise ValueError(f"--hold-out {prefix!r}: no CAD model's id begins so")
        library = library.subset(kept)
    return library


class _Run:
    """Files, log lines, curves and interruptions of one training run."""

    def __init__(self, out: Path, trainer, unseen, stop_after_min: float):
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.out, self.trainer, self.unseen = out, trainer, unseen
        self.deadline = time.monotonic() + stop_after_min * 60 if stop_after_min > 0 else float("inf")
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

    def start(self, resume: bool) -> None:
        import torch
        import yaml
        from tensorboardX import SummaryWriter

        from sparc_core.config import to_dict

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            stored = torch.load(
                self.out / "checkpoint.pt", map_location=self.trainer.device, weights_only=True
            )
            self.trainer.load_state(stored)
        if self.trainer.rank == 0:
            if resume:
                typer.echo(f"resumed at step {self.trainer.step}")
            plain = json.loads(json.dumps(to_dict(self.trainer.config)))
            (self.out / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
            self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.trainer.step)

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
        rate = self.trainer.config.images * self.trainer.processes / max(seconds, 1e-9)
        for name in ("loss", "align_loss", "score_loss", "learning_rate"):
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

        from sparc_core.refine.model import save_weights

        self.last_checkpoint = time.monotonic()
        partial = self.out / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.out / "checkpoint.pt")
        save_weights(self.out / "weights.safetensors", self.trainer.averaged, self.trainer.config.model)
        if self.smooth:
            self._log(self.smooth)

    def finish(self) -> None:
        if self.trainer.rank != 0:
            return
        self._validate()
        self.board.close()
        how = "finished" if self.trainer.progress >= 1 else "stopped"
        typer.echo(f"{how} at step {self.trainer.step}: {self.out / 'weights.safetensors'}")

    def _validate(self) -> None:
        from sparc_core.training.validate import validate

        model = self.trainer.config.model
        found = validate(self.trainer.averaged_network(), model, self.unseen, images=96)
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
