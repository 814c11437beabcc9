"""Several posed frames to one CAD scene: which sightings are one object, and their fused estimate."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparc_core.mapping.fuse import FuseConfig, fuse, odds, rotation_distance_deg, turn_towards
from sparc_core.mapping.map_file import write_map
from sparc_core.mapping.scene_map import MapConfig, associate, build_map
from sparc_core.mapping.sighting import Sighting, sighting_of
from sparc_core.types import AlignedObject

EYE = np.eye(3)


def turned(degrees, axis="y"):
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


def seen(frame=0, T=(0, 0, 0), yaw=0.0, S=(0.6, 0.9, 0.5), score=0.8, camera=(0, 0, -2), **changes):
    values = {"category": "chair", "model_id": "a", "symmetry": "none", **changes}
    return Sighting(
        frame, R=turned(yaw), T_m=np.array(T, float), S_m=np.array(S, float), score=score,
        camera_m=np.array(camera, float), **values,
    )  # fmt: skip


# sightings


def test_a_sighting_is_the_aligned_object_in_the_world():
    item = AlignedObject(
        0, "chair", "a", (0, 0, 1, 1), turned(20), np.array([0, 0, 2.0]), np.ones(3), 0.7, "x"
    )
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = turned(90), (5, 0, 0)
    found = sighting_of(item, "c2", T, 3)
    assert found.T_m == pytest.approx([7, 0, 0])  # z → x, then shifted
    assert found.R == pytest.approx(turned(110)) and found.camera_m == pytest.approx([5, 0, 0])
    with pytest.raises(ValueError, match="must hold a rotation"):
        sighting_of(item, "c2", np.diag([2.0, 1, 1, 1]), 0)
    with pytest.raises(ValueError, match=r"finite \(4, 4\)"):
        sighting_of(item, "c2", np.eye(3), 0)


# fusion of one object


def test_one_sighting_stays_as_it_is():
    only = seen(yaw=30, T=(1, 2, 3))
    found = fuse([only])
    assert found.R == pytest.approx(only.R) and found.T_m == pytest.approx(only.T_m)
    assert found.S_m == pytest.approx(only.S_m) and found.score == 0.8 and found.agreeing == 1


PLAIN = FuseConfig(ray_ratio=1.0, spread_m=1e6, spread_log=1e6)  # plain weighted means


def test_weights_are_the_odds_by_hand():
    """σ of 0.8 and 0.4 have odds of 4 and 2/3: 6 to 1."""
    both = [seen(0, (0, 0, 0), 0, score=0.8), seen(1, (0.07, 0, 0), 7, (1.2, 0.9, 0.5), score=0.4)]
    found = fuse(both, PLAIN)
    assert found.T_m == pytest.approx([0.01, 0, 0])
    assert rotation_distance_deg(found.R, EYE, "none") == pytest.approx(1, abs=0.01)
    assert found.S_m == pytest.approx([0.6 * 2 ** (1 / 7), 0.9, 0.5])  # the mean of the logarithms


def test_odds_of_certainties_stay_finite_and_above_zero():
    assert odds(np.array([0.0, 0.5, 0.9, 1.0])) == pytest.approx([0.002 / 0.998, 1, 9, 499])


def test_views_from_two_sides_correct_each_others_depth():
    """Each camera errs by 30 cm along its ray. With a ray ratio of 2 the other one counts four times there:
    the error is 0.3 / 5 m along each axis instead of 0.3 / 2 m for the plain mean."""
    a = seen(0, (0, 0, 0.3), camera=(0, 0, -2.0))
    b = seen(1, (0.3, 0, 0), camera=(-2.0, 0, 0))
    by_ray = dataclasses.replace(PLAIN, ray_ratio=2.0)
    assert fuse([a, b], by_ray).T_m == pytest.approx([0.06, 0, 0.06])
    assert fuse([a, b], PLAIN).T_m == pytest.approx([0.15, 0, 0.15])


def test_a_sighting_far_from_the_others_counts_little():
    """At 30 cm and a spread of 3 cm it has 1/101 of the weight of each of the three others: 1 mm."""
    group = [*(seen(f) for f in range(3)), seen(3, (0.3, 0, 0), S=(1.2, 1.8, 1.0))]
    assert fuse(group, dataclasses.replace(PLAIN, spread_m=0.03)).T_m[0] == pytest.approx(0.001, abs=2e-4)
    assert fuse(group, dataclasses.replace(PLAIN, spread_log=0.04)).S_m == pytest.approx(
        [0.6, 0.9, 0.5], rel=2e-3
    )
    assert fuse(group, PLAIN).T_m[0] == pytest.approx(0.075)


def test_rotations_vote_and_the_minority_is_left_out():
    """A flipped sighting has the best σ, but two that agree weigh more: odds of 4 against 2 · 2.33."""
    found = fuse([seen(0, yaw=180, score=0.8), seen(1, yaw=5, score=0.7), seen(2, yaw=-5, score=0.7)])
    assert rotation_distance_deg(found.R, EYE, "none") < 0.1
    assert found.agreeing == 2 and len(found.sightings) == 3
    assert found.score == 0.7  # of those that agree


@pytest.mark.parametrize(
    ("symmetry", "turns"), [("c2", (0, 180)), ("c4", (0, 90, 180, 270)), ("cinf", (0, 50, 130))]
)
def test_turns_of_the_symmetry_are_the_same(symmetry, turns):
    group = [seen(i, yaw=yaw + 3, symmetry=symmetry, S=(0.6, 0.9, 0.6)) for i, yaw in enumerate(turns)]
    found = fuse(group)
    assert found.agreeing == len(turns)
    assert rotation_distance_deg(found.R, turned(3), symmetry) < 0.1
    assert found.S_m == pytest.approx([0.6, 0.9, 0.6])


def test_a_quarter_turn_swaps_width_and_depth():
    """The same placed box, described in two ways."""
    R, S = turn_towards(seen(yaw=90, S=(0.4, 0.9, 0.6), symmetry="c4"), EYE, "c4")
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    before = (corners * [0.4, 0.9, 0.6]) @ turned(90).T
    after = (corners * S) @ R.T
    assert sorted(map(tuple, np.round(before, 6) + 0.0)) == sorted(map(tuple, np.round(after, 6) + 0.0))
    assert R == pytest.approx(EYE, abs=1e-9) and S == pytest.approx([0.6, 0.9, 0.4])


def test_round_things_have_one_width():
    assert fuse([seen(S=(0.4, 0.9, 0.9), symmetry="cinf")]).S_m == pytest.approx([0.6, 0.9, 0.6])


def test_the_cad_model_with_the_most_weight_is_taken():
    found = fuse(
        [seen(0, model_id="a", score=0.8), seen(1, model_id="b", score=0.7), seen(2, model_id="b", score=0.7)]
    )
    assert found.model_id == "b"


@pytest.mark.parametrize("symmetry", ["none", "c4"])
def test_the_fused_estimate_is_better_than_the_best_single_frame(symmetry):
    """200 objects seen six times from around: 8 cm of noise along the ray, 3 cm across, 8° and 8 %, in some
    frames more than in others, which σ tells roughly; a fifth of the sightings is turned by 90° or 180°."""
    rng = np.random.default_rng(0)
    fused, single = [], []
    for _ in range(200):
        R, T, S = turned(rng.uniform(0, 360)), rng.uniform(-1, 1, 3), rng.uniform(0.4, 1.2, 3)
        if symmetry == "c4":
            S[2] = S[0]
        group = [_noisy(rng, R, T, S, symmetry, frame) for frame in range(6)]
        best = max(group, key=lambda s: s.score)
        fused.append(_errors(fuse(group), R, T, S, symmetry))
        single.append(_errors(best, R, T, S, symmetry))
    fused, single = np.array(fused), np.array(single)
    assert (np.median(fused, 0) < 0.9 * np.median(single, 0)).all(), (
        np.median(fused, 0),
        np.median(single, 0),
    )
    wrong_single, wrong_fused = (single[:, 1] > 45).mean(), (fused[:, 1] > 45).mean()
    if symmetry == "none":
        assert wrong_single > 0.04 and wrong_fused < 0.5 * wrong_single
    else:  # a quarter turn is none
        assert wrong_single == wrong_fused == 0


def _noisy(rng, R, T, S, symmetry, frame):
    angle = rng.uniform(0, 2 * np.pi)
    camera = T + np.array([2.5 * np.cos(angle), 0.8, 2.5 * np.sin(angle)])
    ray = (T - camera) / np.linalg.norm(T - camera)
    flipped = rng.random() < 0.2
    turn = turned(rng.choice([90, 180, 270])) if flipped else np.eye(3)
    worse = rng.uniform(0.4, 1.6)
    wobble = Rotation.from_rotvec(worse * np.radians(8) / np.sqrt(3) * rng.normal(size=3)).as_matrix()
    position = T + worse * (ray * rng.normal(0, 0.08) + rng.normal(0, 0.03, 3))
    score = float(np.clip(rng.normal(1.0 - 0.2 * worse - 0.05 * flipped, 0.06), 0.01, 0.97))
    size = S * np.exp(worse * rng.normal(0, 0.08, 3))
    return Sighting(frame, "chair", "a", symmetry, R @ turn @ wobble, position, size, score, camera)


def _errors(found, R, T, S, symmetry):
    return (
        np.linalg.norm(found.T_m - T), rotation_distance_deg(found.R, R, symmetry),
        np.abs(np.sort(found.S_m) / np.sort(S) - 1).mean(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agree_deg": 50.0}, "agree_deg"),
        ({"ray_ratio": 0.5}, "ray_ratio"),
        ({"spread_m": 0.0}, "spread_m"),
    ],
)
def test_fuse_options_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        FuseConfig(**changes)


# which sightings are one object

CONFIG = MapConfig()


def frames_of(groups):
    return sorted(sorted((s.frame, round(float(s.T_m[0]), 2)) for s in g) for g in groups)


def test_sightings_of_several_frames_are_one_object_and_neighbours_another():
    """The chair's limit is half of its size, √((0.36 + 0.81 + 0.25) / 3) / 2 = 0.344 m."""
    sightings = [
        seen(0, (0, 0, 0), score=0.9),
        seen(1, (0.3, 0, 0), score=0.6),
        seen(2, (0.36, 0, 0), score=0.5),
    ]
    assert frames_of(associate(sightings, CONFIG)) == [[(0, 0.0), (1, 0.3)], [(2, 0.36)]]


