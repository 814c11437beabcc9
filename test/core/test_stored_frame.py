"""`sparc align` as a user runs it, on a stored frame: the files it writes and where the objects end up."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from typer.testing import CliRunner

from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.scripts.main import app

ROOM = Path(__file__).parents[1] / "data" / "room"


@pytest.fixture(scope="module")
def truth():
    return json.loads((ROOM / "truth.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory, truth):
    """The folder after `sparc align` with every output asked for."""
    folder = tmp_path_factory.mktemp("aligned")
    arguments = [
        "align", ROOM / "rgb.png", "--camera", ROOM / "camera.json", "--depth", ROOM / "depth.png",
        "--depth-scale", "1000", "--detections", ROOM / "detections.json",
        "--cad-library", truth["cad_library"], "--device", "cpu", "--out", folder / "result.json",
        "--overlay", folder / "overlay.png", "--scene", folder / "scene.glb",
    ]  # fmt: skip
    outcome = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert outcome.exit_code == 0, outcome.output
    return folder


def test_the_result_file_keeps_its_contract(written, truth):
    result = json.loads((written / "result.json").read_text())
    assert {"camera", "objects", "timing_ms"} <= set(result)
    assert len(result["objects"]) == len(truth["objects"])
    for found in result["objects"]:
        assert set(found) >= {
            "detection", "category", "model_id", "box_xyxy", "R", "T_m", "S_m", "score", "start"
        }  # fmt: skip
        assert np.array(found["R"]).shape == (3, 3) and len(found["T_m"]) == len(found["S_m"]) == 3


def test_most_well_visible_objects_are_right(written, truth):
    objects = json.loads((written / "result.json").read_text())["objects"]
    expected = [truth["objects"][found["detection"]] for found in objects]

    def pose(entries):
        return Pose(*(torch.tensor([entry[name] for entry in entries]) for name in ("R", "T_m", "S_m")))

    order = torch.tensor([entry["symmetry_order"] for entry in expected])
    right = pose_errors(pose(objects), pose(expected), order).within(THRESHOLDS["20cm/20deg/20%"])
    well = torch.tensor([entry["well_visible"] for entry in expected])
    assert right[well].float().mean() >= 0.8


def test_overlay_and_scene_can_be_read_again(written, truth):
    overlay = cv2.imread(str(written / "overlay.png"))
    assert overlay.shape == cv2.imread(str(ROOM / "rgb.png")).shape
    scene = trimesh.load(written / "scene.glb")
    assert len(scene.geometry) >= len(truth["objects"])
