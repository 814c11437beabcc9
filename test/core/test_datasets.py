"""Readers of ScanNet25k, Scan2CAD, ShapeNet, ROCA and 3D-FUTURE, with answers worked out by hand."""

import json

import numpy as np
import pytest
import scannet_fixture as fixture
from scipy.spatial.transform import Rotation

from sparc_core.datasets.categories import SYNSETS, category_of_name, synset_of
from sparc_core.datasets.poses import CadBox, CadPose, decompose
from sparc_core.datasets.roca import read_roca
from sparc_core.datasets.scan2cad import compare_appearances, read_annotations
from sparc_core.types import CATEGORIES


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fixture.write_tree(tmp_path_factory.mktemp("scannet"))


@pytest.fixture(scope="module")
def annotations(tree):
    return read_annotations(tree / "scan2cad" / "full_annotations.json")


def changed(tmp_path, change):
    """The fixture's annotations with a change, as a file."""
    content = fixture.annotations()
    change(content)
    path = tmp_path / "full_annotations.json"
    path.write_text(json.dumps(content))
    return path


# poses


def test_a_files_pose_becomes_a_box_pose_by_hand():
    """A quarter turn about z (x → y); the box of the file is 0.5 × 1 × 0.25 about (1, 2, 0)."""
    pose = CadPose.from_quaternion([10, 0, 0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], [2, 3, 4])
    box = CadBox(np.array([1.0, 2.0, 0.0]), np.array([0.5, 1.0, 0.25]))
    posed = box.to_box_pose(pose)
    # centre: (2·1, 3·2, 0) = (2, 6, 0), turned (−6, 2, 0), shifted (4, 2, 0)
    assert posed.t == pytest.approx([4, 2, 0])
    assert posed.s == pytest.approx([1, 3, 1])
    back = box.to_file_pose(posed)
    assert back.t == pytest.approx([10, 0, 0]) and back.s == pytest.approx([2, 3, 4])


def test_unit_cube_and_file_coordinates_lead_to_the_same_points():
    rng = np.random.default_rng(0)
    q = rng.normal(size=4)
    pose = CadPose.from_quaternion(rng.normal(size=3), q, rng.uniform(0.5, 2, 3))
    box = CadBox(rng.normal(size=3), rng.uniform(0.2, 1, 3))
    cube = rng.uniform(-0.5, 0.5, (20, 3))
    in_file = cube * box.extents + box.centre
    assert box.to_box_pose(pose).transform(cube) == pytest.approx(pose.transform(in_file))
    assert pose.R == pytest.approx(Rotation.from_quat([*q[1:], q[0]]).as_matrix())


def test_quaternions_of_any_length_and_back():
    pose = CadPose.from_quaternion([0, 0, 0], [0, 0, -3, 0], [1, 1, 1])
    assert pose.R == pytest.approx(np.diag([-1, 1, -1]), abs=1e-12)
    assert np.abs(pose.quaternion_wxyz) == pytest.approx([0, 0, 1, 0], abs=1e-12)


@pytest.mark.parametrize(
    ("t", "q", "s", "message"),
    [
        ([0, 0, np.nan], [1, 0, 0, 0], [1, 1, 1], "translation: expected 3 finite numbers"),
        ([0, 0, 0], [0, 0, 0, 0], [1, 1, 1], "rotation: expected a quaternion, got one of length zero"),
        ([0, 0, 0], [1, 0, 0, 0], [1, 0, 1], "scale: expected positive factors"),
        ([0, 0, 0], [1, 0, 0], [1, 1, 1], "rotation: expected 4 finite numbers"),
    ],
)
def test_poses_that_are_none_are_refused(t, q, s, message):
    with pytest.raises(ValueError, match=message):
        CadPose.from_quaternion(t, q, s)


def test_decomposing_a_sheared_and_a_mirrored_matrix_gives_a_rotation_and_says_so():
    exact, error = decompose(fixture.matrix(fixture.upright(33), np.arange(3.0), np.array([1, 2, 3.0])))
    assert error < 1e-12
    assert exact.s == pytest.approx([1, 2, 3]) and exact.R == pytest.approx(fixture.upright(33))
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    mirrored = np.diag([1.0, 1.0, -1.0, 1.0])
    for M, least in ((sheared, 0.04), (mirrored, 1.9)):
        pose, error = decompose(M)
        assert error > least
        assert np.linalg.det(pose.R) == pytest.approx(1)
        assert pose.R @ pose.R.T == pytest.approx(np.eye(3))
    with pytest.raises(ValueError, match="inverted"):
        decompose(np.diag([1.0, 0.0, 1.0, 1.0]))


# names


def test_every_category_has_its_synset_and_other_names_lead_to_it():
    assert set(SYNSETS) == set(CATEGORIES)
    names = {"bookcase": "bookshelf", "bookshelf": "bookshelf", "bin": "bin", "trashbin": "bin", "lamp": None}
    assert {name: category_of_name(name) for name in names} == names


def test_synsets_keep_their_leading_zero():
    assert synset_of(2747177) == synset_of("2747177") == synset_of("02747177") == "02747177"
    with pytest.raises(ValueError, match="8-digit ShapeNet synset, got 'bin'"):
        synset_of("bin")


# Scan2CAD


