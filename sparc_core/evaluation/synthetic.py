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
from sparc_core.synth.render import SceneRenderer
from sparc_core.synth.scenes import SceneConfig, SceneSampler
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


def synthetic_images(library: CadLibrary, config: SyntheticSetConfig) -> Iterator[SyntheticImage]:
    """The images of the set, one after the other; scenes without a visible object are drawn again."""
    cad, caster = CadTensors.from_library(library), RayCaster(library)
    sampler, renderer = SceneSampler(cad, config.layout), SceneRenderer(library, caster)
    for number in range(config.scenes):
        generator = torch.Generator().manual_seed(config.seed * 100_003 + number)
        while True:
            scene = sampler.sample(1, generator)
            found = detect(caster, cad, scene, config.layout.objects, generator)
            if found.valid.any():
                break
        yield _image(library, cad, caster, renderer, scene, found, config, generator)


def _image(library, cad, caster, renderer, scene, found, config, generator) -> SyntheticImage:
    view = renderer.render(scene)
    is_display = cad.category[scene.model] == CATEGORIES.index("display")
    noise = draw_noise(SENSOR_ONLY, 1, scene.model.shape[1], generator, is_display)
    depth = renderer.sensor_depth(scene, 0, view, noise, generator)
    kept = found.valid[0].nonzero()[:, 0]
    slots = found.slot[0, kept]
    boxes = jitter_boxes(
        silhouette_boxes(view.slot, slots), scene.size_px, SENSOR_ONLY.box_jitter, generator
    )[0]
    fx, fy, cx, cy = scene.intrinsics[0].tolist()
    up = tuple(scene.up_cam[0].tolist()) if config.gravity else None
    camera = Camera(int(scene.size_px[0, 0]), int(scene.size_px[0, 1]), fx, fy, cx, cy, up_cam=up)
    models = [library.models[int(scene.model[0, s])] for s in slots]
    detections = tuple(
        Detection(tuple(box.tolist()), model.category, 1.0, model.model_id)
        for box, model in zip(boxes, models, strict=True)
    )
    truth = scene.pose.map(lambda x: x[0, slots])
    seen = torch.tensor([_seen_share(caster, scene, int(slot), depth) for slot in slots])
    centre = truth.T[:, :2] / truth.T[:, 2:] * torch.tensor([fx, fy]) + torch.tensor([cx, cy])
    on_image = ((centre >= 0) & (centre < scene.size_px[0])).all(-1) & (truth.T[:, 2] > 0)
    well = on_image & (seen >= config.well_visible)
    return SyntheticImage(
        view.rgb, np.round(depth * 1000).astype(np.float32) / 1000, camera, detections, truth,
        cad.symmetry_order[scene.model[0, slots]], well,
    )  # fmt: skip


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
