"""`sparc align` and the `sparc` command itself: files in, files out, and every kind of bad input.

The aligner is replaced by a recorder: what it is given, and what becomes of its result, is tested here.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from sparc_core.cad.library import CadLibrary, build_model
from sparc_core.files import read_detections, read_result
from sparc_core.perception.see import Perception, PerceptionConfig, Seen
from sparc_core.scripts.main import COMMANDS, app
from sparc_core.types import CATEGORIES, AlignedObject, AlignmentResult, Detection, SkippedDetection

REAL_DETECTIONS = Path(__file__).parents[1] / "data" / "real_detections"


@pytest.fixture
def frame(tmp_path):
    """A folder with one small frame in the formats of the contract."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "rgb.png"), rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "depth.png"), np.full((48, 64), 2500, np.uint16))
    camera = {"width": 64, "height": 48, "fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "note": "synthetic"}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    (tmp_path / "dets.json").write_text(
        json.dumps([{"box_xyxy": [10, 8, 50, 40], "category": "table", "score": 0.8}])
    )
    return tmp_path


@pytest.fixture
def recorder(monkeypatch):
    """Replaces `Aligner.load`; holds the arguments it and `align` were called with."""
    box = trimesh.creation.box((0.6, 0.4, 0.5))
    colors = np.full((12, 3), 200, np.uint8)
    library = CadLibrary(
        [build_model("box", "table", box.vertices, box.faces, colors, "test", "c4")], [("bad.obj", "empty")]
    )
    calls = SimpleNamespace(library=library)

    def load(weights=None, cad_library=None, *, device="auto", config=None, retrieval="size"):
        calls.load, calls.retrieval = (weights, cad_library, device, config), retrieval

        def align(
            image_rgb,
            camera,
            detections,
            depth_m=None,
            normals_cam=None,
            *,
            depth_predicted=False,
            hints=None,
        ):
            calls.align = SimpleNamespace(
                image_rgb=image_rgb, camera=camera, detections=detections, depth_m=depth_m,
                normals_cam=normals_cam, depth_predicted=depth_predicted, hints=hints,
            )  # fmt: skip
            item = AlignedObject(
                0, "table", "box", (10.0, 8.0, 50.0, 40.0), np.diag([1.0, -1.0, -1.0]),
                np.array([0, 0.1, 2.0]), np.array([0.6, 0.4, 0.5]), 0.87, "azimuth_180",
            )  # fmt: skip
            skipped = (SkippedDetection(1, "no CAD model of category 'x[y]'"),)
            return AlignmentResult(camera, (item,), skipped, {"network": 3.2, "total": 12.4})

        return SimpleNamespace(cad_library=library, config=config, align=align)

    monkeypatch.setattr("sparc_core.pipeline.Aligner.load", load)
    return calls


def run(frame, *more, without=()):
    given = {
        "--camera": frame / "camera.json",
        "--detections": frame / "dets.json",
        "--out": frame / "r.json",
    }
    options = [str(text) for name, path in given.items() if name not in without for text in (name, path)]
    arguments = ["align", str(frame / "rgb.png"), *options, *map(str, more)]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})


def refused(frame, *more, without=()):
    """Run a command that must be refused as bad input, and return its message."""
    done = run(frame, *more, without=without)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert not (frame / "r.json").exists()
    return done.stderr


def test_the_result_and_the_table(frame, recorder):
    done = run(frame, "--depth", frame / "depth.png")
    assert done.exit_code == 0, done.output
    (item,) = read_result(frame / "r.json").objects
    assert (item.model_id, item.start, item.score) == ("box", "azimuth_180", 0.87)
    for text in ("1 object", "table", "box", "0.87", "0.00 0.10 2.00", "azimuth_180", "total 12", "r.json"):
        assert text in done.stdout
    assert "skipped detection 1: no CAD model of category 'x[y]'" in done.stdout
    assert "skipped CAD file bad.obj: empty" in done.stderr
    content = json.loads((frame / "r.json").read_text())
    assert content["config"]["scale_mode"] == "free"


def test_what_the_aligner_is_given(frame, recorder):
    assert run(frame, "--depth", frame / "depth.png").exit_code == 0
    given = recorder.align
    expected = cv2.imread(str(frame / "rgb.png"))[..., ::-1]
    np.testing.assert_array_equal(given.image_rgb, expected)
    assert (given.camera.width, given.camera.fx) == (64, 60.0)
    assert given.detections[0].box_xyxy == (10.0, 8.0, 50.0, 40.0)
    assert given.depth_m.dtype == np.float32
    np.testing.assert_array_equal(given.depth_m, np.full((48, 64), 2.5, np.float32))
    weights, library, device, config = recorder.load
    assert (weights, library, device, config.scale_mode) == (None, None, "auto", "free")
    assert config.stand_on_floor


