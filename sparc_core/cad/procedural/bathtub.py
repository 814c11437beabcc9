"""Procedural bathtubs: hollow basins, freestanding or boxed in.

The long side is x; taps stand at +x or behind.
"""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import Part, box, lathe, loft, raised, rod, rounded_rectangle, tube

WHITE = (240, 240, 238)


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One bathtub: its parts and its symmetry about y."""
    length, width, height = rng.uniform(1.3, 1.9), rng.uniform(0.68, 0.9), rng.uniform(0.45, 0.65)
    slope = rng.choice([0.0, rng.uniform(0.18, 0.3)])
    if rng.random() < 0.5:
        parts = _freestanding(rng, length, width, height, slope)
    else:
        parts = _boxed(rng, length, width, height, slope)
    if rng.random() < 0.6:
        parts += _tap(rng, length, width, height)
    # Taps and a panel on one side are fittings: the basin alone decides, as it does in estimate_symmetry.
    return parts, "c2" if slope == 0.0 else "none"


def _basin(rings, slope: float, floor_y: float, color) -> Part:
    """Rings outside up, then inside down; `slope` leans the head end (−x) of the basin inwards."""
    rings = np.stack(rings)
    head = rings[-1][:, 0] < 0
    rings[-2][head, 0] *= 1 - slope * 1.4
    rings[-1][head, 0] *= 1 - slope * 2
    rings[-1][:, 1] = floor_y
    return loft(rings, color)


def _freestanding(rng, length, width, height, slope):
    color = WHITE if rng.random() < 0.8 else palette.any_color(rng)
    wall, rim = rng.uniform(0.03, 0.06), rng.uniform(0.015, 0.04)
    shrink = rng.uniform(0.6, 0.9)
    lift = rng.choice([0.0, rng.uniform(0.08, 0.16)])
    corner = width / 2 * rng.uniform(0.6, 1.0)

    def ring(grow: float, share: float, y: float) -> np.ndarray:
        w, d = length * share + 2 * grow, width * share + 2 * grow
        return raised(rounded_rectangle(w, d, corner * share + grow, segments=8), y)

    middle = (1 + shrink) / 2
    rings = [
        ring(-wall, shrink, lift),
        ring(0, shrink + 0.05, lift + 0.04),
        ring(0, middle + 0.06, lift + 0.5 * (height - lift)),
        ring(0, 1.0, height - rim),
        ring(rim * 0.5, 1.0, height - rim / 2),
        ring(0, 1.0, height),
        ring(-wall, 1.0, height),
        ring(-wall, middle, lift + 0.45 * (height - lift)),
        ring(-2 * wall, shrink, lift + 0.05),
    ]
    parts = [_basin(rings, slope, lift + 0.06, color)]
    if lift > 0:
        metal = palette.metal(rng)
        x, z = length * shrink * 0.36, width * shrink * 0.3
        for sx in (1, -1):
            for sz in (1, -1):
                foot = lathe(
                    [(0.03, 0), (0.045, 0.03), (0.025, lift * 0.6), (0.04, lift + 0.05)], metal, segments=12
                )
                parts.append(foot.moved((sx * x, 0, sz * z)))
    return parts


def _boxed(rng, length, width, height, slope):
    rim = rng.uniform(0.04, 0.1)

    def ring(w: float, d: float, r: float, y: float) -> np.ndarray:
        return raised(rounded_rectangle(w, d, r, segments=8), y)

    inner_l, inner_w = length - 2 * rim, width - 2 * rim
    corner = rng.uniform(0.08, inner_w / 2 * 0.95)
    taper = rng.uniform(0.72, 0.9)
    lip = 0.012
    rings = [
        ring(length, width, 0.005, 0.0),
        ring(length, width, 0.005, height - 0.04),
        ring(length + 2 * lip, width + 2 * lip, 0.02, height - 0.038),
        ring(length + 2 * lip, width + 2 * lip, 0.02, height - 0.006),
        ring(length + 2 * lip - 0.012, width + 2 * lip - 0.012, 0.016, height),
        ring(inner_l, inner_w, corner, height),
        ring(inner_l - 0.02, inner_w - 0.02, corner, height - 0.015),
        ring(inner_l * (taper + 0.04), inner_w * (taper + 0.04), corner, 0.2),
        ring(inner_l * taper * 0.92, inner_w * taper * 0.88, corner, 0.12),
    ]
    parts = [_basin(rings, slope, 0.12, WHITE)]
    if rng.random() < 0.4:  # a tiled or panelled front
        panel = palette.board(rng)
        parts.append(
            box(
                (-length / 2 + 0.01, 0.02, width / 2 - 0.01),
                (length / 2 - 0.01, height - 0.05, width / 2 + 0.011),
                panel,
            )
        )
    return parts


def _tap(rng, length, width, height) -> list[Part]:
    """A spout and two handles on the rim: at the foot end, or in the middle of the back."""
    metal = (196, 198, 202)
    rise, reach = rng.uniform(0.1, 0.22), rng.uniform(0.1, 0.16)
    spout = tube(
        [(0, -0.03, 0), (0, rise, 0), (0, rise + 0.03, 0.04), (0, rise, reach), (0, rise - 0.04, reach)],
        0.016,
        metal,
    )
    handles = [rod((sx * 0.09, -0.03, 0), (sx * 0.09, 0.06, 0), 0.02, metal) for sx in (1, -1)]
    if rng.random() < 0.5:
        return [p.turned_y(-np.pi / 2).moved((length / 2 - 0.025, height, 0)) for p in (spout, *handles)]
    return [p.moved((0, height, -width / 2 + 0.025)) for p in (spout, *handles)]
