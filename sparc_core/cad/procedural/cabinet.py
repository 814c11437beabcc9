"""Procedural cabinets: cupboards, chests of drawers, wardrobes, nightstands. Doors and drawers face +z."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import Part, box, corner_legs, rod

#: kind: probability, width, height, depth ranges in metres
KINDS = {
    "sideboard": (0.25, (0.8, 2.0), (0.5, 0.95), (0.35, 0.55)),
    "chest": (0.25, (0.4, 1.2), (0.6, 1.3), (0.38, 0.55)),
    "wardrobe": (0.2, (0.7, 2.2), (1.6, 2.3), (0.45, 0.65)),
    "nightstand": (0.15, (0.35, 0.6), (0.4, 0.7), (0.3, 0.5)),
    "pedestal": (0.15, (0.38, 0.5), (0.5, 0.72), (0.45, 0.7)),
}


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One cabinet. Fronts, handles and the recessed plinth make +z its front."""
    kind = rng.choice(list(KINDS), p=[k[0] for k in KINDS.values()])
    width, height, depth = (rng.uniform(*span) for span in KINDS[kind][1:])
    color = palette.board(rng)
    base = _base_height(rng, kind)
    parts = _base(rng, base, width, depth, color)
    thick = rng.uniform(0.016, 0.03)
    half_w, half_d = width / 2, depth / 2
    carcass_front = half_d - rng.uniform(0.018, 0.03)
    over = rng.choice([0.0, rng.uniform(0.008, 0.025)])
    low, high = base, height - thick
    top = box((-half_w - over, high, -half_d), (half_w + over, height, half_d + over + 0.006), color)
    front_color = color if rng.random() < 0.55 else palette.board(rng)
    niche = kind in ("sideboard", "nightstand") and rng.random() < 0.45
    parts += [top] + _carcass(low, high, half_w, half_d, carcass_front, thick, color)
    cells = _cells(rng, kind, low + 0.004, high - 0.003, half_w)
    opened = int(rng.integers(len(cells))) if niche else -1
    handle = _handle_style(rng)
    for i, (x0, x1, y0, y1, is_door) in enumerate(cells):
        if i == opened and len(cells) > 1:
            continue
        gap = 0.0025
        front = box((x0 + gap, y0 + gap, carcass_front - 0.004), (x1 - gap, y1 - gap, half_d), front_color)
        parts += [front] + _handle(handle, x0, x1, y0, y1, half_d, is_door, hinge_left=bool(i % 2 == 0))
    return parts, "none"


def _base_height(rng: np.random.Generator, kind: str) -> float:
    return float({"pedestal": rng.uniform(0.05, 0.08)}.get(kind, rng.uniform(0.04, 0.18)))


def _base(rng: np.random.Generator, base: float, width: float, depth: float, color) -> list[Part]:
    """A plinth set back at the front, or four legs."""
    if base < 0.09 or rng.random() < 0.3:
        low, high = (
            (-width / 2 + 0.01, 0, -depth / 2 + 0.005),
            (width / 2 - 0.01, base + 0.004, depth / 2 - 0.06),
        )
        return [box(low, high, color)]
    size = rng.uniform(0.03, 0.06)
    leg_color = color if rng.random() < 0.5 else palette.metal(rng)
    inset = size / 2 + rng.uniform(0.0, 0.04)
    return corner_legs(
        width / 2 - inset, depth / 2 - inset, base + 0.004, size, leg_color,
        round_legs=rng.random() < 0.5, taper=rng.uniform(0.5, 1.0),
    )  # fmt: skip


def _carcass(low, high, half_w, half_d, front, thick, color) -> list[Part]:
    """Two sides, bottom, back and a middle shelf; open at the front, which the fronts close."""
    return [
        box((-half_w, low, -half_d + 0.001), (-half_w + thick, high, front), color),
        box((half_w - thick, low, -half_d + 0.001), (half_w, high, front), color),
        box(
            (-half_w + thick, low + 0.001, -half_d + 0.002),
            (half_w - thick, low + thick, front - 0.001),
            color,
        ),
        box((-half_w + thick, low + thick, -half_d + 0.002), (half_w - thick, high, -half_d + 0.012), color),
        box(
            (-half_w + thick, (low + high) / 2, -half_d + 0.012),
            (half_w - thick, (low + high) / 2 + thick, front - 0.02),
            color,
        ),
    ]


def _cells(rng, kind: str, low: float, high: float, half_w: float) -> list[tuple]:
    """The fronts as (x0, x1, y0, y1, is_door), tiling the face of the cabinet."""
    target = {"wardrobe": 0.5, "sideboard": 0.55, "chest": 0.9, "nightstand": 0.6, "pedestal": 0.6}[kind]
    columns = max(1, round(2 * half_w / (target * rng.uniform(0.8, 1.3))))
    edges = np.linspace(-half_w, half_w, columns + 1)
    mixed = rng.random() < 0.4
    cells = []
    for x0, x1 in zip(edges[:-1], edges[1:], strict=True):
        doors = kind == "wardrobe" or (kind == "sideboard" and rng.random() < 0.7)
        doors = doors if not mixed else rng.random() < 0.5
        split = low
        if doors and kind == "wardrobe" and mixed:
            split = low + rng.uniform(0.2, 0.35) * (high - low)
        if doors:
            cells.append((x0, x1, split, high, True))
        drawers_top = split if doors else high
        if drawers_top - low > 0.12:
            count = max(1, round((drawers_top - low) / rng.uniform(0.16, 0.3)))
            rows = np.linspace(low, drawers_top, count + 1)
            cells += [(x0, x1, a, b, False) for a, b in zip(rows[:-1], rows[1:], strict=True)]
    return cells


def _handle_style(rng: np.random.Generator) -> dict:
    return {
        "kind": rng.choice(["bar", "knob", "edge"], p=[0.55, 0.3, 0.15]),
        "length": rng.uniform(0.1, 0.3),
        "out": rng.uniform(0.022, 0.04),
        "color": palette.metal(rng),
    }


def _handle(style: dict, x0, x1, y0, y1, z, is_door: bool, hinge_left: bool) -> list[Part]:
    """A bar, a knob or an edge grip on one front."""
    color, out = style["color"], style["out"]
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    if is_door:
        cx, cy = (x1 - 0.045 if hinge_left else x0 + 0.045), (y0 + y1) / 2
    if style["kind"] == "knob":
        return [rod((cx, cy, z - 0.004), (cx, cy, z + out), 0.009, color, end_radius=0.018)]
    if style["kind"] == "edge" and not is_door:
        return [box((x0 + 0.02, y1 - 0.03, z - 0.002), (x1 - 0.02, y1 - 0.012, z + out * 0.7), color)]
    half = style["length"] / 2
    half = min(half, 0.4 * ((y1 - y0) if is_door else (x1 - x0)))
    if is_door:
        low, high = (cx - 0.007, cy - half, z + out - 0.012), (cx + 0.007, cy + half, z + out)
        posts = [
            rod(
                (cx, cy + s * half * 0.85, z - 0.004),
                (cx, cy + s * half * 0.85, z + out - 0.004),
                0.005,
                color,
            )
            for s in (1, -1)
        ]
    else:
        low, high = (cx - half, cy - 0.007, z + out - 0.012), (cx + half, cy + 0.007, z + out)
        posts = [
            rod(
                (cx + s * half * 0.85, cy, z - 0.004),
                (cx + s * half * 0.85, cy, z + out - 0.004),
                0.005,
                color,
            )
            for s in (1, -1)
        ]
    return [box(low, high, color), *posts]
