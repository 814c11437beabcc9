"""Predictions of single frames fused to one CAD scene, to be scored beside suppression by σ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparc_core.datasets.poses import CadPose
from sparc_core.datasets.prepared import PreparedScannet
from sparc_core.evaluation.scan2cad.predictions import FramePrediction, ScenePrediction
from sparc_core.mapping.scene_map import MapConfig, build_map
from sparc_core.mapping.sighting import Sighting


def fuse_scene(
    scene: str,
    predictions: Sequence[FramePrediction],
    dataset: PreparedScannet,
    T_scan_cam: Mapping[tuple[str, str], np.ndarray],
    ranked_by: str,
    config: MapConfig | None = None,
) -> list[ScenePrediction]:
    """The objects of a scene, fused over its frames, as predictions in scan coordinates.

    Predictions without a pose or of CAD models without a mesh are left out. T_scan_cam: (4, 4) of each
    (scene, frame).
    """
    frames = {name: number for number, name in enumerate(sorted({p.frame for p in predictions}))}
    sightings = []
    for p in predictions:
        if p.pose is None or p.key not in dataset.cad:
            continue
        T, file = T_scan_cam[scene, p.frame], dataset.cad[p.key]
        pose = file.box.to_box_pose(p.pose.moved(T))
        sightings.append(Sighting(
            frames[p.frame], p.category, file.model_id, file.symmetry, pose.R, pose.t, pose.s,
            p.score(ranked_by), T[:3, 3],
        ))  # fmt: skip
    found = []
    for item in build_map(sightings, config):
        synset, cad_id = item.model_id.split("_", 1)
        pose = dataset.cad[synset, cad_id].box.to_file_pose(CadPose(item.R, item.T_m, item.S_m))
        found.append(ScenePrediction(scene, synset, cad_id, item.category, pose, item.score))
    return found