def test_the_best_score_leads_whatever_the_order():
    """From 0.3 m the other two would be one object with it; from 0 m the third is another one."""
    sightings = [
        seen(1, (0.3, 0, 0), score=0.6),
        seen(0, (0, 0, 0), score=0.9),
        seen(2, (0.6, 0, 0), score=0.5),
    ]
    expected = [[(0, 0.0), (1, 0.3)], [(2, 0.6)]]
    assert (
        frames_of(associate(sightings, CONFIG)) == frames_of(associate(sightings[::-1], CONFIG)) == expected
    )


def test_other_categories_and_sizes_are_other_objects():
    sightings = [seen(0, score=0.9), seen(1, category="table"), seen(2, S=(1.7, 2.5, 1.4), score=0.7)]
    assert len(associate(sightings, CONFIG)) == 3  # extents in the ratio 0.36: farther than 0.6 from 1


def test_two_detections_of_a_frame_are_two_objects_unless_they_coincide():
    two = [seen(0, (0, 0, 0), score=0.9), seen(0, (0.2, 0, 0), score=0.8)]
    double = [seen(0, (0, 0, 0), score=0.9), seen(0, (0.15, 0, 0), score=0.8)]  # within half of 0.344 m
    assert len(associate(two, CONFIG)) == 2 and len(associate(double, CONFIG)) == 1
    assert len(associate(double, CONFIG)[0]) == 1  # the double is dropped, not fused


