"""The open benchmark: fixed rooms, seen perfectly, by a depth camera, or by predictors from one image, each
with the right CAD model and with a similar one.

Every track sees the same rooms through the same jittered boxes, and every image goes through a method's
`align` as a user's would. `BenchRunner` does single images, so that processes can share the work.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.device import find_device
from sparc_core.evaluation.mesh_score import surface_f1
from sparc_core.evaluation.methods import OURS, MethodSpec, Setting
from sparc_core.evaluation.report import poses_of
from sparc_core.evaluation.synthetic import LabelledView, RoomRenderer
from sparc_core.geometry.errors import pose_errors
from sparc_core.synth.corrupt import NoiseConfig, draw_noise
from sparc_core.synth.scenes import SceneConfig
from sparc_core.types import Detection

MONOCULAR_ONLY = NoiseConfig(perfect=0.0, sensor=0.0, monocular=1.0, none=0.0, normals_missing=0.0)
SURFACE_POINTS = 1000
CHAMFER_POINTS = 256


@dataclass(frozen=True)
class Track:
    """channels: "perfect" (exact depth, normals and masks), "sensor" (a depth camera; normals and masks are
    cut from its depth) or "mono" (depth, normals and masks as predicted from the image). similar: the CAD
    model given is the most similar other one of the category. true_size: the objects have their CAD
    models' own extents, and the aligner keeps to them (scale mode fixed)."""

    name: str
    channels: str
    similar: bool = False
    true_size: bool = False


TRACKS = (
    Track("perfect, right model", "perfect"),
    Track("perfect, similar model", "perfect", similar=True),
    Track("sensor, right model", "sensor"),
    Track("sensor, right model, true size", "sensor", true_size=True),
    Track("sensor, similar model", "sensor", similar=True),
    Track("mono, right model", "mono"),
    Track("mono, similar model", "mono", similar=True),
    Track("mono, right model, true size", "mono", true_size=True),
)


@dataclass(frozen=True)
class BenchConfig:
    """images: how many rooms, of 1 to 8 objects; seed fixes them. tracks: names in `TRACKS`; cad_library: a
    folder or procedural models; only: keep the CAD models whose id begins with one of these. scale_jitter,
    axis_jitter: how far objects deviate from their CAD model's size as a whole and by axis. well_visible:
    share of an object's pixels at which the sensor must see it."""

    images: int = 1000
    seed: int = 2027
    tracks: tuple[str, ...] = tuple(track.name for track in TRACKS)
    cad_library: str = "procedural:1000000-1000019"
    only: tuple[str, ...] = ()
    well_visible: float = 0.5
    layout: SceneConfig = field(default_factory=lambda: SceneConfig(objects=8, clutter=2, free_share=0.0))

    def __post_init__(self):
        known = [track.name for track in TRACKS]
        for name in self.tracks:
            if name not in known:
                raise ValueError(f"unknown track {name!r}; the tracks are {', '.join(map(repr, known))}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")

    def open_library(self) -> CadLibrary:
        """The CAD models that are left; ValueError when there are none."""
        library = CadLibrary.open(self.cad_library)
        if not self.only:
            return library
        kept = [i for i, model in enumerate(library.models) if model.model_id.startswith(self.only)]
        if not kept:
            raise ValueError(f"no CAD model of {self.cad_library} has an id that begins with {self.only}")
        return library.subset(kept)