def test_options_reach_the_aligner(frame, recorder):
    (frame / "w.safetensors").touch()
    more = [
        "--weights",
        frame / "w.safetensors",
        "--device",
        "cpu",
        "--scale-mode",
        "uniform",
        "--cad-library",
        "procedural:3-3",
    ]
    done = run(frame, *more, "--depth-model", "none", "--retrieval", "size", "--no-stand-on-floor")
    assert done.exit_code == 0, done.output
    weights, library, device, config = recorder.load
    assert (weights, device, config.scale_mode) == (frame / "w.safetensors", "cpu", "uniform")
    assert not config.stand_on_floor
    assert len(library) == len(CATEGORIES)
    assert recorder.retrieval == "size"
    assert recorder.align.depth_m is None and not recorder.align.depth_predicted
    assert run(frame, "--depth", frame / "depth.png", "--depth-predicted").exit_code == 0
    assert recorder.align.depth_predicted


def test_the_depth_scale_comes_from_the_option_the_camera_file_or_is_1000(frame, recorder):
    depth = ["--depth", frame / "depth.png"]
    content = json.loads((frame / "camera.json").read_text()) | {"depth_scale_units_per_m": 5000}
    (frame / "camera.json").write_text(json.dumps(content))
    run(frame, *depth)
    assert recorder.align.depth_m[0, 0] == np.float32(0.5)
    run(frame, *depth, "--depth-scale", 2500)
    assert recorder.align.depth_m[0, 0] == 1.0
    (frame / "r.json").unlink()
    assert "depth scale: expected a positive number" in refused(frame, *depth, "--depth-scale", 0)
    assert "only together with --depth" in refused(frame, "--depth-scale", 1000)


def test_overlay_and_scene_are_written(frame, recorder):
    done = run(
        frame, "--depth", frame / "depth.png", "--overlay", frame / "o.png", "--scene", frame / "s.glb"
    )
    assert done.exit_code == 0, done.output
    overlay, image = cv2.imread(str(frame / "o.png")), cv2.imread(str(frame / "rgb.png"))
    assert overlay.shape == image.shape
    assert (overlay[26, 31] != image[26, 31]).any()  # T_m = (0, 0.1, 2) projects to (31.5, 26.5)
    scene = trimesh.load(frame / "s.glb")
    assert {"0_box", "points", "camera"} <= set(scene.graph.nodes)


def test_an_image_and_its_camera_are_enough(frame, recorder):
    done = run(frame, "--device", "cpu", without=("--detections",))
    assert done.exit_code == 0, done.output
    assert recorder.retrieval == "shipped" and recorder.align.depth_predicted
    assert recorder.align.depth_m.shape == (48, 64) and (recorder.align.depth_m > 0).all()
    ran = json.loads((frame / "r.json").read_text())["perception"]
    assert ran["detector"] == "MaskRcnnDetector" and ran["depth"] == "OurDepthNormals"


def test_predictors_take_the_place_of_detections_and_depth(frame, recorder, monkeypatch):
    given = SimpleNamespace()

    def load(config, device):
        given.config, given.device = config, device
        depth = np.full((48, 64), 3.0, np.float32)
        seen = Seen((Detection((1.0, 2.0, 30.0, 40.0), "table", 0.7),), depth, np.zeros((48, 64, 3)), True,
                    {"detector": "Any", "depth": "Other", "masks": "none"}, {"detector": 12.0})  # fmt: skip
        return SimpleNamespace(see=lambda *arguments: setattr(given, "see", arguments) or seen)

    monkeypatch.setattr(Perception, "load", load)
    result = run(frame, "--detector", "d.safetensors", "--depth-model", "hf:depth", "--masks", "sam:s.pth",
                 "--box-model", "b.safetensors", "--min-score", "0.6", "--device", "cpu",
                 without=("--detections",))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert given.config == PerceptionConfig(
        "d.safetensors", "hf:depth", "sam:s.pth", 0.6, estimates="b.safetensors"
    )  # fmt: skip
    assert given.device == "cpu" and given.see[2] is None and given.see[3] is None
    assert recorder.align.depth_predicted and recorder.align.detections[0].box_xyxy == (1.0, 2.0, 30.0, 40.0)
    written = json.loads((frame / "r.json").read_text())
    assert written["perception"] == {"detector": "Any", "depth": "Other", "masks": "none"}
    assert written["timing_ms"]["detector"] == 12.0
    assert run(frame, "--box-model", "none", without=("--detections",)).exit_code == 0
    assert given.config.estimates == ""


