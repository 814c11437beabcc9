"""Procedural displays: monitors on a neck and foot, televisions on feet. The screen faces +z."""

from __future__ import annotations

import math

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import (
    Part,
    bar_frame,
    both_sides,
    box,
    loft,
    rod,
    slab,
    tapered_box,
)

SCREEN = (14, 15, 18)


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One display. The housing behind the screen keeps front and back apart: symmetry is none."""
    kind = rng.choice(["monitor", "tv", "tube"], p=[0.6, 0.34, 0.06])
    if kind == "monitor":
        return _monitor(rng), "none"
    return (_tv(rng) if kind == "tv" else _tube_set(rng)), "none"


def _panel_size(diagonal_inch: float, aspect: float) -> tuple[float, float]:
    diagonal = diagonal_inch * 0.0254
    height = diagonal / math.hypot(aspect, 1.0)
    return height * aspect, height


def _panel(width: float, height: float, thick: float, bezel: float, bulge: float, color) -> list[Part]:
    """A panel with its bottom centre at the origin: frame, sunken screen, housing behind (−z)."""
    half = width / 2
    parts = bar_frame((-half, 0, -thick), (half, height, 0.003), bezel, color)
    parts.append(
        box(
            (-half + bezel * 0.9, bezel * 0.9, -thick),
            (half - bezel * 0.9, height - bezel * 0.9, 0.0),
            SCREEN,
        )
    )
    rings = []
    for share, z in ((0.97, -thick + 0.002), (0.8, -thick - 0.4 * bulge), (0.5, -thick - bulge)):
        w, h = width * share / 2, height * share / 2
        cy = height * (0.5 - 0.1 * (1 - share))
        rings.append([(-w, cy - h, z), (w, cy - h, z), (w, cy + h, z), (-w, cy + h, z)])
    parts.append(loft(np.array(rings), color))
    return parts


def _monitor(rng: np.random.Generator) -> list[Part]:
    aspect = rng.choice([16 / 9, 16 / 10, 4 / 3, 5 / 4, 21 / 9], p=[0.5, 0.2, 0.1, 0.1, 0.1])
    width, height = _panel_size(rng.uniform(17, 27) if aspect < 2 else rng.uniform(29, 38), aspect)
    color = palette.plastic(rng)
    thick, bulge = rng.uniform(0.012, 0.035), rng.uniform(0.02, 0.06)
    lift = rng.uniform(0.06, 0.2)
    bezel = rng.uniform(0.007, 0.025)
    tilt = -rng.uniform(0.0, 0.18)
    panel = [
        p.moved((0, lift, 0)).tilted_x(tilt, (0, lift + height / 2, -thick))
        for p in _panel(width, height, thick, bezel, bulge, color)
    ]
    neck_z = -thick - bulge * 0.7
    stand = color if rng.random() < 0.6 else palette.metal(rng)
    top = lift + height * rng.uniform(0.3, 0.5)
    neck_w = rng.uniform(0.035, 0.09)
    lean = rng.uniform(0.0, 0.05)
    neck = tapered_box(
        (0, 0.008, neck_z - lean - 0.02),
        (0, top, neck_z - 0.018),
        (neck_w * 1.1, 0.04),
        (neck_w, 0.034),
        stand,
    )
    return panel + [neck] + _foot(rng, width, neck_z - lean, stand)


def _foot(rng: np.random.Generator, width: float, neck_z: float, color) -> list[Part]:
    foot_w, foot_d = min(width * rng.uniform(0.4, 0.6), 0.34), rng.uniform(0.16, 0.24)
    front, back = neck_z + foot_d * 0.68, neck_z - foot_d * 0.32
    if rng.random() < 0.75:
        radius = rng.choice([0.01, foot_d / 2])
        return [
            slab((-foot_w / 2, 0, back), (foot_w / 2, rng.uniform(0.01, 0.02), front), color, radius=radius)
        ]
    arm = rod((0, 0.012, neck_z), (foot_w / 2, 0.012, front), 0.012, color)
    return both_sides(arm) + [box((-0.04, 0, back), (0.04, 0.02, neck_z + 0.02), color)]


def _tv(rng: np.random.Generator) -> list[Part]:
    width, height = _panel_size(rng.uniform(28, 70), 16 / 9)
    color = palette.plastic(rng) if rng.random() < 0.3 else (26, 26, 29)
    thick, bulge = rng.uniform(0.015, 0.04), rng.uniform(0.025, 0.07)
    panel = _panel(width, height, thick, rng.uniform(0.006, 0.02), bulge, color)
    stand = rng.choice(["feet", "centre", "wall"], p=[0.5, 0.35, 0.15])
    if stand == "wall":
        return panel
    lift = rng.uniform(0.05, 0.09)
    parts = [p.moved((0, lift, 0)) for p in panel]
    depth = rng.uniform(0.2, 0.3)
    middle = -thick - bulge * 0.3
    if stand == "feet":
        x = width * rng.uniform(0.3, 0.42)
        for z in (middle + depth / 2, middle - depth / 2):
            leg = tapered_box((x + 0.02, 0, z), (x, lift + 0.03, middle), (0.025, 0.03), (0.03, 0.02), color)
            parts += both_sides(leg)
        return parts
    foot_w = width * rng.uniform(0.3, 0.55)
    parts.append(
        slab(
            (-foot_w / 2, 0, middle - depth / 2), (foot_w / 2, 0.015, middle + depth / 2), color, radius=0.03
        )
    )
    parts.append(box((-0.08, 0.01, middle - 0.02), (0.08, lift + 0.05, middle + 0.01), color))
    return parts


def _tube_set(rng: np.random.Generator) -> list[Part]:
    """An old picture-tube set: a deep tapered housing."""
    width, height = _panel_size(rng.uniform(15, 27), 4 / 3)
    width, height = width * 1.12, height * 1.15
    color = palette.plastic(rng)
    depth = width * rng.uniform(0.7, 0.95)
    parts = bar_frame((-width / 2, 0, -0.1), (width / 2, height, 0.008), width * 0.07, color)
    inset = width * 0.065
    parts.append(box((-width / 2 + inset, inset, -0.099), (width / 2 - inset, height - inset, 0.0), SCREEN))
    rings = []
    for share, z in ((0.98, -0.098), (0.85, -0.45 * depth), (0.5, -depth)):
        w, h = width * share / 2, height * share
        rings.append([(-w, 0.002, z), (w, 0.002, z), (w, h, z), (-w, h, z)])
    parts.append(loft(np.array(rings), color))
    return parts
