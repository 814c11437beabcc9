"""`sparc train-baseline`: train the methods that Multi-SPARC is compared with, on the same pictures."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.libraries import open_libraries
from sparc_core.scripts.training_run import RunOptions, train_predictor

app = typer.Typer(help="Train the methods to compare with.", no_args_is_help=True)

CHUNK = 128  # objects of the validation looked at together

Regions = Annotated[Path, typer.Option(help="Folder of sparc train-baseline regions to train on.")]
UnseenRegions = Annotated[Path, typer.Option(help="Folder of regions to validate on.")]


@app.callback()
def _group() -> None:
    """Train the methods to compare with."""


@app.command()
def regions(
    pictures: options.Pictures,
    out: Annotated[Path, typer.Option(help="Folder for the regions; those that are there are kept.")],
    config: Annotated[Path | None, options.yaml_of("RegionStoreConfig")] = None,
    cad_library: options.CadLibraries = None,
    hold_out: options.HoldOut = None,
    limit: Annotated[int, typer.Option(help="Only the first pictures; 0: all.")] = 0,
    detector: Annotated[Path | None, typer.Option(help="Weights of our detector; default: shipped.")] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Weights of the depth network; default: shipped.")
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Look at pictures with the frozen detector and depth network, once for all baselines.

    The CAD library is that of the pictures. Ctrl-C loses at most 64 pictures; call it again to go on.
    """
    from sparc_core.baselines.reader import SHIPPED_DETECTOR, RegionReader
    from sparc_core.config import from_dict, load_yaml
    from sparc_core.perception.depth_net import OurDepthNormals
    from sparc_core.perception.see import WEIGHTS
    from sparc_core.synth.picture_set import PictureFolder
    from sparc_core.training.region_store import RegionStoreConfig, RegionWriter

    with report_bad_input():
        settings = from_dict(RegionStoreConfig, load_yaml(config) if config else {}, str(config))
        folder = PictureFolder(pictures)
        used = RunOptions(out, None, device, threads, 0.0, False).use_device()
        files = {"detector": detector or SHIPPED_DETECTOR, "depth": depth or WEIGHTS / "depth.safetensors"}
        writer = RegionWriter(
            settings,
            RegionReader.load(files["detector"], used),
            OurDepthNormals.load(files["depth"], used),
            open_libraries(cad_library or ["procedural:0-79"], hold_out or []),
            ", ".join(f"{name} {sha256(file.read_bytes()).hexdigest()[:12]}" for name, file in files.items()),
        )
        new = writer.write(folder, out, limit)
    typer.echo(f"regions of {limit or len(folder)} pictures in {out}, {new} files of them new")


@app.command()
def roca(
    out: options.Out,
    regions: Regions,
    validation: UnseenRegions,
    config: Annotated[Path | None, options.yaml_of("RocaTraining")] = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    init: options.Init = None,
    resume: options.Resume = False,
) -> None:
    """Train ROCA; Ctrl-C saves a checkpoint to resume from."""
    from sparc_core.baselines.roca import Roca, RocaNet
    from sparc_core.training.region_store import RegionStore
    from sparc_core.training.roca import RocaTraining, make_roca_trainer, with_extents_of

    told = RunOptions(out, config, device, threads, stop_after_min, resume)
    with report_bad_input():
        settings = told.settings(RocaTraining)
        unseen = RegionStore.open(validation)
        store = RegionStore.open(regions, typer.echo)
        settings = with_extents_of(settings, store)
        trainer = make_roca_trainer(settings, store, told.use_device(), init)

    def figures() -> dict:
        network = RocaNet(settings.network)
        network.load_state_dict(trainer.averaged)
        return measure_on_regions(Roca(network), unseen)

    train_predictor(told, settings, trainer, figures)


@app.command()
def mask2cad(
    out: options.Out,
    regions: Regions,
    validation: UnseenRegions,
    config: Annotated[Path | None, options.yaml_of("Mask2CadTraining")] = None,
    cad_library: options.CadLibraries = None,
    hold_out: options.HoldOut = None,
    validation_library: Annotated[
        str, typer.Option(help="CAD models of the regions to validate on, to be told apart.")
    ] = "procedural:1000100-1000119",
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    init: options.Init = None,
    resume: options.Resume = False,
) -> None:
    """Train Mask2CAD; the CAD library is that of the pictures. Ctrl-C saves a checkpoint to resume from."""
    import torch

    from sparc_core.baselines.mask2cad import Mask2CadNet
    from sparc_core.cad.library import CadLibrary
    from sparc_core.evaluation.mask2cad import measure_mask2cad
    from sparc_core.training.mask2cad import Mask2CadTraining, make_mask2cad_trainer
    from sparc_core.training.region_batches import SENSOR_ONLY, region_batch
    from sparc_core.training.region_store import RegionStore

    told = RunOptions(out, config, device, threads, stop_after_min, resume)
    with report_bad_input():
        settings = told.settings(Mask2CadTraining)
        library = open_libraries(cad_library or ["procedural:0-79"], hold_out or [])
        unseen, unseen_models = RegionStore.open(validation), CadLibrary.open(validation_library)
        models = torch.tensor([unseen_models.index_of(name) for name in unseen.model_ids])
        store = RegionStore.open(regions, typer.echo)
        trainer = make_mask2cad_trainer(settings, store, library, told.use_device(), init)

    def batches():  # no depth is looked at, whatever the noise
        generator = torch.Generator().manual_seed(0)
        for rows in torch.arange(len(unseen)).split(CHUNK):
            batch = region_batch(unseen, rows, SENSOR_ONLY, generator)
            yield batch.regions, batch.truth, batch.symmetry_order, batch.visible

    def figures() -> dict:
        network = Mask2CadNet(settings.network)
        network.load_state_dict({name: value.cpu() for name, value in trainer.averaged.items()})
        return measure_mask2cad(network, unseen_models, batches, models)

    train_predictor(told, settings, trainer, figures)


def measure_on_regions(estimator, store) -> dict[str, float]:
    """Figures of a `PoseEstimator` on a `RegionStore`, with a depth camera's depth and with predicted."""
    import torch

    from sparc_core.evaluation.single_shot import measure_estimator
    from sparc_core.training.region_batches import PREDICTED_ONLY, SENSOR_ONLY, region_batch

    def batches(noise):
        generator = torch.Generator().manual_seed(0)
        for rows in torch.arange(len(store)).split(CHUNK):
            batch = region_batch(store, rows, noise, generator)
            yield batch.regions, batch.truth, batch.symmetry_order, batch.visible

    return {
        **measure_estimator(estimator, batches(SENSOR_ONLY), "sensor_"),
        **measure_estimator(estimator, batches(PREDICTED_ONLY), "predicted_"),
    }
