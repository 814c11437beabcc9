"""Feature edges, silhouettes, hidden lines and scenes, against hand counts and analytic ray casting."""

import base64
import re

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary, build_model
from sparc_core.types import AlignedObject, Camera
from sparc_core.visualise import draw_overlay, object_color, silhouette_mask, write_scene
from sparc_core.visualise.edges import feature_edges, mesh_feature_edges
from sparc_core.visualise.lines import object_lines
from sparc_core.visualise.overlay import label_text
from sparc_core.visualise.zbuffer import NEAR_M, clip_near, rasterise, render_objects

PINHOLE = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)
BARREL = Camera(160, 120, 110.0, 112.0, 78.0, 61.0, (-0.25, 0.06, 0.001, -0.002, 0.0), "plumb_bob")
FISHEYE = Camera(160, 120, 75.0, 75.0, 79.5, 59.5, (0.02, -0.01, 0.002, 0.0), "equidistant")
LOOKING_DOWN = Rotation.from_euler("x", 205, degrees=True)


def model_of(mesh, model_id="box", category="table"):
    colors = np.tile(np.array([[200, 150, 100]], np.uint8), (len(mesh.faces), 1))
    return build_model(model_id, category, mesh.vertices, mesh.faces, colors, "test", "none")


LIBRARY = CadLibrary([model_of(trimesh.creation.box((0.8, 0.5, 0.4)))])


def placed(T_m, yaw_deg=30.0, S_m=(0.8, 0.5, 0.4), detection=0, score=0.9):
    R = (LOOKING_DOWN * Rotation.from_euler("y", yaw_deg, degrees=True)).as_matrix()
    return AlignedObject(
        detection,
        "table",
        "box",
        (40.0, 30.0, 120.0, 90.0),
        R,
        np.array(T_m),
        np.array(S_m),
        score,
        "azimuth_0",
    )


def rays_through_pixels(camera):
    """(H, W, 3) rays with z = 1 by OpenCV's own inverse of the lens model."""
    v, u = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2)
    coefficients = np.array(camera.distortion)
    if camera.distortion_model == "equidistant":
        xy = cv2.fisheye.undistortPoints(pixels, camera.K, coefficients)
    else:
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-10)
        xy = cv2.undistortPointsIter(pixels, camera.K, coefficients, None, None, stop)
    return np.concatenate([xy[:, 0], np.ones((len(xy), 1))], 1).reshape(camera.height, camera.width, 3)


def box_depth(item, camera):
    """(H, W) z-depth of a box's nearest surface beyond the near plane by the slab method; inf for none."""
    origin = -item.R.T @ item.T_m
    direction = rays_through_pixels(camera) @ item.R
    with np.errstate(divide="ignore"):
        t = np.sort(np.stack([(s * item.S_m / 2 - origin) / direction for s in (-1, 1)]), axis=0)
    enter, leave = t[0].max(-1), t[1].min(-1)
    first = np.where(enter >= NEAR_M, enter, leave)
    return np.where((enter < leave) & (leave >= NEAR_M), first, np.inf)


# feature edges


def edge_set(vertices, edges):
    return {frozenset(map(tuple, np.round(np.asarray(vertices)[list(edge)], 3))) for edge in edges}


def test_a_box_has_its_twelve_edges_however_the_mesh_is_stored():
    box = trimesh.creation.box()
    assert len(edge_set(box.vertices, mesh_feature_edges(box.vertices, box.faces))) == 12
    split = box.vertices[box.faces].reshape(-1, 3)  # every face with its own vertices, as GLB stores them
    edges = feature_edges(model_of(trimesh.Trimesh(split, np.arange(36).reshape(-1, 3), process=False)))
    assert edges.shape == (12, 2, 3)
    np.testing.assert_allclose(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=-1), 1.0, atol=1e-6)
    inside_out = box.faces.copy()
    inside_out[5] = inside_out[5, ::-1]
    assert len(mesh_feature_edges(box.vertices, inside_out)) == 12


