"""Scan2CAD's, ROCA's and Multi-SPARC's protocols on cases small enough to be scored by hand."""

import dataclasses
import math

import numpy as np
import pytest
from scan2cad_objects import (
    CAD,
    PROTOCOL,
    TABLE,
    annotated,
    in_frame,
    pose,
    predicted,
    score,
    turned,
)
from scipy.spatial.transform import Rotation

from sparc_core.evaluation.scan2cad.errors import errors_to, rotation_error_deg
from sparc_core.evaluation.scan2cad.per_scene import SceneProtocol, consider, match, suppress
from sparc_core.evaluation.scan2cad.predictions import to_scene

# errors


@pytest.mark.parametrize(
    ("symmetry", "degrees", "expected"),
    [
        ("none", 0, 0), ("none", 90, 90), ("none", 180, 180), ("none", 270, 90),
        ("c2", 180, 0), ("c2", 170, 10), ("c2", 90, 90), ("c4", 90, 0), ("c4", 130, 40), ("c4", -100, 10),
        ("cinf", 40, 0), ("cinf", 47, 3), ("cinf", 185, 5),
    ],
)  # fmt: skip
def test_rotation_error_by_hand(symmetry, degrees, expected):
    R_true = Rotation.from_euler("xyz", [20, -50, 70], degrees=True).as_matrix()
    assert rotation_error_deg(R_true @ turned(degrees), R_true, symmetry) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("symmetry", ["none", "c2", "c4", "cinf"])
def test_rotation_error_agrees_with_scipy(symmetry):
    order = {"none": 1, "c2": 2, "c4": 4, "cinf": 36}[symmetry]
    for seed in range(20):
        a, b = Rotation.random(2, rng=np.random.default_rng(seed))
        turns = [b * Rotation.from_euler("y", 360 * k / order, degrees=True) for k in range(order)]
        expected = min((a.inv() * turn).magnitude() for turn in turns)
        assert rotation_error_deg(a.as_matrix(), b.as_matrix(), symmetry) == pytest.approx(
            math.degrees(expected)
        )


def test_tilts_are_not_forgiven_by_symmetry():
    assert rotation_error_deg(turned(30, "x"), np.eye(3), "cinf") == pytest.approx(30)


def test_rounding_beyond_one_is_clipped_to_no_error_and_to_a_half_turn():
    slightly = np.eye(3) * (1 + 1e-12)
    assert rotation_error_deg(slightly, np.eye(3), "none") == 0
    assert rotation_error_deg(turned(180) * (1 + 1e-12), np.eye(3), "none") == pytest.approx(180)


def test_both_scale_errors_by_hand():
    """Ratios 1.4, 0.6, 1: their mean is 1, so Scan2CAD sees no error; the stricter one is 0.8/3."""
    errors = errors_to(pose(s=(1.4, 1.2, 0.5)), [pose(s=(1, 2, 0.5)), pose(s=(1.4, 1.2, 1))], ["none"] * 2)
    assert errors.scale_of_mean == pytest.approx([0, 0.5 / 3])
    assert errors.scale_mean == pytest.approx([0.8 / 3, 0.5 / 3])
    assert errors.scale(strict=True) is errors.scale_mean and errors.scale(False) is errors.scale_of_mean


def test_translation_error_is_the_distance():
    assert errors_to(pose((3, 4, 0)), [pose(), pose((3, 0, 0))], ["none"] * 2).translation_m == pytest.approx(
        [5, 4]
    )


# suppression


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"t": (0.39, 0, 0)}, 1), ({"t": (0.41, 0, 0)}, 2), ({"yaw": 59}, 1), ({"yaw": 61}, 2),
        ({"s": (0.63, 0.63, 0.63)}, 1), ({"s": (0.62, 0.62, 0.62)}, 2), ({"s": (9, 9, 9)}, 2),
        ({"s": (2.4, 2.4, 2.4)}, 1), ({"synset": TABLE}, 2),
    ],
)  # fmt: skip
def test_the_limits_of_suppression(change, kept):
    """Scale: the better one (1) over the other: 1/0.63 = 1.59, 1/0.62 = 1.61, 1/9 = 0.11, 1/2.4 = 0.42."""
    ranked = [predicted(score=0.9), predicted(score=0.8, **change)]
    assert len(suppress(ranked, CAD, PROTOCOL)) == kept


