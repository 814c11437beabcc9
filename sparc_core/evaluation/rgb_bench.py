"""The benchmark's rooms as pictures, from RGB alone: boxes, depth, normals and CAD models are predicted.

The same furniture, cameras and CAD models as in the open benchmark (`bench.py`), with four walls and a
ceiling round them, textures, lamps and a camera's flaws. What the perception finds is compared with the
truth, and the poses that the aligner makes of it. Tracks replace one prediction after another by the truth,
which shows what each of them costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.methods import OURS, method_of
from sparc_core.evaluation.perception import DepthFigures
from sparc_core.evaluation.report import poses_of
from sparc_core.evaluation.synthetic import LabelledView, RoomRenderer, silhouette_boxes
from sparc_core.geometry.errors import pose_errors
from sparc_core.perception.see import Perception, Seen
from sparc_core.pipeline import Aligner
from sparc_core.synth.picture_set import PicturedObject, PictureLabeller
from sparc_core.synth.pictures import Picture, PictureConfig, PictureRenderer
from sparc_core.synth.scenes import SceneConfig
from sparc_core.types import Detection

SAME_OBJECT_IOU = 0.5


@dataclass(frozen=True)
class RgbTrack:
    """What is given instead of predicted. boxes: the jittered true boxes with their categories; model: the
    right CAD model; sensor: the depth of a depth camera."""

    name: str
    boxes: bool = False
    model: bool = False
    sensor: bool = False


TRACKS = (
    RgbTrack("RGB alone"),
    RgbTrack("RGB, right model", model=True),
    RgbTrack("RGB, true boxes, right model", boxes=True, model=True),
    RgbTrack("RGB-D", sensor=True),
    RgbTrack("RGB-D, right model", sensor=True, model=True),
    RgbTrack("RGB-D, true boxes, right model", sensor=True, boxes=True, model=True),
)


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


@dataclass(frozen=True, eq=False)
class PicturedRoom:
    """A room of the benchmark with its picture and what a detector is to find in it."""

    room: LabelledView
    picture: Picture
    objects: tuple[PicturedObject, ...]


class PicturedRooms:
    """Takes the pictures of the benchmark's rooms, each from its number alone."""

    def __init__(self, library: CadLibrary, config: RgbBenchConfig):
        self.config = config
        self.rooms = RoomRenderer(library, config.layout, config.seed, enclosed=True)
        size = PictureConfig(config.layout.width_px, config.layout.height_px)
        self.renderer = PictureRenderer(self.rooms.caster, size)
        self.labeller = PictureLabeller(library, self.rooms.cad, self.rooms.caster, config.min_visible)

    def take(self, number: int) -> PicturedRoom:
        """Room `number`."""
        room = self.rooms.room(number)
        generator = torch.Generator().manual_seed(self.config.seed * 300_007 + number)
        picture = self.renderer.take(room.scene, 0, generator)
        visible = self.labeller.visible(room.scene, generator)
        return PicturedRoom(room, picture, tuple(self.labeller.label(picture, room.scene, *visible)))


