"""The demo's room: furniture from the procedural library, and a camera that moves slowly through it.

Knows nothing about ROS. The map frame stands on the floor: x into the room, y left, z up. Furniture is
placed by hand, so that the demo always shows a room that makes sense; the seed chooses the CAD models,
their sizes and small turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.synth.corrupt import NoiseConfig, draw_noise, jitter_boxes
from sparc_core.synth.observe import detect
from sparc_core.synth.pictures import PictureConfig, PictureRenderer
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.render import RenderedView, SceneRenderer
from sparc_core.synth.scenes import SceneBatch
from sparc_core.types import AlignedObject, Camera

WIDTH, HEIGHT, FOCAL_PX = 640, 480, 465.0  # 69 degrees wide, as a RealSense's colour camera
BOX_JITTER = 0.04
SIZE_JITTER = 0.1
MAX_RANGE_M = 8.0
PERIOD_S = 60.0

# Body frame (x forward, y left, z up) to optical frame (x right, y down, z forward), as in REP 103.
R_LINK_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

# CAD axes (y up, front +z) in the map frame when the front faces the camera's start, down the x axis.
R_MAP_CAD = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class _Place:
    """x, y on the floor (m), yaw of the front (degrees, 0 faces the camera), and what it stands on."""

    category: str
    x: float
    y: float
    yaw_deg: float
    on: int | None = None


PLACES = (
    _Place("table", 3.1, -0.35, 10.0),
    _Place("display", 3.1, -0.35, -15.0, on=0),
    _Place("chair", 2.35, -1.25, -125.0),
    _Place("sofa", 4.5, 1.7, 20.0),
    _Place("bookshelf", 4.9, -2.2, -10.0),
    _Place("bin", 2.6, 0.75, 0.0),
)
# Floor, ceiling and four walls as (unit normal towards the room, offset along it), in the map frame, in the
# order of `sparc_core.synth.rooms`.
PLANES = (
    ((0.0, 0.0, 1.0), 0.0), ((0.0, 0.0, -1.0), -2.6), ((1.0, 0.0, 0.0), -1.5), ((-1.0, 0.0, 0.0), -5.6),
    ((0.0, 1.0, 0.0), -3.2), ((0.0, -1.0, 0.0), -3.2),
)  # fmt: skip
TARGET = np.array([3.4, 0.0, 0.5])


@dataclass(frozen=True, eq=False)
class DemoView:
    """One image: rgb (H, W, 3) uint8; depth_m (H, W) float32 with sensor noise, 0 in holes.

    truth: the visible objects in the camera frame; `detection` counts them, `box_xyxy` is the jittered
    box. place_numbers: of each, its place in PLACES. T_map_link (4, 4): the camera's body frame.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    truth: tuple[AlignedObject, ...]
    place_numbers: tuple[int, ...]
    T_map_link: np.ndarray


def camera_place(time_s: float) -> np.ndarray:
    """(4, 4) camera body in the map: it sways 0.6 m to both sides and always looks at the furniture."""
    phase = 2 * math.pi * time_s / PERIOD_S
    position = np.array([0.1 * math.sin(2 * phase), 0.6 * math.sin(phase), 1.35 + 0.1 * math.sin(3 * phase)])
    towards = TARGET - position
    yaw = math.atan2(towards[1], towards[0])
    pitch = -math.atan2(towards[2], math.hypot(towards[0], towards[1]))  # positive: nose down
    T_map_link = np.eye(4)
    T_map_link[:3, :3] = Rotation.from_euler("ZY", (yaw, pitch)).as_matrix()
    T_map_link[:3, 3] = position
    return T_map_link


