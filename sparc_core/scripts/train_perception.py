"""`sparc train-perception`: train what sees boxes, masks, depth, normals and CAD models in an RGB image."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.libraries import open_libraries
from sparc_core.scripts.training_run import RunOptions, train_predictor

app = typer.Typer(help="Render pictures and train the predictors that see RGB alone.", no_args_is_help=True)

VALIDATE = 100  # pictures looked at now and then

_pictures, _folder = None, None  # of this worker process


@app.callback()
def _group() -> None:
    """Render pictures and train the predictors that see RGB alone."""


@app.command()
def pictures(
    out: Annotated[Path, typer.Option(help="Folder for the pictures; those that are there are kept.")],
    count: Annotated[int, typer.Option(help="How many pictures.")] = 12_000,
    config: Annotated[Path | None, options.yaml_of("PictureSetConfig")] = None,
    cad_library: options.CadLibraries = None,
    hold_out: options.HoldOut = None,
    seed: Annotated[int, typer.Option(help="Fixes the pictures.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one a core.")] = 0,
) -> None:
    """Render rooms with textures, lamps and a camera's flaws, with depth, normals and objects."""
    from rich.progress import track

    from sparc_core.config import from_dict, load_yaml
    from sparc_core.synth.picture_set import INDEX, PictureFolder, PictureSetConfig

    specs, held = cad_library or ["procedural:0-79"], hold_out or []
    with report_bad_input():
        settings = from_dict(PictureSetConfig, load_yaml(config) if config else {}, str(config))
        open_libraries(specs, held)  # whatever is wrong with them shows here
        out.mkdir(parents=True, exist_ok=True)
        index = out / INDEX
        there = {e["number"] for e in PictureFolder(out).entries} if index.exists() else set()
    missing = [number for number in range(count) if number not in there]
    jobs = min(jobs or os.cpu_count() or 1, max(1, len(missing)))
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _start, (out, settings, specs, held, seed)) as pool, index.open("a") as file:
        lines = pool.imap_unordered(_draw, missing, chunksize=4)
        for line in track(lines, total=len(missing), description="rendering"):
            file.write(line + "\n")
    typer.echo(f"{count} pictures in {out}, {len(missing)} of them new")


def _start(out: Path, settings, specs: list[str], held: list[str], seed: int) -> None:
    """Load the CAD models once a process."""
    global _pictures, _folder
    import torch

    from sparc_core.synth.picture_set import PictureSet

    torch.set_num_threads(1)
    _pictures, _folder = PictureSet(open_libraries(specs, held), settings, seed), out


def _draw(number: int) -> str:
    from sparc_core.synth.picture_set import write_picture

    return write_picture(_folder, number, *_pictures.draw(number))


