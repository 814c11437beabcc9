"""Scores of predictions, per scene and per image, as plain values and as the paper's table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sparc_core.datasets.poses import rigid_inverse
from sparc_core.datasets.prepared import PreparedScannet
from sparc_core.datasets.scan2cad import Annotations
from sparc_core.evaluation.scan2cad.instances import InstanceFigures
from sparc_core.evaluation.scan2cad.per_image import ImageFigures, TrueObject
from sparc_core.evaluation.scan2cad.per_scene import SceneProtocol, SceneScore, score_scenes
from sparc_core.evaluation.scan2cad.predictions import FramePrediction, ScenePrediction
from sparc_core.types import CATEGORIES

# Multi-SPARC, table 1, per-scene evaluation: nine categories in the order of CATEGORIES, class, instance.
PUBLISHED = {
    "Total3D-ODN": (10.0, 2.9, 16.8, 2.8, 4.2, 14.4, 13.1, 5.3, 6.7, 8.5, 10.4),
    "Mask2CAD-b5": (7.5, 2.9, 24.6, 1.4, 5.0, 29.9, 13.1, 5.3, 5.6, 10.6, 16.7),
    "ROCA": (20.8, 8.6, 26.3, 9.0, 13.1, 39.9, 24.6, 10.6, 12.7, 18.4, 25.0),
    "SPARC": (25.8, 25.7, 24.6, 14.2, 20.8, 51.5, 17.8, 28.3, 15.4, 24.9, 31.8),
    "Multi-SPARC": (25.8, 34.3, 44.8, 17.0, 19.2, 64.8, 5.8, 35.4, 25.5, 30.3, 40.3),
    "Vid2CAD (multi-view)": (27.5, 35.7, 45.7, 9.9, 21.5, 63.4, 33.0, 24.8, 25.8, 31.9, 41.0),
}
PUBLISHED_OBJECTS = dict(zip(CATEGORIES, (120, 70, 232, 212, 260, 1093, 191, 113, 553), strict=True))

# name → what differs from the protocol
VARIANTS = {
    "alignment": {},
    "alignment, strict scale": {"strict_scale": True},
    "retrieval-aware": {"retrieval": True},
    "retrieval-aware, strict scale": {"retrieval": True, "strict_scale": True},
    "alignment, boxes": {"convention": "box"},
}


def score_per_scene(
    predictions: Sequence[ScenePrediction], annotations: Annotations, protocol: SceneProtocol
) -> dict:
    """All variants of the per-scene protocol, as plain values."""
    scores = {}
    for name, changes in VARIANTS.items():
        variant = dataclasses.replace(protocol, **changes)
        score = score_scenes(predictions, annotations, variant)
        scores[name] = {**scene_score_to_json(score), "protocol": dataclasses.asdict(variant)}
    return scores


def scene_score_to_json(score: SceneScore) -> dict:
    """A `SceneScore` as plain values."""
    return {
        "objects": dict(score.truth), "right": dict(score.right), "by_category": score.by_category,
        "class": score.class_mean, "instance": score.instance, "predictions_considered": score.considered,
        "predictions_of_unknown_cad_models": score.unknown_cad, "scenes": len(score.by_scene),
        "scenes_by_name": score.by_scene,
    }  # fmt: skip


def score_per_image(
    predictions: dict[str, list[FramePrediction]],
    dataset: PreparedScannet,
    *,
    ranked_by: str,
    thresholds: tuple[float, float, float],
    track=iter,
) -> dict:
    """Per-image accuracy, AP^mesh, and AP of boxes and masks. predictions: of each scene; track: wraps the
    scenes for a progress bar."""
    figures = ImageFigures(dataset.cad, dataset.annotations.cad, ranked_by=ranked_by, thresholds=thresholds)
    instances = InstanceFigures()
    for scene in track(dataset.scenes):
        annotated = dataset.annotations.scenes[scene]
        for frame in dataset.frames(scene):
            found = [p for p in predictions[scene] if p.frame == frame.name]
            T_cam_scan = rigid_inverse(frame.T_scan_cam)
            objects = [
                TrueObject(annotated[o.index], annotated[o.index].pose.moved(T_cam_scan), o)
                for o in frame.objects
            ]
            figures.add(found, objects)
            instances.add(found, [(annotated[o.index].synset, o) for o in frame.objects])
    return {**figures.summary(), "detection": instances.summary()}


def markdown(scores: dict, name: str) -> str:
    """The paper's table with a row for each variant, the published rows, and the per-image figures."""
    lines = [f"# {name}", "", _settings_line(scores), "", "## Per scene", ""]
    lines += _header("method")
    first = next(iter(scores["per_scene"].values()))
    counts = first["objects"]
    lines.append(
        _row("objects", [counts.get(c, 0) for c in CATEGORIES] + [len(counts), sum(counts.values())], "")
    )
    for variant, score in scores["per_scene"].items():
        lines.append(_row(f"{name}: {variant}", _percentages(score), ".1f"))
    for method, values in PUBLISHED.items():
        lines.append(_row(f"{method} (as published)", values, ".1f"))
    if counts != PUBLISHED_OBJECTS:
        lines += ["", "The objects counted are not those of the published rows "
                  f"({sum(PUBLISHED_OBJECTS.values())} objects): do not compare them."]  # fmt: skip
    unknown = first["predictions_of_unknown_cad_models"]
    if unknown:
        lines += ["", f"{unknown} predictions name CAD models that no annotation knows; they are compared "
                  "without symmetry."]  # fmt: skip
    if "per_image" in scores:
        lines += ["", "## Per image", "", *_per_image(scores["per_image"])]
    return "\n".join(lines) + "\n"


def _per_image(scores: dict) -> list[str]:
    lines = _header("percent")
    for key, label in (
        ("accuracy", "predictions that are right"), ("accuracy_strict", "the same, strict scale"),
        ("found", "visible objects found"), ("found_strict", "the same, strict scale"),
    ):  # fmt: skip
        lines.append(_row(label, _percentages(scores[key]), ".1f"))
    for radius, figures in scores["ap_mesh"].items():
        for name in ("AP50", "AP"):
            lines.append(_row(f"{name} mesh, ρ = {radius}", _percentages(figures[name]), ".1f"))
    detection = scores["detection"]
    cells = [
        f"{name.replace('_', ' ').upper().replace('BOX', 'box').replace('MASK', 'mask')} "
        + ("–" if value is None else f"{value:.1f}")
        for name, value in detection.items()
    ]
    return [*lines, "", "Detections: " + ", ".join(cells) + "."]


def _header(first: str) -> list[str]:
    names = (first, *CATEGORIES, "class", "instance")
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _percentages(score: dict) -> list[float | None]:
    return [*(score["by_category"].get(c) for c in CATEGORIES), score["class"], score["instance"]]


def _row(label: str, values, form: str) -> str:
    cells = ("–" if v is None or v != v else format(v, form) for v in values)
    return "| " + " | ".join([label, *cells]) + " |"


def _settings_line(scores: dict) -> str:
    settings = scores["predictions"]["settings"]
    depth = settings.get("depth")
    source = "" if depth is None else f", depth: {depth}"
    note = " (measured depth: not a method for single RGB images)" if depth == "sensor" else ""
    return f"Predictions by {settings['method']}{source}{note}. All settings stand in scores.json."
