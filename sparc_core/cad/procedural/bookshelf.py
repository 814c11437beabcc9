"""Procedural bookshelves: open boards with or without a back panel, with books. The open side is +z."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.procedural import palette
from sparc_core.cad.procedural.parts import Part, box

MAX_BOOKS = 60


def build(rng: np.random.Generator) -> tuple[list[Part], str]:
    """One bookshelf. Its back (panel, or cross brace and books set to the front) defines the front."""
    width, height, depth = rng.uniform(0.4, 1.8), rng.uniform(0.75, 2.2), rng.uniform(0.22, 0.42)
    if rng.random() < 0.3:
        height, width = rng.uniform(0.6, 1.2), rng.uniform(0.8, 1.9)
    thick = rng.uniform(0.016, 0.035)
    color = palette.board(rng)
    foot = rng.choice([0.0, rng.uniform(0.03, 0.12)])
    has_back = rng.random() < 0.65
    half_w, half_d = width / 2, depth / 2
    parts = [
        box((-half_w, 0, -half_d), (-half_w + thick, height, half_d), color),
        box((half_w - thick, 0, -half_d), (half_w, height, half_d), color),
    ]
    inner = (-half_w + thick, half_w - thick)
    levels = _levels(rng, foot, height - thick, thick)
    for y in levels:
        parts.append(box((inner[0], y, -half_d + 0.006), (inner[1], y + thick, half_d - 0.003), color))
    if has_back:
        back = color if rng.random() < 0.6 else palette.board(rng)
        parts.append(
            box((inner[0], foot, -half_d + 0.001), (inner[1], height - 0.002, -half_d + 0.007), back)
        )
    else:
        parts += _braces(rng, inner, height, half_d, color)
    compartments = _divide(rng, levels, inner, thick, depth, color, parts)
    parts += _books(rng, compartments, half_d, must_fill=not has_back)
    return parts, "none"


def _levels(rng: np.random.Generator, low: float, high: float, thick: float) -> list[float]:
    """Heights of the boards, bottom and top included, evenly or irregularly spaced."""
    count = max(1, round((high - low) / rng.uniform(0.26, 0.42)))
    gaps = np.ones(count)
    if rng.random() < 0.4:
        gaps = rng.uniform(0.65, 1.4, count)
    return (low + np.concatenate([[0], np.cumsum(gaps) / gaps.sum()]) * (high - low)).tolist()


def _braces(rng: np.random.Generator, inner, height: float, half_d: float, color) -> list[Part]:
    """Rear rails of an open shelf: what tells its back from its front."""
    tall = rng.uniform(0.06, 0.12)
    return [
        box((inner[0], y, -half_d + 0.001), (inner[1], y + tall, -half_d + 0.016), color)
        for y in (0.1 * height, 0.78 * height)
    ]


def _divide(rng, levels, inner, thick, depth, color, parts) -> list[tuple[float, float, float, float]]:
    """Adds upright dividers to `parts` and returns the compartments as (x0, x1, y0, y1)."""
    width = inner[1] - inner[0]
    columns = max(1, round(width / rng.uniform(0.35, 0.9)))
    irregular = rng.random() < 0.35
    compartments = []
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        n = columns if not irregular else int(rng.integers(1, columns + 2))
        cuts = np.linspace(inner[0], inner[1], n + 1)
        if irregular:
            cuts[1:-1] += rng.uniform(-0.2, 0.2, n - 1) * width / n
        for x in cuts[1:-1]:
            parts.append(
                box(
                    (x - thick / 2, low + thick, -depth / 2 + 0.008),
                    (x + thick / 2, high, depth / 2 - 0.004),
                    color,
                )
            )
        compartments += [
            (a + thick, b - thick, low + thick, high) for a, b in zip(cuts[:-1], cuts[1:], strict=True)
        ]
    return compartments


def _books(rng, compartments, half_d: float, must_fill: bool) -> list[Part]:
    """Rows of books set towards the front edge, in some of the compartments."""
    share = rng.choice([0.0, 0.3, 0.7]) if not must_fill else rng.choice([0.4, 0.8])
    books: list[Part] = []
    for x0, x1, y0, y1 in compartments:
        if rng.random() >= share or len(books) >= MAX_BOOKS:
            continue
        x, end = x0 + 0.005, x0 + (x1 - x0) * rng.uniform(0.3, 1.0)
        while len(books) < MAX_BOOKS:
            thick, tall = rng.uniform(0.02, 0.06), min(rng.uniform(0.6, 0.95) * (y1 - y0), 0.34)
            if x + thick > end:
                break
            deep = rng.uniform(0.6, 0.9) * min(2 * half_d, 0.3)
            front = half_d - rng.uniform(0.01, 0.03)
            books.append(
                box(
                    (x, y0 - 0.001, front - deep),
                    (x + thick - 0.001, y0 + tall, front),
                    palette.any_color(rng),
                )
            )
            x += thick
    return books
