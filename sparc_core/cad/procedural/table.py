"""Procedural tables: dining, coffee and side tables, desks of several makes, round pedestals.

Desks face +z with the side where one sits.
"""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import (
    Part,
    both_sides,
    box,
    corner_legs,
    lathe,
    rod,
    slab,
    tapered_box,
    tube,
)


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One table: its parts and its symmetry about y."""
    builders = (_four_legs, _coffee, _panel_desk, _drawer_desk, _metal_desk, _round, _trestle)
    index = rng.choice(len(builders), p=[0.26, 0.14, 0.13, 0.13, 0.16, 0.12, 0.06])
    return builders[index](rng)


def _top(
    rng, width: float, depth: float, height: float, color, thick: float | None = None
) -> tuple[Part, float]:
    """The table top and the height of its underside."""
    thick = rng.uniform(0.018, 0.045) if thick is None else thick
    radius = rng.choice([0.0, rng.uniform(0.02, 0.1)])
    low, high = (-width / 2, height - thick, -depth / 2), (width / 2, height, depth / 2)
    return (slab(low, high, color, radius=radius) if radius else box(low, high, color)), height - thick


def _legs_and_apron(rng, width, depth, under, color) -> list[Part]:
    size = rng.uniform(0.035, 0.09)
    inset = size / 2 + rng.uniform(0.0, 0.06)
    splay = rng.choice([0.0, rng.uniform(0.0, 0.05)])
    half_x, half_z = width / 2 - inset - splay, depth / 2 - inset - splay
    parts = corner_legs(
        half_x,
        half_z,
        under + 0.003,
        size,
        color,
        round_legs=rng.random() < 0.4,
        taper=rng.uniform(0.5, 1.0),
        splay=splay,
    )
    if rng.random() < 0.7:
        tall, t = rng.uniform(0.05, 0.12), 0.02
        for s in (1, -1):
            parts.append(
                box(
                    (-half_x, under - tall, s * half_z - t / 2),
                    (half_x, under + 0.002, s * half_z + t / 2),
                    color,
                )
            )
            parts.append(
                box(
                    (s * half_x - t / 2, under - tall - 0.001, -half_z),
                    (s * half_x + t / 2, under + 0.001, half_z),
                    color,
                )
            )
    return parts


def _four_legs(rng):
    square = rng.random() < 0.25
    width = rng.uniform(0.65, 1.1) if square else rng.uniform(0.9, 2.2)
    depth = width if square else min(rng.uniform(0.6, 1.0), width * 0.8)
    color = palette.board(rng)
    top, under = _top(rng, width, depth, rng.uniform(0.7, 0.78), color)
    legs = color if rng.random() < 0.5 else palette.board(rng)
    return [top, *_legs_and_apron(rng, width, depth, under, legs)], "c4" if square else "c2"


def _coffee(rng):
    square = rng.random() < 0.35
    width = rng.uniform(0.4, 0.9) if square else rng.uniform(0.6, 1.4)
    depth = width if square else min(rng.uniform(0.38, 0.8), width * 0.8)
    color = palette.board(rng)
    height = rng.uniform(0.3, 0.58)
    top, under = _top(rng, width, depth, height, color)
    parts = [top, *_legs_and_apron(rng, width, depth, under, color)]
    if rng.random() < 0.5:
        y = height * rng.uniform(0.2, 0.45)
        low, high = (-width / 2 + 0.05, y, -depth / 2 + 0.05), (width / 2 - 0.05, y + 0.02, depth / 2 - 0.05)
        parts.append(box(low, high, color))
    return parts, "c4" if square else "c2"


def _panel_desk(rng):
    """Two side panels and a modesty panel near the back."""
    width, depth, height = rng.uniform(0.9, 2.0), rng.uniform(0.5, 0.85), rng.uniform(0.7, 0.78)
    color = palette.board(rng)
    top, under = _top(rng, width, depth, height, color)
    t = rng.uniform(0.02, 0.045)
    side = box(
        (width / 2 - t - 0.01, 0, -depth / 2 + 0.01),
        (width / 2 - 0.01, under + 0.002, depth / 2 - 0.02),
        color,
    )
    low = under - rng.uniform(0.25, 0.6)
    z = -depth / 2 + rng.uniform(0.03, 0.15)
    modesty = box((-width / 2 + 0.012, low, z), (width / 2 - 0.012, under + 0.001, z + 0.018), color)
    parts = [top, *both_sides(side), modesty]
    if rng.random() < 0.3:
        parts += _hutch(rng, width, depth, height, color)
    return parts, "none"


def _hutch(rng, width, depth, height, color) -> list[Part]:
    """A raised board on uprights along the back edge."""
    rise, deep, t = rng.uniform(0.2, 0.5), rng.uniform(0.18, 0.28), 0.02
    back = -depth / 2 + 0.005
    upright = box(
        (width / 2 - t - 0.005, height - 0.001, back), (width / 2 - 0.005, height + rise, back + deep), color
    )
    board = box(
        (-width / 2 + 0.005, height + rise - 0.001, back),
        (width / 2 - 0.005, height + rise + t, back + deep),
        color,
    )
    return [*both_sides(upright), board]


def _drawer_desk(rng):
    """A drawer pedestal on one side or both, a panel or legs on the other."""
    width, depth, height = rng.uniform(1.0, 1.9), rng.uniform(0.5, 0.85), rng.uniform(0.71, 0.79)
    color = palette.board(rng)
    front = color if rng.random() < 0.6 else palette.board(rng)
    top, under = _top(rng, width, depth, height, color)
    parts = [top]
    sides = [(1,), (-1,), (1, -1)][rng.choice(3, p=[0.35, 0.35, 0.3])]
    block = rng.uniform(0.34, 0.46)
    for s in (1, -1):
        if s in sides:
            parts += _pedestal(rng, s, width, depth, under, block, color, front)
        else:
            x0, x1 = sorted((s * (width / 2 - 0.01), s * (width / 2 - 0.045)))
            parts.append(box((x0, 0, -depth / 2 + 0.01), (x1, under + 0.002, depth / 2 - 0.02), color))
    if rng.random() < 0.5:
        z = -depth / 2 + 0.03
        parts.append(
            box((-width / 2 + 0.05, under - 0.35, z), (width / 2 - 0.05, under + 0.001, z + 0.018), color)
        )
    return parts, "none"


def _pedestal(rng, side: int, width, depth, under, block, color, front) -> list[Part]:
    x0, x1 = sorted((side * (width / 2 - 0.015), side * (width / 2 - 0.015 - block)))
    face = depth / 2 - 0.03
    parts = [box((x0, 0.03, -depth / 2 + 0.02), (x1, under + 0.002, face), color)]
    rows = np.linspace(0.035, under - 0.01, int(rng.integers(2, 5)) + 1)
    for low, high in zip(rows[:-1], rows[1:], strict=True):
        parts.append(
            box((x0 + 0.002, low + 0.004, face - 0.002), (x1 - 0.002, high - 0.002, face + 0.018), front)
        )
        cx, cy = (x0 + x1) / 2, (low + high) / 2
        parts.append(
            box((cx - 0.06, cy - 0.008, face + 0.016), (cx + 0.06, cy + 0.008, face + 0.042), (90, 90, 94))
        )
    parts.append(box((x0 + 0.02, 0, -depth / 2 + 0.04), (x1 - 0.02, 0.032, face - 0.04), (40, 40, 42)))
    return parts


def _metal_desk(rng):
    """An office desk on C-legs or T-legs, often long, with a beam between the legs."""
    width, depth, height = rng.uniform(1.2, 2.4), rng.uniform(0.6, 0.9), rng.uniform(0.7, 0.78)
    if rng.random() < 0.15:
        height = rng.uniform(0.9, 1.15)  # height-adjustable, raised
    color, metal = palette.board(rng), palette.metal(rng)
    top, under = _top(rng, width, depth, height, color, thick=rng.uniform(0.02, 0.03))
    x = width / 2 - rng.uniform(0.06, 0.25)
    c_leg = rng.random() < 0.5
    z = -depth / 2 + rng.uniform(0.1, 0.2) if c_leg else 0.0
    w = rng.uniform(0.04, 0.08)
    foot_half = depth / 2 - 0.02
    leg = [
        box((x - w / 2, 0, -foot_half), (x + w / 2, rng.uniform(0.03, 0.05), foot_half), metal),
        tapered_box((x, 0.02, z), (x, under, z), (w * 0.9, w * 1.3), (w * 0.9, w * 1.3), metal),
        box(
            (x - w / 2, under - 0.04, -foot_half + 0.03), (x + w / 2, under + 0.001, foot_half - 0.03), metal
        ),
    ]
    beam = box((-x, under - 0.1, z - 0.02), (x, under - 0.03, z + 0.02), metal)
    parts = [top, *(p for part in leg for p in both_sides(part)), beam]
    if c_leg or rng.random() < 0.3:
        screen_low = under - rng.uniform(0.25, 0.4)
        screen_z = -depth / 2 + 0.05
        parts.append(box((-x + w, screen_low, screen_z), (x - w, under - 0.02, screen_z + 0.015), metal))
        return parts, "none"
    return parts, "c2"


def _round(rng):
    """A round top on a pedestal (disc, 3 or 4 feet) or on four legs."""
    coffee = rng.random() < 0.35
    diameter = rng.uniform(0.45, 0.9) if coffee else rng.uniform(0.6, 1.4)
    height = rng.uniform(0.38, 0.6) if coffee else rng.uniform(0.7, 0.78)
    color, metal, r = palette.board(rng), palette.metal(rng), diameter / 2
    thick = rng.uniform(0.018, 0.04)
    top = lathe(
        [(r - 0.004, height - thick), (r, height - thick + 0.004), (r, height - 0.004), (r - 0.004, height)],
        color,
    )
    under = height - thick
    style = rng.choice(["disc", "star", "legs"], p=[0.45, 0.25, 0.3])
    if style == "legs":
        inset = r * rng.uniform(0.6, 0.68)
        size = rng.uniform(0.03, 0.06)
        return [top, *corner_legs(inset, inset, under + 0.002, size, color, round_legs=True, taper=0.7)], "c4"
    column = rng.uniform(0.025, 0.06)
    pole = lathe([(column, 0.01), (column, under + 0.002)], metal)
    if style == "disc":
        base = r * rng.uniform(0.5, 0.72)
        foot = lathe([(base, 0), (base, 0.012), (column * 1.4, 0.05), (column * 1.1, 0.09)], metal)
        return [top, pole, foot], "cinf"
    reach = r * rng.uniform(0.65, 0.85)
    feet = [
        rod((0, 0.07, 0), (reach * np.cos(a), 0.02, reach * np.sin(a)), 0.028, metal, end_radius=0.02)
        for a in np.arange(4) * np.pi / 2
    ]
    return [top, pole, *feet], "c4"


def _trestle(rng):
    """A plank on two trestles or on bent-tube sledges."""
    width, depth, height = rng.uniform(1.2, 2.2), rng.uniform(0.6, 0.95), rng.uniform(0.71, 0.78)
    color, leg_color = palette.board(rng), palette.board(rng)
    top, under = _top(rng, width, depth, height, color)
    x, half = width / 2 - rng.uniform(0.1, 0.3), depth / 2 - 0.06
    radius = rng.uniform(0.014, 0.028)
    if rng.random() < 0.5:
        loop = [(x, under, -half), (x, radius, -half), (x, radius, half), (x, under, half)]
        return [top, *both_sides(tube(loop, radius, leg_color))], "c2"
    parts = [top]
    for s in (1, -1):
        for spread in (0.16, -0.16):
            parts += [
                rod(
                    (s * x + spread, 0, z * 1.0),
                    (s * x + 0.02 * np.sign(spread), under, z * 0.9),
                    radius,
                    leg_color,
                )
                for z in (half, -half)
            ]
            parts.append(
                rod(
                    (s * x + spread * 0.6, under * 0.4, -half * 0.96),
                    (s * x + spread * 0.6, under * 0.4, half * 0.96),
                    radius * 0.8,
                    leg_color,
                )
            )
    return parts, "c2"
