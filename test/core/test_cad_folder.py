"""Folders of meshes: names, index.json, units and axes, colours, broken files, the cache."""

import json
import os

import numpy as np
import pytest
import trimesh
from PIL import Image

from sparc_core.cad import folder as folder_module
from sparc_core.cad.cache import default_cache_dir
from sparc_core.cad.library import CadLibrary
from sparc_core.cad.mesh_file import axes_rotation, linear_to_srgb, read_mesh, srgb_to_linear
from sparc_core.cad.names import canonical_category

# Columns: the file's axes. A chair's seat, and a back rest at the rear (−z), y up, front +z.
SEAT, BACK = ((0.5, 0.1, 0.6), (0, 0.4, 0)), ((0.5, 0.5, 0.1), (0, 0.7, -0.25))


def chair_mesh():
    parts = []
    for size, centre in (SEAT, BACK):
        part = trimesh.creation.box(size)
        part.apply_translation(centre)
        parts.append(part)
    return trimesh.util.concatenate(parts)


def write(path, mesh=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    (mesh or chair_mesh()).export(path)
    return path


def load(path, tmp_path, **options):
    return CadLibrary.from_folder(path, cache_dir=tmp_path / "cache", **options)


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("chair", "chair"), ("Chairs", "chair"), ("office-chair 07", "chair"), ("stool3", "chair"),
        ("bookcase_billy", "bookshelf"), ("shelves", "bookshelf"), ("trash_can_2", "bin"),
        ("trashbin", "bin"),
        ("couch", "sofa"), ("tv_stand", "cabinet"), ("tv", "display"), ("Monitor_24in", "display"),
        ("bedside_table", "cabinet"), ("dining_table", "table"), ("desk", "table"), ("sofa_table", "table"),
        ("03001627", "chair"), ("bathtub", "bathtub"), ("cabin", None), ("lamp", None), ("robin", None),
    ],
)  # fmt: skip
def test_names_stand_for_categories(name, category):
    assert canonical_category(name) == category


def test_without_an_index_names_and_folders_decide(tmp_path):
    root = tmp_path / "models"
    for name in (
        "desk_1.obj",
        "couch/tv_room.stl",
        "03001627/1a2b/models/model_normalized.ply",
        "x/lamp.off",
    ):
        write(root / name)
    library = load(root, tmp_path)
    assert {(m.model_id, m.category) for m in library.models} == {
        ("desk_1", "table"),
        ("couch_tv_room", "sofa"),  # the folder is named exactly like a category
        ("03001627_1a2b_models", "chair"),
    }
    ((path, reason),) = library.skipped
    assert path.endswith("lamp.off") and "no category" in reason
    everything = load(root, tmp_path, default_category="cabinet")
    assert everything.models[everything.index_of("x_lamp")].category == "cabinet"
    assert everything.skipped == ()


def test_an_index_gives_units_axes_and_symmetry(tmp_path):
    """The chair written in centimetres, z up, facing +x, must load like the plain one."""
    plain = write(tmp_path / "plain" / "chair.ply")
    turned = chair_mesh()
    # x (left) -> y, y (up) -> z, z (front) -> x
    turned.vertices = turned.vertices[:, [2, 0, 1]] * 100
    write(tmp_path / "indexed" / "m" / "c.ply", turned)
    entry = {
        "id": "mine",
        "category": "armchair",
        "file": "m/c.ply",
        "units": "cm",
        "up": "+Z",
        "front": "+X",
    }
    index = {"models": [{**entry, "symmetry": "c2"}]}
    (tmp_path / "indexed" / "index.json").write_text(json.dumps(index))
    a, b = load(plain.parent, tmp_path).models[0], load(tmp_path / "indexed", tmp_path).models[0]
    assert (b.model_id, b.category, b.symmetry) == ("mine", "chair", "c2")
    assert a.symmetry == "none"  # estimated: nothing but the index says c2
    np.testing.assert_allclose(b.extents_m, a.extents_m, rtol=1e-5)
    np.testing.assert_allclose(a.extents_m, [0.5, 0.6, 0.6], rtol=1e-5)
    order = [np.lexsort(model.vertices.round(4).T) for model in (a, b)]
    np.testing.assert_allclose(b.vertices[order[1]], a.vertices[order[0]], atol=1e-5)
    assert b.points[b.points[:, 1] > 0.1, 2].max() < 0  # the back rest is behind


