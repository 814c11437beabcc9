"""`sparc finetune`: train the alignment network on from given weights, on recorded frames or on pictures
(`finetune_pictures.py`)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.finetune_common import box_views, depth_identity, initial_weights
from sparc_core.scripts.finetune_pictures import pictures
from sparc_core.scripts.training_run import RunOptions, TrainingRun

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(pictures)


@app.callback()
def _group() -> None:
    """Train the alignment network on, on frames with known poses."""


@app.command()
def scannet25k(
    prepared: Annotated[
        Path, typer.Argument(metavar="PREPARED", help="Folder that `sparc prepare scannet25k` wrote.")
    ],
    out: options.Out,
    validation: Annotated[Path, typer.Option(help="Scenes to validate on, one a line (scannetv2_val.txt).")],
    train: Annotated[
        Path | None, typer.Option(help="Scenes to train on; none: all that are not validated on.")
    ] = None,
    config: Annotated[Path | None, options.yaml_of("FinetuneConfig")] = None,
    init: Annotated[Path | None, typer.Option(help="Weights to begin with; none: the shipped ones.")] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            help="ROCA's per_frame_preds.json: its boxes, masks and CAD models; none: the true ones."
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(help="sensor, none, shipped, weights of ours or hf:NAME; in place of data.depth."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for what is computed of each frame; none: PREPARED/channels.")
    ] = None,
    validation_images: Annotated[int, typer.Option(help="Frames of the validation scenes looked at.")] = 192,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out scenes of the lists that are not prepared.")
    ] = False,
    download: Annotated[bool, typer.Option("--download", help="hf: models may be fetched.")] = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    resume: options.Resume = False,
) -> None:
    """Fine-tune on ScanNet25k with Scan2CAD's poses; Ctrl-C saves a checkpoint to resume from.

    Several processes, GPUs or machines: torchrun --nproc-per-node N -m sparc_core.scripts.main finetune …
    """
    with report_bad_input():
        told = RunOptions(out, config, device, threads, stop_after_min, resume)
        data = _DataOptions(
            prepared, train, validation, detections, depth, cache, validation_images, keep_going, download
        )
        run = _prepare(told, data, init)
    run.go()


@dataclasses.dataclass(frozen=True)
class _DataOptions:
    """Where the frames are; as the command's options."""

    prepared: Path
    train: Path | None
    validation: Path
    detections: Path | None
    depth: str | None
    cache: Path | None
    validation_images: int
    keep_going: bool
    download: bool


def _prepare(told: RunOptions, options: _DataOptions, init: Path | None) -> TrainingRun:
    from accelerate import PartialState

    from sparc_core.refine.model import load_network, save_weights
    from sparc_core.training.finetune import FinetuneConfig
    from sparc_core.training.train import Trainer
    from sparc_core.training.validate import validate

    settings = told.settings(FinetuneConfig)
    if options.validation_images < 1:
        raise ValueError(f"--validation-images must be at least 1, got {options.validation_images}")
    if options.depth is not None:
        data = dataclasses.replace(settings.data, depth=options.depth)
        settings = dataclasses.replace(settings, data=data)
    use_device = told.use_device()
    network, model = load_network(*initial_weights(told, init))
    sides = _open_sides(options, settings.data, use_device)
    processes = PartialState(cpu=use_device == "cpu").num_processes
    settings = settings.resolved(model, len(sides["train"].frames), processes)

    def open_data(trainer, library):
        return sides["train"].data(settings, trainer.device, trainer.rank, trainer.processes)

    trainer = Trainer(settings, sides["train"].library, use_device, open_data)
    if trainer.rank == 0:
        _tell(sides, settings, trainer)
    trainer.start_from(network)
    unseen = sides["validation"].data(settings, trainer.device)
    images = min(options.validation_images, len(sides["validation"].frames))

    def measure() -> dict:
        return validate(trainer.averaged_network(), settings.model, unseen, images)

    def write(path: Path) -> None:
        save_weights(path, trainer.averaged, settings.model)

    run = TrainingRun(told, settings, trainer, measure, write)
    run.start()
    return run