class DemoWorld:
    """The furnished room; `view(time_s)` renders what the camera sees at a time."""

    def __init__(self, library: CadLibrary, seed: int = 0):
        self._library = library
        self._rng, self._seed = np.random.default_rng(seed), seed
        self._generator = torch.Generator().manual_seed(seed)
        self._caster = RayCaster(library)
        self._renderer = SceneRenderer(self._caster)
        self._pictures = PictureRenderer(self._caster, PictureConfig(WIDTH, HEIGHT))
        self._cad = CadTensors.from_library(library)
        self._models = [self._choose(place.category) for place in PLACES]
        self._place_objects()
        is_display = torch.tensor([[place.category == "display" for place in PLACES]])
        sensor = NoiseConfig(perfect=0.0, sensor=1.0, monocular=0.0, none=0.0)
        # One draw for the whole run: this is one sensor. Its fine noise is new in every image. The blobs
        # of missing depth that training adds move from image to image; standing still they are no sensor's,
        # and the range must reach through the room.
        noise = draw_noise(sensor, 1, len(PLACES), self._generator, is_display)
        self._noise = replace(
            noise,
            blob=torch.full_like(noise.blob, torch.inf),
            max_range_m=torch.full_like(noise.max_range_m, MAX_RANGE_M),
        )

    @property
    def camera(self) -> Camera:
        """Intrinsics of the demo camera."""
        return Camera(WIDTH, HEIGHT, FOCAL_PX, FOCAL_PX, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)

    def view(self, time_s: float) -> DemoView:
        """Render the room at a time in seconds."""
        T_map_link = camera_place(time_s)
        T_map_cam = T_map_link.copy()
        T_map_cam[:3, :3] = T_map_link[:3, :3] @ R_LINK_OPTICAL
        scene = self._scene(T_map_cam)
        picture = self._pictures.take(scene, 0, self._generator, room_seed=self._seed)
        slot = np.where(picture.object < 0, len(PLACES), picture.object)
        view = RenderedView(picture.rgb, picture.depth_m, picture.normal_cam, slot)
        depth_m = self._renderer.sensor_depth(scene, 0, view, self._noise, self._generator)
        places = self._visible(scene, slot)
        return DemoView(picture.rgb, depth_m, self._truth(scene, slot, places), places, T_map_link)

    def _choose(self, category: str) -> int:
        members = self._library.indices_of_category(category)
        if len(members) == 0:
            raise ValueError(f"the demo needs a CAD library with the category {category!r}, got none")
        return int(self._rng.choice(members))

    def _place_objects(self) -> None:
        """Poses of the furniture in the map frame: R, T, S."""
        extents = np.array(
            [self._library.models[index].extents_m for index in self._models], dtype=np.float64
        )
        self._S = extents * self._rng.uniform(1 - SIZE_JITTER, 1 + SIZE_JITTER, (len(PLACES), 1))
        turns = np.array([place.yaw_deg for place in PLACES]) + self._rng.uniform(-10, 10, len(PLACES))
        self._R = Rotation.from_euler("z", turns[:, None], degrees=True).as_matrix() @ R_MAP_CAD
        self._T = np.array([(place.x, place.y, 0.0) for place in PLACES])
        self._T[:, 2] = self._S[:, 1] / 2
        for index, place in enumerate(PLACES):
            if place.on is not None:
                self._T[index, 2] += self._S[place.on, 1]
                self._T[index, :2] = self._T[place.on, :2]

    def _scene(self, T_map_cam: np.ndarray) -> SceneBatch:
        """The room as a batch of one, in the camera frame."""
        R_cam_map, origin = T_map_cam[:3, :3].T, T_map_cam[:3, 3]
        pose = Pose(_tensor(R_cam_map @ self._R), _tensor((self._T - origin) @ R_cam_map.T), _tensor(self._S))
        normals = np.array([normal for normal, _ in PLANES])
        offsets = np.array([offset for _, offset in PLANES]) - normals @ origin
        camera = self.camera
        return SceneBatch(
            objects=len(PLACES),
            model=torch.tensor([self._models]),
            pose=pose,
            present=torch.ones(1, len(PLACES), dtype=torch.bool),
            plane_normal=_tensor(normals @ R_cam_map.T),
            plane_offset=_tensor(offsets),
            intrinsics=_tensor(np.array([camera.fx, camera.fy, camera.cx, camera.cy])),
            size_px=torch.tensor([[float(WIDTH), float(HEIGHT)]]),
            up_cam=_tensor(R_cam_map[:, 2]),
            has_up=torch.ones(1, dtype=torch.bool),
            albedo=torch.full((1, len(PLACES) + len(PLANES), 3), 0.5),  # pictures have colours of their own
            recoloured=torch.zeros(1, len(PLACES), dtype=torch.bool),
        )

    def _visible(self, scene: SceneBatch, slot: np.ndarray) -> tuple[int, ...]:
        """Places of the objects of which enough is seen to detect them."""
        found = detect(self._caster, self._cad, scene, len(PLACES), self._generator)
        places = sorted(int(s) for s, valid in zip(found.slot[0], found.valid[0], strict=True) if valid)
        return tuple(place for place in places if (slot == place).any())

    def _truth(
        self, scene: SceneBatch, slot: np.ndarray, places: tuple[int, ...]
    ) -> tuple[AlignedObject, ...]:
        """True poses, with the jittered box of each object's visible pixels."""
        boxes = torch.tensor([[_box(slot == place) for place in places]]).reshape(1, len(places), 4)
        boxes = jitter_boxes(boxes, scene.size_px, BOX_JITTER, self._generator)[0].numpy()
        R, T, S = (getattr(scene.pose, name)[0].double().numpy() for name in ("R", "T", "S"))
        models = [self._library.models[self._models[place]] for place in places]
        return tuple(
            AlignedObject(
                detection=number,
                category=models[number].category,
                model_id=models[number].model_id,
                box_xyxy=tuple(float(v) for v in boxes[number]),
                R=R[place],
                T_m=T[place],
                S_m=S[place],
                score=1.0,
                start="truth",
            )
            for number, place in enumerate(places)
        )


def _tensor(values: np.ndarray) -> torch.Tensor:
    """float32 tensor with a batch dimension of one."""
    return torch.from_numpy(np.ascontiguousarray(values)).float()[None]


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Box around the true pixels; pixel centres are at integers, so its edges lie half a pixel out."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return (columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5)
