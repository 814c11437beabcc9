"""`sparc align` on folders and videos: a line a frame, one scene, and every kind of bad input.

The aligner is replaced by one that puts the object where its box says, so that poses can be checked.
"""

import base64
import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from sparc_core.cad.library import CadLibrary, build_model
from sparc_core.files.results import result_from_json
from sparc_core.scripts.main import app
from sparc_core.types import AlignedObject, AlignmentResult

FOCAL, WIDTH, HEIGHT, FRAMES = 60.0, 64, 48, 6
SIZE = np.array([0.6, 0.4, 0.5])
TABLE_ROOM = np.array([0.3, 3.0, 0.2])  # z up; the camera looks along y and walks along x


def T_room_cam(i):
    T = np.eye(4)
    T[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    T[:3, 3] = (0.1 * i, 0.0, 1.0)
    return T


def table_box(i):
    T = T_room_cam(i)
    x, y, z = T[:3, :3].T @ (TABLE_ROOM - T[:3, 3])
    u, v = FOCAL * x / z + 31.5, FOCAL * y / z + 23.5
    return [u - 6, v - 4, u + 6, v + 4]


@pytest.fixture
def sequence(tmp_path):
    """Six frames in the layout of the documentation, with poses as a TUM trajectory."""
    for name in ("rgb", "depth", "detections"):
        (tmp_path / name).mkdir()
    poses = []
    for i in range(FRAMES):
        cv2.imwrite(str(tmp_path / "rgb" / f"{i:06d}.png"), np.full((HEIGHT, WIDTH, 3), 40 * i, np.uint8))
        cv2.imwrite(str(tmp_path / "depth" / f"{i:06d}.png"), np.full((HEIGHT, WIDTH), 2800, np.uint16))
        entry = {"box_xyxy": table_box(i), "category": "table", "score": 0.8}
        (tmp_path / "detections" / f"{i:06d}.json").write_text(json.dumps([entry]))
        T = T_room_cam(i)
        poses.append(f"{i / 30:.9f} {T[0, 3]} {T[1, 3]} {T[2, 3]} -0.70710678118 0 0 0.70710678118")
    (tmp_path / "poses.txt").write_text("\n".join(poses))
    camera = {"width": WIDTH, "height": HEIGHT, "fx": FOCAL, "fy": FOCAL, "cx": 31.5, "cy": 23.5}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    return tmp_path


@pytest.fixture
def recorder(monkeypatch):
    """Replaces `Aligner.load`; keeps what `align` was given."""
    mesh = trimesh.creation.box(SIZE)
    colors = np.full((12, 3), 200, np.uint8)
    library = CadLibrary([build_model("box", "table", mesh.vertices, mesh.faces, colors, "test", "c2")])
    calls = SimpleNamespace(given=[])

    def align(
        image_rgb, camera, detections, depth_m=None, normals_cam=None, *, depth_predicted=False, hints=None,
        starts=None,
    ):  # fmt: skip
        calls.given.append(SimpleNamespace(camera=camera, depth_m=depth_m, starts=starts, rgb=image_rgb))
        objects = []
        for index, detection in enumerate(detections):
            x0, y0, x1, y1 = detection.box_xyxy
            z = 3.0
            ray = ((x0 + x1) / 2 - camera.cx) / FOCAL, ((y0 + y1) / 2 - camera.cy) / FOCAL, 1.0
            T_m = z * np.array(ray)
            # upright in the room: y of the CAD frame is z of the room
            R = np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], float)
            start = "azimuth_0" if starts is None or starts[index] is None else "track"
            objects.append(AlignedObject(index, "table", "box", detection.box_xyxy, R, T_m, SIZE, 0.9, start))
        return AlignmentResult(camera, tuple(objects), (), {"total": 5.0})

    def load(weights=None, cad_library=None, *, device="auto", config=None, retrieval=None):
        return SimpleNamespace(cad_library=library, config=config, align=align)

    monkeypatch.setattr("sparc_core.pipeline.Aligner.load", load)
    return calls


def run(folder, *more, source="rgb", poses=True, without=()):
    given = {
        "--camera": folder / "camera.json", "--detections": folder / "detections",
        "--depth": folder / "depth", "--out": folder / "r.jsonl",
    }  # fmt: skip
    if poses:
        given["--poses"] = folder / "poses.txt"
    options = [str(text) for name, path in given.items() if name not in without for text in (name, path)]
    arguments = ["align", str(folder / source), *options, *map(str, more)]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})


