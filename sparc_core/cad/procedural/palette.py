"""Colours of the procedural furniture, drawn from families that real furniture comes in."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural.parts import Color

WOODS = ((196, 154, 108), (222, 190, 150), (150, 104, 66), (96, 64, 42), (60, 42, 32), (235, 215, 180))
METALS = ((180, 182, 186), (120, 122, 126), (60, 62, 66), (30, 30, 33), (220, 220, 222))
PLASTICS = ((25, 25, 28), (45, 47, 52), (90, 92, 96), (200, 200, 202), (240, 240, 240))
FABRICS = (
    (28, 28, 32), (60, 62, 70), (110, 112, 118), (170, 165, 155), (205, 195, 178), (48, 66, 96),
    (92, 40, 42), (56, 84, 62), (140, 100, 64), (40, 90, 140), (190, 80, 50), (225, 222, 215),
)  # fmt: skip
PAINTS = ((242, 242, 240), (225, 222, 214), (60, 62, 66), (30, 30, 32), (150, 160, 165), (120, 140, 120))


def _vary(rng: np.random.Generator, colors: tuple[Color, ...], spread: float) -> Color:
    base = np.array(colors[rng.integers(len(colors))], dtype=np.float64)
    varied = base * rng.uniform(1 - spread, 1 + spread) + rng.normal(0, 5, 3)
    r, g, b = np.clip(np.round(varied), 8, 250).astype(int).tolist()
    return r, g, b


def wood(rng: np.random.Generator) -> Color:
    """A wood."""
    return _vary(rng, WOODS, 0.12)


def metal(rng: np.random.Generator) -> Color:
    """Steel, chrome or painted metal."""
    return _vary(rng, METALS, 0.08)


def plastic(rng: np.random.Generator) -> Color:
    """Mostly black, grey or white plastic."""
    return _vary(rng, PLASTICS, 0.1)


def fabric(rng: np.random.Generator) -> Color:
    """Upholstery."""
    return _vary(rng, FABRICS, 0.15)


def board(rng: np.random.Generator) -> Color:
    """Furniture board: wood or paint."""
    return wood(rng) if rng.random() < 0.55 else _vary(rng, PAINTS, 0.06)


def any_color(rng: np.random.Generator) -> Color:
    """Anything: book spines, toys."""
    r, g, b = rng.integers(20, 240, 3).tolist()
    return r, g, b
