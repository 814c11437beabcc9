"""Several methods on the very same pictures, detections, CAD models and depth."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.device import find_device
from sparc_core.evaluation.methods import Method, MethodSpec, Setting
from sparc_core.evaluation.pictured_rooms import (
    TRACKS,
    GivenInputs,
    PicturedRoom,
    PicturedRooms,
    give_inputs,
    views_of,
)
from sparc_core.evaluation.pose_records import records_of
from sparc_core.evaluation.rgb_bench import RgbBenchConfig
from sparc_core.perception.prepare import prepare_image
from sparc_core.perception.see import Perception, PerceptionConfig, Seen
from sparc_core.pipeline import SHIPPED_RETRIEVAL, AlignerConfig
from sparc_core.refine.loop import StageClock
from sparc_core.retrieval.retriever import Retriever

RIVAL_TRACKS = ("RGB-D, true boxes, right model", "RGB-D", "RGB, true boxes, right model", "RGB alone")
LATENCY_ROOMS = 12  # among which the one with the most detections is timed
COUNTS = (1, 5, 10)


class RivalsRunner:
    """Runs all methods over the pictures, one by one. methods: by name; accurate: names of those whose
    accuracy is measured (not those with random weights)."""

    def __init__(
        self,
        config: RgbBenchConfig,
        perception: Perception,
        library: CadLibrary,
        methods: dict[str, Method],
        accurate: tuple[str, ...],
        retriever: Retriever,
    ):
        self.config, self.perception, self.cad_library = config, perception, library
        self.methods, self.accurate, self.retriever = methods, accurate, retriever
        self.tracks = [track for track in TRACKS if track.name in config.tracks]
        self.device = retriever.vectors.device
        self.cad = CadTensors.from_library(library, self.device)
        self.pictures = PicturedRooms(library, config.layout, config.seed, config.min_visible)

    @classmethod
    def load(
        cls,
        config: RgbBenchConfig,
        perception: PerceptionConfig,
        specs: tuple[MethodSpec, ...],
        retrieval: Path | None,
        device: str,
    ) -> RivalsRunner:
        """retrieval: a file, None for the shipped one; device: as for `find_device`. Raises ValueError for a
        file that cannot be read, for names that occur twice and a device that is not there."""
        device = find_device(device)
        names = [spec.name for spec in specs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ValueError(
                f"methods need names of their own, got {twice}" if names else "no method was named"
            )
        library = CadLibrary.open(config.cad_library)
        retriever = Retriever.load(retrieval or SHIPPED_RETRIEVAL, CadTensors.from_library(library, device))
        setting = Setting(library, device)
        methods = {spec.name: spec.load(setting) for spec in specs}
        accurate = tuple(spec.name for spec in specs if not spec.untrained)
        return cls(config, Perception.load(perception, device), library, methods, accurate, retriever)

    def run(self, number: int) -> dict[str, list[dict]]:
        """Records of room `number`: {"objects": …, "predictions": …} of every method in every track (see
        `records_of`), and {"perception": [milliseconds of every predictor]}."""
        taken = self.pictures.take(number)
        views = views_of(taken, self.tracks, self.perception)
        timing = views[False][1].timing_ms
        records: dict[str, list[dict]] = {"objects": [], "predictions": [], "perception": [timing]}
        for track in self.tracks:
            room, seen = views[track.height]
            given = self.with_models(
                room, give_inputs(track, room, seen, self.cad_library, self.perception.estimates)
            )
            for name in self.accurate:
                result = self._align(name, room, given)
                objects, predictions = records_of(
                    {"method": name, "track": track.name, "image": number}, room.room, given, result,
                    self.cad_library, self.cad, self.config.well_visible,
                )  # fmt: skip
                records["objects"] += objects
                records["predictions"] += predictions
        return records

    def with_models(self, taken: PicturedRoom, given: GivenInputs) -> GivenInputs:
        """The inputs with the most similar CAD model named for every detection that names none, the same for
        all methods; detections that cannot be looked at (no area on the image) are left as they are."""
        prepared = prepare_image(
            taken.picture.rgb, taken.room.camera, given.detections, given.depth_m, self.cad_library,
            AlignerConfig(), self.device, given.normals_cam, given.depth_predicted, given.hints,
        )  # fmt: skip
        detections = list(given.detections)
        if prepared.kept:
            kept = [detections[i] for i in prepared.kept]
            ranked = self.retriever.ranking(prepared, [d.category for d in kept], 1)
            for i, detection, models in zip(prepared.kept, kept, ranked, strict=True):
                if detection.model_id is None and models:
                    model = self.cad_library.models[models[0]]
                    detections[i] = dataclasses.replace(detection, model_id=model.model_id)
        return dataclasses.replace(given, detections=tuple(detections))

    def _align(self, name: str, taken: PicturedRoom, given: GivenInputs):
        return self.methods[name].align(
            taken.picture.rgb, taken.room.camera, given.detections, given.depth_m, given.normals_cam,
            depth_predicted=given.depth_predicted, hints=given.hints,
        )  # fmt: skip

    def time(self, name: str, repeats: int) -> dict[int, dict[str, float]]:
        """{objects: {"median_ms", "p10_ms", "p90_ms"}} of a method's whole `align` for each of `COUNTS`
        objects.

        What the perception gives is there already (boxes, masks, depth, normals, CAD models), for all methods
        alike. The picture is the one of the first rooms with the most detections, repeated up to the number
        that is wanted. Raises ValueError when nothing is detected in any of them.
        """
        taken, given = self._busiest()
        figures = {}
        for count in COUNTS:
            detections = tuple(given.detections[i % len(given.detections)] for i in range(count))
            few = dataclasses.replace(given, detections=detections)
            self._align(name, taken, few)
            times = []
            for _ in range(repeats):
                clock = StageClock(torch.device(self.device))
                clock.measure("align", self._align, name, taken, few)
                times.append(clock.total_ms["align"])
            tenths = statistics.quantiles(times, n=10) if repeats > 1 else times * 9
            figures[count] = {
                "median_ms": round(statistics.median(times), 2),
                "p10_ms": round(tenths[0], 2),
                "p90_ms": round(tenths[-1], 2),
            }
        return figures

    def _busiest(self) -> tuple[PicturedRoom, GivenInputs]:
        most: tuple[PicturedRoom, Seen] | None = None
        for number in range(min(LATENCY_ROOMS, self.config.images)):
            taken = self.pictures.take(number)
            alone = self.perception.see(taken.picture.rgb, taken.room.camera)
            if alone.detections and (most is None or len(alone.detections) > len(most[1].detections)):
                most = taken, alone
        if most is None:
            raise ValueError("nothing is detected in the rooms for the latency")
        rgb_alone = next(track for track in TRACKS if track.name == "RGB alone")
        return most[0], self.with_models(most[0], give_inputs(rgb_alone, *most, self.cad_library))