def lines_of(folder):
    return [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]


def refused(folder, *more, **options):
    done = run(folder, *more, **options)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.stderr


def test_a_line_a_frame_with_the_fields_of_a_result_and_tracks(sequence, recorder):
    done = run(sequence)
    assert done.exit_code == 0, done.output
    lines = lines_of(sequence)
    assert [line["frame"] for line in lines] == [f"{i:06d}" for i in range(FRAMES)]
    np.testing.assert_allclose([line["stamp_s"] for line in lines], np.arange(FRAMES) / 30)
    for i, line in enumerate(lines):
        (item,) = result_from_json(line, "line").objects
        assert line["objects"][0]["track_id"] == 1
        in_room = T_room_cam(i)[:3, :3] @ item.T_m + T_room_cam(i)[:3, 3]
        np.testing.assert_allclose(in_room, TABLE_ROOM, atol=1e-6)
        np.testing.assert_allclose(line["T_fixed_cam"], T_room_cam(i), atol=1e-6)
        assert line["config"]["tracker"]["reinit_score"] == 0.4
    assert [line["searched"] for line in lines] == [[0]] + [[]] * (FRAMES - 1)
    assert [item.start for item in (result_from_json(line, "").objects[0] for line in lines)] == [
        "azimuth_0", *["track"] * (FRAMES - 1)
    ]  # fmt: skip
    assert "1 objects in 6 frames" in done.stdout and "0.30 3.00 0.20" in done.stdout


def test_what_the_aligner_is_given(sequence, recorder):
    assert run(sequence, "--depth-scale", 2000).exit_code == 0
    for i, given in enumerate(recorder.given):
        assert given.rgb[0, 0, 0] == 40 * i and given.depth_m[0, 0] == np.float32(1.4)
        np.testing.assert_allclose(given.camera.up_cam, (0, -1, 0), atol=1e-9)  # z of the room
        assert given.camera.above_floor_m is None
    recorder.given.clear()
    assert run(sequence, "--floor", -0.5).exit_code == 0
    told = [given.camera.above_floor_m for given in recorder.given]
    np.testing.assert_allclose(told, T_room_cam(0)[2, 3] + 0.5, atol=1e-9)
    recorder.given.clear()
    assert run(sequence, "--world-up", "none").exit_code == 0
    assert recorder.given[0].camera.up_cam is None


def test_without_poses_the_camera_stands_still(sequence, recorder):
    assert run(sequence, poses=False).exit_code == 0
    assert all(line["T_fixed_cam"] is None for line in lines_of(sequence))
    first, second = recorder.given[0], recorder.given[1]
    assert first.camera.up_cam is None
    (start,) = second.starts
    np.testing.assert_allclose(start.T_m, lines_of(sequence)[0]["objects"][0]["T_m"])


def test_frames_without_a_pose_are_told(sequence, recorder):
    lines = (sequence / "poses.txt").read_text().splitlines()
    (sequence / "poses.txt").write_text("\n".join(lines[:3]))
    done = run(sequence)
    assert done.exit_code == 0 and "3 of 6 frames have no pose" in re.sub(r"\s+", " ", done.stderr)


def test_a_video_file_with_detections_in_lines(sequence, recorder):
    path = sequence / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30.0, (WIDTH, HEIGHT))
    for i in range(FRAMES):
        writer.write(cv2.imread(str(sequence / "rgb" / f"{i:06d}.png")))
    writer.release()
    lines = [
        json.dumps({"frame": f"{i:06d}", "detections": [{"box_xyxy": table_box(i), "category": "table"}]})
        for i in range(FRAMES)
    ]
    (sequence / "dets.jsonl").write_text("\n".join(lines))
    more = ["--detections", sequence / "dets.jsonl", "--every", 2]
    done = run(sequence, *more, source="v.avi", without=("--detections",))
    assert done.exit_code == 0, done.output
    assert [line["frame"] for line in lines_of(sequence)] == ["000000", "000002", "000004"]


def test_the_scene_stands_upright_in_the_room(sequence, recorder):
    assert run(sequence, "--scene", sequence / "s.glb").exit_code == 0
    scene = trimesh.load(sequence / "s.glb")
    assert {"1_box", "points", "way", "camera"} <= set(scene.graph.nodes)
    T, name = scene.graph["1_box"]
    low, high = trimesh.transform_points(scene.geometry[name].bounds, T)
    # z of the room is y of the scene; y of the room is −z
    np.testing.assert_allclose((low + high) / 2, (0.3, 0.2, -3.0), atol=1e-5)
    np.testing.assert_allclose(high - low, SIZE, atol=1e-5)
    T, name = scene.graph["way"]
    np.testing.assert_allclose(scene.geometry[name].bounds.mean(0), (0.25, 1.0, 0.0), atol=0.02)


