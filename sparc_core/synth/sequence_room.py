"""The room of a synthetic video: which furniture stands where, what moves, and the camera's way around it.

The room frame has its origin on the floor, y up. The camera walks on an arc on the side of positive z, looks
about, and comes back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.rotation import rotation_y
from sparc_core.synth.scenes import BACKED, rectangles_overlap

ARC_RADIUS_M = (2.6, 3.4)  # of the camera about the middle of the furniture
PATH_HALF_M, PATH_BEHIND_M = 1.1, 0.85  # of the chair that moves, beside and behind the other one
FURNITURE_HALF_M = (2.3, 1.7)  # furniture stands this far from the middle, in x and z
PLACEMENT_TRIES, LAYOUT_TRIES = 200, 20


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


class SequenceRoom:
    """Furniture and motion, drawn from a NumPy generator.

    models: library positions, the objects first, then clutter; count: how many objects; along: the direction
    in which the second chair moves. Raises ValueError when the library lacks chairs, or the furniture finds
    no place.
    """

    def __init__(self, library: CadLibrary, config: SequenceConfig, rng: np.random.Generator):
        self._library, self._config, self._rng = library, config, rng
        low, high = config.objects
        self.count = int(rng.integers(low, high + 1))
        self._furnish()
        self._phase = rng.uniform(0, 2 * math.pi, 3)

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
        T[1] += (2 * share - 1) * PATH_HALF_M * self.along
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
        chairs = self._library.indices_of_category("chair")
        if not len(chairs):
            raise ValueError("the sequence needs a CAD library with chairs, got none")
        chair = int(self._rng.choice(chairs))
        categories = [c for c in self._library.categories if c != "display"]  # displays need a table
        others = [
            int(self._rng.choice(self._library.indices_of_category(self._rng.choice(categories))))
            for _ in range(self.count - 2 + self._config.clutter)
        ]
        self.models = [chair, chair, *others]

    def _place(self) -> bool:
        """Poses in the room: the chairs first, with the path behind them kept free, then the others. False
        when one of them finds no place."""
        count, jitter = len(self.models), self._config.scale_jitter
        extents = np.array([self._library.models[m].extents_m for m in self.models], dtype=np.float64)
        self._S = extents * self._rng.uniform(1 - jitter, 1 + jitter, (count, 1))
        self._S[1] = self._S[0]  # equal chairs are equal in size, too
        self._T, yaw = np.zeros((count, 3)), self._rng.uniform(-math.pi, math.pi, count)
        for i, model in enumerate(self.models):
            if self._library.models[model].category in BACKED:
                yaw[i] = self._rng.uniform(-1.2, 1.2)
        turn = self._rng.uniform(-0.3, 0.3)
        self.along = np.array([math.cos(turn), 0.0, -math.sin(turn)])
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