def test_annotated_models_lie_where_they_were_put_in_the_scan(annotations):
    for scene, objects in fixture.OBJECTS.items():
        expected = [o for o in objects if o[0] != fixture.LAMP]
        found = annotations.scenes[scene]
        assert [o.key for o in found] == [key for key, *_ in expected]
        for item, (_, R, t, s) in zip(found, expected, strict=True):
            assert item.pose.R == pytest.approx(R, abs=1e-9)
            assert item.pose.t == pytest.approx(t) and item.pose.s == pytest.approx(s)


def test_the_box_centre_is_at_center_and_not_at_the_origin(annotations):
    chair = annotations.scenes["scene0001_00"][0]
    posed = chair.box.to_box_pose(chair.pose)
    assert posed.t == pytest.approx([-0.6, 2.5, 0.45])
    assert posed.s == pytest.approx([0.6 * 1.3, 0.64 * 1.4, 0.48 * 1.2])
    assert np.linalg.norm(posed.t - chair.pose.t) > 0.2


def test_symmetries_categories_and_counts(annotations):
    symmetry = {info.category: info.symmetry for info in annotations.cad.values()}
    assert symmetry == {"chair": "none", "table": "cinf", "bookshelf": "c2", "bin": "c4"}
    assert annotations.only(fixture.SCENES).counts() == {"chair": 3, "table": 1, "bookshelf": 1, "bin": 1}
    with pytest.raises(ValueError, match="scene0042_00"):
        annotations.only(["scene0042_00"])


def test_appearances_are_compared_without_other_categories(tree, annotations, tmp_path):
    path = tree / "scan2cad" / "cad_appearances.json"
    assert compare_appearances(path, annotations) == []
    content = fixture.appearances()
    content["scene0003_00"]["_".join(fixture.CHAIR)] = 2
    other = tmp_path / "cad_appearances.json"
    other.write_text(json.dumps(content))
    problems = compare_appearances(other, annotations)
    assert len(problems) == 1 and "scene0003_00: 2 objects are counted, 1 are annotated" in problems[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[0]["aligned_models"][0].pop("sym"), "scene0001_00: model 0: field 'sym' is missing"),
        (lambda c: c[0]["aligned_models"][0].update(sym="round"), "model 0: field 'sym': expected one of"),
        (lambda c: c[0]["aligned_models"][0]["trs"].update(scale=[1, -1, 1]), "model 0: trs: scale"),
        (lambda c: c[1]["trs"].update(rotation=[1, 0, 0]), "scene0002_00: trs: field 'rotation'"),
        (lambda c: c[0]["aligned_models"][0].update(bbox=[0, 0, 0]), "field 'bbox': expected half extents"),
        (lambda c: c[1].update(id_scan="scene0001_00"), "scene scene0001_00 occurs twice"),
    ],
)
def test_malformed_annotations_name_scene_model_and_field(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(changed(tmp_path, change))


def test_a_scene_scaled_unevenly_is_read_and_noted(tmp_path):
    """Along the scan's y it shears chair and table, which are turned by 30° and 10°; along z nothing."""
    notes = read_annotations(changed(tmp_path, lambda c: c[0]["trs"].update(scale=[1.0, 1.3, 1.0]))).notes
    assert ["model 0" in notes[0], "model 2" in notes[1], len(notes)] == [True, True, 2]
    assert "the nearest one is taken" in notes[0]
    assert not read_annotations(changed(tmp_path, lambda c: c[0]["trs"].update(scale=[1.0, 1.0, 1.3]))).notes


# ROCA


def test_rocas_detections_by_hand(tree):
    found = read_roca(tree / "per_frame_preds.json")
    assert sorted(found) == [
        ("scene0001_00", "000000"),
        ("scene0001_00", "000100"),
        ("scene0002_00", "000000"),
    ]
    first = found["scene0001_00", "000000"]
    assert [(p.category, p.score) for p in first] == [
        ("chair", 0.9),
        ("table", 0.95),
        ("chair", 0.3),
    ]  # no lamp
    raw = fixture.roca_predictions()["scene0001_00/color/000000.jpg"][0]
    assert first[0].box_xyxy == pytest.approx([v - 0.5 for v in raw["bbox"]])  # from corner to pixel centres
    R, t, s = fixture.in_camera("scene0001_00", 0, "000000")
    assert first[0].pose.R == pytest.approx(R) and first[0].pose.t == pytest.approx(t)
    assert first[0].pose.s == pytest.approx(s) and first[0].cad == fixture.CHAIR
    assert [p.category for p in found["scene0002_00", "000000"]] == ["bookshelf", "bin"]


def test_roca_files_may_lack_poses_and_models_but_not_boxes(tmp_path):
    def read(**entry):
        path = tmp_path / "preds.json"
        entry = {"score": 0.5, "bbox": [0, 0, 1, 1], "category": "bin", **entry}
        path.write_text(json.dumps({"scene0001_00/color/300.jpg": [entry]}))
        return read_roca(path)["scene0001_00", "000300"][0]

    assert read().pose is None and read().cad is None
    assert read(scene_cad_id="abc").cad == ("02747177", "abc")
    assert read(scene_cad_id=[2747177, "abc"]).cad == ("02747177", "abc")
    with pytest.raises(ValueError, match=r"300.jpg: detection 0: field 'bbox': expected 4 finite numbers"):
        read(bbox=[0, 0, 1])
    with pytest.raises(ValueError, match="field 'scene_cad_id'"):
        read(scene_cad_id=[1, 2, 3])
    with pytest.raises(ValueError, match="detection 0: rotation: expected a quaternion"):
        read(t=[0, 0, 1], q=[0, 0, 0, 0], s=[1, 1, 1])