@app.command()
def proposals(
    pictures: options.Pictures,
    count: Annotated[int, typer.Option(help="Of the first so many pictures.")] = 5000,
    detector: Annotated[
        str, typer.Option(help="shipped, or weights of sparc train-perception detector.")
    ] = "shipped",
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Let a detector look at pictures; the box network learns from its mistakes to judge detections.

    The boxes go to proposals.jsonl in the folder; those that are there are kept.
    """
    import torch
    from rich.progress import Progress

    from sparc_core.baselines.reader import SHIPPED_DETECTOR
    from sparc_core.device import find_device
    from sparc_core.perception.mask_rcnn import MaskRcnnDetector
    from sparc_core.perception.see import SHIPPED
    from sparc_core.synth.picture_set import PictureFolder
    from sparc_core.training.proposals import LOWEST_SCORE, write_proposals

    if threads:
        torch.set_num_threads(threads)
    weights = SHIPPED_DETECTOR if detector == SHIPPED else Path(detector)
    with report_bad_input(), Progress() as progress:
        folder = PictureFolder(pictures)
        network = MaskRcnnDetector.load(weights, find_device(device), LOWEST_SCORE)
        task = progress.add_task("looking", total=min(count, len(folder)))
        new = write_proposals(folder, network, count, lambda done: progress.update(task, completed=done))
    typer.echo(f"proposals of {count} pictures in {pictures}, {new} of them new")


@app.command()
def depth(
    out: options.Out,
    pictures: options.Pictures,
    validation: options.UnseenPictures,
    config: Annotated[Path | None, options.yaml_of("DepthTraining")] = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    init: options.Init = None,
    resume: options.Resume = False,
) -> None:
    """Train depth and normals from one image; Ctrl-C saves a checkpoint to resume from.

    Several processes or GPUs: torchrun --nproc-per-node N -m sparc_core.scripts.main train-perception depth …
    """
    from sparc_core.evaluation.perception import measure_depth
    from sparc_core.perception.depth_net import OurDepthNormals
    from sparc_core.training.predictors import DepthTraining

    def measure(network, folder, settings) -> dict:
        return measure_depth(OurDepthNormals(network), folder, VALIDATE)

    told = RunOptions(out, config, device, threads, stop_after_min, resume)
    _train(DepthTraining, measure, pictures, validation, told, init)


@app.command()
def detector(
    out: options.Out,
    pictures: options.Pictures,
    validation: options.UnseenPictures,
    config: Annotated[Path | None, options.yaml_of("DetectorTraining")] = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    trunk: Annotated[
        Path | None, typer.Option(help="Weights of a depth network whose trunk the detector begins with.")
    ] = None,
    init: options.Init = None,
    resume: options.Resume = False,
) -> None:
    """Train boxes and masks (Mask R-CNN); Ctrl-C saves a checkpoint to resume from."""
    from sparc_core.evaluation.perception import LOWEST_SCORE, measure_detector
    from sparc_core.perception.mask_rcnn import MaskRcnnDetector
    from sparc_core.training.predictors import DetectorTraining

    def measure(network, folder, settings) -> dict:
        categories = settings.network.categories
        detector = MaskRcnnDetector(network, (None, *categories), min_score=LOWEST_SCORE)
        return measure_detector(detector, categories, folder, VALIDATE)

    told = RunOptions(out, config, device, threads, stop_after_min, resume)
    _train(DetectorTraining, measure, pictures, validation, told, init, trunk)


@app.command()
def boxes(
    out: options.Out,
    pictures: options.Pictures,
    validation: options.UnseenPictures,
    config: Annotated[Path | None, options.yaml_of("BoxTraining")] = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    init: options.Init = None,
    resume: options.Resume = False,
) -> None:
    """Train what is in a box: where, how large, how turned; Ctrl-C saves a checkpoint to resume from."""
    from sparc_core.perception.box_net import BoxNet
    from sparc_core.synth.picture_set import PictureFolder
    from sparc_core.training.box_figures import measure_boxes
    from sparc_core.training.box_table import BoxTable
    from sparc_core.training.boxes import BoxTraining, make_box_trainer

    told = RunOptions(out, config, device, threads, stop_after_min, resume)
    with report_bad_input():
        settings = told.settings(BoxTraining)
        unseen = BoxTable(PictureFolder(validation), settings.kept_px)
        trainer = make_box_trainer(settings, PictureFolder(pictures), told.use_device(), init)

    def figures() -> dict:
        network = BoxNet(settings.network)
        network.load_state_dict({name: value.cpu() for name, value in trainer.averaged.items()})
        return measure_boxes(network, unseen)

    train_predictor(told, settings, trainer, figures)


@app.command()
def retrieval(
    out: options.Out,
    config: Annotated[Path | None, options.yaml_of("RetrievalTraining")] = None,
    cad_library: options.CadLibraries = None,
    hold_out: options.HoldOut = None,
    validation: options.UnseenLibrary = "procedural:1000100-1000119",
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    init: options.Init = None,
    resume: options.Resume = False,
) -> None:
    """Train the embedding of image regions and CAD models on synthetic scenes; no pictures are needed."""
    from sparc_core.cad.library import CadLibrary
    from sparc_core.cad.tensors import CadTensors
    from sparc_core.evaluation.retrieval import measure_retrieval
    from sparc_core.retrieval.network import RetrievalNet
    from sparc_core.retrieval.retriever import Retriever
    from sparc_core.training.retrieval import RetrievalTraining, make_retrieval_trainer

    told = RunOptions(out, config, device, threads, stop_after_min, resume)
    with report_bad_input():
        settings = told.settings(RetrievalTraining)
        library = open_libraries(cad_library or ["procedural:0-79"], hold_out or [])
        unseen = CadLibrary.open(validation)
        trainer = make_retrieval_trainer(settings, library, told.use_device(), init)

    def figures() -> dict:
        network = RetrievalNet(settings.network)
        network.load_state_dict({name: value.cpu() for name, value in trainer.averaged.items()})
        retriever = Retriever(network, CadTensors.from_library(unseen))
        return measure_retrieval(unseen, {"learned": retriever.ranking}, VALIDATE // 2)["learned"]

    train_predictor(told, settings, trainer, figures)


def _train(
    kind, measure, pictures: Path, validation: Path, told: RunOptions, init: Path | None,
    trunk: Path | None = None,
) -> None:  # fmt: skip
    """Train what a configuration of a kind builds; measure(network, folder, settings) -> figures by name."""
    from sparc_core.synth.picture_set import PictureFolder
    from sparc_core.training.predictors import make_trainer

    with report_bad_input():
        settings = told.settings(kind)
        unseen = PictureFolder(validation)
        trainer = make_trainer(settings, PictureFolder(pictures), told.use_device(), init, trunk)

    def figures() -> dict:
        network = settings.build()
        network.load_state_dict(trainer.averaged)
        return measure(network, unseen, settings)

    train_predictor(told, settings, trainer, figures)
