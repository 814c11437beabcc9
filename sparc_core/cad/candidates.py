"""Which CAD models to try for a detection that names none, until learned retrieval exists."""

from __future__ import annotations

import numpy as np

from sparc_core.cad.library import CadLibrary


def choose_candidates(
    library: CadLibrary, category: str, limit: int, seen_size_m: tuple[float, float] | None
) -> np.ndarray:
    """At most `limit` model positions of a category, those whose size could look like what is seen first.

    seen_size_m: width and height of the detection at its depth, in metres, or None without depth (then
    the models are taken evenly from small to large). Raises ValueError when the category has no model.
    """
    members = library.indices_of_category(category)
    if not len(members):
        raise ValueError(f"no CAD model of category {category!r} in the library; it has {library.categories}")
    extents = np.stack([library.models[i].extents_m for i in members])
    if len(members) <= limit:
        return members
    if seen_size_m is None:
        by_size = members[np.argsort(extents.prod(1), kind="stable")]
        return by_size[np.linspace(0, len(members) - 1, limit).round().astype(int)]
    width, height = seen_size_m
    # An upright box seen from the side is between its narrow side and its diagonal wide, and, seen from
    # above, up to its depth higher than it is.
    narrow, diagonal = extents[:, [0, 2]].min(1), np.hypot(extents[:, 0], extents[:, 2])
    tall = np.hypot(extents[:, 1], diagonal)
    misfit = _outside(width, narrow, diagonal) + _outside(height, extents[:, 1] * 0.7, tall)
    return members[np.argsort(misfit, kind="stable")[:limit]]


def _outside(value: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How far, in log size, a value lies outside [low, high]."""
    log = np.log(max(value, 1e-3))
    return np.maximum(np.log(low) - log, 0) + np.maximum(log - np.log(high), 0)