def test_a_sighting_joins_the_nearest_object_that_its_frame_has_left_free():
    sightings = [
        seen(0, (0, 0, 0), score=0.9), seen(0, (0.3, 0, 0), score=0.85),
        seen(1, (0.26, 0, 0), score=0.8), seen(1, (0.05, 0, 0), score=0.7),
    ]  # fmt: skip
    assert frames_of(associate(sightings, CONFIG)) == [[(0, 0.0), (1, 0.05)], [(0, 0.3), (1, 0.26)]]


def test_a_map_keeps_what_is_good_and_seen_often_enough():
    sightings = [seen(0, score=0.9), seen(1, (0.1, 0, 0), score=0.8), seen(0, (3, 0, 0), score=0.3)]
    assert [len(o.sightings) for o in build_map(sightings)] == [2, 1]
    assert len(build_map(sightings, MapConfig(min_score=0.5))) == 1
    assert len(build_map(sightings, MapConfig(min_sightings=2))) == 1
    assert build_map([]) == []


def test_objects_that_fusion_moved_together_are_one():
    """Leaders 36 cm apart are two objects; their other sightings lie between them: the means are close."""
    left = [seen(0, (0, 0, 0), score=0.82), *(seen(f, (0.16, 0, 0), score=0.8) for f in (1, 2))]
    right = [seen(3, (0.36, 0, 0), score=0.81), *(seen(f, (0.2, 0, 0), score=0.8) for f in (1, 2))]
    groups = associate([*left, *right], CONFIG)
    assert sorted(len(g) for g in groups) == [3, 3]
    assert len(build_map([*left, *right])) == 1
    assert len(build_map([*left, *right], dataclasses.replace(CONFIG, double_share=0.1))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_distance_m": 0.0}, "max_distance_m"), ({"min_distance_m": 0.5}, "must not exceed"),
        ({"min_sightings": 0}, "min_sightings"), ({"min_score": 2.0}, "min_score"),
    ],
)  # fmt: skip
def test_map_options_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        MapConfig(**changes)


def test_a_map_file_holds_objects_frames_and_options(tmp_path):
    found = build_map([seen(4, (1, 2, 3)), seen(7, (1, 2, 3))])
    write_map(tmp_path / "MAP.json", found, 9, {"map": {"max_distance_m": 0.4}})
    content = json.loads((tmp_path / "MAP.json").read_text())
    assert (content["version"], content["frames"], content["config"]["map"]) == (
        1,
        9,
        {"max_distance_m": 0.4},
    )
    (item,) = content["objects"]
    assert item["frames"] == [4, 7] and item["T_m"] == pytest.approx([1, 2, 3]) and item["agreeing"] == 2