@pytest.mark.parametrize(
    ("up", "front", "columns"),
    [
        ("+Y", None, np.eye(3)),
        ("+Z", None, [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
        ("+Z", "-Y", [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
        ("y", "+X", [[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
        ("-Y", "+Z", [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]),
    ],
)
def test_axes_by_hand(up, front, columns):
    rotation = axes_rotation(up, front)
    np.testing.assert_allclose(rotation, columns)
    assert np.linalg.det(rotation) == pytest.approx(1)


@pytest.mark.parametrize(("up", "front"), [("+W", None), ("++Y", None), ("+Y", "-Y")])
def test_axes_that_cannot_be(up, front):
    with pytest.raises(ValueError, match="axis must be|right angles"):
        axes_rotation(up, front)


def test_index_entries_that_cannot_be_read_are_named(tmp_path):
    write(tmp_path / "m" / "good.ply")
    good = {"id": "good", "category": "chair", "file": "good.ply"}
    bad = [
        ({"category": "chair"}, "no 'file'"),
        ({**good, "file": "gone.ply"}, "does not exist"),
        ({**good, "category": "lamp"}, "unknown category 'lamp'"),
        ({**good, "units": "furlong"}, "unknown units 'furlong'"),
        ({**good, "symmetry": "c3"}, "unknown symmetry 'c3'"),
        ({**good, "up": "+Y", "front": "+Y"}, "right angles"),
    ]
    (tmp_path / "m" / "index.json").write_text(json.dumps({"models": [good, *(entry for entry, _ in bad)]}))
    library = load(tmp_path / "m", tmp_path)
    assert [m.model_id for m in library.models] == ["good"]
    for (_, reason), (_, expected) in zip(library.skipped, bad, strict=True):
        assert expected in reason


@pytest.mark.parametrize("text", ["{", "[]", '{"models": {}}'])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match="index.json"):
        CadLibrary.from_folder(tmp_path)


def test_the_winding_of_files_is_not_trusted(tmp_path):
    mesh = trimesh.creation.box((1, 1, 1))
    mesh.invert()
    write(tmp_path / "bin" / "a.ply", mesh)
    model = load(tmp_path / "bin", tmp_path).models[0]
    assert ((model.points * model.normals).sum(1) > 0.4).all()


def test_other_is_kept_only_on_request(tmp_path):
    write(tmp_path / "m" / "c.ply")
    entries = [
        {"id": "c", "category": "chair", "file": "c.ply"},
        {"id": "plant", "category": "other", "file": "c.ply"},
    ]
    (tmp_path / "m" / "index.json").write_text(json.dumps({"models": entries}))
    assert len(load(tmp_path / "m", tmp_path)) == 1
    assert load(tmp_path / "m", tmp_path, include_other=True).categories == ("chair", "other")


def test_ids_given_twice_are_refused(tmp_path):
    write(tmp_path / "m" / "c.ply")
    entry = {"id": "c", "category": "chair", "file": "c.ply"}
    (tmp_path / "m" / "index.json").write_text(json.dumps({"models": [entry, entry]}))
    with pytest.raises(ValueError, match="'c' occurs twice"):
        load(tmp_path / "m", tmp_path)


def test_broken_meshes_are_skipped_and_named(tmp_path):
    root = tmp_path / "chair"
    whole = write(root / "good.glb").read_bytes()
    (root / "cut.glb").write_bytes(whole[: len(whole) // 2])
    (root / "noise.glb").write_bytes(bytes(range(256)) * 8)
    (root / "text.stl").write_text("not a mesh")
    (root / "empty.ply").write_bytes(b"")
    (root / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (root / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (root / "line.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    library = load(root, tmp_path)
    assert [m.model_id for m in library.models] == ["good"]
    skipped = {os.path.basename(path): reason for path, reason in library.skipped}
    assert set(skipped) == {
        "cut.glb", "noise.glb", "text.stl", "empty.ply", "points.obj", "nan.obj", "line.obj"
    }  # fmt: skip
    assert all(skipped.values())
    (root / "good.glb").unlink()
    with pytest.raises(ValueError, match="no model could be loaded .*cut.glb"):
        load(root, tmp_path)


def test_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no mesh files"):
        CadLibrary.from_folder(tmp_path)


def same(a, b):
    for name in ("extents_m", "vertices", "faces", "face_colors", "points", "normals", "colors"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    return (a.model_id, a.category, a.symmetry, a.source) == (b.model_id, b.category, b.symmetry, b.source)


def test_the_cache_gives_the_same_model_without_reading_it(tmp_path, monkeypatch):
    write(tmp_path / "chair" / "a.glb")
    cold = load(tmp_path / "chair", tmp_path).models[0]

    def refuse(*_):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "read_mesh", refuse)
        assert same(cold, load(tmp_path / "chair", tmp_path).models[0])
        with pytest.raises(ValueError, match="read again"):  # another option, another entry
            load(tmp_path / "chair", tmp_path, sampling="surface")
    for cached in (tmp_path / "cache").iterdir():
        cached.write_bytes(cached.read_bytes()[:100])
    assert same(cold, load(tmp_path / "chair", tmp_path).models[0])


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "chair" / "a.obj")
    assert load(path.parent, tmp_path).models[0].extents_m[0] == pytest.approx(0.5)
    write(path, chair_mesh().apply_scale(2))
    assert load(path.parent, tmp_path).models[0].extents_m[0] == pytest.approx(1.0)


def test_a_changed_material_file_is_read_again(tmp_path):
    root = tmp_path / "bin"
    root.mkdir()
    (root / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl m\nf 1 2 3\n")
    for kd, rgb in (("1 0 0", [255, 0, 0]), ("0 0 1.0", [0, 0, 255])):
        (root / "a.mtl").write_text(f"newmtl m\nKd {kd}\n")
        np.testing.assert_array_equal(load(root, tmp_path).models[0].face_colors, [rgb])


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARC_HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / "cad"
    monkeypatch.delenv("SPARC_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "sparc_ros" / "cad"


def test_gltf_colour_factors_are_linear_light(tmp_path):
    assert linear_to_srgb(np.array([0.0, 0.2140, 1.0])) == pytest.approx([0, 0.5, 1], abs=1e-3)
    values = np.linspace(0, 1, 50)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6)
    mesh = chair_mesh()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0.2140, 1.0, 0.0, 1.0])
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    colors = read_mesh(write(tmp_path / "a.glb", mesh))[2]
    np.testing.assert_allclose(colors, np.tile([128, 255, 0], (24, 1)), atol=2)


def test_textures_are_read_at_the_faces(tmp_path):
    """Left half of the image red over blue, right half green: v counts from the bottom."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, :32], pixels[32:, :32], pixels[:, 32:] = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=float)
    vertices = np.vstack([corners + [2 * i, 0, 0] for i in range(3)])
    uv = np.repeat([[0.2, 0.9], [0.2, 0.1], [0.8, 0.5]], 3, axis=0)
    mesh = trimesh.Trimesh(vertices, np.arange(9).reshape(3, 3), process=False)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    colors = read_mesh(write(tmp_path / "a.glb", mesh))[2]
    np.testing.assert_array_equal(colors, [[255, 0, 0], [0, 0, 255], [0, 255, 0]])


def test_face_colours_and_no_colours(tmp_path):
    mesh = chair_mesh()
    np.testing.assert_array_equal(read_mesh(write(tmp_path / "a.stl", mesh))[2], np.full((24, 3), 160))
    mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=np.tile([10, 200, 30, 255], (24, 1)))
    np.testing.assert_array_equal(
        read_mesh(write(tmp_path / "a.ply", mesh))[2], np.tile([10, 200, 30], (24, 1))
    )


def test_parts_of_a_scene_are_placed(tmp_path):
    scene = trimesh.Scene()
    shift = np.eye(4)
    for x in (0, 3):
        shift[0, 3] = x
        scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=shift.copy())
    scene.export(tmp_path / "a.glb")
    vertices, faces, colors = read_mesh(tmp_path / "a.glb")
    np.testing.assert_allclose(np.ptp(vertices[faces].reshape(-1, 3), axis=0), [4, 1, 1], atol=1e-6)
    assert faces.shape == colors.shape == (24, 3)