def test_a_sheet_has_its_rim_also_when_modelled_with_two_sides():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    assert len(mesh_feature_edges(vertices, faces)) == 4
    assert len(mesh_feature_edges(vertices, np.concatenate([faces, faces[:, ::-1]]))) == 4


def test_a_smooth_cylinder_has_only_its_two_rims():
    cylinder = trimesh.creation.cylinder(radius=0.5, height=1, sections=64)
    edges = mesh_feature_edges(cylinder.vertices, cylinder.faces)
    ends = cylinder.vertices[edges]
    assert len(edges) == 2 * 64
    np.testing.assert_allclose(ends[:, 0, 2], ends[:, 1, 2])
    np.testing.assert_allclose(np.linalg.norm(ends[..., :2], axis=-1), 0.5)


def test_the_angle_is_measured_at_true_extents():
    # A roof of 45° in the unit cube is one of 11° at a tenth of the height: no edge along its ridge.
    roof = np.array([[-1, 0, -1], [1, 0, -1], [-1, 0, 1], [1, 0, 1], [0, 1, -1], [0, 1, 1]], float)
    faces = np.array([[0, 4, 5], [0, 5, 2], [1, 5, 4], [1, 3, 5]])
    ridge = frozenset({4, 5})
    assert ridge in {frozenset(edge) for edge in mesh_feature_edges(roof, faces)}
    assert ridge not in {frozenset(edge) for edge in mesh_feature_edges(roof * (1, 0.1, 1), faces)}


# rasterising


def test_a_square_covers_the_pixels_whose_centres_it_holds():
    camera = Camera(8, 6, 1.0, 1.0, 0.0, 0.0)
    corners = np.array([[1.5, 0.5, 1], [5.5, 0.5, 1], [5.5, 3.5, 1], [1.5, 3.5, 1]]) * 2.0  # at z = 2
    z = rasterise(corners[[[0, 1, 2], [0, 2, 3]]], camera)
    expected = np.full((6, 8), np.inf)
    expected[1:4, 2:6] = 2.0
    np.testing.assert_allclose(z, expected)


@pytest.mark.parametrize("camera", [PINHOLE, BARREL, FISHEYE], ids=["pinhole", "plumb_bob", "equidistant"])
@pytest.mark.parametrize("T_m", [(0.1, 0.05, 1.4), (0.7, 0.3, 1.0)], ids=["inside", "cut by the border"])
def test_a_silhouette_is_where_the_rays_meet_the_box(camera, T_m):
    item = placed(T_m)
    mask = silhouette_mask(camera, item, LIBRARY)
    expected = np.isfinite(box_depth(item, camera))
    # Remapping a rectified image may move the outline by a pixel.
    wrong = (mask != expected).sum()
    outline = cv2.morphologyEx(expected.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))).sum()
    assert expected.sum() > 800
    assert wrong <= (0.02 if camera is PINHOLE else 0.4) * outline
    assert not (mask & ~(cv2.dilate(expected.astype(np.uint8), np.ones((5, 5))) > 0)).any()


@pytest.mark.parametrize("z_m", [0.35, 0.1, 0.0], ids=["near corner", "camera inside", "half behind"])
def test_objects_that_reach_behind_the_camera_cover_what_is_in_front(z_m):
    item = placed((0.25, 0.1, z_m))
    depth = render_objects([item], LIBRARY, PINHOLE)
    expected = box_depth(item, PINHOLE)
    agree = np.isfinite(depth.z_m) == np.isfinite(expected)
    assert agree.mean() > 0.995
    both = np.isfinite(depth.z_m) & np.isfinite(expected)
    assert both.sum() > 1000
    # The near plane cuts the model open: where the box's front is cut off, both see its inside.
    assert np.quantile(np.abs(depth.z_m[both] - expected[both]), 0.99) < 1e-3


