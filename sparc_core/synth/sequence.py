"""Synthetic RGB-D videos: a camera that walks around furniture, some of which moves.

One sequence is one procedural room: pieces of furniture with walls around them, two equal chairs, of which
one slides past behind the other and back, and clutter that is never detected. The camera swings on an arc
and looks about, so that objects leave the view and hide each other; detections drop out, single ones and
for a while. The room frame has its origin on the floor, y up; the arc lies on the side of positive z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_y
from sparc_core.synth.corrupt import NoiseConfig, draw_noise, jitter_boxes
from sparc_core.synth.observe import MIN_BOX_PX, detect
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.render import SceneRenderer
from sparc_core.synth.scenes import BACKED, SceneBatch, rectangles_overlap
from sparc_core.types import Camera, Detection

ROOM_HALF_M = 3.0  # in x and z; the camera walks beyond the wall of positive z, which is not there
ROOM_HEIGHT_M = 2.6
ARC_RADIUS_M = (2.6, 3.4)  # of the camera about the middle of the furniture
PATH_HALF_M, PATH_BEHIND_M = 1.1, 0.85  # of the chair that moves, beside and behind the other one
FURNITURE_HALF_M = (2.3, 1.7)  # furniture stands this far from the middle, in x and z
PLACEMENT_TRIES, LAYOUT_TRIES = 200, 20
RGB_NOISE = 3.0
MAX_RANGE_M = 8.0
SENSOR_ONLY = NoiseConfig(perfect=0.0, sensor=1.0, monocular=0.0, none=0.0)


@dataclass(frozen=True)
class SequenceConfig:
    """frames at fps; objects: pieces of furniture that are detected, the two chairs among them; clutter:
    others. dropout: share of the detections that fail alone; gap_every_s: mean time between longer failures
    of an object, gap_s: how long these are. scale_jitter: how far sizes deviate from the CAD model's.
    gravity: whether cameras know it.

    Raises ValueError naming the field out of range.
    """

    frames: int = 600
    fps: float = 30.0
    objects: tuple[int, int] = (5, 8)
    clutter: int = 1
    dropout: float = 0.05
    gap_every_s: float = 8.0
    gap_s: tuple[float, float] = (0.3, 1.5)
    box_jitter: float = 0.05
    scale_jitter: float = 0.12
    gravity: bool = True
    width_px: int = 640
    height_px: int = 480
    focal_px: float = 500.0

    def __post_init__(self):
        if self.frames < 1 or not self.fps > 0:
            raise ValueError(f"sequence frames and fps must be positive, got {self.frames}, {self.fps}")
        if not 2 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"sequence objects must be (low, high) from 2 on, got {self.objects}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"sequence dropout must be in [0, 1), got {self.dropout}")


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
        low, high = self.config.objects
        self.count = int(self._rng.integers(low, high + 1))
        self._furnish()
        self._phase = self._rng.uniform(0, 2 * math.pi, 3)
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

    def camera_pose(self, time_s: float) -> np.ndarray:
        """(4, 4) camera in the room at a time."""
        a, b, c = self._phase
        low, high = ARC_RADIUS_M
        angle = 1.0 * math.sin(2 * math.pi * time_s / 19 + a)
        radius = (low + high) / 2 + (high - low) / 2 * math.sin(2 * math.pi * time_s / 13 + b)
        height = 1.35 + 0.3 * math.sin(2 * math.pi * time_s / 11 + c)
        position = np.array([radius * math.sin(angle), height, radius * math.cos(angle)])
        across = np.array([math.cos(angle), 0.0, -math.sin(angle)])
        look = 1.3 * math.sin(2 * math.pi * time_s / 9 + b) * across + np.array([0.0, 0.45, 0.0])
        return look_at(position, look)

    def object_poses(self, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """R (O', 3, 3), T (O', 3), S (O', 3) in the room and moving (O',), clutter included."""
        T, moving = self._T.copy(), np.zeros(len(self._T), dtype=bool)
        share, is_moving = self._slide(time_s)
        T[1] += (2 * share - 1) * PATH_HALF_M * self._along
        moving[1] = is_moving
        return self._R, T, self._S, moving

    def _slide(self, time_s: float) -> tuple[float, bool]:
        """How far along its path the second chair is (0 to 1), and whether it moves: there and back, with
        rests of 4 s in between, 5 s for each way."""
        inside = time_s % 18.0
        for begin, ahead in ((4.0, True), (13.0, False)):
            if begin <= inside < begin + 5.0:
                share = (1 - math.cos(math.pi * (inside - begin) / 5.0)) / 2
                return (share if ahead else 1 - share), True
        return (1.0, False) if 9.0 <= inside < 13.0 else (0.0, False)

    def _furnish(self) -> None:
        """Choose the furniture and place it; what finds no place is chosen again."""
        for _ in range(LAYOUT_TRIES):
            self._choose_models()
            if self._place():
                return
        raise ValueError(
            f"the sequence's furniture finds no place in {LAYOUT_TRIES} tries: take fewer objects"
        )

    def _choose_models(self) -> None:
        chairs = self.library.indices_of_category("chair")
        if not len(chairs):
            raise ValueError("the sequence needs a CAD library with chairs, got none")
        chair = int(self._rng.choice(chairs))
        categories = [c for c in self.library.categories if c != "display"]  # displays need a table
        others = [
            int(self._rng.choice(self.library.indices_of_category(self._rng.choice(categories))))
            for _ in range(self.count - 2 + self.config.clutter)
        ]
        self.models = [chair, chair, *others]

    def _place(self) -> bool:
        """Poses in the room: the chairs first, with the path behind them kept free, then the others. False
        when one of them finds no place."""
        count, jitter = len(self.models), self.config.scale_jitter
        extents = np.array([self.library.models[m].extents_m for m in self.models], dtype=np.float64)
        self._S = extents * self._rng.uniform(1 - jitter, 1 + jitter, (count, 1))
        self._S[1] = self._S[0]  # equal chairs are equal in size, too
        self._T, yaw = np.zeros((count, 3)), self._rng.uniform(-math.pi, math.pi, count)
        for i, model in enumerate(self.models):
            if self.library.models[model].category in BACKED:
                yaw[i] = self._rng.uniform(-1.2, 1.2)
        turn = self._rng.uniform(-0.3, 0.3)
        self._along = np.array([math.cos(turn), 0.0, -math.sin(turn)])
        behind = np.array([-math.sin(turn), 0.0, -math.cos(turn)])
        self._T[0] = np.array([*self._rng.uniform((-0.5, 0.1), (0.5, 0.6))])[[0, 1, 1]] * (1, 0, 1)
        self._T[1] = self._T[0] + PATH_BEHIND_M * behind
        half = self._S[:, [0, 2]] / 2
        chair = float(np.linalg.norm(half[0]))
        taken = [(self._T[0], half[0], yaw[0]),
                 (self._T[1], np.array([PATH_HALF_M + chair, chair]), turn)]  # fmt: skip
        for i in range(2, count):
            place = self._free_place(half[i], yaw[i], taken)
            if place is None:
                return False
            self._T[i] = place
            taken.append((self._T[i], half[i], yaw[i]))
        self._T[:, 1] = self._S[:, 1] / 2
        self._R = rotation_y(torch.from_numpy(yaw)).numpy()
        return True

    def _free_place(self, half: np.ndarray, yaw: float, taken: list) -> np.ndarray | None:
        for _ in range(PLACEMENT_TRIES):
            x, z = self._rng.uniform(-1, 1, 2) * FURNITURE_HALF_M
            if not any(_overlap((x, z), half + 0.05, yaw, place[[0, 2]], size, turned)
                       for place, size, turned in taken):  # fmt: skip
                return np.array([x, 0.0, z])
        return None

    def _draw_gaps(self) -> list[tuple[float, float]]:
        """(begin, end) of the times in which an object is not detected."""
        gaps, time_s = [], 1.0
        while True:
            time_s += self._rng.exponential(self.config.gap_every_s)
            if time_s > self.config.frames / self.config.fps:
                return gaps
            gaps.append((time_s, time_s + self._rng.uniform(*self.config.gap_s)))

    def _frame(self, time_s: float) -> SequenceFrame:
        T_room_cam = self.camera_pose(time_s)
        R, T, S, moving = self.object_poses(time_s)
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


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(4, 4) of an optical camera at `position` that looks at `target`, upright in a frame whose y is up."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack((right, np.cross(forward, right), forward), -1)
    T[:3, 3] = position
    return T


def _overlap(centre_a, half_a, yaw_a, centre_b, half_b, yaw_b) -> bool:
    values = (
        torch.as_tensor(v, dtype=torch.float64) for v in (centre_a, half_a, yaw_a, centre_b, half_b, yaw_b)
    )
    return bool(rectangles_overlap(*values))


def _box(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Box around the true pixels, whose edges lie half a pixel out; None when there are too few."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) < MIN_BOX_PX:
        return None
    return (columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5)


def _tensor(values: np.ndarray) -> torch.Tensor:
    """float32 tensor with a batch dimension of one."""
    return torch.from_numpy(np.ascontiguousarray(values)).float()[None]
