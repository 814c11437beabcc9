"""The demo's room: truth and picture agree, the camera moves slowly, seeds repeat."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.camera import project_points
from sparc_ros.demo_world import PLACES, R_LINK_OPTICAL, R_MAP_CAD, DemoWorld, camera_place


@pytest.fixture(scope="module")
def library():
    return CadLibrary.procedural(range(1000, 1002))


@pytest.fixture(scope="module")
def world(library):
    return DemoWorld(library, seed=3)


@pytest.fixture(scope="module")
def view(world):
    return world.view(10.0)


def test_frames_are_rotations_with_the_axes_they_promise():
    for R in (R_LINK_OPTICAL, R_MAP_CAD):
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
    np.testing.assert_array_equal(R_LINK_OPTICAL @ (0, 0, 1), (1, 0, 0))  # the optical axis is forward
    np.testing.assert_array_equal(R_MAP_CAD @ (0, 1, 0), (0, 0, 1))  # CAD up is map up


def test_the_picture_shows_the_objects_where_the_truth_says(world, view, library):
    height, width = view.depth_m.shape
    assert view.rgb.shape == (height, width, 3) and view.rgb.dtype == np.uint8
    for item in view.truth:
        model = library.models[library.index_of(item.model_id)]
        points = (model.points * item.S_m) @ item.R.T + item.T_m
        uv = project_points(points, world.camera)
        inside = ((uv > 0) & (uv < (width - 1, height - 1))).all(-1)
        pixel = uv[inside].round().astype(int)
        seen = view.depth_m[pixel[:, 1], pixel[:, 0]]
        # The nearest surface points are what the camera sees; sensor noise is centimetres.
        on_surface = (np.abs(seen - points[inside, 2]) < 0.08) & (seen > 0)
        assert on_surface.mean() > 0.15, item.category


def test_boxes_hold_the_visible_points(world, view, library):
    for item in view.truth:
        x0, y0, x1, y1 = item.box_xyxy
        u, v = project_points(item.T_m, world.camera)
        assert x0 < x1 and y0 < y1
        margin_x, margin_y = (x1 - x0) / 2, (y1 - y0) / 2
        assert x0 - margin_x < u < x1 + margin_x and y0 - margin_y < v < y1 + margin_y


def test_objects_stand_on_the_floor_or_on_what_carries_them(world, view):
    R_map_cam = view.T_map_link[:3, :3] @ R_LINK_OPTICAL
    heights = {}
    for place, item in zip(view.place_numbers, view.truth, strict=True):
        centre = R_map_cam @ item.T_m + view.T_map_link[:3, 3]
        heights[place] = (centre[2] - item.S_m[1] / 2, item.S_m[1])
        up = R_map_cam @ item.R @ (0, 1, 0)
        np.testing.assert_allclose(up, (0, 0, 1), atol=1e-5)
    for place, (bottom, _) in heights.items():
        carrier = PLACES[place].on
        expected = 0.0 if carrier is None else heights[carrier][1]
        assert bottom == pytest.approx(expected, abs=1e-4)


def test_detections_are_counted_and_numbered_by_place(view):
    assert [item.detection for item in view.truth] == list(range(len(view.truth)))
    assert len(view.truth) >= 5
    categories = [PLACES[place].category for place in view.place_numbers]
    assert categories == [item.category for item in view.truth]


def test_the_camera_moves_slowly_and_level():
    for time_s in np.arange(0, 120, 0.5):
        before, after = camera_place(time_s), camera_place(time_s + 0.1)
        speed = np.linalg.norm(after[:3, 3] - before[:3, 3]) / 0.1
        turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).magnitude() / 0.1
        assert speed < 0.15 and turn < np.radians(5)
        assert before[2, 1] == pytest.approx(0, abs=1e-12)  # the left axis stays level: no roll


def test_a_seed_gives_the_same_room_again(library):
    first, second = (DemoWorld(library, seed=5).view(1.0) for _ in range(2))
    np.testing.assert_array_equal(first.rgb, second.rgb)
    np.testing.assert_array_equal(first.depth_m, second.depth_m)
    assert [item.model_id for item in first.truth] == [item.model_id for item in second.truth]


def test_a_library_without_the_furniture_is_refused():
    with pytest.raises(ValueError, match="'display'"):
        DemoWorld(CadLibrary.procedural(range(1), ("table",)))
