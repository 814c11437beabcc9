"""Plots of the benchmark and of training runs, as PNG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
import numpy as np

from sparc_core.evaluation.video_report import accuracy_over_time
from sparc_core.geometry.errors import THRESHOLDS

MAIN = next(iter(THRESHOLDS))


def plot_bench(summaries: list[dict], folder: Path) -> list[Path]:
    """Write all plots of the benchmark; the files."""
    plots = {
        "tracks.png": _tracks,
        "categories.png": _categories,
        "reliability.png": _reliability,
        "conditions.png": _conditions,
    }
    files = []
    for name, draw in plots.items():
        figure = draw(summaries)
        figure.savefig(folder / name, dpi=110, bbox_inches="tight")
        plt.close(figure)
        files.append(folder / name)
    return files


def plot_video(
    summaries: list[dict], objects: dict[str, list[dict]], recoveries: list[dict], path: Path
) -> None:
    """Accuracy over the videos' time, jitter, and how long tracks that were set wrong stayed so, in one file.

    objects: records of each method, by its name.
    """
    figure, (over_time, spread, recovery) = plt.subplots(1, 3, figsize=(15, 4))
    for name, records in objects.items():
        over_time.plot(*accuracy_over_time(records), label=name, linewidth=1.2)
    over_time.set(xlabel="s", ylabel=f"{MAIN}, %", ylim=(0, 100), title="accuracy over time")
    over_time.legend(fontsize=7, loc="lower left")
    place = np.arange(len(summaries))
    spread.barh(place, [s["jitter"]["position_mm"]["p50"] for s in summaries], color="tab:blue")
    spread.set(
        yticks=place, yticklabels=[s["method"] for s in summaries], title="jitter of what stands still"
    )
    spread.set_xlabel("standard deviation of the position over a second, mm (median)")
    spread.invert_yaxis()
    times = np.sort([r["seen_s"] for r in recoveries if r["recovered"]])
    share = 100 * np.arange(1, len(times) + 1) / max(len(recoveries), 1)
    recovery.step(times, share, where="post")
    recovery.set(xlabel="s of being detected", ylabel="right again, %", ylim=(0, 100), xlim=(0, None),
                 title=f"{len(recoveries)} tracks set wrong")  # fmt: skip
    for axes in (over_time, spread, recovery):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _tracks(summaries):
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(summaries) + 1.4))
    place = np.arange(len(summaries))
    for k, threshold in enumerate(THRESHOLDS):
        values = [s["all"]["accuracy"][threshold] for s in summaries]
        axes.barh(place + (k - 1) * 0.27, values, height=0.25, label=threshold)
    axes.set(yticks=place, yticklabels=[s["track"] for s in summaries], xlim=(0, 100))
    axes.invert_yaxis()
    axes.set_xlabel("objects aligned within the limits, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _categories(summaries):
    names = sorted({c for s in summaries for c in s["by_category"]})
    table = np.array([[s["by_category"].get(c, {}).get(MAIN, np.nan) for c in names] for s in summaries])
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(summaries) + 1.2))
    axes.imshow(table, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            axes.text(
                j, i, f"{value:.0f}", ha="center", va="center", color="white" if value < 60 else "black"
            )
    axes.set(xticks=range(len(names)), yticks=range(len(summaries)))
    axes.set_xticklabels(names, rotation=30, ha="right")
    axes.set_yticklabels([s["track"] for s in summaries])
    axes.set_title(f"% of all objects within {MAIN}")
    return figure


def _reliability(summaries):
    figure, axes = plt.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for summary in summaries:
        bins = summary["reliability"]
        label = f"{summary['track']} (ECE {summary['all']['ece']:.3f})"
        axes.plot([b["mean_score"] for b in bins], [b["right"] for b in bins], marker="o", label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean score of the bin", ylabel="share of right poses")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def _conditions(summaries):
    figure, both = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axes, key, label in zip(
        both,
        ("by_distance_m", "by_seen_share"),
        ("distance, m", "share of the object's pixels the sensor sees"),
        strict=True,
    ):
        for summary in summaries:
            bins = summary[key]
            middle = [(b["low"] + min(b["high"], 1.0 if "share" in key else b["high"])) / 2 for b in bins]
            axes.plot(middle, [b["accuracy"][MAIN] for b in bins], marker="o", label=summary["track"])
        axes.set(xlabel=label, ylim=(0, 100))
        if not any(summary[key] for summary in summaries):
            axes.text(0.5, 0.5, "too few objects in every bin", ha="center", transform=axes.transAxes)
        axes.grid(alpha=0.3)
    both[0].set_ylabel(f"% of objects within {MAIN}")
    both[1].legend(fontsize=7, loc="lower right")
    return figure


VALIDATION_LABELS = {
    "right": "right (20 cm, 20°, 20 %)", "best_start": "any of the four starts right",
    "10": "10 / 10 / 10", "5": "5 / 5 / 5",
}  # fmt: skip


#: How the names of validation figures end that are no shares, and are left out of the curves.
NOT_SHARES = ("objects", "pictures", "_m", "_deg")


def plot_training(log: list[dict], path: Path) -> None:
    """Losses and validation figures (shares, in percent) of a training log (the lines of train.jsonl) over
    the steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    names = sorted(
        {name for row in log for name in row} - {"step", "elapsed_s", "learning_rate", "validation"}
    )
    parts = [name for name in names if name != "loss"] or names
    lowest = 1.0
    for name in parts:
        rows = [row for row in log if name in row]
        left.plot([row["step"] for row in rows], [row[name] for row in rows], label=name)
        lowest = min([lowest, *(row[name] for row in rows)])
    left.set(xlabel="step", yscale="log" if lowest > 0 else "linear")
    left.legend()
    left.grid(alpha=0.3)
    rows = [row for row in log if "validation" in row]
    figures = {name for row in rows for name in row["validation"]}
    for name in sorted(name for name in figures if not name.endswith(NOT_SHARES)):
        found = [row["validation"].get(name, float("nan")) for row in rows]
        label = VALIDATION_LABELS.get(name, name)
        right.plot([row["step"] for row in rows], [100 * v for v in found], marker=".", label=label)
    right.set(xlabel="step", ylabel="% of what is validated", ylim=(0, 100))
    if rows:
        right.legend(fontsize=8)
    right.grid(alpha=0.3)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
