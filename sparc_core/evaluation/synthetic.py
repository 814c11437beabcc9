"""The fixed synthetic set: rendered rooms with unseen procedural furniture, through the run-time chain.

Images are rendered whole, depth is corrupted like a sensor's and rounded to millimetres, boxes are
jittered, and `Aligner.align` gets what a camera driver and a detector would give it. Nothing of the
training's pixel-level observation is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.synth.corrupt import NoiseConfig, draw_noise, jitter_boxes
from sparc_core.synth.observe import detect
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.render import RenderedView, SceneRenderer
from sparc_core.synth.rooms import enclose
from sparc_core.synth.scenes import SceneBatch, SceneConfig, SceneSampler
from sparc_core.types import CATEGORIES, Camera, Detection

DEPTH_AGREES_M = 0.3
GRID_STEP_PX = 4  # every fourth pixel of every fourth row is enough to judge visibility
SENSOR_ONLY = NoiseConfig(perfect=0.0, sensor=1.0, monocular=0.0, none=0.0)


@dataclass(frozen=True)
class SyntheticSetConfig:
    """scenes: how many. seed: fixes them. gravity: whether the camera's up direction is told.
    well_visible: an object counts as well visible when its centre is on the image and, of the pixels that
    it alone would cover, this share has a sensor depth within `DEPTH_AGREES_M` of its own: the visibility
    test of the paper's per-image protocol (section 4)."""

    scenes: int = 200
    seed: int = 2026
    gravity: bool = True
    well_visible: float = 0.5
    layout: SceneConfig = field(default_factory=lambda: SceneConfig(objects=8, clutter=2, free_share=0.0))


@dataclass(frozen=True, eq=False)
class LabelledView:
    """One rendered room with what is to be found in it. sensor_depth_m (H, W) float32 as a depth camera
    gives it; slots: D scene slots; models (D,) library positions; boxes_xyxy (D, 4) jittered; truth: Pose
    (D,); symmetry_order (D,); seen (D,) share of the pixels an object alone would cover of which the
    sensor's depth is its own; on_image (D,) bool: its centre is."""

    scene: SceneBatch
    view: RenderedView
    sensor_depth_m: np.ndarray
    camera: Camera
    slots: torch.Tensor
    models: torch.Tensor
    boxes_xyxy: torch.Tensor
    truth: Pose
    symmetry_order: torch.Tensor
    seen: torch.Tensor
    on_image: torch.Tensor


@dataclass(frozen=True, eq=False)
class SyntheticImage:
    """One image with its truth. rgb (H, W, 3) uint8; depth_m (H, W) float32; detections with jittered
    boxes and the right CAD model; truth: Pose (D,); symmetry_order (D,); well_visible (D,) bool."""

    rgb: np.ndarray
    depth_m: np.ndarray
    camera: Camera
    detections: tuple[Detection, ...]
    truth: Pose
    symmetry_order: torch.Tensor
    well_visible: torch.Tensor


