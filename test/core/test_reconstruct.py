"""`sparc reconstruct`: frames of the ScanNet fixture's first scene become one CAD scene."""

import json

import cv2
import numpy as np
import pytest
import scannet_fixture as fixture
import trimesh
from typer.testing import CliRunner

from sparc_core.files.posed_frames import read_sequence
from sparc_core.mapping.fuse import rotation_distance_deg
from sparc_core.scripts.main import app

SCENE = "scene0001_00"
SIZE = (480, 360)
OBJECTS = {"chair": (0, "none"), "table": (2, "cinf")}


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    """Three frames with depth and boxes, and the CAD models at their true sizes."""
    root = tmp_path_factory.mktemp("sequence")
    models = []
    for category, (number, symmetry) in OBJECTS.items():
        key, _, _, s = fixture.OBJECTS[SCENE][number]
        mesh = fixture.cad_mesh(key)
        mesh.vertices *= s
        mesh.export(root / f"{category}.obj")
        models.append({"file": f"{category}.obj", "id": category, "category": category, "symmetry": symmetry})
    (root / "index.json").write_text(json.dumps({"models": models}))
    poses = {
        "0": fixture.camera_pose(0, 15),
        "1": fixture.camera_pose(0.5, 12),
        "2": fixture.camera_pose(-0.4, 10),
    }
    frames = [write_frame(root, name, T) for name, T in poses.items()]
    K = fixture.fitted_K()
    camera = dict(width=480, height=360, fx=K[0, 0], fy=K[1, 1], cx=K[0, 2], cy=K[1, 2])
    content = {"camera": camera, "up_world": [0, 0, 1], "frames": frames}
    (root / "SEQUENCE.json").write_text(json.dumps(content))
    return root


def write_frame(root, name, T):
    depth = fixture.render(SCENE, T, fixture.fitted_K(), SIZE)
    cv2.imwrite(str(root / f"{name}.depth.png"), np.rint(depth * 1000).astype(np.uint16))
    cv2.imwrite(str(root / f"{name}.png"), np.clip(255 - depth * 45, 0, 255).astype(np.uint8))
    found = []
    for category, (number, _) in OBJECTS.items():
        key, R, t, s = fixture.OBJECTS[SCENE][number]
        points = ((fixture.cad_mesh(key).vertices * s) @ R.T + t - T[:3, 3]) @ T[:3, :3]
        uvw = points @ fixture.fitted_K().T
        uv = np.clip(uvw[:, :2] / uvw[:, 2:], -0.5, np.array(SIZE) - 0.5)
        found.append({"box_xyxy": [*uv.min(0), *uv.max(0)], "category": category})
    (root / f"{name}.json").write_text(json.dumps(found))
    return {
        "image": f"{name}.png",
        "depth": f"{name}.depth.png",
        "detections": f"{name}.json",
        "T_world_cam": T.tolist(),
    }


def test_frames_become_one_chair_and_one_table_where_they_stand(sequence, tmp_path):
    result = CliRunner().invoke(app, [
        "reconstruct", str(sequence / "SEQUENCE.json"), "--out", str(tmp_path / "MAP.json"),
        "--scene", str(tmp_path / "map.glb"), "--cad-library", str(sequence), "--device", "cpu",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "MAP.json").read_text())
    assert content["frames"] == 3 and content["config"]["map"]["min_score"] == 0.5
    found = {item["category"]: item for item in content["objects"]}
    assert sorted(item["category"] for item in content["objects"]) == ["chair", "table"]
    for category, (number, symmetry) in OBJECTS.items():
        key, R, t, s = fixture.OBJECTS[SCENE][number]
        centre = R @ (s * np.array(fixture.BOXES[key][1])) + t
        item = found[category]
        assert sorted(item["frames"]) == [0, 1, 2]
        assert np.linalg.norm(np.array(item["T_m"]) - centre) < 0.05
        assert rotation_distance_deg(np.array(item["R"]), R, symmetry) < 5
        assert item["S_m"] == pytest.approx(2 * np.array(fixture.BOXES[key][0]) * s, rel=0.08)
    scene = trimesh.load(tmp_path / "map.glb")
    low, high = scene.bounds  # y is up: the floor of the world is at 0, the chair 0.9 m high
    assert low[1] == pytest.approx(0.0, abs=0.08) and high[1] == pytest.approx(0.9, abs=0.08)


def changed(sequence, tmp_path, change):
    content = json.loads((sequence / "SEQUENCE.json").read_text())
    change(content)
    path = tmp_path / "CHANGED.json"
    path.write_text(json.dumps(content))
    return path


def test_a_sequence_tells_cameras_poses_and_gravity(sequence):
    read = read_sequence(sequence / "SEQUENCE.json")
    frame = read.frames[0]
    assert len(read.frames) == 3 and read.depth_scale == 1000
    assert frame.T_world_cam == pytest.approx(fixture.camera_pose(0, 15))
    # pitched down by 15°, up leans towards the camera's back
    assert frame.camera.up_cam == pytest.approx((0, -np.cos(np.radians(15)), -np.sin(np.radians(15))))
    assert frame.depth == sequence / "0.depth.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["frames"][1].update(T_world_cam=np.diag([2, 1, 1, 1]).tolist()),
            "frame 1: field 'T_world_cam'",
        ),
        (lambda c: c.pop("camera"), "frame 0: field 'camera' is missing"),
        (lambda c: c.update(frames=[]), "expected at least one frame"),
        (lambda c: c["frames"][0].pop("image"), "frame 0: field 'image' is missing"),
        (lambda c: c["frames"][0].update(pose=1), "frame 0: expected only the fields"),
        (lambda c: c.update(depth_scale_units_per_m=0), "depth_scale_units_per_m"),
    ],
)
def test_malformed_sequences_name_frame_and_field(sequence, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_sequence(changed(sequence, tmp_path, change))


def test_without_gravity_the_camera_does_not_know_up(sequence, tmp_path):
    path = changed(sequence, tmp_path, lambda c: c.update(up_world=None))
    assert read_sequence(path).frames[0].camera.up_cam is None


def test_a_detector_is_loaded_for_frames_without_detections_only(sequence, tmp_path):
    path = changed(sequence, sequence, lambda c: c["frames"][0].pop("detections"))
    arguments = ["reconstruct", str(path), "--out", str(tmp_path / "m.json"), "--cad-library", str(sequence),
                 "--detector", "gone.safetensors"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "gone.safetensors: no such file" in result.output
