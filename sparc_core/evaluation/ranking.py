"""σ against the detection's score: which of them should order the results, and choose among them.

Multi-SPARC compares both in table 1 ("Learned Classification Score") and figure 4b. Predictions are those of
`records_of`; one that is right for no object counts as wrong, and so does a second one for the same object.
"""

from __future__ import annotations

import numpy as np

from sparc_core.evaluation.mesh_score import average_precision

RANKINGS = {
    "σ": lambda prediction: prediction["score"],
    "detection score": lambda prediction: prediction["detection_score"],
    "product": lambda prediction: prediction["score"] * prediction["detection_score"],
}
CURVE_PERCENT = tuple(range(5, 105, 5))


def rank_figures(objects: list[dict], predictions: list[dict]) -> dict[str, dict]:
    """For every ranking: "ap", average precision in percent at 20 cm / 20° / 20 % of all predictions;
    "ap_class", the mean over the categories; "chosen", percent of the objects that are found when of every
    category only as many of the best predictions are kept as the picture has objects (Scan2CAD's rule, per
    picture); "curve", percent of right ones among the best `CURVE_PERCENT` of the predictions.

    objects, predictions: records of one method in one track.
    """
    categories = np.array([p["category"] for p in predictions])
    counts = _counts(objects, "category")
    figures = {}
    for name, value_of in RANKINGS.items():
        value = np.array([value_of(p) for p in predictions], dtype=np.float64)
        order = np.argsort(-value, kind="stable")
        hit = _hits(predictions, order)
        by_class = [
            average_precision(value[categories == c], hit[categories == c], count) if count else np.nan
            for c, count in counts.items()
        ]
        kept = _kept(objects, predictions, order)
        right = np.array([bool(p["right_for"]) for p in predictions])[order]
        figures[name] = {
            "ap": _percent(average_precision(value, hit, len(objects))),
            "ap_class": _percent(np.mean(by_class)),
            "chosen": _percent(
                _hits(predictions, [i for i in order if kept[i]]).sum() / max(1, len(objects))
            ),
            "curve": [_percent(right[: max(1, round(len(right) * k / 100))].mean()) for k in CURVE_PERCENT]
            if len(right)
            else [],
        }
    return figures


def _hits(predictions: list[dict], order) -> np.ndarray:
    """(D,) bool: right for an object that no better prediction has taken."""
    taken, hit = set(), np.zeros(len(predictions), bool)
    for d in order:
        free = [(predictions[d]["image"], i) for i in predictions[d]["right_for"]]
        free = [place for place in free if place not in taken]
        if free:
            taken.add(free[0])
            hit[d] = True
    return hit


def _kept(objects: list[dict], predictions: list[dict], order) -> np.ndarray:
    """(D,) bool: among the best of its picture and category, as many as there are objects."""
    room, kept = _counts(objects, "image", "category"), np.zeros(len(predictions), bool)
    for d in order:
        place = (predictions[d]["image"], predictions[d]["category"])
        if room.get(place, 0) > 0:
            room[place] -= 1
            kept[d] = True
    return kept


def _counts(records: list[dict], *names: str) -> dict:
    counts: dict = {}
    for record in records:
        key = tuple(record[name] for name in names) if len(names) > 1 else record[names[0]]
        counts[key] = counts.get(key, 0) + 1
    return counts


def _percent(share) -> float:
    return round(100 * float(share), 2)


def ranking_table(rows: list[tuple[str, dict]]) -> str:
    """Markdown: for every (name, figures of `rank_figures`) and ranking a row."""
    lines = [
        "| | ranked by | AP at 20 / 20 / 20 | mean of the categories | found when chosen by it |",
        "|---|---|---|---|---|",
    ]
    for name, figures in rows:
        lines += [
            f"| {name} | {ranking} | {f['ap']:.1f} | {f['ap_class']:.1f} | {f['chosen']:.1f} |"
            for ranking, f in figures.items()
        ]
    return "\n".join(lines) + "\n"
