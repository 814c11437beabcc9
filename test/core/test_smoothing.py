"""The mean of a track's sightings: no lag for what stands still, none for long for what moves."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparc_core.tracking.smoothing import Estimate, Sighting, SmoothingConfig, nearest_turn, smoothed

CONFIG = SmoothingConfig()


def sighting(T_m, yaw_deg=0.0, S_m=(0.5, 0.8, 0.6), weight=1.0, repaired=False):
    R = Rotation.from_euler("y", yaw_deg, degrees=True).as_matrix()
    return Sighting(R, np.asarray(T_m, float), np.asarray(S_m, float), weight, 3.0, repaired)


def follow(sightings, symmetry="none", config=CONFIG):
    """The estimate after each sighting."""
    estimates = [Estimate.first(sightings[0])]
    for seen in sightings[1:]:
        estimates.append(smoothed(estimates[-1], seen, symmetry, config))
    return estimates


def yaw_deg(R):
    return np.rad2deg(np.arctan2(R[0, 2], R[2, 2]))


def test_the_mean_of_equal_weights_by_hand():
    seen = [
        sighting((0, 0, 3 + x), yaw, S_m=(0.5 * np.exp(x), 0.8, 0.6)) for x, yaw in ((0.0, 0.0), (0.03, 3.0))
    ]
    last = follow([*seen, sighting((0, 0, 3.03), 6.0)])[-1]
    np.testing.assert_allclose(last.T_m, (0, 0, 3.02), atol=1e-12)
    assert yaw_deg(last.R) == pytest.approx(3.0)
    assert last.S_m[0] == pytest.approx(0.5 * np.exp(0.01))  # a geometric mean
    assert last.weight == 3.0


def test_weights_count():
    last = follow([sighting((0, 0, 3.0), weight=3.0), sighting((0, 0, 3.04), weight=1.0)])[-1]
    np.testing.assert_allclose(last.T_m, (0, 0, 3.01))


def test_what_stands_still_has_no_lag_and_a_fraction_of_the_noise():
    rng = np.random.default_rng(0)
    noise_m, noise_deg = 0.01, 1.5
    seen = [sighting(rng.normal((0, 0, 3), noise_m), rng.normal(40, noise_deg)) for _ in range(300)]
    estimates = follow(seen)
    places = np.array([e.T_m for e in estimates[60:]])
    yaws = np.array([yaw_deg(e.R) for e in estimates[60:]])
    # a mean of 30 has the noise of one over √59 (an exponential memory of 30)
    assert places.std(0).max() < noise_m / 4 and np.abs(places.mean(0) - (0, 0, 3)).max() < noise_m / 4
    assert yaws.std() < noise_deg / 4 and yaws.mean() == pytest.approx(40, abs=noise_deg / 4)
    assert min(e.weight for e in estimates[60:]) == pytest.approx(CONFIG.memory)  # never started anew


def test_one_wrong_sighting_is_left_out_and_three_in_a_row_are_believed():
    still, away = sighting((0, 0, 3)), sighting((0.4, 0, 3), 180)
    once = follow([still] * 10 + [away] + [still] * 5)
    assert max(np.linalg.norm(e.T_m - still.T_m) for e in once) == 0
    last = follow([still] * 10 + [away] * 3)
    np.testing.assert_allclose(last[-2].T_m, still.T_m)
    np.testing.assert_allclose(last[-1].T_m, away.T_m)


def test_a_repaired_pose_is_believed_at_once():
    last = follow([sighting((0, 0, 3))] * 20 + [sighting((0, 0, 3), 180, repaired=True)])[-1]
    assert abs(yaw_deg(last.R)) == pytest.approx(180)


@pytest.mark.parametrize("speed_m_per_s", [0.02, 0.1, 0.5, 1.5])
def test_what_moves_is_followed_within_the_gate(speed_m_per_s):
    rest, step = 60, speed_m_per_s / 30
    truth = [np.array([max(0, i - rest) * step, 0, 3]) for i in range(rest + 90)]
    estimates = follow([sighting(T_m) for T_m in truth])
    lag = max(np.linalg.norm(e.T_m - T_m) for e, T_m in zip(estimates, truth, strict=True))
    gate = CONFIG.gate_m + 3.0 * CONFIG.gate_per_m
    assert lag <= gate + CONFIG.patience * step


def test_what_creeps_is_noticed_before_it_leaves_the_gate():
    # 9 cm/s: the mean of the last 30 sightings alone would stay 9 cm behind for ever
    estimates = follow([sighting((0.003 * max(0, i - 60), 0, 3)) for i in range(400)])
    assert 0.003 * CONFIG.memory < CONFIG.gate_m + 3 * CONFIG.gate_per_m
    assert any(e.weight == 1.0 for e in estimates[61:])


@pytest.mark.parametrize(
    ("symmetry", "turn_deg"), [("c2", 180), ("c4", 90), ("c4", -90), ("cinf", 33), ("cinf", 250)]
)
def test_turns_that_change_nothing_are_taken_out(symmetry, turn_deg):
    first = sighting((0, 0, 3), 20)
    # the same object described after a turn; after a quarter its x extent is called z
    quarter = round(turn_deg / 90) % 2
    other = sighting((0, 0, 3), 20 + turn_deg, S_m=(0.6, 0.8, 0.5) if quarter else (0.5, 0.8, 0.6))
    found = nearest_turn(other, first.R, symmetry)
    np.testing.assert_allclose(found.R, first.R, atol=1e-9)
    np.testing.assert_allclose(found.S_m, first.S_m)


def test_a_model_without_symmetry_is_not_turned():
    other = sighting((0, 0, 3), 180)
    np.testing.assert_array_equal(nearest_turn(other, np.eye(3), "none").R, other.R)


def test_an_estimate_moves_to_another_frame():
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(random_state=2).as_matrix(), (1.0, -2.0, 0.5)

    def seen_in(frame):
        generator = np.random.default_rng(3)
        return [
            Sighting(frame[:3, :3] @ s.R, frame[:3, :3] @ s.T_m + frame[:3, 3], s.S_m, s.weight, s.distance_m)
            for s in (sighting(generator.normal((0, 0, 3), 0.01), generator.normal(0, 1)) for _ in range(8))
        ]

    here, there = follow(seen_in(np.eye(4))), follow(seen_in(T))
    moved = here[4].moved(T)
    for name in ("R", "T_m", "drift"):
        np.testing.assert_allclose(getattr(moved, name), getattr(there[4], name), atol=1e-9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory", 0.5),
        ("patience", 0),
        ("gate_m", 0),
        ("gate_deg", -1),
        ("gate_per_m", -0.1),
        ("drift_share", 2),
    ],
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises(ValueError, match=field):
        SmoothingConfig(**{field: value})
