"""CadLibrary and CadModel: normalisation, samples, lookups, exported meshes."""

import numpy as np
import pytest
import trimesh
from scipy.stats import chi2

from sparc_core.cad.library import CadLibrary, build_model
from sparc_core.cad.sampling import sample_surface
from sparc_core.cad.tensors import CadTensors

GREY = (120, 120, 120)


def box_model(size=(2.0, 1.0, 4.0), at=(7.0, -3.0, 0.5), model_id="box", category="table", **options):
    mesh = trimesh.creation.box(size)
    colors = np.tile(np.array(GREY, np.uint8), (len(mesh.faces), 1))
    return build_model(
        model_id, category, mesh.vertices + np.array(at), mesh.faces, colors, "test", symmetry="c2", **options
    )


def test_a_box_becomes_the_unit_cube_about_its_centre():
    model = box_model()
    np.testing.assert_allclose(model.extents_m, [2, 1, 4], rtol=1e-6)
    np.testing.assert_allclose(np.abs(model.vertices), 0.5, atol=1e-6)
    np.testing.assert_allclose(model.vertices.mean(0), 0, atol=1e-6)
    assert model.points.shape == model.normals.shape == (2048, 3)
    types = [array.dtype for array in (model.extents_m, model.vertices, model.faces, model.face_colors)]
    assert types == [np.float32, np.float32, np.int32, np.uint8]
    assert model.points.dtype == model.normals.dtype == np.float32


def test_points_lie_on_the_surface_with_its_normals():
    model = box_model()
    np.testing.assert_allclose(np.abs(model.points).max(1), 0.5, atol=1e-6)
    side = np.abs(model.points).argmax(1)
    expected = np.zeros_like(model.points)
    expected[np.arange(len(side)), side] = np.sign(model.points[np.arange(len(side)), side])
    np.testing.assert_allclose(model.normals, expected, atol=1e-6)


