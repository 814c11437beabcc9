"""Procedural sofas: two and three seats, L-shapes, on legs or plinths. The sitter looks to +z."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import Part, corner_legs, slab


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One sofa: base, back, arms, seat and back cushions. Symmetry is none."""
    seats = int(rng.choice([2, 3, 4], p=[0.4, 0.5, 0.1]))
    seat_width, arm = rng.uniform(0.56, 0.78), rng.uniform(0.08, 0.26)
    has_arms = rng.random() < 0.9
    arm = arm if has_arms else 0.0
    inner = seats * seat_width
    width, depth = inner + 2 * arm, rng.uniform(0.78, 1.02)
    leg = rng.choice([rng.uniform(0.02, 0.05), rng.uniform(0.08, 0.18)])
    seat_top, back_top = rng.uniform(0.38, 0.48), rng.uniform(0.7, 0.98)
    arm_top = rng.uniform(seat_top + 0.08, min(seat_top + 0.26, back_top - 0.02))
    back_thick = rng.uniform(0.12, 0.25)
    color = palette.fabric(rng)
    cushion = color if rng.random() < 0.7 else palette.fabric(rng)
    bevel = rng.uniform(0.02, 0.06)
    half_w, half_d = width / 2, depth / 2
    parts = _body(rng, half_w, half_d, leg, seat_top, back_top, arm, arm_top, back_thick, color, bevel)
    chaise = rng.choice([-1, 0, 1], p=[0.12, 0.76, 0.12])
    reach = rng.uniform(0.55, 0.85) if chaise else 0.0
    parts += _cushions(rng, seats, inner, half_d, seat_top, back_top, back_thick, cushion, bevel)
    if chaise:
        x0 = -inner / 2 if chaise < 0 else inner / 2 - seat_width
        z0, z1 = half_d - 0.05, half_d + reach
        parts.append(
            slab((x0, leg, z0), (x0 + seat_width, seat_top - 0.12, z1), color, radius=0.04, bevel=0.02)
        )
        parts.append(
            slab(
                (x0, seat_top - 0.14, z0), (x0 + seat_width, seat_top, z1), cushion, radius=0.04, bevel=bevel
            )
        )
        foot_x = x0 + seat_width / 2
        legs = corner_legs(seat_width / 2 - 0.06, 0.02, leg + 0.01, 0.04, palette.wood(rng))
        parts += [p.moved((foot_x, 0, z1 - 0.1)) for p in legs]
    return parts, "none"


def _body(rng, half_w, half_d, leg, seat_top, back_top, arm, arm_top, back_thick, color, bevel) -> list[Part]:
    base_top = seat_top - 0.1
    parts = [
        slab(
            (-half_w + 0.01, leg, -half_d + 0.01),
            (half_w - 0.01, base_top, half_d - 0.01),
            color,
            radius=0.03,
            bevel=0.015,
        )
    ]
    back = slab(
        (-half_w + arm * 0.9, base_top - 0.05, -half_d),
        (half_w - arm * 0.9, back_top, -half_d + back_thick),
        color,
        radius=0.04,
        bevel=bevel,
        axis="z",
    )
    lean = -rng.uniform(0.0, 0.14)
    parts.append(back.tilted_x(lean, (0, base_top, -half_d + back_thick)))
    if arm > 0:
        for s in (1, -1):
            x0, x1 = sorted((s * half_w, s * (half_w - arm)))
            parts.append(
                slab(
                    (x0, leg + 0.002, -half_d),
                    (x1, arm_top, half_d),
                    color,
                    radius=min(0.06, arm / 3),
                    bevel=bevel,
                    axis="z",
                )
            )
    legs_color = palette.wood(rng) if rng.random() < 0.6 else palette.metal(rng)
    parts += corner_legs(
        half_w - 0.08,
        half_d - 0.08,
        leg + 0.02,
        rng.uniform(0.03, 0.06),
        legs_color,
        round_legs=rng.random() < 0.5,
        taper=rng.uniform(0.5, 1),
    )
    return parts


def _cushions(rng, seats, inner, half_d, seat_top, back_top, back_thick, color, bevel) -> list[Part]:
    """Seat cushions in a row, back cushions leaning on the back (sometimes none), loose pillows."""
    count = seats if rng.random() < 0.75 else 1
    size = inner / count
    front = half_d + rng.uniform(-0.01, 0.03)
    back_z = -half_d + back_thick
    with_backs = rng.random() < 0.75
    thick = rng.uniform(0.1, 0.18)
    parts = []
    for i in range(count):
        x0 = -inner / 2 + i * size
        parts.append(
            slab(
                (x0 + 0.004, seat_top - 0.13, back_z - 0.03),
                (x0 + size - 0.004, seat_top, front),
                color,
                radius=0.05,
                bevel=bevel,
            )
        )
        if with_backs:
            low, high = (
                (x0 + 0.01, seat_top - 0.02, back_z - 0.03),
                (x0 + size - 0.01, back_top + rng.uniform(-0.08, 0.06), back_z + thick),
            )
            parts.append(
                slab(low, high, color, radius=0.06, bevel=max(bevel, 0.04), axis="z").tilted_x(
                    -0.12, (0, seat_top, back_z)
                )
            )
    if rng.random() < 0.4:
        pillow = palette.fabric(rng)
        for s in (1, -1):
            x, z = s * (inner / 2 - 0.24), back_z + (thick if with_backs else 0.0) + 0.06
            p = slab(
                (x - 0.2, seat_top - 0.01, z - 0.06),
                (x + 0.2, seat_top + 0.37, z + 0.06),
                pillow,
                radius=0.05,
                bevel=0.055,
                axis="z",
            )
            parts.append(p.tilted_x(-0.3, (x, seat_top, z)).turned_y(-s * 0.3, (x, 0, z)))
    return parts
