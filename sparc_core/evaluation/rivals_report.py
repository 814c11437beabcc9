"""The methods' records as one table a track, with the papers' rows beside ours."""

from __future__ import annotations

import statistics

from sparc_core.evaluation.papers import PAPER_ROWS, paper_row
from sparc_core.evaluation.picture_report import MAIN, summarise_pictures
from sparc_core.evaluation.rivals import COUNTS

FIVE = COUNTS[1]
HEAD = (
    "| method | 20 / 20 / 20 | 10 / 10 / 10 | 5 / 5 / 5 | class | well visible | AP50 mesh, ρ 0.3 | ρ 0.5 "
    "| ρ 0.7 | AP mesh, ρ 0.5 | ms for 1 / 5 / 10 objects | paper: instance, class | per image, AP50 mesh "
    "| ms for 5 |"
)


def summarise_rivals(records: dict[str, list[dict]], tracks, methods, latency: dict) -> dict:
    """{"tracks": {track: {method: figures of `summarise_pictures`}}, "latency": …, "perception_ms": medians}.
    methods: whose records there are; latency: {method: {objects: figures}}."""
    found: dict = {}
    for track in tracks:
        found[track] = {
            name: summarise_pictures(name, *(
                [r for r in records[kind] if r["track"] == track and r["method"] == name]
                for kind in ("objects", "predictions")
            ))
            for name in methods
        }  # fmt: skip
    stages = sorted({stage for row in records["perception"] for stage in row})
    perception = {s: round(statistics.median(row[s] for row in records["perception"]), 1) for s in stages}
    return {"tracks": found, "latency": latency, "perception_ms": perception}


def markdown(summary: dict) -> str:
    """For every track a table of all methods, those with a latency alone as well; then how the methods stand
    to each other and to what the paper expects."""
    parts = []
    names = list(summary["latency"])
    for track, found in summary["tracks"].items():
        objects = next(iter(found.values()))["all"]["objects"] if found else 0
        lines = [f"**{track}** ({objects} objects)", "", HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
        order = [*found, *(name for name in names if name not in found)]
        lines += [_row(name, found.get(name), summary["latency"].get(name)) for name in order]
        parts.append("\n".join(lines))
    expected = expectations(summary)
    if expected:
        parts.append("\n".join(f"- {line}" for line in expected))
    return "\n\n".join(parts) + "\n"


def expectations(summary: dict) -> list[str]:
    """Ratios of every Multi-SPARC to ROCA in accuracy and to SPARC in time, with the papers' own."""
    roca, sparc, multi = (PAPER_ROWS[name] for name in ("ROCA", "SPARC", "Multi-SPARC"))
    lines = []
    for track, found in summary["tracks"].items():
        accuracy = {name: f["all"]["accuracy"][MAIN] for name, f in found.items()}
        for name, rival in _pairs(accuracy, "ROCA"):
            lines.append(
                f"{track}: {name} has {accuracy[name] / accuracy[rival]:.2f} times the accuracy of {rival} "
                f"(paper: {multi.instance / roca.instance:.2f})"
            )
    time = {name: f[FIVE]["median_ms"] for name, f in summary["latency"].items()}
    for name, rival in _pairs(time, "SPARC"):
        lines.append(
            f"{name} takes {time[name] / time[rival]:.2f} times as long as {rival} for five objects "
            f"(paper: {multi.ms / sparc.ms:.2f})"
        )
    return lines


def _pairs(figures: dict[str, float], rival: str) -> list[tuple[str, str]]:
    """(method, rival): every Multi-SPARC against every method that is that rival and has a figure above 0."""
    rows = {name: paper_row(name) for name in figures}
    rivals = [n for n, row in rows.items() if row is PAPER_ROWS[rival] and figures[n] > 0]
    return [(n, r) for n, row in rows.items() if row is PAPER_ROWS["Multi-SPARC"] for r in rivals]


def _row(name: str, figures: dict | None, latency: dict | None) -> str:
    cells = [name]
    if figures is None:
        cells += ["–"] * 9
    else:
        everything, ap = figures["all"], figures["all"]["ap_mesh"]
        cells += [f"{v:.1f}" for v in everything["accuracy"].values()]
        cells += [
            f"{everything['class_accuracy'][MAIN]:.1f}", f"{figures['well_visible']['accuracy'][MAIN]:.1f}",
            *(f"{ap[radius]['AP50']:.1f}" for radius in ap), f"{ap['0.5']['AP']:.1f}",
        ]  # fmt: skip
    cells.append(" / ".join(f"{f['median_ms']:.0f}" for f in latency.values()) if latency else "–")
    paper = paper_row(name)
    if paper is None:
        cells += ["–"] * 3
    else:
        image = [paper.image_instance, paper.ap50_mesh]
        cells += [
            f"{paper.instance}, {paper.class_mean}",
            ", ".join(map(str, image)) if None not in image else "–",
            f"{paper.ms:g}" if paper.ms else "–",
        ]
    return "| " + " | ".join(cells) + " |"
