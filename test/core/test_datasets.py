"""Readers of ScanNet25k, Scan2CAD, ShapeNet, ROCA and 3D-FUTURE, with answers worked out by hand."""

import json

import cv2
import numpy as np
import pytest
import scannet_fixture as fixture
import trimesh
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary
from sparc_core.datasets import future3d
from sparc_core.datasets.categories import SYNSETS, category_of_name, synset_of
from sparc_core.datasets.poses import CadBox, CadPose, decompose
from sparc_core.datasets.roca import read_roca
from sparc_core.datasets.scan2cad import compare_appearances, read_annotations
from sparc_core.datasets.scannet import (
    fit_camera,
    fit_depth,
    fit_image,
    list_scene,
    read_intrinsics,
    read_pose,
)
from sparc_core.datasets.shapenet import CadFile, CadMesh, load_library, read_cad_file, write_arrays
from sparc_core.datasets.truth import PosedMesh, centre_in_view, frame_truth, mask_box
from sparc_core.types import CATEGORIES, Camera


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


# ScanNet25k


def test_intrinsics_follow_resize_and_crop_by_hand():
    """1296 × 968 → 482 × 360 (1296·360/968 = 481.98), then one column is cut off at either side."""
    camera = fit_camera(Camera(1296, 968, 1170.0, 1172.0, 647.75, 483.75))
    assert (camera.width, camera.height) == (480, 360)
    assert camera.fx == pytest.approx(1170 * 482 / 1296) and camera.fy == pytest.approx(1172 * 360 / 968)
    assert camera.cx == pytest.approx(648.25 * 482 / 1296 - 1.5)  # the image's edge is at −0.5
    assert camera.cy == pytest.approx(484.25 * 360 / 968 - 0.5)
    with pytest.raises(ValueError, match="400 × 360 is too narrow"):
        fit_camera(Camera(400, 360, 1.0, 1.0, 0.0, 0.0))


