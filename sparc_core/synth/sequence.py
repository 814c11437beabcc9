"""Synthetic RGB-D videos: a camera that walks around furniture, some of which moves.

One sequence is one procedural room: pieces of furniture with walls around them, two equal chairs, of which
one slides past behind the other and back, and clutter that is never detected. The camera swings on an arc
and looks about, so that objects leave the view and hide each other; detections drop out, single ones and
for a while. The room frame has its origin on the floor, y up; the arc lies on the side of positive z.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.synth.corrupt import NoiseConfig, draw_noise, jitter_boxes
from sparc_core.synth.observe import MIN_BOX_PX, detect
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.render import SceneRenderer
from sparc_core.synth.scenes import SceneBatch
from sparc_core.synth.sequence_room import SequenceConfig, SequenceRoom
from sparc_core.types import Camera, Detection

ROOM_HALF_M = 3.0  # in x and z; the camera walks beyond the wall of positive z, which is not there
ROOM_HEIGHT_M = 2.6
RGB_NOISE = 3.0
MAX_RANGE_M = 8.0
SENSOR_ONLY = NoiseConfig(perfect=0.0, sensor=1.0, monocular=0.0, none=0.0)


@dataclass(frozen=True, eq=False)
class SequenceFrame:
    """One image. rgb (H, W, 3) uint8; depth_m (H, W) float32 of a depth camera; T_room_cam (4, 4). detections
    with jittered boxes and the right CAD model; objects: the number of each one's object. truth: Pose (O,) of
    all objects in the camera frame; visible (O,) share that is seen; moving (O,) bool."""

    stamp_s: float
    rgb: np.ndarray
    depth_m: np.ndarray
    camera: Camera
    T_room_cam: np.ndarray
    detections: tuple[Detection, ...]
    objects: tuple[int, ...]
    truth: Pose
    visible: np.ndarray
    moving: np.ndarray


class SequenceWorld:
    """One furnished room and the camera's way through it, from a seed; `frames` renders the video.

    Raises ValueError when the library lacks chairs, or the furniture finds no place.
    """

    def __init__(self, library: CadLibrary, config: SequenceConfig | None = None, seed: int = 0):
        self.library, self.config = library, config or SequenceConfig()
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.cad, self._caster = CadTensors.from_library(library), RayCaster(library)
        self._renderer = SceneRenderer(self._caster)
        self.room = SequenceRoom(library, self.config, self._rng)
        self.models, self.count = self.room.models, self.room.count
        self._gaps = [self._draw_gaps() for _ in range(self.count)]
        self._albedo = torch.from_numpy(self._rng.uniform(0.05, 0.95, (1, len(self.models) + 5, 3))).float()
        is_display = torch.tensor([[library.models[m].category == "display" for m in self.models]])
        noise = draw_noise(SENSOR_ONLY, 1, len(self.models), self._generator, is_display)
        # One sensor for the whole video. Blobs of missing depth that stand still in the image are no
        # sensor's.
        self._noise = replace(
            noise,
            blob=torch.full_like(noise.blob, torch.inf),
            max_range_m=torch.full_like(noise.max_range_m, MAX_RANGE_M),
        )

    @property
    def symmetry_order(self) -> torch.Tensor:
        """(O,) of the objects' CAD models."""
        return self.cad.symmetry_order[torch.tensor(self.models[: self.count])]

    def frames(self) -> Iterator[SequenceFrame]:
        """The images, one after the other; every call renders the same room with new noise."""
        for number in range(self.config.frames):
            yield self._frame(number / self.config.fps)

    def _draw_gaps(self) -> list[tuple[float, float]]:
        """(begin, end) of the times in which an object is not detected."""
        gaps, time_s = [], 1.0
        while True:
            time_s += self._rng.exponential(self.config.gap_every_s)
            if time_s > self.config.frames / self.config.fps:
                return gaps
            gaps.append((time_s, time_s + self._rng.uniform(*self.config.gap_s)))

    def _frame(self, time_s: float) -> SequenceFrame:
        T_room_cam = self.room.camera_pose(time_s)
        R, T, S, moving = self.room.object_poses(time_s)
        scene = self._scene(T_room_cam, R, T, S)
        view = self._renderer.render(scene)
        depth = self._renderer.sensor_depth(scene, 0, view, self._noise, self._generator)
        rgb = np.clip(view.rgb + self._rng.normal(0.0, RGB_NOISE, view.rgb.shape), 0, 255).astype(np.uint8)
        found = detect(self._caster, self.cad, scene, self.count, self._generator)
        visible = torch.zeros(self.count).scatter(0, found.slot[0], found.visible[0]).numpy()
        seen = sorted(int(s) for s, valid in zip(found.slot[0], found.valid[0], strict=True) if valid)
        boxes = {s: box for s in seen if (box := _box(view.slot == s)) is not None}
        objects = tuple(s for s in boxes if not self._fails(s, time_s))
        exact = torch.tensor([[boxes[s] for s in objects]]).reshape(1, len(objects), 4)
        jittered = jitter_boxes(exact, scene.size_px, self.config.box_jitter, self._generator)[0].tolist()
        models = [self.library.models[self.models[s]] for s in objects]
        detections = tuple(
            Detection(tuple(box), model.category, 1.0, model.model_id)
            for box, model in zip(jittered, models, strict=True)
        )
        truth = scene.pose.map(lambda x: x[0, : self.count])
        depth = np.round(depth * 1000).astype(np.float32) / 1000
        return SequenceFrame(
            time_s, rgb, depth, self._camera(T_room_cam), T_room_cam, detections, objects, truth, visible,
            moving[: self.count],
        )  # fmt: skip

    def _fails(self, slot: int, time_s: float) -> bool:
        in_gap = any(begin <= time_s < end for begin, end in self._gaps[slot])
        return in_gap or self._rng.random() < self.config.dropout

    def _camera(self, T_room_cam: np.ndarray) -> Camera:
        c = self.config
        up = tuple(T_room_cam[1, :3]) if c.gravity else None
        return Camera(
            c.width_px, c.height_px, c.focal_px, c.focal_px, (c.width_px - 1) / 2, (c.height_px - 1) / 2,
            up_cam=up,
        )  # fmt: skip

    def _scene(self, T_room_cam: np.ndarray, R, T, S) -> SceneBatch:
        """The room as a batch of one, in the camera frame."""
        R_cam_room, origin = T_room_cam[:3, :3].T, T_room_cam[:3, 3]
        normals = np.array([(0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0), (0, 0, 1)], dtype=np.float64)
        offsets = np.array([0, -ROOM_HEIGHT_M, -ROOM_HALF_M, -ROOM_HALF_M, -ROOM_HALF_M]) - normals @ origin
        camera = self._camera(T_room_cam)
        count = len(self.models)
        return SceneBatch(
            objects=self.count,
            model=torch.tensor([self.models]),
            pose=Pose(_tensor(R_cam_room @ R), _tensor((T - origin) @ R_cam_room.T), _tensor(S)),
            present=torch.ones(1, count, dtype=torch.bool),
            plane_normal=_tensor(normals @ R_cam_room.T),
            plane_offset=_tensor(offsets),
            intrinsics=_tensor(np.array([camera.fx, camera.fy, camera.cx, camera.cy])),
            size_px=torch.tensor([[float(camera.width), float(camera.height)]]),
            up_cam=_tensor(R_cam_room[:, 1]),
            has_up=torch.tensor([self.config.gravity]),
            albedo=self._albedo,
            recoloured=torch.zeros(1, count, dtype=torch.bool),
        )


def _box(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Box around the true pixels, whose edges lie half a pixel out; None when there are too few."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) < MIN_BOX_PX:
        return None
    return (columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5)


def _tensor(values: np.ndarray) -> torch.Tensor:
    """float32 tensor with a batch dimension of one."""
    return torch.from_numpy(np.ascontiguousarray(values)).float()[None]
