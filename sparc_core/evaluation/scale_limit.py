"""How well anyone can tell where things are from one picture: it looks the same in a room twice as large.

Somebody who knew all of a room but its scale could tell that from how large furniture usually is. The more
things there are, and the less their sizes vary, the nearer this guess. It is a yardstick for what is measured
from RGB alone, not a strict bound: parts of some furniture are always of the same size.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.errors import THRESHOLDS
from sparc_core.synth.scenes import SceneConfig


class KnownSizes:
    """What is known of the logarithms of objects' extents: of a category's from the library, and of those of
    an object whose CAD model is known, from how rooms of a layout vary it."""

    def __init__(self, library: CadLibrary, layout: SceneConfig):
        # a factor that is uniform in 1 ± a has a logarithm of the variance a² / 3, for small a
        whole, axis = (jitter**2 / 3 for jitter in (layout.scale_jitter, layout.axis_jitter))
        self.variation = whole * np.ones((3, 3)) + axis * np.eye(3)
        self.library = library
        self.of_category = {
            category: np.log([library.models[i].extents_m for i in library.indices_of_category(category)])
            for category in library.categories
        }

    def of(self, record: dict, model_known: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean (3,) and covariance (3, 3) for the object of a record (see `records_of`)."""
        if model_known:
            model = self.library.models[self.library.index_of(record["truth"]["model_id"])]
            return np.log(model.extents_m), self.variation
        rows = self.of_category[record["category"]]
        spread = np.cov(rows.T) if len(rows) > 1 else np.zeros((3, 3))
        return rows.mean(0), spread + self.variation


def scale_errors(records: list[dict], sizes: KnownSizes, model_known: bool) -> np.ndarray:
    """(N,) logarithm of guessed over true scale of the room that each record is of, by least squares from all
    of the records' objects in it."""
    rooms = defaultdict(list)
    for record in records:
        rooms[record["image"]].append(record)
    errors = {}
    for image, objects in rooms.items():
        weight = total = 0.0
        for record in objects:
            mean, covariance = sizes.of(record, model_known)
            share = np.linalg.solve(covariance, np.ones(3))
            weight += share.sum()
            total += share @ (mean - np.log(record["truth"]["S_m"]))
        errors[image] = total / weight
    return np.array([errors[record["image"]] for record in records])


def scale_limits(
    records: list[dict], library: CadLibrary, layout: SceneConfig
) -> list[dict[str, str | int | float]]:
    """Of the records of a track: for all objects ("of": "all") and for the detected ones ("detected"), with
    their categories ("known": "categories") or their CAD models known ("models"), their number "objects",
    "scale_off", the median error of the scale in percent, and "placed", the percentage of objects that it
    leaves within the widest limit of place."""
    sizes, limits = KnownSizes(library, layout), []
    for of, objects in (("all", records), ("detected", [r for r in records if r["detected"]])):
        for known in ("categories", "models") if objects else ():
            limits.append({"of": of, "known": known, "objects": len(objects)} | _limit(objects, sizes, known))
    return limits


def _limit(records: list[dict], sizes: KnownSizes, known: str) -> dict[str, float]:
    limit_m = next(iter(THRESHOLDS.values()))[0]
    off = np.abs(np.expm1(scale_errors(records, sizes, known == "models")))
    distance = np.array([record["distance_m"] for record in records])
    return {
        "scale_off": round(100 * float(np.median(off)), 1),
        "placed": round(100 * float(np.mean(off * distance <= limit_m)), 1),
    }