class BenchRunner:
    """Runs one method over the rooms of the benchmark, image by image."""

    def __init__(
        self,
        config: BenchConfig,
        method: MethodSpec = OURS,
        device: str = "cpu",
    ):
        """device: as for `find_device`. Raises ValueError for a method that cannot be read."""
        self.config, self.library = config, config.open_library()
        self.tracks = [track for track in TRACKS if track.name in config.tracks]
        self.rooms = RoomRenderer(self.library, config.layout, config.seed)
        exact = replace(config.layout, scale_jitter=0.0, axis_jitter=0.0)
        self.true_size_rooms = RoomRenderer(self.library, exact, config.seed)
        setting = Setting(self.library, find_device(device))
        self.free, self.fixed = (
            chosen.load(setting) for chosen in (method, method.with_options(scale_mode="fixed"))
        )
        self.similar = most_similar_models(self.library, self.free.cad)

    def run(self, number: int) -> list[dict]:
        """One record for every object of room `number` in every track (see `_records`)."""
        rooms: dict[bool, LabelledView] = {}
        records = []
        for track in self.tracks:
            if track.true_size not in rooms:
                renderer = self.true_size_rooms if track.true_size else self.rooms
                rooms[track.true_size] = renderer.room(number)
            records += self._run_track(track, number, rooms[track.true_size])
        return records

    def _run_track(self, track: Track, number: int, room: LabelledView) -> list[dict]:
        model = self.similar[room.models] if track.similar else room.models
        kept = (model >= 0).nonzero()[:, 0]  # a category of one model has no similar one
        depth, normals, slot = self._observe(track, number, room)
        detections = [
            Detection(
                tuple(room.boxes_xyxy[i].tolist()), self.library.models[int(model[i])].category, 1.0,
                self.library.models[int(model[i])].model_id,
                mask=None if slot is None else slot == int(room.slots[i]),
            )
            for i in kept
        ]  # fmt: skip
        aligner = self.fixed if track.true_size else self.free
        result = aligner.align(
            room.view.rgb, room.camera, detections, depth, normals, depth_predicted=track.channels == "mono"
        )
        return self._records(track, number, room, kept, model[kept], result)

    def _observe(self, track: Track, number: int, room: LabelledView):
        """Depth, normals (or None: from the depth) and slot image (or None: masks cut from the depth)."""
        if track.channels == "sensor":
            return room.sensor_depth_m, None, None
        if track.channels == "perfect":
            return room.view.depth_m, room.view.normal_cam, room.view.slot
        generator = torch.Generator().manual_seed(self.config.seed * 200_003 + number)
        noise = draw_noise(MONOCULAR_ONLY, 1, room.scene.model.shape[1], generator)
        seen = self.rooms.renderer.predicted(room.scene, 0, room.view, noise, generator)
        return seen.depth_m, seen.normals_cam, seen.slot

    def _records(self, track, number, room, kept, model, result) -> list[dict]:
        """What is counted: errors of every object, its σ, and what makes it easy or hard."""
        pose, score = poses_of(result, len(kept))
        truth = room.truth.map(lambda x: x[kept])
        # a round table given for a square one cannot be turned wrongly, nor the other way round
        order = torch.maximum(room.symmetry_order[kept], self.free.cad.symmetry_order[model])
        errors = pose_errors(pose, truth, order)
        points = pose.transform(self.free.cad.points[model, :SURFACE_POINTS]).numpy()
        true_points = truth.transform(self.free.cad.points[room.models[kept], :SURFACE_POINTS]).numpy()
        timing = result.timing_ms
        return [
            {
                "track": track.name,
                "image": number,
                "category": self.library.models[int(room.models[i])].category,
                "model": self.library.models[int(room.models[i])].model_id,
                "given": self.library.models[int(model[d])].model_id,
                "translation_m": float(errors.translation_m[d]),
                "rotation_deg": float(errors.rotation_deg[d]),
                "scale": float(errors.scale[d]),
                "scale_mean": float(errors.scale_mean[d]),
                "score": float(score[d]),
                "f1": surface_f1(points[d], true_points[d], float(truth.S[d].max())),
                "symmetry_order": int(order[d]),
                "distance_m": float(truth.T[d].norm()),
                "seen": float(room.seen[i]),
                "well_visible": bool(room.on_image[i] and room.seen[i] >= self.config.well_visible),
                "objects": len(kept),
                "perception_ms": timing["observe"],
                "alignment_ms": timing["total"] - timing["observe"],
            }
            for d, i in enumerate(kept)
        ]


def most_similar_models(library: CadLibrary, cad: CadTensors) -> torch.Tensor:
    """(M,) for every CAD model the other one of its category with the smallest Chamfer distance, both in the
    unit cube: the best a retrieval without the right model could return. −1 for a category of one."""
    similar = torch.full((len(library),), -1)
    points = cad.points[:, :CHAMFER_POINTS].cpu()
    for category in library.categories:
        members = torch.from_numpy(library.indices_of_category(category))
        if len(members) < 2:
            continue
        for m in members:
            distance = torch.cdist(points[m].expand(len(members), -1, -1), points[members])
            chamfer = distance.amin(1).mean(-1) + distance.amin(2).mean(-1)
            similar[m] = members[torch.where(members == m, torch.inf, chamfer).argmin()]
    return similar
