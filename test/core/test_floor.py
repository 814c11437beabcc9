"""The camera's height above the floor: what was guessed from a picture is brought to its scale."""

import dataclasses

import numpy as np
import pytest
import trimesh
from builders import box_estimate, model_of
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images
from sparc_core.geometry.floor import (
    MAX_LOG,
    OBJECTS_FLOOR,
    ONE_FLOOR,
    floor_factor,
    level_below_m,
    standing_factors,
    told_height_m,
)
from sparc_core.perception.interfaces import DepthPrediction
from sparc_core.perception.see import Perception, estimates_on_floor
from sparc_core.pipeline import Aligner, AlignerConfig
from sparc_core.refine.search import SearchResult
from sparc_core.refine.standing import stand_on_floor
from sparc_core.types import SCALE_MODES, Camera, Detection, PixelHints

TILT = Rotation.from_euler("x", 35, degrees=True)  # looks down
UP = TILT.apply([0.0, -1.0, 0.0])
HEIGHT_M = 1.4
CAMERA = Camera(160, 120, 120.0, 120.0, 79.5, 59.5, up_cam=tuple(UP), above_floor_m=HEIGHT_M)


def room(camera=CAMERA, table=True):
    """Depth and normals of a floor with a wall 4 m away, and a table 0.7 m high, cast by trimesh."""
    floor = trimesh.creation.box([20, 0.02, 20])
    floor.apply_translation([0, HEIGHT_M + 0.01, 0])
    wall = trimesh.creation.box([20, 20, 0.02])
    wall.apply_translation([0, 0, 4])
    parts = [floor, wall]
    if table:
        top = trimesh.creation.box([4.4, 0.7, 2.4])  # more of it is seen than of the floor
        top.apply_translation([0.3, HEIGHT_M - 0.35, 2.3])
        parts.append(top)
    mesh = trimesh.util.concatenate(parts)
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    ray = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1)
    level = TILT.inv().apply(ray.reshape(-1, 3))
    points, index, faces = mesh.ray.intersects_location(np.zeros_like(level), level, multiple_hits=False)
    depth, normals = np.zeros(len(level)), np.zeros((len(level), 3))
    depth[index] = TILT.apply(points)[:, 2]
    normals[index] = TILT.apply(mesh.face_normals[faces])
    return depth.reshape(u.shape), normals.reshape(*u.shape, 3)


def test_the_lowest_level_surface_is_the_floor():
    for table in (False, True):
        depth, normals = room(table=table)
        for wrong in (0.5, 1.0, 1.3):
            below = level_below_m(wrong * depth, normals, CAMERA)
            assert below == pytest.approx(wrong * HEIGHT_M, rel=0.01)


def test_without_a_level_surface_in_view_there_is_none():
    depth, normals = room()
    assert level_below_m(depth, 0 * normals, CAMERA) is None
    seen = np.zeros_like(depth)
    seen[-1, :20] = depth[-1, :20]  # 20 pixels of 19200
    assert level_below_m(seen, normals, CAMERA) is None
    upside_down = dataclasses.replace(CAMERA, up_cam=tuple(-UP))
    assert level_below_m(depth, normals, upside_down) is None  # what faces up then is above the camera


def test_a_known_height_is_believed_and_one_that_objects_tell_in_part():
    assert floor_factor(1.2, 1.5, None) == pytest.approx(1.25)
    assert floor_factor(1.2, 1.5, 0.9) == pytest.approx(1.25)
    assert floor_factor(1.2, None, 1.5) == pytest.approx(1.25**OBJECTS_FLOOR)
    assert floor_factor(None, 1.5, 1.5) is None and floor_factor(1.2, None, None) is None
    for off in (-1.01 * MAX_LOG, 1.01 * MAX_LOG):  # as a table top that fills the picture
        assert floor_factor(1.2, 1.2 * np.exp(off), None) is None
        assert floor_factor(1.2, None, 1.2 * np.exp(off)) is None


def test_objects_tell_the_height_of_the_camera():
    heights = np.array([0.9, 0.75, 2.0])
    T = np.stack([on_floor(h, d) for h, d in zip(heights, (2.0, 3.0, 2.5), strict=True)])
    wrong = np.array([1.2, 0.9, 1.1])
    given = wrong[:, None] * T, wrong * heights
    assert told_height_m(*given, np.ones(3, bool), CAMERA) == pytest.approx(1.1 * HEIGHT_M)
    assert told_height_m(*given, np.array([False, True, False]), CAMERA) == pytest.approx(0.9 * HEIGHT_M)
    assert told_height_m(*given, np.zeros(3, bool), CAMERA) is None
    above = -T, 0.1 * heights, np.ones(3, bool), CAMERA
    assert told_height_m(*above) is None  # nothing stands there


def on_floor(height_m, distance_m, side_m=0.0):
    """Centre of an object that stands on the floor, in the camera frame."""
    return TILT.apply([side_m, HEIGHT_M - height_m / 2, distance_m])