def test_the_resized_picture_shows_a_point_where_the_camera_projects_it():
    camera = Camera(1296, 968, 1170.0, 1172.0, 647.75, 483.75)
    small = fit_camera(camera)
    image = np.zeros((968, 1296, 3), np.uint8)
    point = np.array([0.31, -0.12, 2.0])
    u, v = (camera.K @ point)[:2] / point[2]
    cv2.circle(image, (round(u * 16), round(v * 16)), 20 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    weight = fit_image(image)[..., 0].astype(float)
    rows, columns = np.mgrid[:360, :480]
    found = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
    assert found == pytest.approx((small.K @ point)[:2] / point[2], abs=0.05)


def test_depth_is_read_through_its_own_intrinsics():
    """Both cameras see a step at x/z = 0.1: at column 0.1·577.5 + 318.5 = 376.25 in depth."""
    depth_camera = Camera(640, 480, 577.5, 578.5, 318.5, 241.5)
    depth = np.where(np.arange(640) < 376.25, 1.0, 2.0)[None].repeat(480, 0).astype(np.float32)
    camera = fit_camera(Camera(1296, 968, 1170.0, 1172.0, 647.75, 483.75))
    fitted = fit_depth(depth, depth_camera, camera)
    assert fitted.shape == (360, 480) and fitted.dtype == np.float32
    step = 0.1 * camera.fx + camera.cx
    columns = np.arange(480)
    assert (fitted[180, columns < step - 1] == 1).all() and (fitted[180, columns > step + 1] == 2).all()


def test_depth_outside_of_the_sensors_view_is_zero():
    depth = np.ones((480, 640), np.float32)
    narrow = Camera(640, 480, 2000.0, 2000.0, 319.5, 239.5)
    fitted = fit_depth(depth, narrow, Camera(480, 360, 400.0, 400.0, 239.5, 179.5))
    assert fitted[180, 240] == 1 and fitted[0, 0] == 0 and fitted[180, 0] == 0
    # x/z of the sensor's edge: 320/2000 = 0.16, so 64 columns to either side of 239.5
    assert (fitted[180] > 0).sum() == 128


def test_a_pose_may_be_unknown_but_not_skewed(tmp_path):
    path = tmp_path / "pose.txt"
    np.savetxt(path, fixture.NO_POSE)
    assert read_pose(path) is None
    np.savetxt(path, fixture.camera_pose(0.5, 12), fmt="%.5f")
    T = read_pose(path)
    assert fixture.camera_pose(0.5, 12) == pytest.approx(T, abs=1e-5)
    assert T[:3, :3] @ T[:3, :3].T == pytest.approx(np.eye(3), abs=1e-12)
    np.savetxt(path, np.diag([1, 1, 2, 1]))
    with pytest.raises(ValueError, match="pose.txt: expected a rotation and a shift"):
        read_pose(path)
    np.savetxt(path, np.eye(3))
    with pytest.raises(ValueError, match=r"expected 4 × 4 numbers, got shape \(3, 3\)"):
        read_pose(path)
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        read_pose(tmp_path / "nowhere.txt")


def test_intrinsics_of_zero_name_the_file(tmp_path):
    np.savetxt(tmp_path / "intrinsics_color.txt", np.zeros((4, 4)))
    with pytest.raises(ValueError, match="intrinsics_color.txt: camera fx must be positive"):
        read_intrinsics(tmp_path / "intrinsics_color.txt", 10, 10)


def test_missing_files_of_a_scene_are_listed(tmp_path):
    scene = tmp_path / "scene0001_00"
    fixture.write_scene(
        scene, "scene0001_00", {k: fixture.FRAMES["scene0001_00"][k] for k in ("000000", "000100")}
    )
    assert list_scene(scene).frames == ("000000", "000100") and not list_scene(scene).problems
    (scene / "depth" / "000100.png").unlink()
    (scene / "intrinsics_depth.txt").unlink()
    listed = list_scene(scene)
    assert listed.frames == ("000000",)
    assert [p.split("/")[-1] for p in listed.problems] == [
        "intrinsics_depth.txt: no such file", "000100.png: no such file",
    ]  # fmt: skip
    assert list_scene(scene, need_depth=False).frames == ("000000", "000100")
    assert "color: no such folder" in list_scene(tmp_path / "scene0009_00").problems[-1]


# ShapeNet


def cad_file(tree, tmp_path, key, metres=1.0):
    source = tree / "shapenet" / key[0] / key[1] / "models" / "model_normalized.obj"
    path = tmp_path / f"{key[1]}.npz"
    mesh = read_cad_file(source)
    write_arrays(mesh, path)
    return CadFile(path, *key, "chair", "none", mesh.box, metres)


@pytest.mark.parametrize("key", [fixture.CHAIR, fixture.TABLE, fixture.BOOKSHELF, fixture.BIN])
def test_the_box_of_a_shapenet_file_is_the_annotated_one(tree, key):
    box = read_cad_file(tree / "shapenet" / key[0] / key[1] / "models" / "model_normalized.obj").box
    half, centre = fixture.BOXES[key]
    assert box.extents == pytest.approx(2 * np.array(half), abs=1e-6)
    assert box.centre == pytest.approx(centre, abs=1e-6)
    assert np.linalg.norm(box.extents) == pytest.approx(1, abs=1e-6)  # unit diagonal
    assert np.abs(box.centre).max() > 0.01  # off-centre


def test_a_library_of_shapenet_files_is_centred_and_has_a_size(tree, tmp_path):
    library = load_library([cad_file(tree, tmp_path, fixture.CHAIR, 1.5)])
    model = library.models[0]
    assert model.model_id == "03001627_c0ffee01" and model.symmetry == "none"
    assert model.extents_m == pytest.approx(1.5 * np.array([0.6, 0.64, 0.48]), abs=1e-5)
    assert model.vertices.min(0) == pytest.approx([-0.5] * 3) and model.vertices.max(0) == pytest.approx(
        [0.5] * 3
    )


def test_broken_cad_files_are_named(tmp_path):
    path = tmp_path / "model_normalized.obj"
    path.write_text("v 0 0 0\n")
    with pytest.raises(ValueError, match="model_normalized.obj: cannot be read as a mesh"):
        read_cad_file(path)
    arrays = tmp_path / "a.npz"
    arrays.write_bytes(b"PK\x03\x04 cut short")
    library = load_library(
        [CadFile(arrays, "03001627", "a", "chair", "none", CadBox(np.zeros(3), np.ones(3)), 1.0)]
    )
    assert len(library) == 0 and "a.npz: expected arrays" in library.skipped[0][1]


# what should be found


def plate(x, z, size=1.0):
    """A square facing the camera."""
    half = size / 2
    mesh = CadMesh(
        np.array([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0.0]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
        np.zeros((2, 3), np.uint8),
    )
    return PosedMesh(mesh, CadPose(np.eye(3), np.array([x, 0.0, z]), np.ones(3)))


CAMERA = Camera(100, 80, 50.0, 50.0, 49.5, 39.5)


def test_boxes_masks_and_visible_shares_by_hand():
    """At z = 2 a square of 1 m covers 25 × 25 pixels, at z = 4 one of 1 m covers 12.5 and shows between."""
    depth = np.full((80, 100), 2.2, np.float32)
    near, far = frame_truth([plate(0.0, 2.0), plate(0.5, 4.0)], CAMERA, depth)
    # 49.5 ± 12.5 pixels: centres 37 … 62
    assert near.box_xyxy == (36.5, 26.5, 62.5, 52.5) and near.mask.sum() == 26 * 26
    assert near.visible_share == 1.0 and near.visible
    # centre at column 49.5 + 50·0.5/4 = 55.75, ± 6.25: centres 50 … 62, all of it behind the first
    assert far.box_xyxy == (49.5, 33.5, 62.5, 45.5)
    assert far.mask.sum() == 0 and far.mask_box_xyxy is None
    assert far.visible_share == 0.0 and not far.visible


def test_half_of_the_pixels_must_be_seen_and_unmeasured_ones_are_not():
    depth = np.full((80, 100), 2.0, np.float32)
    depth[:, :50] = 0
    (half,) = frame_truth([plate(0.0, 2.0)], CAMERA, depth)
    assert half.visible_share == 0.5 and half.visible  # at least 50 %
    depth[26:30] = 0
    (less,) = frame_truth([plate(0.0, 2.0)], CAMERA, depth)
    assert less.visible_share == pytest.approx(23 * 13 / 26**2) and not less.visible
    for gap, seen in ((0.29, True), (0.31, False), (-0.31, False)):
        (item,) = frame_truth([plate(0.0, 2.0)], CAMERA, np.full((80, 100), 2.0 + gap, np.float32))
        assert item.visible is seen
    assert frame_truth([plate(0.0, 2.0)], CAMERA, None)[0].visible
    (near,) = frame_truth([plate(0.0, 0.25, 0.1)], CAMERA, np.zeros((80, 100), np.float32))
    assert near.visible_share == 0  # nearer than 30 cm, but nothing was measured


def test_objects_whose_centre_is_not_in_the_image_do_not_count():
    """At z = 2 the image's edge, column 99.5, is at x = (99.5 − 49.5) / 50 · 2 = 2."""
    assert len(frame_truth([plate(1.99, 2.0), None], CAMERA, None)) == 1
    assert not frame_truth([plate(2.01, 2.0)], CAMERA, None)
    assert not centre_in_view(np.array([0.0, 0.0, -2.0]), CAMERA)


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match="empty mask"):
        mask_box(np.zeros((3, 3), bool))


# 3D-FUTURE


def test_3d_future_becomes_an_index_that_a_library_reads(tmp_path):
    source = tmp_path / "3D-FUTURE-model"
    listed = [
        ("a1", "Chair", "Lounge Chair / Cafe Chair / Office Chair"),
        ("a2", "Sofa", "Three-Seat / Multi-seat Sofa"),
        ("a3", "Bed", None),
        ("a4", "Lighting", "Pendant Lamp"),
        ("a5", "Cabinet/Shelf/Desk", "Bookcase / jewelry Armoire"),
        ("a6", "Table", "Desk"),
    ]
    for model_id, *_ in listed[:-1]:  # the last one has no mesh
        (source / model_id).mkdir(parents=True)
        trimesh.creation.box([0.5, 0.9, 0.6]).export(source / model_id / "raw_model.obj")
    info = [{"model_id": i, "super-category": s, "category": c, "style": None} for i, s, c in listed]
    (source / "model_info.json").write_text(json.dumps(info))
    entries, missing = future3d.read_index(source)
    assert [e["category"] for e in entries] == ["chair", "sofa", "bed", "other", "bookshelf"]
    assert len(missing) == 1 and missing[0].endswith("a6/raw_model.obj: no such file")
    out = tmp_path / "index"
    out.mkdir()
    (out / "index.json").write_text(json.dumps({"models": entries}))
    library = CadLibrary.from_folder(out, include_other=True)
    assert [m.model_id for m in library.models] == [f"future3d_a{i}" for i in range(1, 6)]
    assert library.models[0].extents_m == pytest.approx([0.5, 0.9, 0.6], abs=1e-5)


def test_3d_future_without_any_mesh_is_refused(tmp_path):
    (tmp_path / "model_info.json").write_text(json.dumps([{"model_id": "a", "category": "Desk"}]))
    with pytest.raises(ValueError, match="none of the models of model_info.json has a raw_model.obj"):
        future3d.read_index(tmp_path)
