"""Procedural beds: frame, headboard (at −z), mattress, pillows; bunk beds. The foot end faces +z."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import Part, box, corner_legs, curved_panel, rod, slab


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One bed. The headboard and the pillows define the orientation: symmetry is none."""
    kind = rng.choice(["single", "double", "bunk"], p=[0.35, 0.55, 0.1])
    width = rng.uniform(0.8, 1.05) if kind != "double" else rng.uniform(1.3, 2.0)
    length = rng.uniform(1.88, 2.12)
    return (_bunk(rng, width, length) if kind == "bunk" else _bed(rng, width, length)), "none"


def _mattress(rng, width: float, length: float, y: float, thick: float) -> list[Part]:
    """Mattress, pillows at the head end and, mostly, a blanket over the rest; top of the base at `y`."""
    color = palette.fabric(rng) if rng.random() < 0.3 else (236, 234, 228)
    half_w, half_l = width / 2, length / 2
    parts = [slab((-half_w, y, -half_l), (half_w, y + thick, half_l), color, radius=0.05, bevel=0.03)]
    count = 1 if width < 1.2 else 2
    size = min(0.7, width / count - 0.08)
    pillow = palette.fabric(rng) if rng.random() < 0.4 else (240, 238, 232)
    for i in range(count):
        x = (i - (count - 1) / 2) * width / count
        low = (x - size / 2, y + thick - 0.02, -half_l + 0.06)
        high = (x + size / 2, y + thick + 0.11, -half_l + 0.06 + rng.uniform(0.32, 0.45))
        parts.append(slab(low, high, pillow, radius=0.08, bevel=0.055))
    if rng.random() < 0.7:
        grow = 0.012
        start = -half_l + rng.uniform(0.5, 0.9)
        low, high = (
            (-half_w - grow, y + thick * 0.25, start),
            (half_w + grow, y + thick + 0.03, half_l + grow),
        )
        parts.append(slab(low, high, palette.fabric(rng), radius=0.05, bevel=0.03))
    return parts


def _bed(rng: np.random.Generator, width: float, length: float) -> list[Part]:
    color = palette.wood(rng) if rng.random() < 0.6 else palette.fabric(rng)
    top, thick = rng.uniform(0.2, 0.36), rng.uniform(0.15, 0.28)
    half_w, half_l = width / 2 + 0.03, length / 2 + 0.02
    parts = _mattress(rng, width, length, top - 0.03, thick)
    clearance = rng.uniform(0.06, 0.16)
    parts.append(box((-half_w, clearance, -half_l), (half_w, top, half_l), color))
    if rng.random() < 0.75:
        parts += corner_legs(
            half_w - 0.06,
            half_l - 0.06,
            clearance + 0.005,
            rng.uniform(0.04, 0.08),
            color,
            round_legs=rng.random() < 0.4,
        )
    else:
        parts.append(
            box((-half_w + 0.05, 0, -half_l + 0.05), (half_w - 0.05, clearance + 0.005, half_l - 0.05), color)
        )
    parts += _headboard(rng, half_w, half_l, top + thick, color)
    if rng.random() < 0.3:
        low = (-half_w, 0.0, half_l - 0.001)
        parts.append(box(low, (half_w, top + rng.uniform(0.02, 0.2), half_l + 0.035), color))
    return parts


def _headboard(rng, half_w: float, half_l: float, mattress_top: float, color) -> list[Part]:
    height = mattress_top + rng.uniform(0.25, 0.75)
    thick = rng.uniform(0.03, 0.12)
    kind = rng.choice(["panel", "padded", "bars", "curved"], p=[0.35, 0.3, 0.2, 0.15])
    z0, z1 = -half_l - thick, -half_l + 0.002
    if kind == "panel":
        return [box((-half_w, 0.0, z0), (half_w, height, z1), color)]
    if kind == "padded":
        return [
            slab(
                (-half_w, 0.05, z0),
                (half_w, height, z1),
                palette.fabric(rng),
                radius=0.06,
                bevel=0.03,
                axis="z",
            )
        ]
    if kind == "curved":
        board = curved_panel(2 * half_w, height - 0.05, thick, color, wrap=0.05)
        return [board.moved((0, 0.05, z1 - 0.001))]
    bars = [
        rod((x, 0, z0 + thick / 2), (x, height, z0 + thick / 2), 0.025, color)
        for x in (-half_w + 0.03, half_w - 0.03)
    ]
    bars += [
        rod((-half_w, y, z0 + thick / 2), (half_w, y, z0 + thick / 2), 0.02, color)
        for y in (height - 0.03, mattress_top)
    ]
    for x in np.linspace(-half_w, half_w, max(4, round(2 * half_w / 0.13)))[1:-1]:
        bars.append(rod((x, mattress_top, z0 + thick / 2), (x, height - 0.03, z0 + thick / 2), 0.01, color))
    return bars


def _bunk(rng: np.random.Generator, width: float, length: float) -> list[Part]:
    """Two levels between four posts, guard rails above, a ladder at the foot end (+z)."""
    color = palette.wood(rng) if rng.random() < 0.6 else palette.metal(rng)
    height, post = rng.uniform(1.5, 1.8), rng.uniform(0.05, 0.09)
    half_w, half_l = width / 2 + post / 2 + 0.01, length / 2 + post / 2 + 0.01
    parts = corner_legs(half_w, half_l, height, post, color)
    rail = 0.022
    for y in (rng.uniform(0.2, 0.35), height - rng.uniform(0.35, 0.5)):
        parts.append(box((-width / 2, y, -length / 2), (width / 2, y + 0.05, length / 2), color))
        parts += [p for s in (1, -1) for p in (
            box((s * half_w - rail / 2, y - 0.03, -half_l), (s * half_w + rail / 2, y + 0.09, half_l), color),
            box((-half_w, y - 0.03, s * half_l - rail / 2), (half_w, y + 0.09, s * half_l + rail / 2), color),
        )]  # fmt: skip
        parts += _mattress(rng, width, length, y + 0.045, rng.uniform(0.1, 0.16))
    for y in (height - 0.1, height - 0.24):
        parts += [
            box((s * half_w - 0.01, y, -half_l), (s * half_w + 0.01, y + 0.07, half_l), color)
            for s in (1, -1)
        ]
        parts.append(box((-half_w, y, -half_l - 0.01), (half_w, y + 0.07, -half_l + 0.01), color))
    x0, x1, z = -half_w + 0.1, min(-half_w + 0.5, half_w - 0.1), half_l + 0.05
    parts += [rod((x, 0, z), (x, height - 0.05, z), 0.02, color) for x in (x0, x1)]
    parts += [rod((x0, y, z), (x1, y, z), 0.016, color) for y in np.arange(0.25, height - 0.2, 0.27)]
    return parts