class RgbBenchRunner:
    """Runs perception and aligner over the pictures, one by one."""

    def __init__(self, config: RgbBenchConfig, perception: Perception, aligner):
        """aligner: an `Aligner`, or what takes its place (`method_of`)."""
        if perception.detector is None or perception.depth is None:
            raise ValueError("the benchmark needs a detector and a depth predictor")
        self.config, self.perception, self.aligner = config, perception, aligner
        self.tracks = [track for track in TRACKS if track.name in config.tracks]
        self.pictures = PicturedRooms(aligner.cad_library, config)

    @classmethod
    def load(
        cls, config: RgbBenchConfig, perception, weights: Path | None, retrieval, device: str,
        method: str = OURS,
    ):  # fmt: skip
        """perception: a `PerceptionConfig`; weights, retrieval: files, None for none; method: see
        `method_of`."""
        library = CadLibrary.open(config.cad_library)
        aligner = Aligner.load(weights, library, device=device, retrieval=retrieval)
        placed = method_of(method, aligner, retrieval)
        return cls(config, Perception.load(perception, str(aligner.device)), placed)

    def run(self, number: int) -> dict:
        """All about one picture: {"boxes": …, "depth": …, "objects": one record for every object of the room
        in every track}."""
        taken = self.pictures.take(number)
        room, picture = taken.room, taken.picture
        alone = self.perception.see(picture.rgb, room.camera)
        depth = DepthFigures()
        depth.add(alone.depth_m, alone.normals_cam, picture.depth_m, picture.normal_cam)
        records = []
        for track in self.tracks:
            records += self._run_track(track, number, room, picture, alone)
        return {
            "boxes": {
                "found": [[list(d.box_xyxy), d.category, d.score] for d in alone.detections],
                "truth": [[list(o.box_xyxy), o.category] for o in taken.objects],
            },
            "depth": depth.rows[0] if depth.rows else None,
            "timing_ms": alone.timing_ms,
            "objects": records,
        }

    def _run_track(self, track: RgbTrack, number: int, room: LabelledView, picture, alone: Seen):
        models = self.aligner.cad_library.models
        exact = silhouette_boxes(picture.object, room.slots)[0].numpy()
        names = [models[int(m)].category for m in room.models]
        if track.boxes:
            detections = [
                Detection(tuple(box), name) for box, name in zip(room.boxes_xyxy.tolist(), names, strict=True)
            ]
            own = np.arange(len(detections))
        else:
            detections = list(alone.detections)
            own = match_boxes(detections, exact, names)
        if track.model:
            for i in (own >= 0).nonzero()[0]:
                model_id = models[int(room.models[i])].model_id
                detections[own[i]] = replace(detections[own[i]], model_id=model_id)
        depth, normals = (room.sensor_depth_m, None) if track.sensor else (alone.depth_m, alone.normals_cam)
        result = self.aligner.align(
            picture.rgb, room.camera, detections, depth, normals, depth_predicted=not track.sensor
        )
        return self._records(track, number, room, own, detections, result)

    def _records(self, track, number, room, own, detections, result) -> list[dict]:
        """One record an object of the room; one that was not detected is infinitely far away."""
        found_pose, found_score = poses_of(result, len(detections))
        given = {item.detection: item.model_id for item in result.objects}
        models, cad = self.aligner.cad_library.models, self.aligner.cad
        positions = {model.model_id: m for m, model in enumerate(models)}
        records = []
        for i, d in enumerate(own.tolist()):
            truth = room.truth.map(lambda x, i=i: x[i : i + 1])
            true_model = int(room.models[i])
            model_id = given.get(d) if d >= 0 else None
            record = {
                "track": track.name, "image": number, "category": models[true_model].category,
                "detected": d >= 0, "right_model": model_id == models[true_model].model_id,
                "well_visible": bool(room.on_image[i] and room.seen[i] >= self.config.well_visible),
                "score": float(found_score[d]) if d >= 0 else 0.0,
                "align_ms": result.timing_ms["total"],
            }  # fmt: skip
            if model_id is None:
                errors = {"translation_m": np.inf, "rotation_deg": 180.0, "scale": np.inf}
            else:
                order = torch.maximum(room.symmetry_order[i], cad.symmetry_order[positions[model_id]])
                off = pose_errors(found_pose.map(lambda x, d=d: x[d : d + 1]), truth, order[None])
                errors = {n: float(getattr(off, n)[0]) for n in ("translation_m", "rotation_deg", "scale")}
            records.append(record | errors)
        return records


def match_boxes(detections: list[Detection], boxes_xyxy: np.ndarray, categories: list[str]) -> np.ndarray:
    """(N,) for every true box the detection that is it, −1 for none: the same category and an IoU of
    `SAME_OBJECT_IOU`, the best scores first, each box once."""
    own = np.full(len(boxes_xyxy), -1)
    if not detections or not len(boxes_xyxy):
        return own
    found = torch.tensor([d.box_xyxy for d in detections], dtype=torch.float64)
    same = np.array([[d.category == name for name in categories] for d in detections])
    overlap = np.where(same, box_iou(found, torch.from_numpy(boxes_xyxy).double()).numpy(), 0.0)
    for d in np.argsort([-detection.score for detection in detections], kind="stable"):
        best = np.where(own < 0, overlap[d], 0.0).argmax()
        if own[best] < 0 and overlap[d, best] >= SAME_OBJECT_IOU:
            own[best] = d
    return own
