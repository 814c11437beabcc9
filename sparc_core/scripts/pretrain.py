"""`sparc pretrain`: train Multi-SPARC-Net on synthetic scenes of procedural and given CAD models."""

from __future__ import annotations

import json
import os
import signal
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

    Several processes or GPUs: torchrun --nproc-per-node N -m sparc_core.scripts.main pretrain …
    """
    with report_bad_input():
        _check_out(out, resume)
        library = _open_libraries(cad_library or ["procedural:0-59"], hold_out or [])
        run = _prepare(out, config, library, validation, device, threads, stop_after_min, init, resume)
    run.trainer.run(run.report, run.should_stop)
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
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        torch.distributed.init_process_group("nccl" if chosen == "cuda" else "gloo")
        if chosen == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    typer.echo(f"training on {len(library)} CAD models, device {chosen}, {torch.get_num_threads()} threads")
    trainer = Trainer(settings, library, chosen)
    if init:
        trainer.start_from(load_network(init, chosen, settings.model)[0])
    unseen = SyntheticData(CadLibrary.open(validation), settings.data, settings.model.inputs, chosen)
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
    """Files, log lines and interruptions of one training run."""

    def __init__(self, out: Path, trainer, unseen, stop_after_min: float):
        self.out, self.trainer, self.unseen = out, trainer, unseen
        self.deadline = time.monotonic() + stop_after_min * 60 if stop_after_min > 0 else float("inf")
        self.interrupted = False
        self.smooth: dict[str, float] = {}
        self.last_checkpoint = self.last_validation = time.monotonic()

    def start(self, resume: bool) -> None:
        import torch
        import yaml

        from sparc_core.config import to_dict

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            stored = torch.load(
                self.out / "checkpoint.pt", map_location=self.trainer.device, weights_only=True
            )
            self.trainer.load_state(stored)
            typer.echo(f"resumed at step {self.trainer.step}")
        plain = json.loads(json.dumps(to_dict(self.trainer.config)))
        if self.trainer.rank == 0:
            (self.out / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    def should_stop(self) -> bool:
        return self.interrupted or time.monotonic() > self.deadline

    def report(self, metrics: dict) -> None:
        if self.trainer.rank != 0:
            return
        for name, value in metrics.items():
            previous = self.smooth.get(name, value)
            self.smooth[name] = (
                value if name in ("step", "elapsed_s", "learning_rate") else 0.98 * previous + 0.02 * value
            )
        now = time.monotonic()
        if now - self.last_checkpoint > CHECKPOINT_EVERY_S:
            self.last_checkpoint = now
            self._save()
            self._log(self.smooth)
        if now - self.last_validation > VALIDATE_EVERY_S:
            self._validate()
            self.last_validation = time.monotonic()

    def finish(self) -> None:
        if self.trainer.rank != 0:
            return
        self._save()
        self._validate()
        how = "finished" if self.trainer.progress >= 1 else "stopped"
        typer.echo(f"{how} at step {self.trainer.step}: {self.out / 'weights.safetensors'}")

    def _validate(self) -> None:
        from sparc_core.training.validate import validate

        model = self.trainer.config.model
        found = validate(self.trainer.averaged_network(), model, self.unseen, images=96)
        self._log({**self.smooth, "validation": found})

    def _save(self) -> None:
        import torch

        from sparc_core.refine.model import save_weights

        partial = self.out / "checkpoint.partial"
        torch.save(self.trainer.state(), partial)
        partial.replace(self.out / "checkpoint.pt")
        save_weights(self.out / "weights.safetensors", self.trainer.averaged, self.trainer.config.model)

    def _log(self, values: dict) -> None:
        line = json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()})
        with (self.out / "train.jsonl").open("a") as file:
            file.write(line + "\n")
        typer.echo(line)

    def _interrupt(self, *_) -> None:
        self.interrupted = True