def test_predictors_that_cannot_be_loaded_are_named(frame, recorder):
    message = refused(frame, "--detector", frame / "gone.safetensors", without=("--detections",))
    assert "gone.safetensors: no such file" in message
    message = refused(frame, "--box-model", frame / "lost.safetensors", without=("--detections",))
    assert "lost.safetensors: no such file" in message
    assert "perception masks must be 'sam:FILE'" in refused(frame, "--masks", "s.pth")
    assert "fill_holes needs a depth predictor" in refused(frame, "--fill-holes", "--depth-model", "none")


def test_missing_and_broken_files_are_named(frame, recorder):
    assert "gone.json: no such file" in refused(frame, "--camera", frame / "gone.json")
    assert "rgb.png: expected a camera as JSON" in refused(frame, "--camera", frame / "rgb.png")
    assert "camera.json: expected an image" in refused(frame, "--depth", frame / "camera.json").replace(
        "a depth", "an"
    )
    (frame / "dets.json").write_text('[{"box_xyxy": [1, 2, 3], "category": "chair"}]')
    assert "dets.json: detection 0: field 'box_xyxy'" in refused(frame)


def test_a_file_that_was_written_to_look_like_markup_is_printed_as_it_is(frame):
    assert "[bold]x.json: no such file" in refused(frame, "--camera", "[bold]x.json")


def test_sizes_that_do_not_agree_are_refused(frame, recorder):
    cv2.imwrite(str(frame / "small.png"), np.full((24, 32), 900, np.uint16))
    message = refused(frame, "--depth", frame / "small.png")
    assert (
        "small.png: expected 64×48 pixels" in message and "camera.json" in message and "got 32×24" in message
    )
    (frame / "dets.json").write_text('[{"box_xyxy": [1, 2, 3, 4], "category": "chair", "mask": "small.png"}]')
    assert "detection 0: mask: expected 64×48 pixels" in refused(frame)
    cv2.imwrite(str(frame / "rgb.png"), np.zeros((10, 12, 3), np.uint8))
    assert "rgb.png: expected 64×48 pixels" in refused(frame)


def test_outputs_that_cannot_be_written_are_refused_before_the_work(frame, recorder):
    assert "expected a name ending in .png" in refused(frame, "--overlay", frame / "o.tga")
    assert "expected a name ending in .glb or .html" in refused(frame, "--scene", frame / "s.ply")
    assert "--overlay" in refused(frame, "--overlay", frame / "no" / "o.png")
    assert "expected a file name, got a folder" in refused(frame, "--out", frame, without=("--out",))
    assert not hasattr(recorder, "load")


def test_bad_choices_and_weights_are_refused(frame, recorder):
    assert "gone.safetensors: no such file" in refused(frame, "--weights", frame / "gone.safetensors")
    assert "procedural:FIRST-LAST" in refused(frame, "--cad-library", "procedural:9-2")
    assert "'tpu'" in refused(frame, "--device", "tpu")
    assert "--camera" in refused(frame, without=("--camera",))


def test_a_broken_weights_file_is_refused_by_name(frame):
    (frame / "w.safetensors").write_bytes(b"not weights")
    assert "w.safetensors" in refused(frame, "--weights", frame / "w.safetensors", "--device", "cpu")


def test_debug_shows_where_an_error_came_from(frame):
    done = run(frame, "--camera", frame / "gone.json", "--debug")
    assert isinstance(done.exception, FileNotFoundError)


# the command itself


def test_version_and_help_start_without_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from sparc_core.scripts.main import app;"
        "out = CliRunner().invoke(app, ['--version']).output; from sparc_core import __version__;"
        "assert out == f'sparc {__version__}\\n', out;"
        "helped = CliRunner().invoke(app, ['align', '--help']); assert helped.exit_code == 0, helped.output;"
        "assert '--scale-mode' in helped.output; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_whose_modules_are_missing_are_not_offered(monkeypatch):
    monkeypatch.setitem(COMMANDS, "dance", ("sparc_core.scripts.dance", "command"))
    runner = CliRunner()
    assert "dance" not in runner.invoke(app, ["--help"]).output
    done = runner.invoke(app, ["dance"])
    assert done.exit_code == 2 and "dance" in done.output


def test_the_detections_of_the_real_frames_are_readable():
    found = {path.stem: read_detections(path) for path in sorted(REAL_DETECTIONS.glob("*.json"))}
    assert {name: sorted(d.category for d in detections) for name, detections in found.items()} == {
        "tum_desk_1": ["display", "table"],
        "tum_desk_2": ["display", "table"],
        "tum_office": ["chair", "chair", "table", "table"],
    }
    for detections in found.values():
        for detection in detections:
            x0, y0, x1, y1 = detection.box_xyxy
            assert 0 <= x0 < x1 <= 640 and 0 <= y0 < y1 <= 480
