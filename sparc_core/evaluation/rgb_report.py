"""What `RgbBenchRunner` found, as figures: boxes, depth and normals, and accuracy of the poses."""

from __future__ import annotations

import numpy as np

from sparc_core.evaluation.perception import (
    NORMAL_LIMITS_DEG,
    BoxFigures,
    DepthFigures,
)
from sparc_core.evaluation.picture_report import summarise_pictures
from sparc_core.evaluation.pictured_rooms import TRACKS
from sparc_core.evaluation.ranking import ranking_table
from sparc_core.types import CATEGORIES, Detection


def summarise(rooms: list[dict], tracks: tuple[str, ...]) -> dict:
    """{"boxes": …, "depth": …, "depth_on_floor": …, "tracks": …, "latency_ms": …} of all rooms that
    `RgbBenchRunner.run` saw."""
    boxes = BoxFigures(CATEGORIES)
    for room in rooms:
        found = [Detection(tuple(box), category, score) for box, category, score in room["boxes"]["found"]]
        truth = room["boxes"]["truth"]
        boxes.add(found, [box for box, _ in truth], [category for _, category in truth])
    objects, predictions = (
        [record for room in rooms for record in room[kind]] for kind in ("objects", "predictions")
    )
    stages = {stage for room in rooms for stage in room["timing_ms"]}
    return {
        "images": len(rooms),
        "boxes": boxes.summary(),
        **{kind: _mean_depth(rooms, kind) for kind in ("depth", "depth_on_floor")},
        "tracks": [
            summarise_pictures(name, *([r for r in x if r["track"] == name] for x in (objects, predictions)))
            for name in tracks
        ],
        "latency_ms": {
            stage: round(float(np.median([room["timing_ms"][stage] for room in rooms])), 1)
            for stage in sorted(stages)
        },
    }


def _mean_depth(rooms: list[dict], kind: str) -> dict | None:
    """`DepthFigures` over the rooms, None where it was not measured in any."""
    rows = [room[kind] for room in rooms if room[kind]]
    return DepthFigures(rows).summary() if rows or kind == "depth" else None


def _depth_figures(depth: dict, of: str = "") -> str:
    """In words; of: what the names of the figures begin with."""
    shares = ", ".join(
        f"{limit:g}° {100 * depth[f'{of}normals_{limit:g}']:.1f} %" for limit in NORMAL_LIMITS_DEG
    )
    near = 100 * depth[f"{of}delta"]
    scaled = f"{depth[f'{of}abs_rel_scaled']:.3f} with every picture's scale put right"
    return (
        f"depth AbsRel {depth[f'{of}abs_rel']:.3f} ({scaled}), δ < 1.25 {near:.1f} %; normals within {shares}"
    )


def markdown(summary: dict) -> str:
    """Perception's figures in a line, a table of the tracks, and one of the scores by which the results of
    the tracks with the detector's boxes can be ranked."""
    boxes, depth = summary["boxes"], summary["depth"]
    head = (
        "| track | objects | detected | right model | 20 / 20 / 20 | 10 / 10 / 10 | 5 / 5 / 5 "
        "| 20 / 20 / 20 and right model |"
    )
    lines = [
        f"Box AP50 {100 * boxes['box_ap50']:.1f}, AP {100 * boxes['box_ap']:.1f}; {_depth_figures(depth)}; "
        f"of objects alone {_depth_figures(depth, 'object_')} ({summary['images']} pictures)",
        *_with_height(summary["depth_on_floor"]),
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
    given = {track.name for track in TRACKS if track.boxes}
    ranked = [(t["track"], t["ranking"]) for t in summary["tracks"] if t["track"] not in given]
    parts = ["\n".join(lines) + "\n"]
    if summary.get("scale_limit"):
        parts.append(_limits_table(summary["scale_limit"]))
    if ranked:
        parts.append(ranking_table(ranked))
    return "\n".join(parts)


def _with_height(depth: dict | None) -> list[str]:
    """The line about depth where the camera's height is known."""
    return [] if depth is None else ["", f"With the camera's height above the floor {_depth_figures(depth)}"]


def _limits_table(limits: list[dict]) -> str:
    """What `scale_limits` found."""
    lines = [
        "| known of every room: all but its scale, and | objects | scale off, % | within 20 cm, % |",
        "|---|---|---|---|",
    ]
    for row in limits:
        who = f"the {row['known']} of {row['of']} objects"
        lines.append(f"| {who} | {row['objects']} | {row['scale_off']:.1f} | {row['placed']:.1f} |")
    return "\n".join(lines) + "\n"