class RoomRenderer:
    """Renders the rooms of a set by their number. caster and renderer hold the library's meshes. enclosed:
    the same furniture in a room of four walls and a ceiling (`enclose`)."""

    def __init__(
        self,
        library: CadLibrary,
        layout: SceneConfig,
        seed: int,
        gravity: bool = True,
        enclosed: bool = False,
    ):
        self.library, self.layout, self.seed, self.gravity = library, layout, seed, gravity
        self.enclosed = enclosed
        self.cad, self.caster = CadTensors.from_library(library), RayCaster(library)
        self.sampler, self.renderer = SceneSampler(self.cad, layout), SceneRenderer(self.caster)

    def room(self, number: int) -> LabelledView:
        """Room `number`; scenes without a visible object are drawn again."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        while True:
            scene = self.sampler.sample(1, generator)
            if self.enclosed:
                scene = enclose(scene, generator)
            found = detect(self.caster, self.cad, scene, self.layout.objects, generator)
            if found.valid.any():
                return self._label(scene, found.slot[0, found.valid[0]], generator)

    def _label(self, scene: SceneBatch, slots: torch.Tensor, generator) -> LabelledView:
        view = self.renderer.render(scene)
        is_display = self.cad.category[scene.model] == CATEGORIES.index("display")
        noise = draw_noise(SENSOR_ONLY, 1, scene.model.shape[1], generator, is_display)
        depth = self.renderer.sensor_depth(scene, 0, view, noise, generator)
        exact = silhouette_boxes(view.slot, slots)
        boxes = jitter_boxes(exact, scene.size_px, SENSOR_ONLY.box_jitter, generator)[0]
        fx, fy, cx, cy = scene.intrinsics[0].tolist()
        up = tuple(scene.up_cam[0].tolist()) if self.gravity else None
        camera = Camera(int(scene.size_px[0, 0]), int(scene.size_px[0, 1]), fx, fy, cx, cy, up_cam=up)
        truth, models = scene.pose.map(lambda x: x[0, slots]), scene.model[0, slots]
        seen = torch.tensor([_seen_share(self.caster, scene, int(slot), depth) for slot in slots])
        centre = truth.T[:, :2] / truth.T[:, 2:] * torch.tensor([fx, fy]) + torch.tensor([cx, cy])
        on_image = ((centre >= 0) & (centre < scene.size_px[0])).all(-1) & (truth.T[:, 2] > 0)
        return LabelledView(
            scene, view, np.round(depth * 1000).astype(np.float32) / 1000, camera, slots, models, boxes,
            truth, self.cad.symmetry_order[models], seen, on_image,
        )  # fmt: skip


def synthetic_images(library: CadLibrary, config: SyntheticSetConfig) -> Iterator[SyntheticImage]:
    """The images of the set, one after the other."""
    rooms = RoomRenderer(library, config.layout, config.seed, config.gravity)
    for number in range(config.scenes):
        room = rooms.room(number)
        models = [library.models[int(m)] for m in room.models]
        detections = tuple(
            Detection(tuple(box.tolist()), model.category, 1.0, model.model_id)
            for box, model in zip(room.boxes_xyxy, models, strict=True)
        )
        well = room.on_image & (room.seen >= config.well_visible)
        yield SyntheticImage(
            room.view.rgb, room.sensor_depth_m, room.camera, detections, room.truth, room.symmetry_order, well
        )


def _seen_share(caster, scene, slot: int, depth_m: np.ndarray) -> float:
    """Of the pixels that one object alone would cover, the share whose sensor depth is its own."""
    height, width = depth_m.shape
    v, u = np.mgrid[0:height:GRID_STEP_PX, 0:width:GRID_STEP_PX]
    uv = torch.from_numpy(np.stack([u.ravel(), v.ravel()], -1)).float()[None]
    present = torch.arange(scene.present.shape[1])[None] == slot
    far = torch.full_like(scene.plane_offset, -1e6)
    alone = caster.cast(dataclasses.replace(scene, present=present, plane_offset=far), uv)
    covered = (alone.slot[0] == slot).numpy()
    sensor = depth_m[v.ravel(), u.ravel()]
    agrees = (sensor > 0) & (np.abs(sensor - alone.depth_m[0].numpy()) < DEPTH_AGREES_M)
    return float(agrees[covered].mean()) if covered.any() else 0.0


def silhouette_boxes(slot_image: np.ndarray, slots: torch.Tensor) -> torch.Tensor:
    """(1, D, 4) exact boxes around the visible pixels of each slot."""
    boxes = []
    for slot in slots.tolist():
        rows, columns = np.nonzero(slot_image == slot)
        if len(rows) == 0:  # only points between pixel centres were seen
            boxes.append([0.0, 0.0, 1.0, 1.0])
        else:
            boxes.append([columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5])
    return torch.tensor([boxes], dtype=torch.float32)
