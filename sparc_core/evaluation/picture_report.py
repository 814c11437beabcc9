"""Records of poses in pictures (`pose_records.py`) as figures, for one method in one track."""

from __future__ import annotations

import numpy as np

from sparc_core.evaluation.bench_report import (
    DISTANCE_EDGES_M,
    SEEN_EDGES,
    TrackRecords,
    accuracy_by_category,
    accuracy_in_bins,
    class_accuracy,
    reliability_bins,
)
from sparc_core.evaluation.calibration import reliability
from sparc_core.evaluation.mesh_score import RADII, mesh_ap
from sparc_core.evaluation.ranking import rank_figures
from sparc_core.evaluation.report import percent
from sparc_core.geometry.errors import THRESHOLDS

MAIN = next(iter(THRESHOLDS))


def summarise_pictures(name: str, objects: list[dict], predictions: list[dict]) -> dict:
    """All figures, with the keys that the plots of `plots.py` read. name: of the method or track. Reliability
    and AP^mesh are of all predictions, those of nothing included; accuracies are of the room's objects.
    Raises ValueError without objects."""
    records = TrackRecords.from_records(objects)
    first = np.unique(records["image"], return_index=True)[1]
    score = np.array([p["score"] for p in predictions], dtype=np.float64)
    right = np.array([bool(p["right_for"]) for p in predictions], dtype=bool)
    return {
        "track": name,
        "images": len(np.unique(records["image"])),
        "predictions": len(predictions),
        "align_ms": round(float(np.median(records["align_ms"][first])), 1),
        "all": _figures(records)
        | {"ap_mesh": _mesh(objects, predictions), "ece": round(reliability(score, right).ece, 4)},
        "well_visible": _figures(records.only(records["well_visible"])),
        "by_category": accuracy_by_category(records),
        "by_distance_m": accuracy_in_bins(records, "distance_m", DISTANCE_EDGES_M),
        "by_seen_share": accuracy_in_bins(records, "seen", SEEN_EDGES),
        "reliability": reliability_bins(score, right),
        "ranking": rank_figures(objects, predictions),
    }


def _figures(records: TrackRecords) -> dict:
    aligned = np.isfinite(records["translation_m"])
    return {
        "objects": len(records),
        "detected": percent(records["detected"]),
        "right_model": percent(records["right_model"]),
        "accuracy": {t: percent(records.right(t)) for t in THRESHOLDS},
        "class_accuracy": {t: class_accuracy(records, t) for t in THRESHOLDS},
        "accuracy_and_right_model": percent(records.right(MAIN) & records["right_model"]),
        "median": {
            "translation_cm": _median(100 * records["translation_m"][aligned]),
            "rotation_deg": _median(records["rotation_deg"][aligned]),
            "scale_percent": _median(100 * records["scale"][aligned]),
        },
    }


def _median(values: np.ndarray) -> float | None:
    return round(float(np.median(values)), 2) if len(values) else None


def _mesh(objects: list[dict], predictions: list[dict]) -> dict:
    categories = [o["category"] for o in objects]
    truths = {c: categories.count(c) for c in sorted(set(categories))}
    score = np.array([p["score"] for p in predictions], dtype=np.float64)
    f1 = np.array([p["f1"] for p in predictions], dtype=np.float64).reshape(-1, len(RADII))
    names = np.array([p["category"] for p in predictions])
    return {str(radius): mesh_ap(score, f1[:, k], names, truths) for k, radius in enumerate(RADII)}