def test_everything_that_stands_gets_its_own_factor_and_the_rest_the_median():
    heights = np.array([0.9, 0.75, 2.0, 0.5, 0.4])
    T = np.stack([on_floor(h, d) for h, d in zip(heights, (2.0, 3.0, 2.5, 2.2, 2.0), strict=True)])
    wrong = np.array([1.2, 0.9, 1.1, 1.0, 2.5])  # the last one is too far off to stand there
    stands = np.array([True, True, True, False, True])
    factor = standing_factors(wrong[:, None] * T, wrong * heights, stands, CAMERA)
    np.testing.assert_allclose(factor[:3], 1 / wrong[:3])
    np.testing.assert_allclose(factor[3:], 1 / 1.1)  # the median of the first three
    none = standing_factors(T, heights, np.zeros(5, bool), CAMERA)
    np.testing.assert_array_equal(none, 1)
    above = standing_factors(-T, heights, np.ones(5, bool), CAMERA)
    np.testing.assert_array_equal(above, 1)  # above the camera nothing stands
    assert standing_factors(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool), CAMERA).shape == (0,)


def test_where_the_height_is_not_known_all_come_nearer_to_one_floor():
    heights, untold = np.array([0.9, 0.75, 2.0, 0.5, 0.4]), dataclasses.replace(CAMERA, above_floor_m=None)
    T = np.stack([on_floor(h, d) for h, d in zip(heights, (2.0, 3.0, 2.5, 2.2, 2.0), strict=True)])
    wrong = np.array([1.2, 0.9, 1.1, 1.0, 2.5])
    stands = np.array([True, True, True, False, True])
    factor = standing_factors(wrong[:, None] * T, wrong * heights, stands, untold)
    middle = np.sqrt(1.1 * 1.2)  # the median of the four that stand
    np.testing.assert_allclose(factor[:3], (middle / wrong[:3]) ** ONE_FLOOR)
    np.testing.assert_array_equal(factor[3:], 1)
    spread = np.log(wrong[:3] * factor[:3])
    assert np.ptp(spread) < 0.3 * np.ptp(np.log(wrong[:3]))
    for scale in (1.0, 1.7):  # one floor has no scale
        same = standing_factors(scale * T, scale * heights, stands, untold)
        np.testing.assert_allclose(same, 1)


def guessed(category, height_m, distance_m, wrong, side_m=0.0):
    T, S = wrong * on_floor(height_m, distance_m, side_m), wrong * np.array([0.6, height_m, 0.5])
    return Detection((1, 2, 30, 40), category, estimate=box_estimate(T_m=T, S_m=S))


def test_estimates_stand_on_the_floor():
    plain = Detection((1, 2, 30, 40), "bed")
    given = [guessed("chair", 0.9, 2.0, 1.2), plain, guessed("display", 0.4, 2.5, 1.2, side_m=0.4)]
    chair, same, display = estimates_on_floor(given, CAMERA)
    np.testing.assert_allclose(chair.estimate.T_m, on_floor(0.9, 2.0))
    np.testing.assert_allclose(chair.estimate.S_m, [0.6, 0.9, 0.5])
    assert same is plain
    np.testing.assert_allclose(display.estimate.T_m, on_floor(0.4, 2.5, 0.4))  # by the chair's factor
    assert chair.estimate.azimuth == given[0].estimate.azimuth


class Eyes:
    """Depth of `room`, 1.25 times too large, and a chair that is `wrong` times too far away."""

    wrong = 1.25

    def predict(self, image_rgb, camera):
        depth, normals = room()
        return DepthPrediction((1.25 * depth).astype(np.float32), normals.astype(np.float32))

    def look(self, image_rgb, camera, detections, judged_min_score=None):
        return [guessed("chair", 0.9, 2.0, self.wrong) for _ in detections]


def test_what_was_predicted_has_the_floors_scale_and_what_was_measured_keeps_its_own():
    eyes, image = Eyes(), np.zeros((120, 160, 3), np.uint8)
    perception = Perception(depth=eyes, estimates=eyes)
    boxes, (depth, _) = [Detection((1, 2, 30, 40), "chair")], room()
    seen = perception.see(image, CAMERA, boxes)
    np.testing.assert_allclose(seen.depth_m, depth, rtol=0.01)
    np.testing.assert_allclose(seen.detections[0].estimate.T_m, on_floor(0.9, 2.0))
    assert seen.ran["depth"] == "Eyes, scaled to the floor"
    unknown = dataclasses.replace(CAMERA, above_floor_m=None)
    for eyes.wrong in (1.25, 1.0):
        untold = perception.see(image, unknown, boxes)
        expected = 1.25 * (eyes.wrong / 1.25) ** OBJECTS_FLOOR  # it goes half the way to the chair's
        np.testing.assert_allclose(untold.depth_m, expected * depth, rtol=0.01)
        np.testing.assert_allclose(untold.detections[0].estimate.T_m, eyes.wrong * on_floor(0.9, 2.0))
        assert untold.ran["depth"] == "Eyes, scaled to the objects"
    for camera, given in ((unknown, []), (dataclasses.replace(unknown, up_cam=None), boxes)):
        alone = perception.see(image, camera, given)
        np.testing.assert_allclose(alone.depth_m, 1.25 * depth, rtol=1e-5)
        assert alone.ran["depth"] == "Eyes"
    measured = perception.see(image, CAMERA, [guessed("chair", 0.9, 2.0, 1.25)], depth)
    np.testing.assert_allclose(measured.detections[0].estimate.T_m, 1.25 * on_floor(0.9, 2.0))