@pytest.mark.parametrize("count", [2048, 512])
def test_samples_are_uniform_at_true_extents_in_any_prefix(count):
    """Areas of a 2 × 1 × 4 m box: 4 + 4, 8 + 8, 2 + 2. In the unit cube they would all be equal."""
    points = box_model().points[:count]
    side = np.abs(points).argmax(1) * 2 + (points[np.arange(count), np.abs(points).argmax(1)] > 0)
    expected = count * np.array([4, 4, 8, 8, 2, 2]) / 28
    statistic = ((np.bincount(side, minlength=6) - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.999, df=5)
    top = points[side == 3]  # a face of two triangles: the four quarters hold the same share
    quarter = (top[:, 0] > 0) * 2 + (top[:, 2] > 0)
    expected = len(top) / 4
    assert ((np.bincount(quarter, minlength=4) - expected) ** 2 / expected).sum() < chi2.ppf(0.999, df=3)


def test_samples_fill_a_triangle_evenly():
    triangle = np.array([[0, 0, 0], [3, 0, 0], [0, 6, 0]], dtype=float)
    points, normals, face = sample_surface(triangle, np.array([[0, 1, 2]]), 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(points.mean(0), [1, 2, 0], atol=0.05)
    # variance of the uniform distribution over a right triangle: leg² / 18
    np.testing.assert_allclose(points.var(0)[:2], [9 / 18, 36 / 18], rtol=0.05)
    np.testing.assert_allclose(normals, np.tile([0, 0, 1.0], (20_000, 1)))
    assert (face == 0).all()


def test_normals_carry_over_to_any_pose_and_scale():
    """An ellipsoid's normal at x is ∝ x / axes², whatever the scales it is stretched with later."""
    mesh = trimesh.creation.icosphere(subdivisions=4)
    vertices = mesh.vertices * np.array([0.4, 0.9, 0.25])
    colors = np.zeros((len(mesh.faces), 3), np.uint8)
    model = build_model("egg", "bin", vertices, mesh.faces, colors, "test", symmetry="none")
    np.testing.assert_allclose(np.linalg.norm(model.normals, axis=1), 1, atol=1e-6)
    scales = np.array([1.3, 0.5, 2.2])
    for size in (model.extents_m, scales):
        placed = model.points * size
        normals = model.normals / size
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        expected = placed / (size / 2) ** 2
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        off_deg = np.degrees(np.arccos(np.clip((normals * expected).sum(1), -1, 1)))
        assert np.percentile(off_deg, 99) < 7  # facets against the smooth surface


def test_samples_depend_on_the_model_id_alone():
    np.testing.assert_array_equal(box_model().points, box_model().points)
    assert not np.array_equal(box_model().points, box_model(model_id="other").points)


def test_unused_vertices_do_not_count():
    mesh = trimesh.creation.box((1, 1, 1))
    vertices = np.vstack([mesh.vertices, [[50, 50, 50], [np.nan, 0, 0]]])
    model = build_model("x", "bin", vertices, mesh.faces, np.zeros((12, 3), np.uint8), "test", symmetry="c4")
    np.testing.assert_allclose(model.extents_m, 1)
    assert np.isfinite(model.vertices).all() and np.abs(model.vertices).max() <= 0.5


def test_a_flat_model_gets_a_millimetre():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0], [0, 2, 0]], dtype=float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    model = build_model("flat", "display", vertices, faces, np.zeros((2, 3), np.uint8), "test")
    np.testing.assert_allclose(model.extents_m, [1, 2, 1e-3])
    assert np.isfinite(model.points).all() and np.isfinite(model.normals).all()


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((3, 3)), np.zeros((0, 3), int), "no faces"),
        (np.zeros((3, 3)), np.array([[0, 1, 2]]), "no surface area"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "not finite"),
    ],
)
def test_meshes_that_are_none(vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        build_model("x", "bin", vertices, faces, np.zeros((len(faces), 3), np.uint8), "test")


def two_boxes(inner_inverted=False):
    outer, inner = trimesh.creation.box((2, 2, 2)), trimesh.creation.box((1, 1, 1))
    faces = np.vstack([outer.faces, inner.faces[:, ::-1] if inner_inverted else inner.faces + 8])
    return np.vstack([outer.vertices, inner.vertices]), faces


def test_visible_sampling_leaves_out_what_is_inside():
    vertices, faces = two_boxes()
    colors = np.zeros((24, 3), np.uint8)
    everything = build_model("b", "bin", vertices, faces, colors, "test", symmetry="c4", sampling="surface")
    seen = build_model("b", "bin", vertices, faces, colors, "test", symmetry="c4")
    inside = np.abs(everything.points).max(1) < 0.49
    assert 0.1 < inside.mean() < 0.3  # 6 of 30 m²
    assert seen.points.shape == (2048, 3)
    np.testing.assert_allclose(np.abs(seen.points).max(1), 0.5, atol=1e-6)
    with pytest.raises(ValueError, match="sampling must be one of"):
        box_model(sampling="all")


@pytest.mark.parametrize("sampling", ["surface", "visible"])
def test_samples_have_the_colour_of_the_face_they_lie_on(sampling):
    mesh = trimesh.creation.box((1, 1, 1))
    colors = (np.abs(mesh.face_normals) * 200 + mesh.face_normals * 50).round().astype(np.uint8)
    model = build_model("b", "bin", mesh.vertices, mesh.faces, colors, "test", sampling=sampling)
    expected = np.abs(model.normals) * 200 + model.normals * 50
    np.testing.assert_array_equal(model.colors, expected.round())
    assert model.colors.dtype == np.uint8 and len(np.unique(model.colors, axis=0)) == 6


@pytest.mark.parametrize("sampling", ["surface", "visible"])
def test_orient_turns_inward_normals_out(sampling):
    mesh = trimesh.creation.icosphere(subdivisions=3)
    faces = mesh.faces.copy()
    faces[: len(faces) // 2] = faces[: len(faces) // 2, ::-1]  # half of it wound the wrong way
    colors = np.zeros((len(faces), 3), np.uint8)
    outwards = {}
    for orient in (False, True):
        model = build_model(
            "s", "bin", mesh.vertices, faces, colors, "test", "cinf", sampling=sampling, orient=orient
        )
        outwards[orient] = ((model.points * model.normals).sum(1) > 0).mean()
    assert 0.3 < outwards[False] < 0.7
    assert outwards[True] == 1


def small_library():
    sizes = {"a_chair": (0.5, 1.0, 0.5), "b_chair": (0.6, 0.8, 0.7), "c_chair": (0.4, 0.9, 0.9)}
    models = [box_model(size, model_id=name, category="chair") for name, size in sizes.items()]
    return CadLibrary([box_model(), *models], skipped=[("x.glb", "broken")])


def test_lookups():
    library = small_library()
    assert len(library) == 4 and library.categories == ("chair", "table")
    assert library.index_of("b_chair") == 2
    np.testing.assert_array_equal(library.indices_of_category("chair"), [1, 2, 3])
    assert library.indices_of_category("sofa").shape == (0,)
    np.testing.assert_allclose(library.median_extents_m("chair"), [0.5, 0.9, 0.7], rtol=1e-6)
    low, high = library.extents_range_m("chair")
    np.testing.assert_allclose(low, [0.4, 0.8, 0.5], rtol=1e-6)
    np.testing.assert_allclose(high, [0.6, 1.0, 0.9], rtol=1e-6)
    assert [m.model_id for m in library.subset([3, 0]).models] == ["c_chair", "box"]
    assert library.subset([1]).skipped == (("x.glb", "broken"),)


def test_lookups_that_fail_say_why():
    library = small_library()
    with pytest.raises(ValueError, match="'b_chairs' is not in the library of 4 models; similar: b_chair"):
        library.index_of("b_chairs")
    with pytest.raises(ValueError, match="no model of category 'sofa'"):
        library.median_extents_m("sofa")


def test_ids_are_unique():
    with pytest.raises(ValueError, match="id 'box' occurs twice"):
        small_library().merged(CadLibrary([box_model()]))
    both = small_library().merged(CadLibrary([box_model(model_id="new")]))
    assert len(both) == 5 and both.index_of("new") == 4


def test_open_takes_procedural_seeds():
    library = CadLibrary.open("procedural:3-4")
    assert len(library) == 18
    assert library.models[library.index_of("sofa_0000004")].source == "procedural:sofa:4"
    for spec in ("procedural:4-3", "procedural:x", "procedural:1"):
        with pytest.raises(ValueError, match="expected procedural:FIRST-LAST"):
            CadLibrary.open(spec)
    with pytest.raises(ValueError, match="not a folder"):
        CadLibrary.open("/no/such/folder")


def test_seeds_may_be_an_iterator():
    assert len(CadLibrary.procedural(iter([0, 1]), categories=("bin", "table"))) == 4


def test_exported_meshes_show_the_unit_cube_in_its_colours(tmp_path):
    library = CadLibrary.procedural([7], categories=("chair",))  # an office chair of several colours
    (path,) = library.export_meshes(tmp_path).values()
    # glTF is turned by some versions of RViz and not by others
    assert path.suffix == ".obj"
    loaded = trimesh.load(path, process=False)
    parts = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
    corners = np.array([part.bounds for part in parts])
    np.testing.assert_allclose(corners[:, 0].min(0), -0.5, atol=1e-4)
    np.testing.assert_allclose(corners[:, 1].max(0), 0.5, atol=1e-4)
    model = library.models[0]
    shown = {tuple(np.asarray(part.visual.material.diffuse)[:3].tolist()) for part in parts}
    assert shown == set(map(tuple, model.face_colors.tolist()))
    areas = trimesh.Trimesh(model.vertices, model.faces, process=False).area_faces
    for part in parts:
        painted = (model.face_colors == np.asarray(part.visual.material.diffuse)[:3]).all(1)
        assert part.area == pytest.approx(areas[painted].sum(), rel=1e-3)


def test_exported_meshes_are_written_once_for_each_content(tmp_path):
    first = CadLibrary([box_model()]).export_meshes(tmp_path)["box"]
    written = first.stat().st_mtime_ns
    assert CadLibrary([box_model()]).export_meshes(tmp_path)["box"] == first
    assert first.stat().st_mtime_ns == written
    mesh = trimesh.creation.box((1, 1, 1))
    red = np.tile(np.array([200, 0, 0], np.uint8), (12, 1))
    changed = build_model("box", "table", mesh.vertices, mesh.faces, red, "test", symmetry="c4")
    assert CadLibrary([changed]).export_meshes(tmp_path)["box"] != first


def test_many_colours_become_few_materials(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=4)
    colors = np.random.default_rng(0).integers(0, 256, (len(mesh.faces), 3)).astype(np.uint8)
    model = build_model("ball", "bin", mesh.vertices, mesh.faces, colors, "test", symmetry="cinf")
    path = CadLibrary([model]).export_meshes(tmp_path)["ball"]
    assert 2 <= path.with_suffix(".mtl").read_text().count("newmtl") <= 64
    assert path.read_text().count("\nf ") == len(mesh.faces)


def test_tensors_hold_the_library():
    library = CadLibrary.procedural([0], categories=("bin", "table"))
    tensors = CadTensors.from_library(library)
    assert tensors.points.shape == (2, 2048, 3)
    orders = {"none": 1, "c2": 2, "c4": 4, "cinf": 36}
    assert tensors.symmetry_order.tolist() == [orders[model.symmetry] for model in library.models]
    with pytest.raises(ValueError, match="no models"):
        CadTensors.from_library(CadLibrary([]))
