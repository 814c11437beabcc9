"""Pictures of synthetic rooms as a camera takes them: textures, lamps with shadows, and the camera's flaws.

Predictors that see RGB alone learn from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from sparc_core.geometry.camera import bearing_z1
from sparc_core.synth.raycast import RayCaster, RayHits
from sparc_core.synth.render import flat_colours, pixel_grid, single_scene
from sparc_core.synth.rooms import CEILING, FLOOR, WALLS
from sparc_core.synth.scenes import SceneBatch
from sparc_core.synth.textures import Noise, planks, tiles, weave, wood

LIFT_M = 0.004  # shadow rays start this far off the surface
LAMP_RADIUS_M = 0.25


@dataclass(frozen=True)
class PictureConfig:
    """width_px, height_px of the pictures, whatever the scene's own size (its aspect ratio is kept).
    lamps: how many, (fewest, most). blur_px: largest standard deviation; noise: largest standard deviation of
    a pixel; jpeg: lowest quality."""

    width_px: int = 320
    height_px: int = 240
    lamps: tuple[int, int] = (1, 3)
    blur_px: float = 0.8
    noise: float = 0.03
    jpeg: int = 50


@dataclass(frozen=True, eq=False)
class Picture:
    """rgb (H, W, 3) uint8; depth_m (H, W) float32 exact z-depth, 0 where nothing is; normal_cam (H, W, 3)
    float32; object (H, W) int64 slot of the object that is seen, −1 for the room; intrinsics (4,) of this
    size; up_cam (3,)."""

    rgb: np.ndarray
    depth_m: np.ndarray
    normal_cam: np.ndarray
    object: np.ndarray
    intrinsics: np.ndarray
    up_cam: np.ndarray


class PictureRenderer:
    """Takes pictures of scenes in rectangular rooms (`enclose`), or plain ones of any scene."""

    def __init__(self, caster: RayCaster, config: PictureConfig | None = None):
        self.caster, self.config = caster, config or PictureConfig()

    def take(
        self,
        scene: SceneBatch,
        index: int,
        generator: torch.Generator,
        plain: bool = False,
        room_seed: int | None = None,
    ) -> Picture:
        """A picture of scene `index` of a batch; textures, light and flaws are drawn from the generator
        (CPU). plain: in the flat colours of `SceneRenderer`, without flaws. room_seed: fixes textures, lamps
        and exposure, so that a camera that moves sees one room; only pixel noise is then from the
        generator."""
        one, config = single_scene(scene, index), self.config
        shape = (config.height_px, config.width_px)
        step = one.size_px[0] / torch.tensor([config.width_px, config.height_px])
        # pixel centres at integers: the first of the small picture lies between those of the large one
        uv = (pixel_grid(config.width_px, config.height_px) + 0.5) * step - 0.5
        hits = self.caster.cast(one, uv)
        points = bearing_z1(uv, one.intrinsics) * hits.depth_m[..., None]
        if plain:
            rgb = flat_colours(self.caster, one, hits).reshape(*shape, 3)
        else:
            draw = _Draw(generator)
            room = draw if room_seed is None else _Draw(torch.Generator().manual_seed(room_seed))
            albedo = _Surfaces(one, room).paint(self.caster.albedo(one, hits)[0], points[0], hits)
            light = self._light(one, points, hits, room, draw)
            rgb = self._develop((albedo * light).reshape(*shape, 3), room, draw)
        on_object = hits.slot < scene.model.shape[1]
        intrinsics = one.intrinsics[0] / step.repeat(2)
        intrinsics[2:] = (one.intrinsics[0, 2:] + 0.5) / step - 0.5
        return Picture(
            rgb,
            hits.depth_m[0].numpy().reshape(shape),
            hits.normal_cam[0].numpy().reshape(*shape, 3),
            torch.where(on_object, hits.slot, -1)[0].numpy().reshape(shape),
            intrinsics.numpy(),
            one.up_cam[0].numpy(),
        )

    def _light(
        self, scene: SceneBatch, points: torch.Tensor, hits: RayHits, room: _Draw, draw: _Draw
    ) -> torch.Tensor:
        """(K, 3) light that reaches the points: lamps below the ceiling, and what the walls throw back."""
        normal = hits.normal_cam
        up = scene.up_cam[0]
        total = torch.full_like(points, room.uniform(0.25, 0.6))
        total = total * (1 + 0.25 * (normal @ up))[..., None]  # more comes from above
        for _ in range(room.integer(*self.config.lamps)):
            lamp = self._lamp(scene, room)
            tint = torch.tensor([1.0, room.uniform(0.8, 1.02), room.uniform(0.6, 1.1)])
            spread = draw.normal(points.shape) * LAMP_RADIUS_M
            start = points + LIFT_M * normal
            blocked = self.caster.blocked(scene, start, (lamp + spread).expand_as(points).contiguous())
            towards = lamp - points
            distance = towards.norm(dim=-1)
            lambert = ((towards * normal).sum(-1) / distance.clamp(min=1e-3)).clamp(min=0)
            strength = room.uniform(0.6, 2.0) / (0.3 + (distance / 2).square())
            total = total + (lambert * strength * (~blocked))[..., None] * tint
        return total[0]

    def _lamp(self, scene: SceneBatch, draw: _Draw) -> torch.Tensor:
        """(3,) a place below the ceiling, in view of the room or behind the camera."""
        normal, offset = scene.plane_normal[0], scene.plane_offset[0]
        place = torch.zeros(3)
        for first, second in ((2, 3), (4, 5)):
            share = draw.uniform(0.15, 0.85)
            place = place - normal[first] * (share * -offset[first] - (1 - share) * -offset[second])
        height = -offset[CEILING] - draw.uniform(0.1, 0.7)
        return place - normal[CEILING] * height

    def _develop(self, light: torch.Tensor, room: _Draw, draw: _Draw) -> np.ndarray:
        """(H, W, 3) uint8: exposure, white balance, vignette, blur, noise and compression."""
        config = self.config
        exposure = room.uniform(0.22, 0.5) / float(light.mean().clamp(min=1e-3))
        balance = torch.tensor([room.uniform(0.9, 1.1), 1.0, room.uniform(0.9, 1.1)])
        image = (light * exposure * balance).clamp(min=0)
        image = (image / (1 + 0.25 * image)).clamp(0, 1) ** (1 / 2.2)
        height, width = image.shape[:2]
        y, x = np.mgrid[0:height, 0:width]
        edge = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)[..., None]
        pixels = image.numpy() * (1 - room.uniform(0.0, 0.5) * edge)
        blur = room.uniform(0.0, config.blur_px)
        if blur > 0.2:
            pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
        pixels = pixels + room.uniform(0.0, config.noise) * draw.normal(image.shape).numpy()
        rgb = np.clip(255 * pixels, 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, room.integer(config.jpeg, 98)]
        packed = cv2.imencode(".jpg", rgb[..., ::-1], quality)[1]
        return cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1].copy()


class _Draw:
    """Single random numbers and fields of them from a CPU generator."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def normal(self, shape) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def colour(self, saturation: float, low: float, high: float) -> torch.Tensor:
        """(3,) of a brightness between low and high, more or less grey."""
        hue = torch.rand(3, generator=self.generator)
        # mostly little of it: rooms are pale
        colour = 1 + saturation * self.uniform(0, 1) ** 2 * (hue - hue.mean())
        return (self.uniform(low, high) * colour).clamp(0.02, 0.98)


