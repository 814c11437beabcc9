"""The records of the video benchmark as figures: id switches, accuracy, jitter, recovery, latency."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy.spatial.transform import Rotation

from sparc_core.evaluation.report import percent, within_limits
from sparc_core.geometry.errors import THRESHOLDS

WINDOW_S = 1.0  # jitter is the standard deviation over windows of this length
ABSENCE_S = 0.5  # an object that was not detected for so long has been away
FULL_WINDOW = 0.8  # of its images, in which the object must be detected


def summarise_video(name: str, objects: list[dict], images: list[dict], fps: float) -> dict:
    """All figures of one method; objects and images: its records of all sequences."""
    columns = {key: np.array([r[key] for r in objects]) for key in ("translation_m", "rotation_deg", "scale")}
    ids = count_switches(objects)
    return {
        "method": name,
        "images": len(images),
        "objects": len({(r["sequence"], r["object"]) for r in objects}),
        "sightings": len(objects),
        "accuracy": {t: percent(within_limits(t, *columns.values())) for t in THRESHOLDS},
        "median": {
            "translation_cm": round(float(np.median(columns["translation_m"])) * 100, 2),
            "rotation_deg": round(float(np.median(columns["rotation_deg"])), 2),
            "scale_percent": round(float(np.median(columns["scale"])) * 100, 2),
        },
        **ids,
        "returns": count_returns(objects),
        "jitter": jitter(objects, fps),
        "searched_share": percent_of(sum(i["searched"] for i in images), sum(i["objects"] for i in images)),
        "latency_ms": {
            key: _percentiles([i[f"{key}_ms"] for i in images if i["objects"]])
            for key in ("alignment", "total", "cpu")
        },
    }


def count_switches(objects: list[dict]) -> dict[str, int]:
    """switches: sightings of an object under another id than at its sighting before. swaps: those of them
    whose id had been another object's. tracks: different ids."""
    last: dict[tuple, int] = {}
    owner: dict[tuple, int] = {}
    switches = swaps = 0
    for record in objects:
        sequence, number, track = record["sequence"], record["object"], record["track"]
        if track == 0:  # not aligned
            continue
        if last.get((sequence, number), track) != track:
            switches += 1
            swaps += owner.get((sequence, track), number) != number
        last[sequence, number] = track
        owner.setdefault((sequence, track), number)
    return {"switches": switches, "swaps": swaps, "tracks": len(owner)}


def count_returns(objects: list[dict]) -> dict:
    """Of objects that are detected again after at least `ABSENCE_S`: how often, and the percentage under the
    id of before."""
    last: dict[tuple, tuple[float, int]] = {}
    kept = []
    for record in objects:
        key = record["sequence"], record["object"]
        if record["track"] == 0:  # not aligned
            continue
        stamp_s, track = last.get(key, (record["stamp_s"], record["track"]))
        if record["stamp_s"] - stamp_s >= ABSENCE_S:
            kept.append(record["track"] == track)
        last[key] = record["stamp_s"], record["track"]
    return {"absences": len(kept), "same_id": percent_of(sum(kept), len(kept))}


def jitter(objects: list[dict], fps: float) -> dict:
    """Standard deviations of position (mm) and rotation (degrees) of objects that stand still, over windows
    of a second in the room's frame: median and 90th percentile of the windows."""
    windows = defaultdict(list)
    for record in objects:
        windows[record["sequence"], record["object"], int(record["stamp_s"] / WINDOW_S)].append(record)
    position, rotation = [], []
    for records in windows.values():
        still = not any(r["moving"] for r in records) and all(
            np.isfinite(r["translation_m"]) for r in records
        )
        if still and len(records) >= FULL_WINDOW * WINDOW_S * fps:
            places = np.array([r["T_m"] for r in records])
            position.append(1e3 * np.sqrt(places.var(0).sum()))
            rotation.append(
                _rotation_spread(np.array([r["R"] for r in records]), records[0]["symmetry_order"])
            )
    return {
        "windows": len(position),
        "position_mm": _percentiles(position, (50, 90)),
        "rotation_deg": _percentiles(rotation, (50, 90)),
    }


def _rotation_spread(R: np.ndarray, order: int) -> float:
    """Root mean square angle in degrees of rotations (K, 3, 3) about their mean; turns about the CAD y axis
    that leave the model unchanged do not count."""
    turns = Rotation.from_euler("y", (2 * np.pi * np.arange(order) / order)[:, None]).as_matrix()
    turned = R[:, None] @ turns
    nearest = np.einsum("kij,koij->ko", R[:1].repeat(len(R), 0), turned).argmax(1)
    alike = Rotation.from_matrix(turned[np.arange(len(R)), nearest])
    return float(np.rad2deg(np.sqrt(np.square((alike.mean().inv() * alike).magnitude()).mean())))


def summarise_recoveries(records: list[dict]) -> dict:
    """Of the tracks that were set wrong: how many, the share that became right again and kept their id, and
    the seconds of being detected until then."""
    if not records:
        return {"tracks": 0}
    recovered = np.array([r["recovered"] for r in records])
    times = [r["seen_s"] for r in records if r["recovered"]]
    return {
        "tracks": len(records),
        "recovered": percent(recovered),
        "same_id": percent(np.array([r["same_track"] for r in records])),
        "seconds": _percentiles(times, (50, 90)) if times else {},
        "by_turn": {
            str(turn): percent(np.array([r["recovered"] for r in records if r["turn_deg"] == turn]))
            for turn in sorted({r["turn_deg"] for r in records})
        },
    }


def accuracy_over_time(objects: list[dict], bin_s: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Middles of time bins (s) and the percentage of sightings in them that are right."""
    main = next(iter(THRESHOLDS))
    right = within_limits(
        main, *(np.array([r[key] for r in objects]) for key in ("translation_m", "rotation_deg", "scale"))
    )
    number = np.array([int(r["stamp_s"] / bin_s) for r in objects])
    bins = np.unique(number)
    return (bins + 0.5) * bin_s, np.array([100 * right[number == b].mean() for b in bins])


def video_table(summaries: list[dict]) -> str:
    """A Markdown table, one row a method."""
    head = (
        "| method | 20 / 20 / 20 | 10 / 10 / 10 | 5 / 5 / 5 | median errors | id switches (swaps) "
        "| same id after absence | jitter, position | jitter, rotation | searched | CPU time an image |"
    )
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for s in summaries:
        median, spread, ms = s["median"], s["jitter"], s["latency_ms"]["cpu"]
        cells = [
            s["method"], *(f"{v:.1f}" for v in s["accuracy"].values()),
            f"{median['translation_cm']:.1f} cm, {median['rotation_deg']:.1f}°, "
            f"{median['scale_percent']:.1f} %",
            f"{s['switches']} ({s['swaps']})",
            f"{s['returns']['same_id']:.0f} % of {s['returns']['absences']}",
            f"{spread['position_mm']['p50']:.1f} mm ({spread['position_mm']['p90']:.0f})",
            f"{spread['rotation_deg']['p50']:.2f}° ({spread['rotation_deg']['p90']:.1f})",
            f"{s['searched_share']:.1f} %", f"{ms['p50']:.0f} ms ({ms['p90']:.0f})",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def percent_of(part: float, whole: float) -> float:
    """part / whole in percent; NaN of nothing."""
    return round(100 * part / whole, 2) if whole else float("nan")


def _percentiles(values, which=(10, 50, 90)) -> dict[str, float]:
    if not len(values):
        return {f"p{q}": float("nan") for q in which}
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in which}
