"""Procedural bins: open waste baskets, bins with lids, pedal bins. Front (pedal, hinge opposite) is +z."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import Part, box, ellipse, lathe, loft, raised, rod, rounded_rectangle


def _vessel(ring, width: float, depth: float, height: float, taper: float, wall: float, color) -> Part:
    """An open tapered vessel; `ring(width, depth)` gives its section."""
    bottom, inner = (width * taper, depth * taper), (width * taper - 2 * wall, depth * taper - 2 * wall)
    return loft(
        np.stack(
            [
                raised(ring(*bottom), 0.0),
                raised(ring(width, depth), height - 0.02),
                raised(ring(width + 0.008, depth + 0.008), height - 0.018),  # rolled rim
                raised(ring(width + 0.008, depth + 0.008), height),
                raised(ring(width - 2 * wall, depth - 2 * wall), height),
                raised(ring(*inner), 0.012),
            ]
        ),
        color,
    )


def _lid(ring, width: float, depth: float, height: float, rise: float, color) -> Part:
    scales = ((1.02, 0.0), (1.03, 0.03), (0.9, 0.03 + 0.5 * rise), (0.45, 0.03 + rise))
    return loft(np.stack([raised(ring(width * s, depth * s), height + y) for s, y in scales]), color)


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One bin: its parts and its symmetry about y."""
    shape = rng.choice(["round", "square", "rectangle"], p=[0.45, 0.2, 0.35])
    width = rng.uniform(0.2, 0.42)
    depth = width if shape != "rectangle" else width * rng.uniform(0.55, 0.82)
    height = float(np.clip(width * rng.uniform(0.95, 1.9), 0.24, 0.8))
    radius = rng.uniform(0.01, 0.06)

    def ring(w: float, d: float) -> np.ndarray:
        return ellipse(w, d) if shape == "round" else rounded_rectangle(w, d, radius)

    color = palette.plastic(rng) if rng.random() < 0.7 else palette.any_color(rng)
    taper = rng.uniform(0.68, 1.0)
    parts = [_vessel(ring, width, depth, height, taper, rng.uniform(0.004, 0.01), color)]
    symmetry = {"round": "cinf", "square": "c4", "rectangle": "c2"}[shape]
    if rng.random() < 0.45:
        lid_color = color if rng.random() < 0.5 else palette.plastic(rng)
        parts.append(_lid(ring, width, depth, height, rng.uniform(0.0, 0.12), lid_color))
        if rng.random() < 0.5:
            parts += _pedal(width * taper, depth * taper, depth, height)
            symmetry = "none"
    if rng.random() < 0.2:
        foot = (width * taper / 2 + 0.006) if shape == "round" else None
        if foot is not None:
            parts.append(lathe([(foot, 0.0), (foot, 0.025)], palette.plastic(rng)))
    return parts, symmetry


def _pedal(bottom_width: float, bottom_depth: float, depth: float, height: float) -> list[Part]:
    """A pedal in front and a hinge block behind, large enough to define the front."""
    half = 0.28 * bottom_width
    z = bottom_depth / 2
    dark = (40, 40, 42)
    hinge_z = -depth / 2
    return [
        box((-half, 0.01, z - 0.03), (half, 0.03, z + 0.06), dark),
        box((-0.06, height - 0.05, hinge_z - 0.035), (0.06, height + 0.03, hinge_z + 0.01), dark),
        rod((-0.08, height, hinge_z - 0.02), (0.08, height, hinge_z - 0.02), 0.012, dark),
    ]