def test_what_was_dropped_drops_nothing():
    """B is within 40 cm of A, C of B alone."""
    a, b, c = (predicted((x, 0, 0), score=s) for x, s in ((0, 0.9), (0.35, 0.8), (0.7, 0.7)))
    assert suppress([a, b, c], CAD, PROTOCOL) == [a, c]


def test_suppression_forgives_turns_of_the_better_ones_symmetry():
    kept = suppress([predicted(cad="square", score=0.9), predicted(yaw=90)], CAD, PROTOCOL)
    assert len(kept) == 1
    assert len(suppress([predicted(score=0.9), predicted(yaw=90, cad="square")], CAD, PROTOCOL)) == 2


def test_no_more_of_a_category_than_there_are():
    far = [predicted((x, 0, 0), score=1 - x / 10) for x in range(4)]
    table = predicted((0, 0, 0), synset=TABLE, score=0.01)
    objects = [annotated(), annotated((1, 0, 0)), annotated(synset=TABLE)]
    assert consider([table, *far[::-1]], objects, CAD, PROTOCOL) == [far[0], far[1], table]
    everything = dataclasses.replace(PROTOCOL, limit_counts=False)
    assert len(consider([table, *far], objects, CAD, everything)) == 5
    assert consider(far, [annotated(synset=TABLE)], CAD, PROTOCOL) == []


def test_suppression_can_be_left_out():
    both = [predicted(score=0.9), predicted((0.1, 0, 0), score=0.8)]
    objects = [annotated(), annotated()]
    assert len(consider(both, objects, CAD, PROTOCOL)) == 1
    assert len(consider(both, objects, CAD, dataclasses.replace(PROTOCOL, suppress=False))) == 2


# matching


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({"t": (0.199, 0, 0)}, True), ({"t": (0.12, 0.12, 0.12)}, False), ({"yaw": 19.9}, True),
        ({"yaw": 20.1}, False), ({"s": (1.19, 1.19, 1.19)}, True), ({"s": (1.21, 1.21, 1.21)}, False),
        ({"s": (0.81, 0.81, 0.81)}, True), ({"s": (0.79, 0.79, 0.79)}, False), ({"synset": TABLE}, False),
    ],
)  # fmt: skip
def test_the_limits_of_a_right_prediction(change, right):
    assert match([predicted(**change)], [annotated()], CAD, PROTOCOL) == [0 if right else None]


def test_an_uneven_scale_is_right_by_scan2cads_error_alone():
    uneven = [predicted(s=(1.4, 0.6, 1.0))]
    assert score(uneven, {"a": [annotated()]}).instance == 100
    assert score(uneven, {"a": [annotated()]}, strict_scale=True).instance == 0


def test_every_object_is_found_once_and_the_first_within_the_limits_is_taken():
    """Both predictions are right about both objects; the better takes the first, not the nearest."""
    objects = [annotated((0.15, 0, 0)), annotated((0, 0, 0))]
    assert match([predicted(), predicted((0.05, 0, 0))], objects, CAD, PROTOCOL) == [0, 1]
    assert match([predicted()] * 3, objects[:1], CAD, PROTOCOL) == [0, None, None]


@pytest.mark.parametrize(
    ("cad", "true_cad", "yaw", "right"),
    [
        ("oblong", "oblong", 180, True), ("oblong", "oblong", 90, False), ("square", "square", 90, True),
        ("round", "round", 137, True), ("plain", "square", 90, False), ("square", "plain", 90, False),
        ("square", "oblong", 180, False), ("plain", "round", 10, True),
    ],
)  # fmt: skip
def test_turns_are_forgiven_when_both_models_have_the_symmetry(cad, true_cad, yaw, right):
    found = match([predicted(cad=cad, yaw=yaw)], [annotated(cad=true_cad)], CAD, PROTOCOL)
    assert found == [0 if right else None]


