"""Procedural swivel office chairs: star base, castors, gas lift, seat, back with a gap, arm rests."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import (
    Part,
    both_sides,
    box,
    curved_panel,
    lathe,
    rod,
    slab,
    tapered_box,
    tube,
)


def build_office(rng: np.random.Generator) -> list[Part]:
    """One office chair, the sitter looking to +z."""
    width, depth = rng.uniform(0.44, 0.55), rng.uniform(0.42, 0.52)
    seat, thick = rng.uniform(0.42, 0.56), rng.uniform(0.045, 0.1)
    frame = palette.plastic(rng) if rng.random() < 0.7 else palette.metal(rng)
    cover = palette.fabric(rng)
    parts = _base(rng, seat - thick, frame)
    low, high = (-width / 2, seat - thick, -depth / 2), (width / 2, seat, depth / 2)
    parts.append(slab(low, high, cover, radius=rng.uniform(0.05, 0.14), bevel=thick * 0.35))
    plate = rng.uniform(0.1, 0.16)
    parts.append(box((-plate, seat - thick - 0.045, -plate), (plate, seat - thick + 0.004, plate), frame))
    parts += _back(rng, width, depth, seat, thick, frame, cover)
    if rng.random() < 0.62:
        parts += _arms(rng, width, depth, seat, thick, frame)
    return parts


def _base(rng: np.random.Generator, under: float, color) -> list[Part]:
    """Star feet with castors, and the gas lift up to the seat's underside."""
    count = 5 if rng.random() < 0.88 else 4
    reach, castor = rng.uniform(0.27, 0.35), rng.uniform(0.024, 0.032)
    start = rng.uniform(0, 2 * np.pi)
    metal = color if rng.random() < 0.6 else palette.metal(rng)
    hub = 2 * castor + rng.uniform(0.03, 0.05)
    parts = [
        lathe([(0.045, hub - 0.03), (0.045, hub + 0.03), (0.03, hub + 0.05)], metal, segments=16),
        rod((0, hub, 0), (0, under * 0.62, 0), 0.027, (40, 40, 42), segments=14),
        rod((0, under * 0.6, 0), (0, under - 0.02, 0), 0.016, (150, 150, 154), segments=12),
    ]
    for angle in start + np.arange(count) * 2 * np.pi / count:
        direction = np.array([np.cos(angle), 0.0, np.sin(angle)])
        tip = direction * reach + np.array([0, 2 * castor + 0.006, 0])
        parts.append(
            tube([direction * 0.02 + np.array([0, hub, 0]), tip], 0.024, metal, end_radius=0.015, segments=6)
        )
        side = np.array([-direction[2], 0.0, direction[0]])
        wheel = tip - np.array([0, castor + 0.006, 0])
        parts.append(rod(wheel - 0.022 * side, wheel + 0.022 * side, castor, (28, 28, 30), segments=12))
    return parts


def _back(rng, width, depth, seat, thick, frame, cover) -> list[Part]:
    """The back rest, its support from under the seat, and sometimes a head rest."""
    gap = rng.uniform(0.03, 0.18)
    height = rng.uniform(0.34, 0.52) if rng.random() < 0.55 else rng.uniform(0.52, 0.72)
    back_w, back_t = width * rng.uniform(0.8, 1.0), rng.uniform(0.025, 0.08)
    z = -depth / 2 + rng.uniform(0.0, 0.05)
    lean = -rng.uniform(0.05, 0.26)
    panel = curved_panel(
        back_w,
        height,
        back_t,
        cover,
        wrap=rng.uniform(0.0, 0.07),
        bulge=rng.uniform(0.0, 0.035),
        taper=rng.uniform(-0.05, 0.25),
    )
    upright = rod((0, -gap, -back_t - 0.012), (0, height * 0.55, -back_t - 0.008), 0.02, frame)
    parts = [panel, upright]
    if rng.random() < 0.22 and gap + height < 0.7:
        head = curved_panel(back_w * 0.6, 0.15, 0.045, cover, wrap=0.03)
        parts += [
            head.moved((0, height + 0.05, 0.01)),
            rod((0, height - 0.1, -back_t), (0, height + 0.1, -0.03), 0.012, frame),
        ]
    parts = [p.moved((0, seat + gap, z)).tilted_x(lean, (0, seat, z)) for p in parts]
    under = seat - thick - 0.025
    foot = np.array([0, -gap, -back_t - 0.012]) + np.array([0, seat + gap, z])
    parts.append(
        tube(
            [(0, under, -0.05), (0, under, foot[2] - 0.01), (0, foot[1] + 0.04, foot[2] - 0.005)],
            0.022,
            frame,
        )
    )
    return parts


def _arms(rng, width, depth, seat, thick, frame) -> list[Part]:
    """T-shaped or loop-shaped arm rests on both sides, joined under the seat."""
    x, y = width / 2 + rng.uniform(0.02, 0.06), seat + rng.uniform(0.16, 0.26)
    under, z = seat - thick + 0.01, rng.uniform(-0.06, 0.04)
    pad_w, pad_l, pad_t = rng.uniform(0.045, 0.09), rng.uniform(0.2, 0.28), rng.uniform(0.02, 0.04)
    pad = slab(
        (x - pad_w / 2, y - pad_t, z - pad_l / 2),
        (x + pad_w / 2, y, z + pad_l / 2),
        (34, 34, 36),
        radius=0.02,
    )
    if rng.random() < 0.6:
        post = tapered_box(
            (x, under - 0.02, z), (x, y - pad_t + 0.003, z), (0.03, 0.06), (0.025, 0.05), frame
        )
        joint = box((width * 0.2, under - 0.03, z - 0.03), (x + 0.012, under - 0.008, z + 0.03), frame)
        return both_sides(pad) + both_sides(post) + both_sides(joint)
    half = pad_l / 2 - 0.01
    loop = [
        (width * 0.25, under, z - half * 0.6),
        (x, under, z - half * 0.6),
        (x + 0.01, y - pad_t - 0.03, z - half),
        (x, y - pad_t, z - half + 0.03),
        (x, y - pad_t, z + half - 0.03),
        (x + 0.01, y - pad_t - 0.03, z + half),
        (x, under, z + half * 0.6),
        (width * 0.25, under, z + half * 0.6),
    ]
    return both_sides(pad) + both_sides(tube(loop, 0.013, frame))