@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
    """Frames of the training or of the validation scenes, the CAD models in them, and where their channels
    come from. jitter: whether their boxes are the true ones."""

    frames: list
    library: object
    store: object
    jitter: bool

    def data(self, settings, device: str, rank: int = 0, processes: int = 1):
        """What the trainer draws from."""
        from sparc_core.training.frame_data import FrameData
        from sparc_core.training.frame_order import FrameOrder

        order = FrameOrder(len(self.frames), settings.seed, rank, processes)
        return FrameData(
            self.frames, self.library, self.store, settings.data, settings.model.inputs, device,
            order=order, jitter=self.jitter,
        )  # fmt: skip


def _open_sides(options: _DataOptions, data, device: str) -> dict[str, _Side]:
    """The training and the validation side. Raises ValueError or OSError naming what cannot be used."""
    from sparc_core.datasets.prepared import PreparedScannet
    from sparc_core.datasets.roca import read_roca
    from sparc_core.datasets.splits import split_scenes
    from sparc_core.evaluation.scan2cad.predict import file_digest
    from sparc_core.perception.see import Perception, PerceptionConfig
    from sparc_core.training.finetune import sized_cad

    dataset = PreparedScannet(options.prepared)
    train, validation, left_out = split_scenes(dataset, options.train, options.validation, options.keep_going)
    if left_out:
        typer.echo(f"left out: {len(left_out)} scenes that are not prepared", err=True)
    found = None if options.detections is None else read_roca(options.detections)
    predicts = data.depth not in ("sensor", "none")
    perception = None
    if predicts:
        seen_by = PerceptionConfig(depth=data.depth, estimates=data.estimates, download=options.download)
        perception = Perception.load(seen_by, device)
    facts = {
        "depth": depth_identity(data.depth),
        "detections": None if options.detections is None else file_digest(options.detections),
        "min_visible": data.min_visible,
        "dataset": dataset.sources,
    }
    cad = sized_cad(dataset, train)
    sides = {}
    for name, scenes, path in (
        ("train", train, options.train or options.prepared), ("validation", validation, options.validation)
    ):  # fmt: skip
        frames, library = _frames_of(dataset, scenes, cad, data.min_visible, found, path)
        sizes = {c: float((library.median_extents_m(c) ** 2).sum() ** 0.5) for c in library.categories}
        depth = "predicted" if predicts else data.depth
        views = box_views(perception, data.estimates, data.box_jitter if found is None else 0.0)
        store = _store(dataset, depth, options, facts, sizes, perception, views)
        sides[name] = _Side(frames, library, store, jitter=found is None)
    return sides


def _store(dataset, depth: str, options: _DataOptions, facts: dict, sizes: dict, perception, views):
    from sparc_core.training.frame_store import FrameStore

    folder = options.cache or options.prepared / "channels"
    return FrameStore(dataset, depth, folder, facts, sizes, perception, views)


def _frames_of(dataset, scenes, cad: dict, min_visible: float, found, path: Path):
    """The frames of some scenes, and the library of the CAD models in them.

    CAD files that cannot be read are told, and the objects that have them are left out. Raises ValueError
    when nothing is left.
    """
    from sparc_core.datasets.shapenet import load_library
    from sparc_core.training.frame_targets import training_frames

    keys = {item.key for scene in scenes for item in dataset.annotations.scenes[scene]}
    if found is not None:
        keys |= {d.cad for (scene, _), ds in found.items() if scene in set(scenes) for d in ds}
    library = load_library(cad[key] for key in sorted(keys & cad.keys()))
    for file, reason in library.skipped:
        typer.echo(f"skipped CAD file {file}: {reason}", err=True)
    loaded = {model.model_id for model in library.models}
    usable = frozenset(key for key in keys & cad.keys() if cad[key].model_id in loaded)
    frames = training_frames(dataset, scenes, min_visible, usable, found)
    if not frames:
        raise ValueError(
            f"{path}: none of the frames of its {len(scenes)} scenes shows an annotated object that is "
            + ("visible enough" if found is None else "visible enough and detected")
        )
    return frames, library


def _tell(sides: dict[str, _Side], settings, trainer) -> None:
    for name, side in sides.items():
        counts = Counter(target.category for frame in side.frames for target in frame.targets)
        listed = ", ".join(f"{n} {category}" for category, n in sorted(counts.items()))
        typer.echo(f"{name}: {len(side.frames)} frames, {counts.total()} objects ({listed})")
    typer.echo(
        f"{settings.steps} steps, {len(sides['train'].library)} CAD models, {trainer.processes} × "
        f"{trainer.device}, {trainer.accelerator.mixed_precision} mixed precision"
    )
