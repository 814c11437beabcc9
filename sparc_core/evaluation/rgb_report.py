"""What `RgbBenchRunner` found, as figures: boxes, depth and normals, and accuracy of the poses."""

from __future__ import annotations

import numpy as np

from sparc_core.evaluation.perception import BoxFigures, DepthFigures
from sparc_core.evaluation.report import percent, within_limits
from sparc_core.geometry.errors import THRESHOLDS
from sparc_core.types import CATEGORIES, Detection


def summarise(rooms: list[dict], tracks: tuple[str, ...]) -> dict:
    """{"boxes": …, "depth": …, "tracks": …, "latency_ms": …} of all rooms that `RgbBenchRunner.run` saw."""
    boxes = BoxFigures(CATEGORIES)
    for room in rooms:
        found = [Detection(tuple(box), category, score) for box, category, score in room["boxes"]["found"]]
        truth = room["boxes"]["truth"]
        boxes.add(found, [box for box, _ in truth], [category for _, category in truth])
    depth = DepthFigures([room["depth"] for room in rooms if room["depth"]])
    records = [record for room in rooms for record in room["objects"]]
    stages = {stage for room in rooms for stage in room["timing_ms"]}
    return {
        "images": len(rooms),
        "boxes": boxes.summary(),
        "depth": depth.summary(),
        "tracks": [_track(name, [r for r in records if r["track"] == name]) for name in tracks],
        "latency_ms": {
            stage: round(float(np.median([room["timing_ms"][stage] for room in rooms])), 1)
            for stage in sorted(stages)
        },
    }


def _track(name: str, records: list[dict]) -> dict:
    well = [r for r in records if r["well_visible"]]
    times = list({r["image"]: r["align_ms"] for r in records}.values())
    return {
        "track": name,
        "all": _figures(records),
        "well_visible": _figures(well),
        "align_ms": round(float(np.median(times)), 1) if times else None,
    }


def _figures(records: list[dict]) -> dict:
    columns = {n: np.array([r[n] for r in records]) for n in ("translation_m", "rotation_deg", "scale")}
    detected, right_model = (np.array([r[n] for r in records], bool) for n in ("detected", "right_model"))
    right = {t: within_limits(t, **columns) for t in THRESHOLDS}
    return {
        "objects": len(records),
        "detected": percent(detected),
        "right_model": percent(right_model),
        "accuracy": {t: percent(r) for t, r in right.items()},
        "accuracy_and_right_model": percent(right[next(iter(THRESHOLDS))] & right_model),
    }


def markdown(summary: dict) -> str:
    """Perception's figures in a line, and a table of the tracks."""
    boxes, depth = summary["boxes"], summary["depth"]
    head = (
        "| track | objects | detected | right model | 20 / 20 / 20 | 10 / 10 / 10 | 5 / 5 / 5 "
        "| 20 / 20 / 20 and right model |"
    )
    lines = [
        f"Box AP50 {100 * boxes['box_ap50']:.1f}, AP {100 * boxes['box_ap']:.1f}; depth AbsRel "
        f"{depth['abs_rel']:.3f}, δ < 1.25 {100 * depth['delta']:.1f} %; normals within 11.25° "
        f"{100 * depth['normals_11.25']:.1f} %, 22.5° {100 * depth['normals_22.5']:.1f} %, 30° "
        f"{100 * depth['normals_30']:.1f} % ({summary['images']} pictures)",
        "",
        head,
        "|" + "---|" * (head.count("|") - 1),
    ]
    for track in summary["tracks"]:
        for which, label in (("all", "all"), ("well_visible", "well visible")):
            figures = track[which]
            cells = [
                f"{track['track']} ({label})", str(figures["objects"]),
                *(f"{v:.1f}" for v in (figures["detected"], figures["right_model"])),
                *(f"{v:.1f}" for v in figures["accuracy"].values()),
                f"{figures['accuracy_and_right_model']:.1f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
