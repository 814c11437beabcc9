"""`sparc pretrain`: train Multi-SPARC-Net on synthetic scenes of procedural and given CAD models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.libraries import open_libraries
from sparc_core.scripts.training_run import TrainingRun, check_out


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
        check_out(out, resume)
        library = open_libraries(cad_library or ["procedural:0-59"], hold_out or [])
        run = _prepare(out, config, library, validation, device, threads, stop_after_min, init, resume)
    run.go()


def _prepare(out, config, library, validation, device, threads, stop_after_min, init, resume) -> TrainingRun:
    import torch

    from sparc_core.cad.library import CadLibrary
    from sparc_core.config import from_dict, load_yaml
    from sparc_core.refine.model import load_network, save_weights
    from sparc_core.training.data import SyntheticData
    from sparc_core.training.train import TrainConfig, Trainer
    from sparc_core.training.validate import validate

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

    def measure() -> dict:
        return validate(trainer.averaged_network(), settings.model, unseen, images=96)

    def write(path: Path) -> None:
        save_weights(path, trainer.averaged, settings.model)

    run = TrainingRun(out, settings, trainer, measure, write, stop_after_min)
    run.start(resume)
    return run