def test_an_object_behind_the_camera_is_nowhere():
    item = placed((0.0, 0.0, -2.0))
    assert not silhouette_mask(PINHOLE, item, LIBRARY).any()
    assert len(clip_near(np.array([[[0, 0, -1], [1, 0, -1], [0, 1, 0.0]]]), NEAR_M)) == 0


def test_clipping_keeps_the_area_in_front():
    triangle = np.array([[[0.0, 0, -1], [4, 0, 3], [0, 4, 3]]])
    one_in_front = np.array([[[0.0, 0, 3], [4, 0, -1], [0, 4, -1]]])
    for given, share in ((triangle, 1 - 0.25**2), (one_in_front, 0.75**2)):
        parts = clip_near(given, 0.0)
        areas = np.linalg.norm(np.cross(parts[:, 1] - parts[:, 0], parts[:, 2] - parts[:, 0]), axis=-1).sum()
        whole = np.linalg.norm(np.cross(given[0, 1] - given[0, 0], given[0, 2] - given[0, 0]))
        assert areas == pytest.approx(share * whole)
        assert (parts[..., 2] >= 0).all()


def test_the_nearer_object_owns_the_pixels():
    far, near = placed((0, 0, 2.5), detection=0), placed((0, 0, 1.2), detection=1)
    buffer = render_objects([far, near], LIBRARY, PINHOLE)
    assert set(np.unique(buffer.owner)) == {-1, 1}
    assert buffer.silhouettes[0].any() and (buffer.owner[buffer.silhouettes[0]] == 1).all()


# lines


def run_length(runs):
    return sum(np.linalg.norm(np.diff(run, axis=0), axis=-1).sum() for run in runs)


def test_three_of_a_boxes_edges_are_hidden():
    item = placed((0, 0, 1.4))
    buffer = render_objects([item], LIBRARY, PINHOLE)
    lines = object_lines(item, LIBRARY.models[0], PINHOLE, PINHOLE, buffer.z_m)
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    cam = corners * item.S_m @ item.R.T + item.T_m
    uv = cam[:, :2] / cam[:, 2:] * 150 + (79.5, 59.5)
    # The three edges that meet in the farthest corner are the hidden ones.
    back = int(np.argmax(cam[:, 2]))
    pairs = [(i, j) for i in range(8) for j in range(i) if (corners[i] != corners[j]).sum() == 1]
    hidden = sum(np.linalg.norm(uv[i] - uv[j]) for i, j in pairs if back in (i, j))
    total = sum(np.linalg.norm(uv[i] - uv[j]) for i, j in pairs)
    assert run_length(lines.hidden) == pytest.approx(hidden, rel=0.15)
    assert run_length(lines.hidden) + run_length(lines.visible) == pytest.approx(total, rel=1e-6)


def test_lines_behind_another_object_are_hidden():
    far, near = placed((0, 0, 2.5)), placed((0, 0, 1.2), detection=1)
    buffer = render_objects([far, near], LIBRARY, PINHOLE)
    lines = object_lines(far, LIBRARY.models[0], PINHOLE, PINHOLE, buffer.z_m)
    assert run_length(lines.hidden) > 50
    assert not lines.visible


@pytest.mark.parametrize("camera", [PINHOLE, BARREL], ids=["pinhole", "plumb_bob"])
def test_lines_of_objects_around_the_camera_stay_near_the_image(camera):
    pinhole = PINHOLE if camera is PINHOLE else Camera(160, 120, 80.0, 80.0, 79.5, 59.5)
    for T_m in ((0.3, 0.1, 0.3), (0.4, 0, 0.2), (0, 0.3, 0.2)):
        item = placed(T_m)
        assert (np.abs(item.R.T @ -item.T_m) < item.S_m / 2 + 0.15).all()  # the camera is in it or nearly
        z_m = render_objects([item], LIBRARY, pinhole).z_m
        lines = object_lines(item, LIBRARY.models[0], camera, pinhole, z_m)
        points = np.concatenate(lines.visible + lines.hidden)
        assert np.isfinite(points).all()
        assert (np.abs(points - (80, 60)) < (140, 110)).all()


