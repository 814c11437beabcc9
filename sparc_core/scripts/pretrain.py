"""`sparc pretrain`: train Multi-SPARC-Net on synthetic scenes of procedural and given CAD models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.libraries import open_libraries
from sparc_core.scripts.training_run import RunOptions, TrainingRun


def command(
    out: options.Out,
    config: Annotated[Path | None, options.yaml_of("TrainConfig")] = None,
    cad_library: options.CadLibraries = None,
    hold_out: options.HoldOut = None,
    validation: options.UnseenLibrary = "procedural:1000000-1000009",
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    init: options.Init = None,
    resume: options.Resume = False,
) -> None:
    """Train the alignment network on the fly; Ctrl-C saves a checkpoint to resume from.

    Several processes, GPUs or machines: torchrun --nproc-per-node N -m sparc_core.scripts.main pretrain …
    """
    with report_bad_input():
        told = RunOptions(out, config, device, threads, stop_after_min, resume)
        run = _prepare(told, cad_library or ["procedural:0-59"], hold_out or [], validation, init)
    run.go()


def _prepare(
    told: RunOptions, cad_library: list[str], hold_out: list[str], validation: str, init: Path | None
) -> TrainingRun:
    import torch

    from sparc_core.cad.library import CadLibrary
    from sparc_core.refine.model import load_network, save_weights
    from sparc_core.training.data import SyntheticData
    from sparc_core.training.train import TrainConfig, Trainer
    from sparc_core.training.validate import validate

    settings = told.settings(TrainConfig)
    library = open_libraries(cad_library, hold_out)
    trainer = Trainer(settings, library, told.use_device())
    if trainer.rank == 0:
        typer.echo(
            f"training on {len(library)} CAD models, {trainer.processes} × {trainer.device}, "
            f"{trainer.accelerator.mixed_precision} mixed precision, {torch.get_num_threads()} threads"
        )
    if init:
        trainer.start_from(load_network(init, trainer.device, settings.model)[0])
    unseen = SyntheticData(CadLibrary.open(validation), settings.data, settings.model.inputs, trainer.device)

    def measure() -> dict:
        return validate(trainer.averaged_network(), settings.model, unseen, images=96)

    def write(path: Path) -> None:
        save_weights(path, trainer.averaged, settings.model)

    run = TrainingRun(told, settings, trainer, measure, write)
    run.start()
    return run
