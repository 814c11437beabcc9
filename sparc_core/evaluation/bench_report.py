"""The benchmark's records as figures: a summary for each track, a Markdown table, and plots."""

from __future__ import annotations

import numpy as np

from sparc_core.evaluation.calibration import reliability
from sparc_core.evaluation.mesh_score import RADII, mesh_ap
from sparc_core.evaluation.report import percent, within_limits
from sparc_core.geometry.errors import THRESHOLDS

QUADRANT_DEG = 45.0
FEWEST_IN_BIN = 20  # a bin of a plot with fewer objects is left out
DISTANCE_EDGES_M = (0, 1.5, 2, 2.5, 3, 4, 10)
SEEN_EDGES = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.001)


class TrackRecords:
    """The columns of one track's records as arrays; `only(mask)` is a part of them."""

    def __init__(self, columns: dict[str, np.ndarray]):
        self.columns = columns

    @classmethod
    def from_records(cls, records: list[dict]) -> TrackRecords:
        """Raises ValueError without records."""
        if not records:
            raise ValueError("the track has no objects")
        return cls({name: np.array([record[name] for record in records]) for name in records[0]})

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self["score"])

    def only(self, mask: np.ndarray) -> TrackRecords:
        """The records where the (D,) mask holds."""
        return TrackRecords({name: values[mask] for name, values in self.columns.items()})

    def right(self, threshold: str) -> np.ndarray:
        """(D,) bool: within a threshold of `THRESHOLDS`."""
        return within_limits(threshold, self["translation_m"], self["rotation_deg"], self["scale"])


def summarise_track(name: str, records: TrackRecords) -> dict:
    """All figures of one track: over all objects and over those that are well visible."""
    return {
        "track": name,
        "images": len(np.unique(records["image"])),
        "all": _figures(records),
        "well_visible": _figures(records.only(records["well_visible"])),
        "latency_ms": {
            stage: _percentiles(records[f"{stage}_ms"][np.unique(records["image"], return_index=True)[1]])
            for stage in ("perception", "alignment")
        },
        "by_category": accuracy_by_category(records),
        "by_distance_m": accuracy_in_bins(records, "distance_m", DISTANCE_EDGES_M),
        "by_seen_share": accuracy_in_bins(records, "seen", SEEN_EDGES),
        "reliability": reliability_bins(records["score"], records.right(next(iter(THRESHOLDS)))),
    }


def _figures(records: TrackRecords) -> dict:
    main = next(iter(THRESHOLDS))
    front = records["symmetry_order"] < 4  # objects that have one: a quarter turn changes them
    return {
        "objects": len(records),
        "accuracy": {t: percent(records.right(t)) for t in THRESHOLDS},
        "class_accuracy": {t: class_accuracy(records, t) for t in THRESHOLDS},
        "quadrant": percent(records["rotation_deg"][front] < QUADRANT_DEG),
        "median": {
            "translation_cm": round(float(np.median(records["translation_m"])) * 100, 2),
            "rotation_deg": round(float(np.median(records["rotation_deg"])), 2),
            "scale_percent": round(float(np.median(records["scale"])) * 100, 2),
        },
        "ap_mesh": {
            str(radius): mesh_ap(records["score"], records["f1"][:, k], records["category"])
            for k, radius in enumerate(RADII)
        },
        "ece": round(reliability(records["score"], records.right(main)).ece, 4),
    }


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (10, 50, 90)}


def class_accuracy(records: TrackRecords, threshold: str) -> float:
    """Percent within a threshold of `THRESHOLDS`, the mean of the categories; NaN without objects."""
    right, category = records.right(threshold), records["category"]
    shares = [right[category == c].mean() for c in sorted(set(category))]
    return round(float(np.mean(shares)) * 100, 2) if shares else float("nan")


def accuracy_by_category(records: TrackRecords) -> dict:
    """Percent within each threshold, by category."""
    return {
        str(c): {t: percent(records.right(t)[records["category"] == c]) for t in THRESHOLDS}
        for c in sorted(set(records["category"]))
    }


def accuracy_in_bins(records: TrackRecords, name: str, edges) -> list[dict]:
    """Accuracy of the objects of each bin that holds enough of them."""
    bins = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = records.only((records[name] >= low) & (records[name] < high))
        if len(inside) >= FEWEST_IN_BIN:
            accuracy = {t: percent(inside.right(t)) for t in THRESHOLDS}
            bins.append({"low": low, "high": high, "objects": len(inside), "accuracy": accuracy})
    return bins


def reliability_bins(score: np.ndarray, correct: np.ndarray) -> list[dict]:
    """The bins of `reliability` that are not empty."""
    found = reliability(score, correct)
    return [
        {"objects": int(n), "mean_score": round(float(s), 4), "right": round(float(r), 4)}
        for n, s, r in zip(found.count, found.mean_score, found.right, strict=True)
        if n
    ]


def markdown_table(summaries: list[dict]) -> str:
    """One row a track: instance accuracies, class accuracy, AP^mesh, medians, quadrant and ECE."""
    head = (
        "| track | objects | 20 / 20 / 20 | 10 / 10 / 10 | 5 / 5 / 5 | class, 20 / 20 / 20 "
        "| AP50 mesh, ρ 0.5 | AP mesh, ρ 0.5 | median errors | right quadrant | ECE of σ |"
    )
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for summary in summaries:
        for which, label in (("all", "all"), ("well_visible", "well visible")):
            figures = summary[which]
            accuracy, median, ap = figures["accuracy"], figures["median"], figures["ap_mesh"]["0.5"]
            cells = [
                f"{summary['track']} ({label})", str(figures["objects"]),
                *(f"{v:.1f}" for v in accuracy.values()),
                f"{next(iter(figures['class_accuracy'].values())):.1f}",
                f"{ap['AP50']:.1f}", f"{ap['AP']:.1f}",
                f"{median['translation_cm']:.1f} cm, {median['rotation_deg']:.1f}°, "
                f"{median['scale_percent']:.1f} %",
                f"{figures['quadrant']:.1f}", f"{figures['ece']:.3f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
