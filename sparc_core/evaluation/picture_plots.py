"""Plots of methods on pictures beside those of `plots.py`: rankings, and accuracy against latency."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

from sparc_core.evaluation.ranking import CURVE_PERCENT, RANKINGS
from sparc_core.geometry.errors import THRESHOLDS

MAIN = next(iter(THRESHOLDS))


def plot_rankings(summaries: list[dict], path: Path) -> None:
    """Right predictions among the best k percent by σ, by the detection's score and by their product
    (Multi-SPARC, figure 4b), a panel a summary of `summarise_pictures`. Raises ValueError without any."""
    if not summaries:
        raise ValueError("there is no track whose results could be ranked")
    figure, panels = plt.subplots(
        1, len(summaries), figsize=(4.2 * len(summaries), 3.8), sharey=True, squeeze=False
    )
    for axes, summary in zip(panels[0], summaries, strict=True):
        for name in RANKINGS:
            found = summary["ranking"][name]
            if found["curve"]:
                label = f"{name} (AP {found['ap']:.1f})"
                axes.plot(CURVE_PERCENT, found["curve"], label=label, linewidth=1.4)
        axes.set(title=summary["track"], xlabel="best k % of the predictions", ylim=(0, 100), xlim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper right")
    panels[0][0].set_ylabel(f"right ones among them ({MAIN}), %")
    _save(figure, path)


def plot_accuracy_against_latency(
    latency_ms: dict[str, float], accuracy: dict[str, dict[str, float]], path: Path
) -> None:
    """A point a method that has both, a panel a track. latency_ms: of five objects, by method; accuracy:
    {track: {method: percent}}. Raises ValueError when no method has both."""
    shown = {t: {m: a for m, a in found.items() if m in latency_ms} for t, found in accuracy.items()}
    if not any(shown.values()):
        raise ValueError("no method has both an accuracy and a latency")
    figure, panels = plt.subplots(
        1, len(shown), figsize=(4.2 * len(shown), 3.8), sharey=True, sharex=True, squeeze=False
    )
    for axes, (track, found) in zip(panels[0], shown.items(), strict=True):
        for method, value in found.items():
            axes.scatter(latency_ms[method], value, s=40, zorder=3)
            axes.annotate(
                method, (latency_ms[method], value), xytext=(5, 4), textcoords="offset points", fontsize=8
            )
        axes.set(title=track, xlabel="ms for five objects", xscale="log", ylim=(0, 100))
        axes.margins(x=0.3)
        axes.grid(alpha=0.3, which="both")
    panels[0][0].set_ylabel(f"% of objects within {MAIN}")
    _save(figure, path)


def _save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