# overlay


def test_the_overlay_draws_edges_on_the_projected_corners_and_leaves_the_input_alone():
    image = np.full((120, 160, 3), 90, np.uint8)
    item = placed((0, 0.1, 1.4), detection=3)
    drawn = draw_overlay(image, PINHOLE, [item], LIBRARY)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert (image == 90).all()
    color = np.array(object_color(3), float)
    near_corner = np.array([0.5, 0.5, 0.5]) * item.S_m @ item.R.T + item.T_m
    across = np.array([-0.5, 0.5, 0.5]) * item.S_m @ item.R.T + item.T_m
    middle = (near_corner + across) / 2
    u, v = np.rint(middle[:2] / middle[2] * 150 + (79.5, 59.5)).astype(int)
    strip = drawn[v - 1 : v + 2, u].astype(float)
    assert np.abs(strip - color).max(-1).min() < 60  # a visible edge: nearly the object's colour
    silhouette = silhouette_mask(PINHOLE, item, LIBRARY)
    changed = (drawn != image).any(-1)
    assert changed[silhouette].mean() > 0.99
    outside = ~(cv2.dilate(silhouette.astype(np.uint8), np.ones((5, 5))) > 0)
    outside[:32] = False  # the label
    outside[88:93, 38:123] = outside[:, 38:43] = outside[:, 118:123] = False  # the box
    assert not changed[outside].any()


def test_hidden_lines_are_fainter_than_visible_ones():
    image = np.zeros((120, 160, 3), np.uint8)
    far, near = placed((0, 0, 2.5), detection=0), placed((0, 0, 1.2), detection=1)
    alone = draw_overlay(image, PINHOLE, [far], LIBRARY)[40:80, 60:100, 0].max()
    covered = draw_overlay(image, PINHOLE, [far, near], LIBRARY)
    hidden_rows = covered[50:70, 72:90].astype(int)
    orange = hidden_rows[..., 0] - hidden_rows[..., 2]  # the far one's colour against the near one's blue
    assert alone > 200
    assert orange.max() < 120


def test_an_overlay_at_another_size_than_the_depth_buffer_fits_the_same_object():
    wide = Camera(1600, 1200, 1500.0, 1500.0, 799.5, 599.5)
    item = placed((0, 0.1, 1.4))
    drawn = draw_overlay(np.zeros((1200, 1600, 3), np.uint8), wide, [item], LIBRARY)
    silhouette = silhouette_mask(wide, item, LIBRARY)
    inner = cv2.erode(silhouette.astype(np.uint8), np.ones((9, 9))) > 0
    inner[:320] = False
    assert (drawn[inner].max(-1) > 0).all()


@pytest.mark.parametrize("camera", [BARREL, FISHEYE])
def test_an_overlay_with_lens_distortion_fills_the_distorted_silhouette(camera):
    item = placed((0.3, 0.15, 1.2))
    drawn = draw_overlay(np.zeros((120, 160, 3), np.uint8), camera, [item], LIBRARY)
    expected = np.isfinite(box_depth(item, camera))
    inner = cv2.erode(expected.astype(np.uint8), np.ones((5, 5))) > 0
    inner[:32] = False
    assert inner.sum() > 300
    assert (drawn[inner].max(-1) > 0).all()


def test_nothing_in_view_draws_nothing_but_box_and_label():
    image = np.zeros((120, 160, 3), np.uint8)
    assert (draw_overlay(image, PINHOLE, [], LIBRARY) == image).all()
    drawn = draw_overlay(image, PINHOLE, [placed((0, 0, -1))], LIBRARY)
    assert not drawn[35:85, 45:115].any()