class _Surfaces:
    """What the surfaces of one room look like. Every surface draws from random numbers of its own, and
    patterns are anchored to the room: the same generator shows the same room from anywhere."""

    def __init__(self, scene: SceneBatch, draw: _Draw):
        self.scene, self.noise = scene, Noise(draw.generator)
        self.objects = scene.model.shape[1]
        count = self.objects + scene.plane_normal.shape[1]
        self.seeds = torch.randint(2**62, (count,), generator=draw.generator).tolist()
        self.up = scene.up_cam[0]

    def paint(self, albedo: torch.Tensor, points: torch.Tensor, hits: RayHits) -> torch.Tensor:
        """(K, 3) linear colours. albedo (K, 3): the CAD models' own in sRGB; points (K, 3) in the camera
        frame."""
        slot = hits.slot[0]
        painted = albedo.clone()
        for number, seed in enumerate(self.seeds):
            here = slot == number
            if not here.any():
                continue
            draw, plane = _Draw(torch.Generator().manual_seed(seed)), number - self.objects
            if plane < 0:
                painted[here] = self._object(number, albedo[here], points[here], draw)
            else:
                paint = {FLOOR: self._floor, CEILING: self._ceiling}.get(plane, self._wall)
                painted[here] = paint(points[here], plane, draw)
        return painted.clamp(0.01, 1) ** 2.2

    def _object(self, o: int, albedo: torch.Tensor, points: torch.Tensor, draw: _Draw) -> torch.Tensor:
        pose = self.scene.pose
        local = (points - pose.T[0, o]) @ pose.R[0, o]
        kind = draw.integer(0, 3)
        if kind == 0:
            shade = wood(local, draw.integer(0, 2), self.noise)
        elif kind == 1:
            shade = weave(local, self.noise)
        else:
            shade = 1 + 0.05 * self.noise.octaves(local * 4)
        return albedo * shade[:, None]

    def _floor(self, points: torch.Tensor, plane: int, draw: _Draw) -> torch.Tensor:
        uv = torch.stack((self._from_wall(points, 0), self._from_wall(points, 2)), -1)
        if draw.integer(0, 1):
            uv = uv.flip(-1)
        kind = draw.integer(0, 3)
        if kind <= 1:
            brown = torch.tensor([0.62, 0.46, 0.32]) * draw.uniform(0.5, 1.5)
            shade = planks(uv, draw.uniform(0.07, 0.2), draw.uniform(0.5, 2.0), self.noise)
            return torch.lerp(brown, draw.colour(0.5, 0.3, 0.8), draw.uniform(0, 0.6)) * shade[:, None]
        if kind == 2:
            shade, joint = tiles(uv, draw.uniform(0.2, 0.8), draw.uniform(0.002, 0.008), self.noise)
            colour = draw.colour(0.6, 0.25, 0.9) * shade[:, None]
            return torch.where(joint[:, None], draw.colour(0.2, 0.2, 0.8), colour)
        shade = weave(torch.cat((uv, uv[:, :1] * 0), -1), self.noise)
        return draw.colour(1.2, 0.2, 0.8) * shade[:, None]

    def _ceiling(self, points: torch.Tensor, plane: int, draw: _Draw) -> torch.Tensor:
        return draw.colour(0.1, 0.75, 0.95).expand(len(points), 3)

    def _wall(self, points: torch.Tensor, plane: int, draw: _Draw) -> torch.Tensor:
        across = 2 if plane < WALLS.start + 2 else 0
        height = points @ self.up - self.scene.plane_offset[0, FLOOR]
        place = torch.stack((self._from_wall(points, across), height), -1)
        cloud = 1 + 0.03 * self.noise.octaves(torch.cat((place * 2, place[:, :1] * 0), -1))
        colour = draw.colour(0.8, 0.5, 0.95) * cloud[:, None]
        if draw.uniform(0, 1) < 0.15:  # wallpaper
            width = draw.uniform(0.05, 0.4)
            stripe = ((place[:, :1] / width).floor() % 2) > 0
            colour = torch.where(stripe, colour * draw.uniform(0.75, 1.2), colour)
        if draw.uniform(0, 1) < 0.6:
            skirting = height[:, None] < draw.uniform(0.05, 0.14)
            colour = torch.where(skirting, draw.colour(0.3, 0.2, 0.95), colour)
        length = self._length(across)
        for _ in range(draw.integer(0, 3)):
            colour = self._framed(place, colour, length, draw)
        return colour

    def _from_wall(self, points: torch.Tensor, wall: int) -> torch.Tensor:
        """(K,) metres from a wall into the room."""
        plane = WALLS.start + wall
        return points @ self.scene.plane_normal[0, plane] - self.scene.plane_offset[0, plane]

    def _length(self, wall: int) -> float:
        """Metres from a wall to the one opposite."""
        offset = self.scene.plane_offset[0]
        return float(-offset[WALLS.start + wall] - offset[WALLS.start + wall + 1])

    def _framed(self, place: torch.Tensor, colour: torch.Tensor, length: float, draw: _Draw) -> torch.Tensor:
        """A picture or a window on a wall."""
        centre = torch.tensor([draw.uniform(0, length), draw.uniform(1.1, 1.9)])
        half = torch.tensor([draw.uniform(0.1, 0.8), draw.uniform(0.1, 0.6)])
        off = (place - centre).abs() - half
        inside, frame = (off < 0).all(-1), (off < draw.uniform(0.0, 0.06)).all(-1)
        if draw.uniform(0, 1) < 0.3:
            content = torch.full((len(place), 3), draw.uniform(0.8, 1.0))
        else:
            mixed = self.noise.octaves(torch.cat((place * draw.uniform(1, 6), place[:, :1] * 0), -1))
            share = (0.5 + 0.5 * mixed)[:, None].clamp(0, 1)
            content = torch.lerp(draw.colour(2.0, 0.1, 0.9), draw.colour(2.0, 0.1, 0.9), share)
        colour = torch.where(frame[:, None], draw.colour(0.8, 0.05, 0.95), colour)
        return torch.where(inside[:, None], content, colour)
