"""The benchmark's rooms as pictures, from RGB alone: boxes, depth, normals and CAD models are predicted.

What the perception finds is compared with the truth, and the poses that the aligner makes of it. Tracks
replace one prediction after another by the truth, which shows what each of them costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from sparc_core.cad.library import CadLibrary
from sparc_core.device import find_device
from sparc_core.evaluation.methods import OURS, Method, MethodSpec, Setting
from sparc_core.evaluation.perception import LOWEST_SCORE, DepthFigures
from sparc_core.evaluation.pictured_rooms import (
    TRACKS,
    PicturedRoom,
    PicturedRooms,
    RgbTrack,
    give_inputs,
    views_of,
)
from sparc_core.evaluation.pose_records import records_of
from sparc_core.perception.see import Perception, PerceptionConfig, Seen
from sparc_core.synth.pictures import Picture
from sparc_core.synth.scenes import SceneConfig


@dataclass(frozen=True)
class RgbBenchConfig:
    """images: how many of the benchmark's rooms; seed, cad_library: as in `BenchConfig`. min_visible: share
    of an object's points that must be seen for a detector to have to find it. well_visible: as in
    `BenchConfig`."""

    images: int = 200
    seed: int = 2027
    cad_library: str = "procedural:1000000-1000019"
    tracks: tuple[str, ...] = tuple(track.name for track in TRACKS)
    min_visible: float = 0.15
    well_visible: float = 0.5
    layout: SceneConfig = field(default_factory=lambda: SceneConfig(objects=8, clutter=2, free_share=0.0))

    def __post_init__(self):
        known = [track.name for track in TRACKS]
        for name in self.tracks:
            if name not in known:
                raise ValueError(f"unknown track {name!r}; the tracks are {', '.join(map(repr, known))}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")


class RgbBenchRunner:
    """Runs perception and a method over the pictures, one by one."""

    def __init__(
        self,
        config: RgbBenchConfig,
        perception: Perception,
        method: Method,
        everything: Perception | None = None,
    ):
        """everything: gives the detections that count for average precision, doubtful ones as well; None:
        those of the perception."""
        if perception.detector is None or perception.depth is None:
            raise ValueError("the benchmark needs a detector and a depth predictor")
        self.config, self.perception, self.method = config, perception, method
        self.everything = everything
        self.tracks = [track for track in TRACKS if track.name in config.tracks]
        self.pictures = PicturedRooms(method.cad_library, config.layout, config.seed, config.min_visible)

    @classmethod
    def load(
        cls,
        config: RgbBenchConfig,
        perception: PerceptionConfig,
        method: MethodSpec = OURS,
        retrieval: Path | str = "shipped",
        device: str = "cpu",
    ) -> RgbBenchRunner:
        """retrieval: as in `Setting`; device: as for `find_device`. Raises ValueError for what cannot be
        read."""
        setting = Setting(CadLibrary.open(config.cad_library), find_device(device), retrieval)
        doubtful = replace(perception, depth="", masks="", fill_holes=False, min_score=LOWEST_SCORE)
        return cls(
            config,
            Perception.load(perception, setting.device),
            method.load(setting),
            Perception.load(doubtful, setting.device),
        )

    def run(self, number: int) -> dict:
        """All about one picture: {"boxes": …, "depth": …, "depth_on_floor":
        the same where the camera's height is known, "timing_ms": …, "objects": one record for every
        object of the room in every track, "predictions": one for every aligned detection in every track} (see
        `records_of`)."""
        taken = self.pictures.take(number)
        room, picture = taken.room, taken.picture
        views = views_of(taken, self.tracks, self.perception)
        alone = views[False][1]
        ranked = alone if self.everything is None else self.everything.see(picture.rgb, room.camera)
        objects, predictions = [], []
        for track in self.tracks:
            found = self._run_track(track, number, *views[track.height])
            objects += found[0]
            predictions += found[1]
        return {
            "boxes": {
                "found": [[list(d.box_xyxy), d.category, d.score] for d in ranked.detections],
                "truth": [[list(o.box_xyxy), o.category] for o in taken.objects],
            },
            "depth": _depth_row(alone, picture),
            "depth_on_floor": _depth_row(views[True][1], picture) if True in views else None,
            "timing_ms": alone.timing_ms,
            "objects": objects,
            "predictions": predictions,
        }

    def _run_track(self, track: RgbTrack, number: int, taken: PicturedRoom, alone: Seen):
        given = give_inputs(track, taken, alone, self.method.cad_library, self.perception.estimates)
        result = self.method.align(
            taken.picture.rgb, taken.room.camera, given.detections, given.depth_m, given.normals_cam,
            depth_predicted=given.depth_predicted, hints=given.hints,
        )  # fmt: skip
        named = {"track": track.name, "image": number}
        return records_of(
            named, taken.room, given, result, self.method.cad_library, self.method.cad,
            self.config.well_visible,
        )  # fmt: skip


def _depth_row(seen: Seen, picture: Picture) -> dict | None:
    """`DepthFigures` of one picture."""
    figures = DepthFigures()
    truth = (picture.depth_m, picture.normal_cam, picture.object >= 0)
    share = None if seen.hints is None else seen.hints.object_share
    figures.add(seen.depth_m, seen.normals_cam, *truth, share)
    return figures.rows[0] if figures.rows else None
