"""Annotated and predicted objects of four CAD models, for the tests of Scan2CAD's protocols."""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from sparc_core.datasets.poses import CadBox, CadPose
from sparc_core.datasets.scan2cad import AnnotatedObject, Annotations, CadInfo
from sparc_core.evaluation.scan2cad.per_scene import SceneProtocol, score_scenes
from sparc_core.evaluation.scan2cad.predictions import FramePrediction, ScenePrediction

CHAIR, TABLE = "03001627", "04379243"
CATEGORY = {CHAIR: "chair", TABLE: "table"}
PROTOCOL = SceneProtocol()
BOX = CadBox(np.array([0.0, 0.5, 0.0]), np.array([0.5, 1.0, 0.5]))
CAD = {
    (CHAIR, "plain"): CadInfo("chair", "none", BOX),
    (CHAIR, "round"): CadInfo("chair", "cinf", BOX),
    (CHAIR, "square"): CadInfo("chair", "c4", BOX),
    (CHAIR, "oblong"): CadInfo("chair", "c2", BOX),
    (TABLE, "plain"): CadInfo("table", "none", BOX),
}


def turned(degrees, axis="y"):
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


def pose(t=(0, 0, 0), yaw=0.0, s=(1, 1, 1)):
    return CadPose(turned(yaw), np.array(t, dtype=float), np.array(s, dtype=float))


def predicted(t=(0, 0, 0), yaw=0.0, s=(1, 1, 1), score=0.5, cad="plain", synset=CHAIR, scene="a"):
    return ScenePrediction(scene, synset, cad, CATEGORY[synset], pose(t, yaw, s), score)


def annotated(t=(0, 0, 0), yaw=0.0, s=(1, 1, 1), cad="plain", synset=CHAIR):
    info = CAD[synset, cad]
    return AnnotatedObject(synset, cad, info.category, info.symmetry, pose(t, yaw, s), info.box)


def score(predictions, scenes, **changes):
    scenes = {name: tuple(objects) for name, objects in scenes.items()}
    return score_scenes(predictions, Annotations(scenes, CAD), dataclasses.replace(PROTOCOL, **changes))


def in_frame(t=(0, 0, 2), yaw=0.0, s=(1, 1, 1), box=(0, 0, 10, 10), cad="plain", synset=CHAIR, **scores):
    scores = {"pose_score": 0.5, "detection_score": 0.5, **scores}
    posed = None if t is None else pose(t, yaw, s)
    return FramePrediction("a", "000000", synset, cad, CATEGORY[synset], box, posed, **scores)