def test_wrong_overlay_input_is_refused():
    with pytest.raises(ValueError, match=r"image_rgb: expected \(120, 160, 3\) uint8, got \(60, 80, 3\)"):
        draw_overlay(np.zeros((60, 80, 3), np.uint8), PINHOLE, [], LIBRARY)
    stranger = AlignedObject(0, "chair", "boxx", (0, 0, 1, 1), np.eye(3), np.zeros(3), np.ones(3), 0.5, "")
    with pytest.raises(ValueError, match="'boxx' is not in the library"):
        draw_overlay(np.zeros((120, 160, 3), np.uint8), PINHOLE, [stranger], LIBRARY)


def test_labels_name_the_category_once():
    item = placed((0, 0, 1), score=0.876)
    assert label_text(item) == "table box 0.88"
    named = AlignedObject(0, "chair", "chair_0000007", (0, 0, 1, 1), item.R, item.T_m, item.S_m, 0.5, "")
    assert label_text(named) == "chair_0000007 0.50"


# scenes


def test_the_scene_holds_models_points_and_camera_in_gltf_axes(tmp_path):
    camera = Camera(8, 6, 8.0, 8.0, 3.5, 2.5)
    item = placed((0.2, 0.3, 2.0), detection=4)
    depth = np.zeros((6, 8), np.float32)
    depth[0, 7] = 2.0  # top right: x and y-up positive, in front: z negative in glTF
    image = np.zeros((6, 8, 3), np.uint8)
    image[0, 7] = (10, 200, 30)
    write_scene([item], LIBRARY, tmp_path / "s.glb", camera=camera, image_rgb=image, depth_m=depth)
    scene = trimesh.load(tmp_path / "s.glb")
    assert {"4_box", "points", "camera"} <= set(scene.graph.nodes)
    transform, name = scene.graph["4_box"]
    vertices = trimesh.transform_points(scene.geometry[name].vertices, transform)
    np.testing.assert_allclose((vertices.min(0) + vertices.max(0)) / 2, [0.2, -0.3, -2.0], atol=1e-5)
    sides = vertices - [0.2, -0.3, -2.0]
    np.testing.assert_allclose(np.linalg.norm(sides, axis=-1), np.linalg.norm([0.4, 0.25, 0.2]), atol=1e-5)
    transform, name = scene.graph["points"]
    cloud = scene.geometry[name]
    np.testing.assert_allclose(cloud.vertices, [[3.5 / 8 * 2, 2.5 / 8 * 2, -2.0]], atol=1e-6)
    assert tuple(np.asarray(cloud.colors)[0, :3]) == (10, 200, 30)


def test_wrong_scene_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a name ending in .glb"):
        write_scene([], LIBRARY, tmp_path / "s.obj")
    with pytest.raises(ValueError, match="camera: expected a Camera with depth_m"):
        write_scene([], LIBRARY, tmp_path / "s.glb", depth_m=np.ones((2, 2)))


def test_the_page_holds_the_same_scene_as_the_file(tmp_path):
    camera, item = Camera(8, 6, 8.0, 8.0, 3.5, 2.5), placed((0.2, 0.3, 2.0))
    write_scene([item], LIBRARY, tmp_path / "s.glb", camera=camera)
    write_scene([item], LIBRARY, tmp_path / "a&b.html", camera=camera)
    page = (tmp_path / "a&b.html").read_text()
    assert "<title>a&amp;b</title>" in page
    (encoded,) = re.findall(r'base64_data="([A-Za-z0-9+/=]+)"', page)
    (tmp_path / "inside.glb").write_bytes(base64.b64decode(encoded))
    file, shown = (trimesh.load(tmp_path / name) for name in ("s.glb", "inside.glb"))
    assert {"0_box", "camera"} <= set(shown.graph.nodes)
    np.testing.assert_allclose(shown.bounds, file.bounds)