def test_the_page_holds_everything_it_shows(sequence, recorder):
    assert run(sequence, "--scene", sequence / "s.html").exit_code == 0
    page = (sequence / "s.html").read_text()
    outside = r"<script[^>]*\ssrc\s*=|<link|<img|<iframe|@import|url\(http"
    assert not re.search(outside, page)
    assert "<title>s</title>" in page
    (encoded,) = re.findall(r'base64_data="([A-Za-z0-9+/=]+)"', page)
    (sequence / "inside.glb").write_bytes(base64.b64decode(encoded))
    assert "1_box" in trimesh.load(sequence / "inside.glb").graph.nodes


def test_bad_input_is_named(sequence, recorder):
    assert "expected a name ending in .jsonl" in refused(
        sequence, "--out", sequence / "r.json", without=("--out",)
    )
    assert "--overlay" in refused(sequence, "--overlay", sequence / "o.png")
    assert "--world-up: expected one of" in refused(sequence, "--world-up", "x")
    for more, options in ((("--world-up", "none"), {}), ((), {"poses": False})):
        assert "--floor 0: needs --poses, and" in refused(sequence, "--floor", 0, *more, **options)
    assert "has the camera" in refused(sequence, "--floor", 50)
    assert "gone.txt: no such file" in refused(sequence, "--poses", sequence / "gone.txt", poses=False)
    assert "--depth-scale" in refused(sequence, "--depth-scale", 10, without=("--depth",))
    (sequence / "depth" / "000003.png").unlink()
    assert "expected depth images for frame 000003" in refused(sequence)
    assert len(lines_of(sequence)) == 3  # what was done stays


def test_an_image_of_another_size_is_named_with_its_frame(sequence, recorder):
    cv2.imwrite(str(sequence / "rgb" / "000002.png"), np.zeros((10, 12, 3), np.uint8))
    assert "frame 000002: expected 64×48 pixels" in refused(sequence)


def test_tracker_options_reach_the_tracker(sequence, recorder):
    assert run(sequence, "--no-smooth", "--reinit-score", 0.7).exit_code == 0
    tracker = lines_of(sequence)[0]["config"]["tracker"]
    assert tracker["smoothing"] is None and tracker["reinit_score"] == 0.7
    assert "reinit_score must be in [0, 1]" in refused(sequence, "--reinit-score", 3)


def test_the_map_holds_the_fused_object_in_the_room_and_the_scene_shows_it(sequence, recorder):
    out, scene = sequence / "map.json", sequence / "room.glb"
    done = run(sequence, "--map", out, "--scene", scene)
    assert done.exit_code == 0 and "map.json" in done.stdout, done.output
    (entry,) = json.loads(out.read_text())["objects"]
    assert entry["id"] == lines_of(sequence)[0]["objects"][0]["track_id"] and entry["category"] == "table"
    np.testing.assert_allclose(entry["T_m"], TABLE_ROOM, atol=1e-6)
    assert sorted(entry["frames"]) == list(range(FRAMES))
    assert f"{entry['id']}_box" in trimesh.load(scene).graph.nodes_geometry


def test_a_map_needs_poses_from_the_first_frame_on(sequence, recorder):
    out = sequence / "map.json"
    assert "needs --poses, where the camera was" in refused(sequence, "--map", out, poses=False)
    assert "expected a folder that exists" in refused(sequence, "--map", sequence / "gone" / "map.json")
    lines = (sequence / "poses.txt").read_text().splitlines()
    (sequence / "poses.txt").write_text("\n".join(lines[:3]))
    assert run(sequence, "--map", out).exit_code == 0  # later ones may be missing
    assert sorted(json.loads(out.read_text())["objects"][0]["frames"]) == [0, 1, 2]
    (sequence / "poses.txt").write_text("\n".join(lines[4:]))
    assert "no pose for frame 000000: --map needs one to begin with" in refused(sequence, "--map", out)
    one = sequence / "rgb" / "000000.png"
    assert "--map" in refused(sequence, "--map", out, source=one)
