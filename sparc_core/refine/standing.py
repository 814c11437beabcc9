"""Without a depth sensor: what stands on the floor is moved along its line of sight until it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.floor import FLOATING, standing_factors
from sparc_core.refine.search import SearchResult
from sparc_core.types import SCALE_MODES, Camera

UPRIGHT = 0.87  # cosine of the tilt, about 30°


def stand_on_floor(results: list[SearchResult], camera: Camera, library: CadLibrary) -> list[SearchResult]:
    """The results of a search, distances and extents multiplied by the same factors (`standing_factors`).

    As they are where the camera does not know gravity; and so are objects whose size is known (scale mode
    "fixed"): their distance follows from it.
    """
    if not results or camera.up_cam is None:
        return results
    T, S = (np.stack([getattr(found, name) for found in results]) for name in ("T_m", "S_m"))
    fixed = np.array([SCALE_MODES[found.scale_mode] == "fixed" for found in results])
    upright = np.array([found.R[:, 1] @ camera.up_cam > UPRIGHT for found in results])
    floats = np.array([library.models[found.model].category in FLOATING for found in results])
    factor = np.where(fixed, 1.0, standing_factors(T, S[:, 1], upright & ~floats & ~fixed, camera))
    return [
        replace(found, T_m=k * found.T_m, S_m=k * found.S_m) for found, k in zip(results, factor, strict=True)
    ]
