"""`sparc finetune pictures`: train the alignment network on with what our predictors see in pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.finetune_common import box_views, depth_identity, initial_weights
from sparc_core.scripts.libraries import open_libraries
from sparc_core.scripts.training_run import RunOptions, TrainingRun


def pictures(
    out: options.Out,
    train: Annotated[Path, typer.Option("--pictures", help="Folder of pictures to train on.")],
    validation: options.UnseenPictures,
    config: Annotated[Path | None, options.yaml_of("PictureTuneConfig")] = None,
    init: Annotated[Path | None, typer.Option(help="Weights to begin with; none: the shipped ones.")] = None,
    cad_library: options.CadLibraries = None,
    hold_out: options.HoldOut = None,
    validation_library: options.UnseenLibrary = "procedural:1000000-1000009",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for what is predicted; none: channels in the pictures' folders."),
    ] = None,
    validation_images: Annotated[int, typer.Option(help="Pictures looked at to validate.")] = 96,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    stop_after_min: options.StopAfterMin = 0.0,
    resume: options.Resume = False,
) -> None:
    """Fine-tune on pictures of synthetic rooms, with the depth and normals that a depth network predicts,
    and on scenes with simulated noise in turn.

    The libraries are those of the pictures. Several processes: torchrun, as for pretrain.
    """
    with report_bad_input():
        told = RunOptions(out, config, device, threads, stop_after_min, resume)
        libraries = {
            "train": (train, cad_library or ["procedural:0-59"], hold_out or []),
            "validation": (validation, [validation_library], []),
        }
        run = _prepare(told, libraries, init, cache, validation_images)
    run.go()


def _prepare(told: RunOptions, libraries: dict, init, cache, validation_images: int) -> TrainingRun:
    from sparc_core.refine.model import Calibration, load_network, save_weights
    from sparc_core.training.picture_frames import MixedData, PictureTuneConfig
    from sparc_core.training.train import Trainer, synthetic_data
    from sparc_core.training.validate import validate

    settings = told.settings(PictureTuneConfig)
    if validation_images < 1:
        raise ValueError(f"--validation-images must be at least 1, got {validation_images}")
    device = told.use_device()
    network, model = load_network(*initial_weights(told, init))
    model = dataclasses.replace(model, calibration=Calibration())  # that of the weights before
    settings = dataclasses.replace(settings, model=model)
    parts = {"train": settings.picture_range, "validation": (0.0, 1.0)}
    sides = {
        name: _Side.open(*source, settings, parts[name], cache, device) for name, source in libraries.items()
    }

    def open_data(trainer, library) -> MixedData:
        seen = sides["train"].data(settings, trainer.device, trainer.rank, trainer.processes)
        return MixedData(synthetic_data(trainer, library), seen, settings.picture_share, settings.images)

    trainer = Trainer(settings, sides["train"].library, device, open_data)
    if trainer.rank == 0:
        counts = {name: len(side.frames) for name, side in sides.items()}
        typer.echo(
            f"{counts['train']} pictures to train on, {counts['validation']} to validate on, "
            f"{len(sides['train'].library)} CAD models, {trainer.processes} × {trainer.device}"
        )
    trainer.start_from(network)
    unseen = sides["validation"].data(settings, trainer.device)
    images = min(validation_images, len(sides["validation"].frames))

    def measure() -> dict:
        return validate(trainer.averaged_network(), model, unseen, images)

    def write(path: Path) -> None:
        save_weights(path, trainer.averaged, model)

    run = TrainingRun(told, settings, trainer, measure, write)
    run.start()
    return run


@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
    """Pictures to train or to validate on, their CAD models, and where their channels come from."""

    frames: list
    library: object
    store: object

    @classmethod
    def open(cls, folder: Path, specs, held_out, settings, part, cache: Path | None, device: str) -> _Side:
        """Raises ValueError naming what cannot be used."""
        from sparc_core.perception.see import Perception, PerceptionConfig
        from sparc_core.synth.picture_set import PictureFolder
        from sparc_core.training.frame_store import FrameStore
        from sparc_core.training.picture_frames import PictureImages, picture_frames

        data = settings.pictures
        found, library = PictureFolder(folder), open_libraries(specs, held_out)
        frames = picture_frames(found, library, data.min_visible, part)
        images = PictureImages(found)
        sizes = {c: float((library.median_extents_m(c) ** 2).sum() ** 0.5) for c in library.categories}
        predicts = data.depth != "none"
        seen_by = PerceptionConfig(depth=data.depth, estimates=data.estimates)
        perception = Perception.load(seen_by, device) if predicts else None
        facts = {
            "depth": depth_identity(data.depth),
            "pictures": images.digest,
            "min_visible": data.min_visible,
        }
        views = box_views(perception, data.estimates, data.box_jitter)
        place = (cache or folder) / "channels"
        store = FrameStore(
            images, "predicted" if predicts else "none", place, facts, sizes, perception, views
        )
        return cls(frames, library, store)

    def data(self, settings, device: str, rank: int = 0, processes: int = 1):
        """What the trainer draws from."""
        from sparc_core.training.frame_data import FrameData
        from sparc_core.training.frame_order import FrameOrder

        order = FrameOrder(len(self.frames), settings.seed, rank, processes)
        return FrameData(
            self.frames,
            self.library,
            self.store,
            settings.pictures,
            settings.model.inputs,
            device,
            order=order,
        )