def test_results_are_moved_along_their_line_of_sight_until_they_stand():
    library = CadLibrary([
        model_of(trimesh.creation.box([1, 1, 1]), "seat", "chair"),
        model_of(trimesh.creation.box([1, 1, 1]), "screen", "display"),
    ])  # fmt: skip
    upright = TILT.as_matrix() @ np.diag([1.0, -1.0, -1.0])

    def found(model=0, R=upright, mode="free", wrong=1.2):
        T, S = wrong * on_floor(0.9, 2.0, 0.3), wrong * np.array([0.6, 0.9, 0.5])
        return SearchResult(0, model, R, T, S, 0.8, "azimuth_0", SCALE_MODES.index(mode))

    lying = upright @ Rotation.from_euler("x", 90, degrees=True).as_matrix()
    given = [found(), found(model=1), found(R=lying), found(mode="fixed"), found(mode="uniform", wrong=0.9)]
    results = stand_on_floor(given, CAMERA, library)
    middle = np.exp(np.median(np.log([1 / 1.2, 1 / 0.9])))
    for before, after, factor in zip(given, results, (1 / 1.2, middle, middle, 1, 1 / 0.9), strict=True):
        np.testing.assert_allclose(after.T_m, factor * before.T_m)
        np.testing.assert_allclose(after.S_m, factor * before.S_m)
        assert after.R is before.R and after.score == before.score
    apart = [found(wrong=1.2), found(wrong=1.0), found(wrong=0.9)]
    near = stand_on_floor(apart, dataclasses.replace(CAMERA, above_floor_m=None), library)
    assert [r.T_m[2] / b.T_m[2] for r, b in zip(near, apart, strict=True)] == pytest.approx(
        [1.2**-ONE_FLOOR, 1, 0.9**-ONE_FLOOR]
    )
    unknown = dataclasses.replace(CAMERA, above_floor_m=None, up_cam=None)
    assert stand_on_floor(given, unknown, library) is given and stand_on_floor([], CAMERA, library) == []


def test_the_aligner_stands_what_it_finds_on_the_floor_but_for_what_was_measured():
    library = CadLibrary.procedural(range(1_000_000, 1_000_003))
    image = max(
        synthetic_images(library, SyntheticSetConfig(scenes=6)),
        key=lambda i: sum(d.category != "display" for d in i.detections),
    )
    up = np.array(image.camera.up_cam)
    hints = PixelHints(*(np.full(image.depth_m.shape, v, np.float32) for v in (0.8, 0.1)))

    def undersides(height=None, hints=hints, predicted=True, stand=True):
        """ln of how far below the camera the undersides of all but displays are."""
        aligner = Aligner.load(cad_library=library, device="cpu", config=AlignerConfig(stand_on_floor=stand))
        camera = dataclasses.replace(image.camera, above_floor_m=height)
        found = aligner.align(
            image.rgb, camera, image.detections, image.depth_m, depth_predicted=predicted, hints=hints
        )
        stands = [o for o in found.objects if o.category != "display"]
        assert len(stands) >= 3 and all(o.R[:, 1] @ up > 0.9 for o in stands)
        return np.log([o.S_m[1] / 2 - o.T_m @ up for o in stands])

    plain = undersides(stand=False)
    near = np.abs(plain - np.median(plain)) <= MAX_LOG
    assert near.sum() >= 3 and np.ptp(plain[near]) > 0.01
    together = undersides()
    np.testing.assert_allclose(
        (together - np.median(plain))[near], (1 - ONE_FLOOR) * (plain - np.median(plain))[near], atol=1e-6
    )
    height = 1.1 * float(np.exp(np.median(plain)))
    told, reachable = undersides(height), np.abs(plain - np.log(height)) <= MAX_LOG
    np.testing.assert_allclose(told[reachable], np.log(height), atol=1e-6)
    assert reachable.sum() >= 3
    without_hints = {"hints": None}
    fitted = undersides(**without_hints, stand=False)
    np.testing.assert_array_equal(undersides(**without_hints), fitted)  # the fit has one scale for all
    assert np.abs(undersides(height, **without_hints) - np.log(height)).min() < 1e-6
    for more in ({}, {"height": height}):
        measured = undersides(predicted=False, stand=False)
        np.testing.assert_array_equal(undersides(predicted=False, **more), measured)
