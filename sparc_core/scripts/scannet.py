"""`sparc evaluate scannet25k`: predictions for a prepared tree first, then their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input


def scannet25k(
    prepared: Annotated[
        Path, typer.Argument(metavar="PREPARED", help="Folder that `sparc prepare scannet25k` wrote.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for predictions, raw_results.csv, scores.json, table.md.")
    ],
    detections: Annotated[
        Path | None, typer.Option(help="ROCA's per_frame_preds.json: boxes, categories and CAD models.")
    ] = None,
    roca: Annotated[
        bool, typer.Option("--roca", help="Score the poses of --detections, ROCA's own, instead of ours.")
    ] = False,
    from_csv: Annotated[
        Path | None,
        typer.Option(help="Score a Scan2CAD result CSV (or a folder of <scene>.csv); per scene only."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the rows of the table are called.")] = "",
    weights: Annotated[Path | None, typer.Option(help="Weights file; none: the shipped one.")] = None,
    depth: Annotated[
        str, typer.Option(help="none, sensor, or a predictor: weights of ours or hf:NAME.")
    ] = "none",
    masks: Annotated[str, typer.Option(help="detections, none or sam:FILE.")] = "detections",
    gravity: Annotated[
        bool, typer.Option("--gravity", help="Tell the aligner which way is up, from the camera's pose.")
    ] = False,
    min_detection_score: Annotated[float, typer.Option(help="Detections below are left out.")] = 0.5,
    rank_by: Annotated[
        str, typer.Option(help="pose (the network's σ) or detection (the 2D score): what ranks.")
    ] = "pose",
    device: options.Device = "auto",
    download: Annotated[bool, typer.Option("--download", help="hf: models may be fetched.")] = False,
) -> None:
    """Per-scene alignment accuracy of Scan2CAD, ROCA's with retrieval, and Multi-SPARC's per image."""
    from sparc_core.datasets.prepared import PreparedScannet
    from sparc_core.device import find_device
    from sparc_core.evaluation.machine import describe_machine
    from sparc_core.evaluation.scan2cad.predict import PredictConfig

    with report_bad_input():
        if rank_by not in ("pose", "detection"):
            raise ValueError(f"--rank-by must be pose or detection, got {rank_by!r}")
        if (detections is None) == (from_csv is None):
            raise ValueError("expected either --detections or --from-csv")
        dataset = PreparedScannet(prepared)
        out.mkdir(parents=True, exist_ok=True)
        if from_csv is not None:
            scores = _score_csv(dataset, from_csv)
        else:
            config = PredictConfig(detections, weights, depth, masks, gravity, min_detection_score, download)
            facts = describe_machine(find_device(device))
            predictions, cache = _predict(dataset, config, roca, out / "predictions", facts, device)
            scores = _score_frames(dataset, predictions, cache, rank_by, out)
        _write(scores, name or scores["predictions"]["settings"]["method"], out)


def _predict(dataset, config, roca: bool, folder: Path, facts: dict, device: str):
    """Predictions of every scene, from the cache where they are there already."""
    from rich.progress import track

    from sparc_core.datasets.roca import read_roca
    from sparc_core.evaluation.scan2cad.cache import PredictionCache
    from sparc_core.evaluation.scan2cad.predict import FramePredictor, roca_predictions

    settings = config.settings(dataset)
    if roca:
        kept = ("dataset", "scenes", "detections", "min_detection_score")
        settings = {"method": "roca", **{k: settings[k] for k in kept}}
    cache = PredictionCache(folder, settings, facts)
    found = read_roca(config.detections)
    left = [scene for scene in dataset.scenes if not cache.has(scene)]
    predictor = FramePredictor(dataset, found, config, device) if left and not roca else None
    for path, reason in predictor.skipped if predictor else ():
        typer.echo(f"skipped CAD file {path}: {reason}", err=True)
    for scene in track(left, description="predicting"):
        made = (
            roca_predictions(dataset, found, scene, config.min_detection_score)
            if roca
            else predictor.predict_scene(scene)
        )
        cache.write(scene, made)
    return {scene: cache.read(scene) for scene in dataset.scenes}, cache


def _score_frames(dataset, predictions: dict, cache, rank_by: str, out: Path) -> dict:
    from rich.progress import track

    from sparc_core.evaluation.scan2cad.csv_file import write_csv
    from sparc_core.evaluation.scan2cad.fused import fuse_scene
    from sparc_core.evaluation.scan2cad.per_scene import SceneProtocol
    from sparc_core.evaluation.scan2cad.predictions import to_scene
    from sparc_core.evaluation.scan2cad.report import score_per_image, score_per_scene

    poses = {(f.scene, f.name): f.T_scan_cam for scene in dataset.scenes for f in dataset.frames(scene)}
    in_scenes = to_scene([p for scene in dataset.scenes for p in predictions[scene]], poses, rank_by)
    write_csv(out / "raw_results.csv", in_scenes)
    fused = [
        p for scene in dataset.scenes for p in fuse_scene(scene, predictions[scene], dataset, poses, rank_by)
    ]
    protocol = SceneProtocol()
    limits = protocol.translation_m, protocol.rotation_deg, protocol.scale
    per_scene = score_per_scene(in_scenes, dataset.annotations, protocol)
    per_scene |= {f"fused: {k}": v for k, v in score_per_scene(fused, dataset.annotations, protocol).items()}
    return {
        "predictions": {"settings": cache.settings, "made_with": cache.facts},
        "rank_by": rank_by,
        "per_scene": per_scene,
        "per_image": score_per_image(
            predictions, dataset, ranked_by=rank_by, thresholds=limits,
            track=lambda scenes: track(scenes, description="scoring"),
        ),
    }  # fmt: skip


def _score_csv(dataset, path: Path) -> dict:
    from sparc_core.evaluation.scan2cad.csv_file import read_csv
    from sparc_core.evaluation.scan2cad.per_scene import SceneProtocol
    from sparc_core.evaluation.scan2cad.predict import file_digest
    from sparc_core.evaluation.scan2cad.report import score_per_scene

    found, left_out = read_csv(path)
    elsewhere = sum(p.scene not in dataset.annotations.scenes for p in found)
    for count, reason in ((left_out, "of other categories"), (elsewhere, "in scenes that are not prepared")):
        if count:
            typer.echo(f"left out: {count} predictions {reason}", err=True)
    files = [path] if path.is_file() else sorted(path.glob("*.csv"))
    settings = {"method": path.stem, "files": {file.name: file_digest(file) for file in files}}
    return {
        "predictions": {"settings": settings, "made_with": {}},
        "rank_by": "object_score",
        "per_scene": score_per_scene(found, dataset.annotations, SceneProtocol()),
    }


def _write(scores: dict, name: str, out: Path) -> None:
    from sparc_core.evaluation.scan2cad.report import markdown

    (out / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    table = markdown(scores, name)
    (out / "table.md").write_text(table, encoding="utf-8")
    typer.echo(table)
    typer.echo(f"wrote {out}/scores.json and table.md")
