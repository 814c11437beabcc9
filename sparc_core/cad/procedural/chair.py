"""Procedural chairs: four-legged, swivel office, cantilever, armchairs, low-backed stools.

The sitter looks to +z.
"""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.office_chair import build_office
from sparc_core.cad.procedural.parts import (
    Part,
    both_sides,
    box,
    corner_legs,
    curved_panel,
    lathe,
    rod,
    slab,
    tapered_box,
    tube,
)


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One chair. The back rest makes +z its front: symmetry is none."""
    builders = (_four_legs, build_office, _cantilever, _armchair, _stool)
    index = rng.choice(len(builders), p=[0.32, 0.36, 0.12, 0.12, 0.08])
    return builders[index](rng), "none"


def _four_legs(rng: np.random.Generator) -> list[Part]:
    width, depth = rng.uniform(0.39, 0.52), rng.uniform(0.38, 0.5)
    seat, thick = rng.uniform(0.42, 0.49), rng.uniform(0.02, 0.07)
    frame = palette.wood(rng) if rng.random() < 0.65 else palette.metal(rng)
    padded = rng.random() < 0.45
    cover = palette.fabric(rng) if padded else frame
    size = rng.uniform(0.025, 0.045)
    splay = rng.choice([0.0, rng.uniform(0.01, 0.06)])
    inset = size / 2 + 0.004
    parts = corner_legs(
        width / 2 - inset, depth / 2 - inset, seat - thick + 0.003, size, frame,
        round_legs=rng.random() < 0.45, taper=rng.uniform(0.55, 1.0), splay=splay,
    )  # fmt: skip
    bevel = min(0.02, thick / 3) if padded else 0.0
    parts.append(
        slab(
            (-width / 2, seat - thick, -depth / 2),
            (width / 2, seat, depth / 2),
            cover,
            radius=rng.uniform(0.005, 0.08),
            bevel=bevel,
        )
    )
    if rng.random() < 0.4:
        y = seat * rng.uniform(0.25, 0.5)
        parts += both_sides(
            box(
                (width / 2 - size, y, -depth / 2 + inset),
                (width / 2 - size + 0.018, y + 0.025, depth / 2 - inset),
                frame,
            )
        )
    top, lean = rng.uniform(0.76, 1.04), -rng.uniform(0.02, 0.24)
    parts += _back(rng, width, depth, seat, top, lean, size, frame, cover)
    if rng.random() < 0.22:
        parts += _wooden_arms(rng, width, depth, seat, size, frame)
    return parts


def _back(rng, width, depth, seat, top, lean, size, frame, cover) -> list[Part]:
    """A back rest on two posts, leaning by `lean` about the rear edge of the seat."""
    kind = rng.choice(["panel", "spindles", "ladder", "shell"], p=[0.3, 0.2, 0.25, 0.25])
    z, half = -depth / 2 + size / 2, width / 2
    height = top - seat
    if kind == "shell":
        gap = rng.choice([0.0, rng.uniform(0.03, 0.12)])
        shell = curved_panel(
            width,
            height - gap,
            rng.uniform(0.015, 0.05),
            cover,
            wrap=rng.uniform(0.0, 0.07),
            taper=rng.uniform(0, 0.15),
        )
        parts = [shell.moved((0, seat + gap, z))]
        if gap > 0:
            parts += both_sides(
                rod(
                    (half * 0.6, seat - 0.03, z - 0.01),
                    (half * 0.6, seat + gap + 0.08, z - 0.01),
                    0.011,
                    frame,
                )
            )
        return [p.tilted_x(lean, (0, seat, z)) for p in parts]
    posts = both_sides(box((half - size, seat - 0.03, z - size / 2), (half, top, z + size / 2), frame))
    inner = half - size + 0.002
    bar = size * 0.3
    if kind == "panel":
        low = seat + height * rng.uniform(0.05, 0.45)
        filling = [box((-inner, low, z - bar), (inner, top - 0.005, z + bar), cover)]
    elif kind == "ladder":
        tall = rng.uniform(0.035, 0.08)
        levels = np.linspace(seat + height * 0.3, top - tall, int(rng.integers(2, 5)))
        filling = [box((-inner, y, z - bar), (inner, y + tall, z + bar), frame) for y in levels]
    else:
        rail = rng.uniform(0.04, 0.08)
        filling = [
            box((-inner, y, z - bar), (inner, y + rail, z + bar), frame) for y in (seat + 0.08, top - rail)
        ]
        xs = np.linspace(-inner, inner, int(rng.integers(5, 9)))[1:-1]
        filling += [rod((x, seat + 0.1, z), (x, top - 0.02, z), 0.009, frame, segments=6) for x in xs]
    return [p.tilted_x(lean, (0, seat, z)) for p in posts + filling]


def _wooden_arms(rng, width, depth, seat, size, frame) -> list[Part]:
    y, x = seat + rng.uniform(0.17, 0.25), width / 2 - 0.012
    arm = box((x, y, -depth / 2 - 0.02), (x + 0.045, y + 0.025, depth * 0.35), frame)
    post = box((x + 0.004, seat - 0.04, depth * 0.2), (x + 0.034, y + 0.002, depth * 0.2 + 0.03), frame)
    return both_sides(arm) + both_sides(post)


def _cantilever(rng: np.random.Generator) -> list[Part]:
    """Bent tube: floor runners, front uprights, seat, back; nothing under the rear of the seat."""
    width, depth = rng.uniform(0.43, 0.54), rng.uniform(0.42, 0.5)
    seat, top = rng.uniform(0.43, 0.48), rng.uniform(0.78, 0.95)
    radius, metal, cover = rng.uniform(0.01, 0.014), palette.metal(rng), palette.fabric(rng)
    x, zf, zb = width / 2, depth / 2, -depth / 2
    lean = rng.uniform(0.03, 0.12)
    path = [
        (x, top - 0.05, zb - lean),
        (x, seat + 0.02, zb),
        (x, seat - 0.02, zb + 0.05),
        (x, seat - 0.02, zf - 0.04),
        (x, seat - 0.06, zf),
        (x, radius + 0.05, zf - 0.02),
        (x, radius, zf - 0.06),
        (x, radius, zb + 0.02),
    ]
    parts = both_sides(tube(path, radius, metal))
    parts.append(rod((-x, radius, zb + 0.02), (x, radius, zb + 0.02), radius, metal))
    thick = rng.uniform(0.02, 0.05)
    low, high = (-x + 0.005, seat - 0.025, zb + 0.03), (x - 0.005, seat - 0.025 + thick, zf - 0.01)
    parts.append(slab(low, high, cover, radius=0.03, bevel=thick / 4))
    low = seat + rng.uniform(0.08, 0.22)
    back = curved_panel(width, top - low, rng.uniform(0.015, 0.035), cover, wrap=rng.uniform(0, 0.04))
    share = (low - seat) / (top - 0.05 - seat)
    parts.append(
        back.tilted_x(-np.arctan2(lean, top - seat), (0, 0, 0)).moved((0, low, zb - lean * share + 0.015))
    )
    if rng.random() < 0.45:
        y = seat + rng.uniform(0.19, 0.24)
        path = [
            (x, y, zb - lean * 0.5),
            (x, y, zf - 0.08),
            (x, y - 0.03, zf - 0.03),
            (x, seat - 0.04, zf - 0.01),
        ]
        pad = ((x - 0.022, y + radius * 0.5, zb + 0.06), (x + 0.022, y + radius + 0.014, zf - 0.1))
        parts += both_sides(tube(path, radius, metal)) + both_sides(box(*pad, palette.plastic(rng)))
    return parts


def _armchair(rng: np.random.Generator) -> list[Part]:
    """An upholstered easy chair."""
    inner, arm, depth = rng.uniform(0.46, 0.6), rng.uniform(0.07, 0.2), rng.uniform(0.68, 0.9)
    seat, top, leg = rng.uniform(0.38, 0.46), rng.uniform(0.72, 1.05), rng.uniform(0.05, 0.18)
    color, bevel = palette.fabric(rng), rng.uniform(0.02, 0.05)
    half_w, half_d, thick = inner / 2 + arm, depth / 2, rng.uniform(0.12, 0.2)
    arm_top = seat + rng.uniform(0.1, 0.24)
    back = slab(
        (-half_w + arm * 0.6, leg + 0.05, -half_d),
        (half_w - arm * 0.6, top, -half_d + thick),
        color,
        radius=0.08,
        bevel=bevel,
        axis="z",
    )
    parts = [
        slab(
            (-half_w + 0.01, leg, -half_d + 0.01),
            (half_w - 0.01, seat - 0.1, half_d - 0.02),
            color,
            radius=0.04,
            bevel=0.015,
        ),
        back.tilted_x(-rng.uniform(0.05, 0.22), (0, seat, -half_d + thick)),
        slab(
            (-inner / 2 + 0.003, seat - 0.13, -half_d + thick - 0.02),
            (inner / 2 - 0.003, seat, half_d),
            color,
            radius=0.05,
            bevel=bevel,
        ),
    ]
    arm_part = slab(
        (inner / 2, leg + 0.002, -half_d + 0.02),
        (half_w, arm_top, half_d - 0.03),
        color,
        radius=0.05,
        bevel=bevel,
    )
    parts += both_sides(arm_part)
    parts += corner_legs(
        half_w - 0.08,
        half_d - 0.09,
        leg + 0.02,
        0.04,
        palette.wood(rng),
        round_legs=True,
        taper=0.6,
        splay=rng.uniform(0, 0.03),
    )
    return parts


def _stool(rng: np.random.Generator) -> list[Part]:
    """A stool, often of bar height, with a low back."""
    radius, seat, back = rng.uniform(0.17, 0.22), rng.uniform(0.45, 0.78), rng.uniform(0.12, 0.28)
    frame, cover, thick = palette.metal(rng), palette.fabric(rng), rng.uniform(0.025, 0.06)
    parts = [
        lathe(
            [
                (radius - 0.01, seat - thick),
                (radius, seat - thick + 0.01),
                (radius, seat - 0.012),
                (radius - 0.02, seat),
            ],
            cover,
        )
    ]
    inset, splay = radius * 0.62, rng.uniform(0.03, 0.09)
    parts += corner_legs(inset, inset, seat - thick + 0.004, 0.028, frame, round_legs=True, splay=splay)
    y = seat * 0.35
    ring = inset + splay * (1 - y / seat)
    for s in (1, -1):
        parts.append(rod((-ring, y, s * ring), (ring, y, s * ring), 0.009, frame))
        parts.append(rod((s * ring, y + 0.02, -ring), (s * ring, y + 0.02, ring), 0.009, frame))
    panel = curved_panel(radius * 1.9, back * 0.7, 0.025, cover, wrap=radius * 0.5)
    parts.append(panel.moved((0, seat + back * 0.3, -radius * 0.95)))
    x, z = radius * 0.5, -radius * 0.86
    parts += both_sides(
        tapered_box(
            (x, seat - thick, z), (x, seat + back * 0.6, z - 0.02), (0.03, 0.016), (0.03, 0.016), frame
        )
    )
    return parts
