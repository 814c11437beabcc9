"""Pictures of the benchmark's rooms, and what a method is given of them.

The same furniture, cameras and CAD models as in the open benchmark (`bench.py`), with four walls and a
ceiling round them, textures, lamps and a camera's flaws. What is given instead of predicted is a track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.synthetic import LabelledView, RoomRenderer, silhouette_boxes
from sparc_core.geometry.boxes import box_iou
from sparc_core.perception.interfaces import Estimates
from sparc_core.perception.see import Perception, Seen
from sparc_core.synth.picture_set import PicturedObject, PictureLabeller
from sparc_core.synth.pictures import Picture, PictureConfig, PictureRenderer
from sparc_core.synth.rooms import FLOOR
from sparc_core.synth.scenes import SceneConfig
from sparc_core.types import Detection, PixelHints

SAME_OBJECT_IOU = 0.5


@dataclass(frozen=True)
class RgbTrack:
    """What is given instead of predicted. boxes: the jittered true boxes with their categories; model: the
    right CAD model; sensor: the depth of a depth camera; height: of the camera above the floor."""

    name: str
    boxes: bool = False
    model: bool = False
    sensor: bool = False
    height: bool = False


TRACKS = (
    RgbTrack("RGB alone"),
    RgbTrack("RGB, right model", model=True),
    RgbTrack("RGB, true boxes, right model", boxes=True, model=True),
    RgbTrack("RGB, camera height", height=True),
    RgbTrack("RGB, camera height, right model", model=True, height=True),
    RgbTrack("RGB-D", sensor=True),
    RgbTrack("RGB-D, right model", sensor=True, model=True),
    RgbTrack("RGB-D, true boxes, right model", sensor=True, boxes=True, model=True),
)


@dataclass(frozen=True, eq=False)
class PicturedRoom:
    """A room of the benchmark with its picture and what a detector is to find in it."""

    room: LabelledView
    picture: Picture
    objects: tuple[PicturedObject, ...]

    def with_height(self) -> PicturedRoom:
        """The same with a camera that knows how high above the floor it is."""
        above = -float(self.room.scene.plane_offset[0, FLOOR])
        return replace(self, room=replace(self.room, camera=replace(self.room.camera, above_floor_m=above)))


class PicturedRooms:
    """Takes the pictures of the benchmark's rooms, each from its number alone."""

    def __init__(self, library: CadLibrary, layout: SceneConfig, seed: int, min_visible: float):
        self.seed = seed
        self.rooms = RoomRenderer(library, layout, seed, enclosed=True)
        size = PictureConfig(layout.width_px, layout.height_px)
        self.renderer = PictureRenderer(self.rooms.caster, size)
        self.labeller = PictureLabeller(library, self.rooms.cad, self.rooms.caster, min_visible)

    def take(self, number: int) -> PicturedRoom:
        """Room `number`."""
        room = self.rooms.room(number)
        generator = torch.Generator().manual_seed(self.seed * 300_007 + number)
        picture = self.renderer.take(room.scene, 0, generator)
        visible = self.labeller.visible(room.scene, generator)
        return PicturedRoom(room, picture, tuple(self.labeller.label(picture, room.scene, *visible)))


def views_of(
    taken: PicturedRoom, tracks: Sequence[RgbTrack], perception: Perception
) -> dict[bool, tuple[PicturedRoom, Seen]]:
    """The room and what the perception sees in it by itself, without (False) the camera's height, and, where
    a track gives that, with it (True): the same detections, from which other things may follow."""
    alone = perception.see(taken.picture.rgb, taken.room.camera)
    views = {False: (taken, alone)}
    if any(track.height for track in tracks):
        high = taken.with_height()
        views[True] = high, perception.see(taken.picture.rgb, high.room.camera, alone.detections)
    return views


@dataclass(frozen=True, eq=False)
class GivenInputs:
    """What a track gives a method of one room. detections D; own (N,) for every object of the room the
    detection that is it, −1 for none; other (D,) bool: detections of things that stand in the picture but are
    no object of the room (clutter); depth_m, normals_cam, hints as for `Aligner.align`."""

    detections: tuple[Detection, ...]
    own: np.ndarray
    other: np.ndarray
    depth_m: np.ndarray
    normals_cam: np.ndarray | None
    depth_predicted: bool
    hints: PixelHints | None


def give_inputs(
    track: RgbTrack, taken: PicturedRoom, alone: Seen, library: CadLibrary, estimates: Estimates | None = None
) -> GivenInputs:
    """The inputs of a track. alone: what the perception sees in the picture by itself; estimates: what tells
    it which way the objects in true boxes are turned, where there is no sensor."""
    room, picture = taken.room, taken.picture
    models = [library.models[int(m)] for m in room.models]
    names = [model.category for model in models]
    if track.boxes:
        detections = [
            Detection(tuple(box), name) for box, name in zip(room.boxes_xyxy.tolist(), names, strict=True)
        ]
        if estimates is not None and not track.sensor:
            detections = estimates.look(picture.rgb, room.camera, detections)
        own, other = np.arange(len(detections)), np.zeros(len(detections), bool)
    else:
        detections = list(alone.detections)
        own = match_boxes(detections, silhouette_boxes(picture.object, room.slots)[0].numpy(), names)
        other = _things_beside(detections, own, taken)
    if track.model:
        for i in (own >= 0).nonzero()[0]:
            detections[own[i]] = replace(detections[own[i]], model_id=models[i].model_id)
    if track.sensor:
        seen = (room.sensor_depth_m, None, False, None)
    else:
        seen = (alone.depth_m, alone.normals_cam, True, alone.hints)
    return GivenInputs(tuple(detections), own, other, *seen)


def _things_beside(detections: list[Detection], own: np.ndarray, taken: PicturedRoom) -> np.ndarray:
    """(D,) bool: detections of labelled things that are no object of the room."""
    slots = set(taken.room.slots.tolist())
    things = [thing for thing in taken.objects if thing.number not in slots]
    boxes = np.array([thing.box_xyxy for thing in things], dtype=np.float64).reshape(-1, 4)
    found = match_boxes(detections, boxes, [thing.category for thing in things])
    other = np.zeros(len(detections), bool)
    other[found[found >= 0]] = True
    other[own[own >= 0]] = False
    return other


def match_boxes(detections: list[Detection], boxes_xyxy: np.ndarray, categories: list[str]) -> np.ndarray:
    """(N,) for every true box the detection that is it, −1 for none: the same category and an IoU of
    `SAME_OBJECT_IOU`, the best scores first, each box once."""
    own = np.full(len(boxes_xyxy), -1)
    if not detections or not len(boxes_xyxy):
        return own
    same = np.array([[d.category == name for name in categories] for d in detections])
    overlap = np.where(same, box_iou([d.box_xyxy for d in detections], boxes_xyxy), 0.0)
    for d in np.argsort([-detection.score for detection in detections], kind="stable"):
        best = np.where(own < 0, overlap[d], 0.0).argmax()
        if own[best] < 0 and overlap[d, best] >= SAME_OBJECT_IOU:
            own[best] = d
    return own
