"""Random rooms with furniture, sampled in batches on the training device.

A scene is a camera above a floor, walls behind, objects standing on the floor (displays often on a
table), and clutter that is rendered but not detected. A share of the scenes are free: objects in
random rotations in front of the camera with no floor, as in the paper's pre-training (section 3.4).
The ground frame G used in here has its origin on the floor below the camera, y up, −z forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import quaternion_to_matrix, rotation_x, rotation_y, rotation_z
from sparc_core.types import CATEGORIES

BACKED = ("bed", "bookshelf", "cabinet", "display", "sofa")


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like. Ranges are (low, high); lengths in metres, angles in degrees.

    facing_share: share of the furniture with a back (`BACKED`) that stands as if with its back to a wall
    behind it: its front is turned to the camera by at most `facing_deg`. Everything else stands anyhow.
    recoloured_share: share of the objects that have colours of their own, not those of their CAD models.

    Raises ValueError naming the field out of range.
    """

    objects: int = 4
    clutter: int = 2
    width_px: int = 640
    height_px: int = 480
    camera_height_m: tuple[float, float] = (0.4, 2.2)
    pitch_deg: tuple[float, float] = (-60.0, 10.0)
    roll_deg: tuple[float, float] = (-5.0, 5.0)
    field_of_view_deg: tuple[float, float] = (40.0, 90.0)
    distance_m: tuple[float, float] = (1.0, 4.5)
    facing_share: float = 0.7
    facing_deg: float = 80.0
    free_share: float = 0.1
    known_gravity_share: float = 0.7
    scale_jitter: float = 0.15
    axis_jitter: float = 0.08
    recoloured_share: float = 0.0
    placement_tries: int = 10

    def __post_init__(self):
        if self.objects < 1 or self.clutter < 0:
            raise ValueError(
                f"scene objects must be >= 1 and clutter >= 0, got {self.objects}, {self.clutter}"
            )
        for name in ("facing_share", "free_share", "known_gravity_share", "recoloured_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"scene {name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("camera_height_m", "pitch_deg", "roll_deg", "field_of_view_deg", "distance_m"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"scene {name} must be (low, high), got {(low, high)}")


@dataclass(frozen=True, eq=False)
class SceneBatch:
    """B scenes of O = objects + clutter slots, in the camera frame.

    model (B, O) library indices; pose (B, O); present (B, O) bool; the first `objects` slots may be
    detected. Planes (floor, walls): plane_normal (B, P, 3) unit, facing the camera, and plane_offset
    (B, P), with normal · x = offset. intrinsics (B, 4); size_px (B, 2); up_cam (B, 3), has_up (B,)
    whether gravity is told to the network; albedo (B, O + P, 3) in [0, 1], of planes and of the objects
    that are recoloured (B, O) bool: all others have their CAD models' colours.
    """

    objects: int
    model: torch.Tensor
    pose: Pose
    present: torch.Tensor
    plane_normal: torch.Tensor
    plane_offset: torch.Tensor
    intrinsics: torch.Tensor
    size_px: torch.Tensor
    up_cam: torch.Tensor
    has_up: torch.Tensor
    albedo: torch.Tensor
    recoloured: torch.Tensor


class _Draw:
    """Uniform draws of a fixed batch from one generator, on its device."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator
        self.device = generator.device

    def uniform(self, low, high, *shape) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def chance(self, probability: float, *shape) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) < probability


class SceneSampler:
    """Draws `SceneBatch`es from a CAD library.

    Categories are drawn evenly, then models within the category; models without one of the nine
    categories serve as clutter only.
    """

    def __init__(self, cad: CadTensors, config: SceneConfig):
        self.cad = cad
        self.config = config
        members = [(cad.category == c).nonzero()[:, 0] for c in range(len(CATEGORIES))]
        self.members = [m for m in members if len(m)]
        if not self.members:
            raise ValueError("the CAD library has no model in any of the nine categories")
        self.counts = torch.tensor([len(m) for m in self.members], device=cad.category.device)
        self.table = torch.nn.utils.rnn.pad_sequence(self.members, batch_first=True)
        self.display_slot, self.table_slot = CATEGORIES.index("display"), CATEGORIES.index("table")
        backed = [CATEGORIES.index(name) for name in BACKED]
        self.backed = torch.tensor(backed, device=cad.category.device)
        self.others = (cad.category < 0).nonzero()[:, 0]
        self.tables = (cad.category == self.table_slot).nonzero()[:, 0]

    def sample(self, batch: int, generator: torch.Generator) -> SceneBatch:
        """`batch` scenes on the generator's device."""
        draw = _Draw(generator)
        model = self._draw_models(batch, draw)
        S = self._draw_extents(model, draw)
        R_cam_ground, height, intrinsics = self._draw_cameras(batch, draw)
        yaw = self._draw_yaw(model, draw)
        position, placed = self._place(model, S, yaw, height, intrinsics, draw)
        T = torch.einsum(
            "bij,boj->boi",
            R_cam_ground,
            position - torch.stack((torch.zeros_like(height), height, torch.zeros_like(height)), -1)[:, None],
        )
        R = R_cam_ground[:, None] @ rotation_y(yaw)
        free = draw.chance(self.config.free_share, batch)
        pose, placed = self._free_poses(Pose(R, T, S), placed, free, intrinsics, draw)
        walls = self._walls(position, S, placed, R_cam_ground, height, free, draw)
        keep = draw.uniform(0, 1, *model.shape) < draw.uniform(0.35, 1.0, batch, 1)
        keep[:, 0] = True
        size = torch.tensor([self.config.width_px, self.config.height_px], device=draw.device)
        return SceneBatch(
            self.config.objects, model, pose, placed & keep, *walls, intrinsics,
            size.float().expand(batch, 2), R_cam_ground[:, :, 1],
            draw.chance(self.config.known_gravity_share, batch) & ~free,
            draw.uniform(0.05, 0.95, batch, model.shape[1] + walls[0].shape[1], 3),
            self._draw_recoloured(model, draw),
        )  # fmt: skip

    def _draw_models(self, batch: int, draw: _Draw) -> torch.Tensor:
        slots = self.config.objects + self.config.clutter
        category = torch.randint(
            len(self.members), (batch, slots), generator=draw.generator, device=draw.device
        )
        # several objects of one category are the rule in rooms: chairs round a table, cabinets in a row
        repeat = draw.chance(0.25, batch, slots)
        repeat[:, 0] = False
        category = torch.where(repeat, category.roll(1, 1), category)
        member = (draw.uniform(0, 1, batch, slots) * self.counts[category]).long()
        model = self.table[category, member]
        same_model = repeat & draw.chance(0.5, batch, slots)
        model = torch.where(same_model & (category == category.roll(1, 1)), model.roll(1, 1), model)
        if len(self.others):
            index = (draw.uniform(0, 1, batch, slots) * len(self.others)).long()
            clutter = torch.arange(slots, device=draw.device) >= self.config.objects
            model = torch.where(clutter & draw.chance(0.5, batch, slots), self.others[index], model)
        if len(self.tables):
            # the slot before a display often holds the table it stands on
            next_is_display = (self.cad.category[model] == self.display_slot).roll(-1, 1)
            next_is_display[:, -1] = False
            index = (draw.uniform(0, 1, batch, slots) * len(self.tables)).long()
            model = torch.where(next_is_display & draw.chance(0.7, batch, slots), self.tables[index], model)
        return model

    def _draw_extents(self, model: torch.Tensor, draw: _Draw) -> torch.Tensor:
        config = self.config
        overall = draw.uniform(1 - config.scale_jitter, 1 + config.scale_jitter, *model.shape, 1)
        axes = draw.uniform(1 - config.axis_jitter, 1 + config.axis_jitter, *model.shape, 3)
        # a model symmetric under quarter turns stays so only if its x and z extents are scaled alike
        tied = (self.cad.symmetry_order[model] >= 4)[..., None]
        axes = torch.where(tied, torch.stack((axes[..., 0], axes[..., 1], axes[..., 0]), -1), axes)
        return self.cad.extents_m[model] * overall * axes

    def _draw_recoloured(self, model, draw):
        if self.config.recoloured_share == 0:  # the fixed sets' random numbers stay what they were
            return torch.zeros_like(model, dtype=torch.bool)
        return draw.chance(self.config.recoloured_share, *model.shape)

    def _draw_yaw(self, model, draw):
        """Azimuth of the front in the ground frame: 0 is towards the camera's side of the room."""
        anyhow = draw.uniform(0, 2 * math.pi, *model.shape)
        half = math.radians(self.config.facing_deg)
        facing = draw.uniform(-half, half, *model.shape)
        backed = torch.isin(self.cad.category[model], self.backed)
        return torch.where(backed & draw.chance(self.config.facing_share, *model.shape), facing, anyhow)

    def _draw_cameras(self, batch: int, draw: _Draw):
        config = self.config
        height = draw.uniform(*config.camera_height_m, batch)
        view = torch.deg2rad(draw.uniform(*config.field_of_view_deg, batch))
        focal = config.width_px / 2 / torch.tan(view / 2)
        distance = draw.uniform(*config.distance_m, batch)
        # look at something 0 to 1 m high at that distance, off centre by up to a quarter of the image
        target = draw.uniform(0.0, 1.0, batch) - height
        vertical_view = 2 * torch.atan(config.height_px / 2 / focal)
        pitch = torch.atan2(target, distance) + draw.uniform(-0.25, 0.25, batch) * vertical_view
        pitch = pitch.clamp(*(math.radians(p) for p in config.pitch_deg))
        roll = torch.deg2rad(draw.uniform(*config.roll_deg, batch))
        half_turn = rotation_x(torch.full((batch,), math.pi, device=draw.device))
        R_cam_ground = rotation_z(roll) @ rotation_x(-pitch) @ half_turn
        centre = torch.tensor([config.width_px, config.height_px], device=draw.device) / 2 - 0.5
        offset = centre * (1 + draw.uniform(-0.03, 0.03, batch, 2))
        return R_cam_ground, height, torch.cat((focal[:, None].expand(-1, 2), offset), -1)

    def _place(self, model, S, yaw, height, intrinsics, draw):
        """Stand the objects on the floor one after the other where they do not intersect."""
        batch, slots = model.shape
        half_view = torch.atan(self.config.width_px / 2 / intrinsics[:, 0])
        footprint = S[..., [0, 2]] / 2
        position = torch.zeros(batch, slots, 3, device=draw.device)
        placed = torch.zeros(batch, slots, dtype=torch.bool, device=draw.device)
        rows = torch.arange(batch, device=draw.device)
        for slot in range(slots):
            tries = self.config.placement_tries
            angle = draw.uniform(-0.9, 0.9, batch, tries) * half_view[:, None]
            reach = footprint[:, slot].norm(dim=-1, keepdim=True) + 0.35
            distance = reach + (draw.uniform(*self.config.distance_m, batch, tries) - 0.6).clamp(min=0)
            spot = torch.stack((distance * angle.sin(), -distance * angle.cos()), -1)
            clash = torch.zeros(batch, tries, dtype=torch.bool, device=draw.device)
            for other in range(slot):
                hit = rectangles_overlap(
                    spot, footprint[:, slot, None], yaw[:, slot, None],
                    position[:, other, None][..., [0, 2]], footprint[:, other, None], yaw[:, other, None],
                )  # fmt: skip
                clash |= hit & placed[:, other, None]
            best = (~clash).int().argmax(1)
            placed[:, slot] = ~clash[rows, best]
            position[:, slot, [0, 2]] = spot[rows, best]
            position[:, slot, 1] = S[:, slot, 1] / 2
            if slot:
                self._lift_displays(slot, model, S, yaw, position, placed, draw)
        return position, placed

    def _lift_displays(self, slot, model, S, yaw, position, placed, draw):
        """Put displays on the table in the slot before, or at some height (a stand, a wall mount)."""
        display = self.cad.category[model[:, slot]] == self.display_slot
        on_table = display & placed[:, slot - 1] & (self.cad.category[model[:, slot - 1]] == self.table_slot)
        # anywhere on the middle of the table top, in the table's own axes
        local = draw.uniform(-0.3, 0.3, len(display), 2) * S[:, slot - 1][:, [0, 2]]
        shift = torch.stack((local[:, 0], torch.zeros_like(local[:, 0]), local[:, 1]), -1)
        shift = (rotation_y(yaw[:, slot - 1]) @ shift[..., None])[..., 0]
        top = position[:, slot - 1] + shift
        top = torch.stack((top[:, 0], S[:, slot - 1, 1] + S[:, slot, 1] / 2, top[:, 2]), -1)
        raised = position[:, slot].clone()
        raised[:, 1] += draw.uniform(0.0, 1.2, len(display))
        position[:, slot] = torch.where(display[:, None], raised, position[:, slot])
        position[:, slot] = torch.where(on_table[:, None], top, position[:, slot])
        placed[:, slot] |= on_table

    def _free_poses(self, pose, placed, free, intrinsics, draw):
        """Replace the poses of free scenes: any rotation, anywhere in the frustum."""
        batch, slots = placed.shape
        R = quaternion_to_matrix(torch.randn(batch, slots, 4, generator=draw.generator, device=draw.device))
        z = draw.uniform(1.0, 5.0, batch, slots) + pose.S.norm(dim=-1) / 2
        uv = draw.uniform(0.1, 0.9, batch, slots, 2)
        size = torch.tensor([self.config.width_px, self.config.height_px], device=draw.device)
        offset = (uv * size - intrinsics[:, None, 2:]) / intrinsics[:, None, :2]
        T = torch.cat((offset * z[..., None], z[..., None]), -1)
        choose = free[:, None, None]
        moved = Pose(torch.where(choose[..., None], R, pose.R), torch.where(choose, T, pose.T), pose.S)
        return moved, placed | free[:, None]

    def _walls(self, position, S, placed, R_cam_ground, height, free, draw):
        """Floor and two walls behind everything that was placed; in free scenes far away."""
        batch = len(height)
        angle = torch.stack((draw.uniform(-0.9, 0.9, batch), draw.uniform(-2.2, 2.2, batch)), -1)
        outward = torch.stack((angle.sin(), torch.zeros_like(angle), -angle.cos()), -1)
        radius = S[..., [0, 2]].norm(dim=-1) / 2
        reach = torch.einsum("bod,bwd->bwo", position, outward) + radius[:, None]
        reach = torch.where(placed[:, None], reach, torch.zeros_like(reach)).amax(-1).clamp(min=0.5)
        gap = draw.uniform(0.02, 2.5, batch, 2) ** 1.5
        gap[:, 1] += torch.where(draw.chance(0.5, batch), 20.0, 0.0)
        gap[:, 0] += torch.where(draw.chance(0.2, batch), 20.0, 0.0)
        up = torch.zeros(batch, 1, 3, device=draw.device)
        up[..., 1] = 1
        normal = torch.cat((up, -outward), 1)
        # offsets about the camera centre, which is at (0, height, 0) in the ground frame
        offset = torch.cat((-height[:, None], -(reach + gap)), 1)
        offset = torch.where(free[:, None], offset - 20.0, offset)
        return torch.einsum("bij,bpj->bpi", R_cam_ground, normal), offset


def rectangles_overlap(centre_a, half_a, yaw_a, centre_b, half_b, yaw_b) -> torch.Tensor:
    """Whether rectangles in the ground plane intersect (separating axis test).

    centre (..., 2) as x, z; half (..., 2) half extents along the rectangle's own x and z; yaw (...)
    about +y. All broadcast. Returns (...) bool.
    """
    axes = []
    for yaw in (yaw_a, yaw_b):
        axes.append(torch.stack((yaw.cos(), -yaw.sin()), -1))
        axes.append(torch.stack((yaw.sin(), yaw.cos()), -1))
    gap = centre_b - centre_a
    separated = torch.zeros(gap.shape[:-1], dtype=torch.bool, device=gap.device)
    for axis in axes:
        reach = sum(
            half[..., 0] * (axis * own[0]).sum(-1).abs() + half[..., 1] * (axis * own[1]).sum(-1).abs()
            for half, own in ((half_a, axes[:2]), (half_b, axes[2:]))
        )
        separated = separated | ((gap * axis).sum(-1).abs() > reach)
    return ~separated
