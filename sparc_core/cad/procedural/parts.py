"""Shared building blocks of the procedural furniture: closed bodies in metres, y up.

Comes in: sizes in metres and an RGB colour. Goes out: `Part`s, each one closed, consistently wound
body. No boolean operations: furniture is a pile of closed bodies that may overlap, which is exact
enough for ray casting and surface sampling and costs microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Color = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Part:
    """A closed body: vertices (V, 3) float64 in metres, faces (F, 3) int64 wound outwards, one RGB colour."""

    vertices: np.ndarray
    faces: np.ndarray
    color: Color

    def moved(self, offset: Sequence[float]) -> Part:
        """The part shifted by (x, y, z) metres."""
        return replace(self, vertices=self.vertices + np.asarray(offset, dtype=np.float64))

    def turned_y(self, angle_rad: float, pivot: Sequence[float] = (0.0, 0.0, 0.0)) -> Part:
        """The part turned about the vertical axis through `pivot`; +90° carries +z to +x."""
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        return self._rotated(np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), pivot)

    def tilted_x(self, angle_rad: float, pivot: Sequence[float]) -> Part:
        """The part turned about the x axis through `pivot`; a positive angle leans its top to +z."""
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        return self._rotated(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), pivot)

    def mirrored_x(self) -> Part:
        """The mirror image at x = 0 (faces are re-wound so that they still point outwards)."""
        return replace(
            self, vertices=self.vertices * np.array([-1.0, 1, 1]), faces=self.faces[:, ::-1].copy()
        )

    def _rotated(self, rotation: np.ndarray, pivot: Sequence[float]) -> Part:
        pivot = np.asarray(pivot, dtype=np.float64)
        return replace(self, vertices=(self.vertices - pivot) @ rotation.T + pivot)


def closed(vertices: np.ndarray, faces: np.ndarray, color: Color) -> Part:
    """A part from a closed, consistently wound surface, flipped when its signed volume is negative."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    volume = float(np.einsum("ij,ij->", a, np.cross(b, c)))
    return Part(vertices, faces if volume >= 0 else faces[:, ::-1].copy(), color)


_BOX_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)  # fmt: skip


