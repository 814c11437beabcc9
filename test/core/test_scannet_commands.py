"""`sparc prepare scannet25k` and `sparc evaluate scannet25k` on the fixture, from the files to the table."""

import json
import shutil

import numpy as np
import pytest
import scannet_fixture as fixture
import trimesh
from typer.testing import CliRunner

from sparc_core.datasets.prepare import Sources, check_tree
from sparc_core.datasets.prepared import PreparedScannet
from sparc_core.evaluation.scan2cad.cache import PredictionCache
from sparc_core.scripts.main import app


def sparc(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def prepare(tree, out, *more):
    places = ("--frames", tree / "frames", "--scan2cad", tree / "scan2cad", "--shapenet", tree / "shapenet")
    return sparc(
        "prepare", "scannet25k", *places, "--scenes", tree / "val.txt", "--out", out, "--jobs", 1, *more
    )


def scores(folder):
    return json.loads((folder / "scores.json").read_text())


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fixture.write_tree(tmp_path_factory.mktemp("licensed"))


@pytest.fixture
def own_tree(tree, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tree, tmp_path / "tree")


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "val"
    result = prepare(tree, out)
    assert result.exit_code == 0, result.output
    assert "6 annotated objects: 1 bin, 1 bookshelf, 3 chair, 1 table" in result.output
    assert "wrote 4 frames of 3 scenes" in result.output
    return out


def evaluate(prepared, out, *more):
    result = sparc("evaluate", "scannet25k", prepared, "--out", out, *more)
    assert result.exit_code == 0, result.output
    return scores(out)


# prepare


def test_the_prepared_tree_holds_frames_cameras_and_truth(prepared):
    dataset = PreparedScannet(prepared)
    assert dataset.scenes == fixture.SCENES and dataset.has_depth
    frames = dataset.frames("scene0001_00")
    assert [f.name for f in frames] == ["000000", "000100"]  # 000200 has no pose
    skipped = json.loads((prepared / "scenes/scene0001_00/scene.json").read_text())["skipped"]
    assert skipped == [["000200", "ScanNet has no pose for it"]]
    for frame in frames:
        assert frame.camera.K == pytest.approx(fixture.fitted_K())
        assert frame.T_scan_cam == pytest.approx(fixture.FRAMES["scene0001_00"][frame.name], abs=1e-6)
        assert dataset.image(frame).shape == (360, 480, 3) and dataset.depth_m(frame).shape == (360, 480)


def test_truth_in_frames_agrees_with_projected_vertices(prepared):
    dataset = PreparedScannet(prepared)
    for scene, name, number, index in (("scene0001_00", "000000", 0, 0), ("scene0001_00", "000100", 2, 1),
                                       ("scene0003_00", "000000", 0, 0)):  # fmt: skip
        (frame,) = (f for f in dataset.frames(scene) if f.name == name)
        item = frame.objects[index]
        expected = np.array(fixture.roca_box(scene, number, name)) - 0.5
        assert np.abs(np.array(item.box_xyxy) - expected).max() < 1.01  # pixels of the silhouette
        assert item.visible_share > 0.98


def test_hidden_objects_and_those_beside_the_picture_are_known(prepared):
    (frame,) = PreparedScannet(prepared).frames("scene0002_00")
    assert [(o.index, o.visible) for o in frame.objects] == [(0, True), (1, False)]  # the chair is beside it
    assert frame.objects[1].mask_box_xyxy is None


def test_sizes_come_from_other_scenes_than_those_measured(prepared):
    """The training scene has a chair of factor 1.4 and a table of 1.2; others take the median of both."""
    metres = {file.category: file.metres_per_unit for file in PreparedScannet(prepared).cad.values()}
    assert metres == pytest.approx({"chair": 1.4, "table": 1.2, "bookshelf": 1.3, "bin": 1.3})


def test_a_run_that_stopped_goes_on(own_tree, tmp_path):
    out = tmp_path / "out"
    assert prepare(own_tree, out).exit_code == 0
    kept = out / "scenes" / "scene0001_00" / "scene.json"
    kept.write_text("kept")
    (out / "scenes" / "scene0002_00" / "scene.json").unlink()
    with pytest.raises(ValueError, match="1 of 3 scenes are not converted yet, e.g. scene0002_00"):
        PreparedScannet(out)
    result = prepare(own_tree, out)
    assert "2 scenes were converted before" in result.output and "wrote 1 frames of 1 scenes" in result.output
    assert kept.read_text() == "kept"


def test_processes_give_the_same_as_one(tree, prepared, tmp_path):
    assert prepare(tree, tmp_path / "out", "--jobs", 2).exit_code == 0
    for scene in fixture.SCENES:
        name = f"scenes/{scene}/scene.json"
        assert (tmp_path / "out" / name).read_text() == (prepared / name).read_text()


def test_check_lists_everything_that_is_missing(own_tree, tmp_path):
    root = own_tree / "frames" / "tasks" / "scannet_frames_25k"
    (root / "scene0001_00" / "pose" / "000100.txt").unlink()
    shutil.rmtree(root / "scene0003_00")
    shutil.rmtree(own_tree / "shapenet" / fixture.BIN[0])
    (own_tree / "val.txt").write_text("\n".join([*fixture.SCENES, "scene0707_00"]))
    result = prepare(own_tree, tmp_path / "out", "--check")
    assert result.exit_code == 1
    for text in ("missing scenes: 1", "scene0003_00: no such folder", "missing frames: 1", "000100.txt",
                 "missing CAD models: 1", "model_normalized.obj: no such file"):  # fmt: skip
        assert text in result.output
    assert not (tmp_path / "out").exists()
    refused = prepare(own_tree, tmp_path / "out")
    assert refused.exit_code == 2 and "3 files are missing" in refused.output
    going = prepare(own_tree, tmp_path / "out", "--keep-going")
    assert going.exit_code == 0, going.output
    assert "1 scenes of the list have no Scan2CAD annotation" in going.output
    dataset = PreparedScannet(tmp_path / "out")
    assert dataset.scenes == fixture.SCENES[:2]
    # the bin has no mesh: it cannot be looked for in the picture, but it counts in the scene
    assert [o.index for o in dataset.frames("scene0002_00")[0].objects] == [0]
    assert dataset.annotations.counts()["bin"] == 1


def test_check_says_when_all_is_there(tree, tmp_path):
    result = prepare(tree, tmp_path / "out", "--check")
    assert result.exit_code == 0 and "missing" not in result.output


def test_a_broken_cad_file_stops_or_is_left_out(own_tree, tmp_path):
    path = own_tree / "shapenet" / fixture.BIN[0] / fixture.BIN[1] / "models" / "model_normalized.obj"
    path.write_text("nothing")
    refused = prepare(own_tree, tmp_path / "out")
    assert refused.exit_code == 2 and "cannot be read as a mesh" in refused.output
    assert prepare(own_tree, tmp_path / "out", "--keep-going").exit_code == 0
    assert fixture.BIN not in PreparedScannet(tmp_path / "out").cad


def test_a_cad_file_of_another_version_is_noted(own_tree, tmp_path):
    path = own_tree / "shapenet" / fixture.BIN[0] / fixture.BIN[1] / "models" / "model_normalized.obj"
    trimesh.creation.box([0.5, 0.7, 0.5]).export(path)
    result = prepare(own_tree, tmp_path / "out")
    assert result.exit_code == 0 and "notes: 1" in result.output
    assert "its box is not the annotated one" in result.output


def test_a_folder_of_other_sources_is_refused(tree, own_tree, prepared):
    result = prepare(own_tree, prepared)
    assert result.exit_code == 2 and "was prepared otherwise (sources differ)" in result.output


def test_scenes_may_be_unlisted_and_frames_without_depth(own_tree, tmp_path):
    root = own_tree / "frames" / "tasks" / "scannet_frames_25k"
    for scene in fixture.SCENES:
        shutil.rmtree(root / scene / "depth")
    tree = check_tree(Sources(root, own_tree / "scan2cad", own_tree / "shapenet", depth=False))
    assert set(tree.scenes) == set(fixture.SCENES) and not any(tree.missing.values())
    result = prepare(own_tree, tmp_path / "out", "--no-depth")
    assert result.exit_code == 0, result.output
    dataset = PreparedScannet(tmp_path / "out")
    frame = dataset.frames("scene0002_00")[0]
    assert [o.visible for o in frame.objects] == [True, True]  # nothing says that the bin is hidden
    with pytest.raises(ValueError, match="prepared without depth images"):
        dataset.depth_m(frame)


@pytest.mark.parametrize("name", ["frames", "scan2cad", "shapenet"])
def test_folders_that_are_not_there_are_named(tree, tmp_path, name):
    places = {n: tree / n for n in ("frames", "scan2cad", "shapenet")} | {name: tmp_path / "nowhere"}
    with pytest.raises(ValueError, match=f"{name}: .*nowhere is not a folder"):
        Sources(**places)


# evaluate


def test_rocas_scores_are_those_worked_out_by_hand(tree, prepared, tmp_path):
    """See `roca_predictions`: per scene the chair of scene 1 and the bookshelf are found, of 3 chairs, 1
    table, 1 bookshelf and 1 bin. Per image the second table, both chairs and the bookshelf are right, the
    first table is not; the bin is hidden."""
    detections = tree / "per_frame_preds.json"
    found = evaluate(prepared, tmp_path, "--detections", detections, "--roca", "--name", "ROCA")
    for variant in ("alignment", "alignment, strict scale", "retrieval-aware", "alignment, boxes"):
        score = found["per_scene"][variant]
        assert score["right"] == {"chair": 1, "bookshelf": 1}
        assert score["objects"] == {"chair": 3, "table": 1, "bookshelf": 1, "bin": 1}
        assert score["instance"] == pytest.approx(100 / 3) and score["class"] == pytest.approx(100 / 3)
    assert found["per_scene"]["alignment"]["scenes_by_name"] == {
        "scene0001_00": [1, 2], "scene0002_00": [1, 3], "scene0003_00": [0, 1],
    }  # fmt: skip
    image = found["per_image"]
    assert image["accuracy"]["by_category"] == {"bookshelf": 100.0, "chair": 100.0, "table": 50.0}
    assert image["accuracy"]["instance"] == pytest.approx(80)
    assert image["found"]["instance"] == pytest.approx(100 * 4 / 6)
    assert (image["predictions"], image["predictions_of_hidden_objects"]) == (5, 1)
    # boxes: both tables, the bookshelf, 2 of 3 chairs (67 of COCO's 101 recalls); the hidden bin is let be
    assert image["detection"]["box_ap50"] == pytest.approx(100 * (67 / 101 + 2) / 3, abs=0.1)
    table = (tmp_path / "table.md").read_text()
    assert "| ROCA: alignment | – | – | 0.0 | 100.0 | – | 33.3 | – | – | 0.0 | 33.3 | 33.3 |" in table
    assert "| Multi-SPARC (as published) | 25.8 |" in table
    assert "not those of the published rows (2844 objects)" in table


def test_scores_of_the_written_csv_are_the_same(tree, prepared, tmp_path):
    first = evaluate(prepared, tmp_path / "a", "--detections", tree / "per_frame_preds.json", "--roca")
    again = evaluate(prepared, tmp_path / "b", "--from-csv", tmp_path / "a" / "raw_results.csv")
    assert again["per_scene"] == {k: v for k, v in first["per_scene"].items() if not k.startswith("fused")}
    assert "per_image" not in again
    assert list(again["predictions"]["settings"]["files"]) == ["raw_results.csv"]


def test_a_foreign_csv_with_unknown_models_and_scenes_is_scored(prepared, tmp_path):
    R, t, s = fixture.OBJECTS["scene0003_00"][0][1:]
    q = fixture.trs(fixture.matrix(R, t, s))["rotation"]
    pose = ",".join(map(str, [*t, *q, *s]))
    (tmp_path / "their.csv").write_text(
        "id_scan,objectCategory,alignedModelId,tx,ty,tz,qw,qx,qy,qz,sx,sy,sz,object_score\n"
        f"scene0003_00,3001627,never-seen,{pose},0.5\n"
        f"scene0600_00,3001627,never-seen,{pose},0.5\n"
    )
    found = evaluate(prepared, tmp_path / "out", "--from-csv", tmp_path / "their.csv")
    score = found["per_scene"]["alignment"]
    assert score["right"] == {"chair": 1} and score["predictions_of_unknown_cad_models"] == 1
    assert found["per_scene"]["retrieval-aware"]["right"] == {}
    assert "1 predictions name CAD models that no annotation knows" in (tmp_path / "out/table.md").read_text()


def test_the_aligner_runs_on_rocas_detections_end_to_end(tree, prepared, tmp_path):
    """With sensor depth and the shipped network, everything that is detected and seen is found: a chair, the
    table and the bookshelf per scene; five of five predictions per image."""
    arguments = (
        "--detections",
        tree / "per_frame_preds.json",
        "--depth",
        "sensor",
        "--gravity",
        "--device",
        "cpu",
    )
    found = evaluate(prepared, tmp_path, *arguments)
    for variant in ("alignment, strict scale", "fused: alignment, strict scale"):
        assert found["per_scene"][variant]["right"] == {"chair": 1, "table": 1, "bookshelf": 1}
    assert found["per_image"]["accuracy"]["instance"] == 100
    settings = found["predictions"]["settings"]
    assert settings["depth"] == "sensor" and settings["aligner"]["initial_scale"] == "category"
    assert "measured depth: not a method for single RGB images" in (tmp_path / "table.md").read_text()
    # predictions are made once: scored again by the detection's score from the cache
    stamp = (tmp_path / "predictions" / "scenes" / "scene0001_00.json").stat().st_mtime_ns
    again = evaluate(prepared, tmp_path, *arguments, "--rank-by", "detection")
    assert again["rank_by"] == "detection"
    assert (tmp_path / "predictions" / "scenes" / "scene0001_00.json").stat().st_mtime_ns == stamp
    other = sparc(
        "evaluate", "scannet25k", prepared, "--out", tmp_path, *arguments, "--min-detection-score", 0.1
    )
    assert other.exit_code == 2
    assert "other settings (min_detection_score differ)" in other.output


def test_predictions_of_another_run_are_not_mixed(tmp_path):
    PredictionCache(tmp_path, {"a": 1, "b": (1, 2)})
    assert PredictionCache(tmp_path, {"a": 1, "b": [1, 2]}).settings == {"a": 1, "b": [1, 2]}
    with pytest.raises(ValueError, match=r"other settings \(a, c differ\)"):
        PredictionCache(tmp_path, {"a": 2, "b": (1, 2), "c": None or 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected either --detections or --from-csv"),
        (("--from-csv", "nothing.csv"), "nothing.csv: no such file"),
        (("--detections", "nothing.json"), "nothing.json: no such file"),
        (("--detections", "x", "--rank-by", "luck"), "--rank-by must be pose or detection"),
        (("--detections", "x", "--masks", "all"), "masks must be 'detections', 'none' or 'sam:FILE'"),
    ],
)
def test_wrong_arguments_are_named(prepared, tmp_path, arguments, message):
    result = sparc("evaluate", "scannet25k", prepared, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and message in result.output


def test_a_folder_that_is_not_prepared_is_refused(tree, tmp_path):
    result = sparc("evaluate", "scannet25k", tree, "--out", tmp_path, "--from-csv", "x.csv")
    assert result.exit_code == 2 and "dataset.json: no such file" in result.output


def test_3d_future_is_indexed(tmp_path):
    source = tmp_path / "3D-FUTURE-model"
    (source / "a").mkdir(parents=True)
    trimesh.creation.box([0.5, 0.9, 0.6]).export(source / "a" / "raw_model.obj")
    listed = [{"model_id": m, "category": "Dining Chair", "super-category": "Chair"} for m in "ab"]
    (source / "model_info.json").write_text(json.dumps(listed))
    result = sparc("prepare", "3d-future", source, "--out", tmp_path / "index")
    assert result.exit_code == 0, result.output
    assert "models without a mesh: 1" in result.output and "1 models: 1 chair" in result.output
    assert sparc("cad", "check", tmp_path / "index").exit_code == 0
