"""ScanNet25k, CAD files of ShapeNet and 3D-FUTURE, what of a scene a frame shows: worked out by hand."""

import json

import cv2
import numpy as np
import pytest
import scannet_fixture as fixture
import trimesh

from sparc_core.cad.library import CadLibrary
from sparc_core.datasets import future3d
from sparc_core.datasets.poses import CadBox, CadPose
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
from sparc_core.types import Camera


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fixture.write_tree(tmp_path_factory.mktemp("scannet"))


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