def box(low: Sequence[float], high: Sequence[float], color: Color) -> Part:
    """An axis-aligned box between two corners."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if not (high > low).all():
        raise ValueError(f"box: high must exceed low on every axis, got low {low}, high {high}")
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    return closed(low + corners * (high - low), _BOX_FACES, color)


def loft(rings: np.ndarray, color: Color) -> Part:
    """A body through rings (R, N, 3) of corresponding points, closed at both ends by fans.

    Rings may turn back inside earlier ones (outside up, rim, inside down): that is how hollow
    vessels are made.
    """
    rings = np.asarray(rings, dtype=np.float64)
    count, n = rings.shape[:2]
    vertices = np.concatenate([rings.reshape(-1, 3), rings[0].mean(0)[None], rings[-1].mean(0)[None]])
    j = np.arange(n)
    k = (j + 1) % n
    base = (np.arange(count - 1) * n)[:, None]
    lower, lower_next, upper, upper_next = base + j, base + k, base + n + j, base + n + k
    sides = np.concatenate(
        [np.stack([lower, lower_next, upper_next], -1), np.stack([lower, upper_next, upper], -1)]
    ).reshape(-1, 3)
    first, last = np.full(n, count * n), np.full(n, count * n + 1)
    top = (count - 1) * n
    caps = np.concatenate([np.stack([first, k, j], -1), np.stack([last, top + j, top + k], -1)])
    return closed(vertices, np.concatenate([sides, caps]), color)


def rounded_rectangle(width: float, depth: float, radius: float, segments: int = 4) -> np.ndarray:
    """(4·(segments+1), 2) points (x, z) of a rectangle with rounded corners, centred at the origin."""
    radius = float(np.clip(radius, 1e-4, min(width, depth) / 2 - 1e-4))
    quarter = np.linspace(0.0, np.pi / 2, segments + 1)
    points = []
    for corner, (sx, sz) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        angles = quarter + corner * np.pi / 2
        centre = np.array([sx * (width / 2 - radius), sz * (depth / 2 - radius)])
        points.append(centre + radius * np.stack([np.cos(angles), np.sin(angles)], -1))
    return np.concatenate(points)


def ellipse(width: float, depth: float, segments: int = 36) -> np.ndarray:
    """(segments, 2) points (x, z) of an ellipse. 36 segments are exact under the 36 turns of cinf."""
    angles = np.arange(segments) * 2 * np.pi / segments
    return np.stack([width / 2 * np.cos(angles), depth / 2 * np.sin(angles)], -1)


def raised(ring_xz: np.ndarray, y: float) -> np.ndarray:
    """A ring (N, 2) of (x, z) lifted to height y: (N, 3)."""
    return np.stack([ring_xz[:, 0], np.full(len(ring_xz), y), ring_xz[:, 1]], -1)


def slab(
    low: Sequence[float],
    high: Sequence[float],
    color: Color,
    *,
    radius: float = 0.0,
    bevel: float = 0.0,
    axis: str = "y",
) -> Part:
    """A box with rounded corners (`radius`, in the plane across `axis`) and rounded edges (`bevel`).

    The cushion of the kit: a large bevel gives a pillow, a small one a board.
    """
    order = {"y": (0, 1, 2), "z": (1, 2, 0), "x": (2, 0, 1)}[axis]  # cyclic: handedness stays
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    size, centre = (high - low)[list(order)], ((high + low) / 2)[list(order)]
    bevel = min(bevel, 0.49 * size.min())
    if bevel > 0:
        t = np.linspace(0, np.pi / 2, 4)
        inset = np.concatenate([bevel * (1 - np.sin(t)), bevel * (1 - np.cos(t))])
        lift = np.concatenate([bevel * (1 - np.cos(t)), size[1] - bevel * (1 - np.sin(t))])
    else:
        inset, lift = np.zeros(2), np.array([0.0, size[1]])
    rings = [
        raised(rounded_rectangle(size[0] - 2 * i, size[2] - 2 * i, max(radius - i, 0.0)), y - size[1] / 2)
        for i, y in zip(inset, lift, strict=True)
    ]
    vertices = np.stack(rings) + centre
    return loft(vertices[..., np.argsort(order)], color)


def lathe(profile: Sequence[tuple[float, float]], color: Color, *, segments: int = 36) -> Part:
    """A body of revolution about the y axis from (radius, y) pairs, all radii positive."""
    return loft(np.stack([raised(ellipse(2 * r, 2 * r, segments), y) for r, y in profile]), color)


def rod(
    start: Sequence[float],
    end: Sequence[float],
    radius: float,
    color: Color,
    *,
    end_radius: float | None = None,
    segments: int = 10,
) -> Part:
    """A round bar (a cone frustum with `end_radius`) between two points."""
    return tube([start, end], radius, color, segments=segments, end_radius=end_radius)


def tube(
    path: Sequence[Sequence[float]],
    radius: float,
    color: Color,
    *,
    segments: int = 8,
    end_radius: float | None = None,
) -> Part:
    """A round tube swept along a polyline (K, 3); its corners are mitred."""
    path = np.asarray(path, dtype=np.float64)
    directions = np.diff(path, axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    tangents = np.concatenate([directions[:1], directions[:-1] + directions[1:], directions[-1:]])
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(directions[0]))]
    u = np.cross(directions[0], helper)
    u /= np.linalg.norm(u)
    angles = np.arange(segments) * 2 * np.pi / segments
    radii = np.linspace(radius, radius if end_radius is None else end_radius, len(path))
    rings = []
    for i, (point, tangent) in enumerate(zip(path, tangents, strict=True)):
        along = directions[min(i, len(directions) - 1)]
        # Parallel transport round the corner: projecting u instead would vanish at some right angles.
        before = directions[max(min(i, len(directions) - 1) - 1, 0)]
        u = u - (u @ along) / (1 + before @ along) * (before + along)
        u /= np.linalg.norm(u)
        circle = np.cos(angles)[:, None] * u + np.sin(angles)[:, None] * np.cross(along, u)
        # Slide the circle along the segment onto the mitre plane: the tube keeps its thickness.
        circle = circle - along * ((circle @ tangent) / (along @ tangent))[:, None]
        rings.append(point + radii[i] * circle)
    return loft(np.stack(rings), color)


def tapered_box(
    foot: Sequence[float],
    head: Sequence[float],
    foot_size: tuple[float, float],
    head_size: tuple[float, float],
    color: Color,
) -> Part:
    """A square-section leg between two centres; the sections (x, z) stay horizontal."""
    foot, head = np.asarray(foot, dtype=np.float64), np.asarray(head, dtype=np.float64)
    unit = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    rings = [c + unit * np.array([s[0], 0, s[1]]) for c, s in ((foot, foot_size), (head, head_size))]
    return loft(np.stack(rings), color)


def curved_panel(
    width: float,
    height: float,
    thickness: float,
    color: Color,
    *,
    wrap: float = 0.0,
    bulge: float = 0.0,
    taper: float = 0.0,
    columns: int = 9,
    rows: int = 9,
) -> Part:
    """An upright panel, bottom centre of its front at the origin, facing +z.

    `wrap`: how far the side edges come forward (m). `bulge`: how far the middle third bulges forward
    (lumbar support, m). `taper`: share by which the top is narrower than the bottom.
    """
    s, t = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(0, 1, rows))
    corner = 1 - 0.25 * np.clip((np.abs(2 * t - 1) - 0.8) / 0.2, 0, 1) ** 2  # softened corners
    x = s * width / 2 * (1 - taper * t) * corner
    z = wrap * s**2 + bulge * np.exp(-(((t - 0.3) / 0.22) ** 2))
    front = np.stack([x, t * height, z], -1)
    back = front - np.array([0.0, 0.0, thickness])
    grid = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 4)
    rim = np.concatenate([grid[0, :-1], grid[:-1, -1], grid[-1, :0:-1], grid[:0:-1, 0]])
    ahead, offset = np.roll(rim, -1), rows * columns
    faces = np.concatenate(
        [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], quads[:, [2, 1, 0]] + offset, quads[:, [3, 2, 0]] + offset,
         np.stack([rim, rim + offset, ahead + offset], -1), np.stack([rim, ahead + offset, ahead], -1)]
    )  # fmt: skip
    return closed(np.concatenate([front.reshape(-1, 3), back.reshape(-1, 3)]), faces, color)


def both_sides(part: Part) -> list[Part]:
    """The part and its mirror image at x = 0."""
    return [part, part.mirrored_x()]


def corner_legs(half_x: float, half_z: float, height: float, size: float, color: Color, *,
                round_legs: bool = False, taper: float = 1.0, splay: float = 0.0) -> list[Part]:  # fmt: skip
    """Four legs from the floor to `height`, centres at (±half_x, ±half_z) on top.

    `taper`: foot size over head size. `splay`: how far the feet stand out on both axes (m).
    """
    legs = []
    for sx, sz in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        head = (sx * half_x, height, sz * half_z)
        foot = (sx * (half_x + splay), 0.0, sz * (half_z + splay))
        if round_legs:
            legs.append(rod(foot, head, size / 2 * taper, color, end_radius=size / 2))
        else:
            foot_size = size * taper
            legs.append(tapered_box(foot, head, (foot_size, foot_size), (size, size), color))
    return legs


def bar_frame(low: Sequence[float], high: Sequence[float], bar: float, color: Color) -> list[Part]:
    """Four bars around an upright opening in the x–y plane (a picture frame between two corners)."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return [
        box((x0, y0, z0), (x1, y0 + bar, z1), color),
        box((x0, y1 - bar, z0), (x1, y1, z1), color),
        box((x0, y0 + bar, z0), (x0 + bar, y1 - bar, z1), color),
        box((x1 - bar, y0 + bar, z0), (x1, y1 - bar, z1), color),
    ]