def test_retrieval_asks_for_the_annotated_model():
    scenes = {"a": [annotated(cad="oblong")]}
    assert score([predicted(cad="oblong")], scenes, retrieval=True).instance == 100
    assert score([predicted(cad="plain")], scenes, retrieval=True).instance == 0
    assert score([predicted(cad="plain")], scenes).instance == 100


def test_retrieval_looks_on_for_the_right_model():
    objects = [annotated(), annotated((0.1, 0, 0), cad="oblong")]
    retrieval = dataclasses.replace(PROTOCOL, retrieval=True)
    assert match([predicted(cad="oblong")], objects, CAD, retrieval) == [1]


def test_a_model_that_no_annotation_knows_is_compared_without_symmetry():
    scenes = {"a": [annotated(cad="square"), annotated((2, 0, 0))]}
    found = score([predicted(cad="new", yaw=90), predicted((2, 0, 0), cad="newer")], scenes)
    assert (found.instance, found.unknown_cad) == (50, 2)


def test_conventions_compare_origins_or_boxes():
    """The box centre is half a unit above the origin: with the origins 10 cm apart and the heights 1 and 1.2
    (a ratio of means of 1.067), the centres are 20.0 cm apart; with 1.4 they are 30 cm apart."""
    near, far = (predicted((0, 0.1, 0), s=(1, s, 1)) for s in (1.18, 1.4))
    scenes = {"a": [annotated()]}
    assert score([near], scenes).instance == score([near], scenes, convention="box").instance == 100
    assert score([far], scenes).instance == 100 and score([far], scenes, convention="box").instance == 0
    unknown = score([predicted(cad="new")], scenes, convention="box")
    assert (unknown.instance, unknown.considered, unknown.unknown_cad) == (0, 0, 1)


# whole scores


def test_scenes_without_predictions_count_and_means_are_by_hand():
    """Chairs 2 of 4, tables 1 of 1: class mean 75, instances 3 of 5."""
    scenes = {
        "a": [annotated(), annotated((2, 0, 0)), annotated(synset=TABLE)],
        "b": [annotated(), annotated((2, 0, 0))],
    }
    found = score(
        [predicted(), predicted((2.1, 0, 0)), predicted(synset=TABLE), predicted(scene="z")], scenes
    )
    assert found.by_category == {"chair": 50.0, "table": 100.0}
    assert (found.class_mean, found.instance) == (75, 60)
    assert found.by_scene == {"a": (3, 3), "b": (0, 2)}
    assert found.truth == {"chair": 4, "table": 1}


def test_a_wrong_prediction_of_high_score_takes_the_place():
    scenes = {"a": [annotated()]}
    wrong, right = predicted((0.5, 0, 0), score=0.9), predicted(score=0.8)
    assert score([right, wrong], scenes).instance == 0
    assert score([right, wrong], scenes, limit_counts=False).instance == 100


def test_nothing_annotated_is_no_number():
    assert math.isnan(score([predicted()], {"a": []}).instance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0.0}, "scale must be positive"),
        ({"convention": "mesh"}, "convention must be 'file' or 'box'"),
    ],
)
def test_protocols_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SceneProtocol(**change)


# from frames to scenes


def test_frames_go_to_the_scene_with_the_cameras_pose_and_the_chosen_score():
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = turned(90), (0, 0, 1)  # z → x
    found = to_scene(
        [in_frame((0, 0, 2), pose_score=0.1, detection_score=0.7), in_frame(None)],
        {("a", "000000"): T},
        "pose",
    )
    assert len(found) == 1 and found[0].score == 0.1
    assert found[0].pose.t == pytest.approx([2, 0, 1]) and found[0].pose.R == pytest.approx(turned(90))
    assert to_scene([in_frame(detection_score=0.7)], {("a", "000000"): T}, "detection")[0].score == 0.7
    with pytest.raises(ValueError, match="a/000000: the camera's pose is not known"):
        to_scene([in_frame()], {}, "pose")
