"""The demo's errors by hand, symmetry included, and the table."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparc_ros.conversions import fill_pose, fill_vector
from sparc_ros.demo_scores import as_json, format_table, score_frame


def message(
    R=None, T=(0.0, 0.0, 3.0), S=(1.0, 1.0, 1.0), symmetry="none", box=(0, 0, 40, 40), track_id=1, model="m",
    category="chair",
):  # fmt: skip
    pose = SimpleNamespace(position=SimpleNamespace(), orientation=SimpleNamespace())
    fill_pose(pose, np.eye(3) if R is None else R, np.array(T))
    return SimpleNamespace(
        pose=pose,
        scale=fill_vector(SimpleNamespace(), S),
        symmetry=symmetry,
        box_xyxy=box,
        track_id=track_id,
        category=category,
        model_id=model,
        score=0.8,
    )


def turned(degrees):
    return Rotation.from_euler("y", degrees, degrees=True).as_matrix()


def test_errors_by_hand():
    (score,) = score_frame([message(turned(30), (0.03, 0.04, 3.0), (1.1, 0.8, 1.0))], [message()])
    assert score.translation_cm == pytest.approx(5)
    assert score.rotation_deg == pytest.approx(30)
    assert score.scale_percent == pytest.approx(10)
    assert not score.right


def test_right_is_within_all_three():
    assert score_frame([message(turned(19), (0.19, 0, 3), (1.19,) * 3)], [message()])[0].right
    for wrong in ({"R": turned(21)}, {"T": (0.21, 0, 3)}, {"S": (1.21,) * 3}):
        assert not score_frame([message(**wrong)], [message()])[0].right


@pytest.mark.parametrize(
    ("symmetry", "turn", "error"),
    [("none", 180, 180), ("c2", 180, 0), ("c2", 90, 90), ("c4", 90, 0), ("c4", 80, 10), ("cinf", 77, 3)],
)
def test_rotation_error_knows_the_symmetry(symmetry, turn, error):
    base = Rotation.from_euler("xyz", (0.4, 1.0, -0.3)).as_matrix()
    found, truth = message(base @ turned(turn)), message(base, symmetry=symmetry)
    assert score_frame([found], [truth])[0].rotation_deg == pytest.approx(error, abs=1e-5)


def test_objects_are_matched_by_category_and_box():
    truths = [message(T=(x, 0, 3), box=(50 * x, 0, 50 * x + 40, 40), track_id=10 + x) for x in range(3)]
    truths.append(message(box=(0, 0, 40, 40), track_id=13, category="table"))
    found = [
        message(T=(2, 0, 3), box=(110, 0, 140, 40), track_id=7),
        message(T=(0, 0, 3), box=(0, 0, 40, 30), track_id=8),
        message(T=(0, 0, 3), box=(0, 0, 40, 32), track_id=9),  # overlaps more
    ]
    scores = score_frame(found, truths)
    assert sorted((s.place, s.track_id, s.translation_cm) for s in scores) == [(10, 9, 0), (12, 7, 0)]
    assert score_frame([message(box=(300, 0, 340, 40))], truths) == []
    assert score_frame([message(category="bed")], truths) == []


def test_the_table_counts_what_was_missed():
    good = score_frame([message(model="a")], [message(model="a")])
    other = score_frame([message(turned(90), model="b", track_id=2)], [message(model="a")])
    text = format_table([good, other, []], expected=[1, 1, 2], latencies_ms=[10, 20, 60])
    assert "1 of 4 object views (25 %) in 3 images" in text
    assert "median 20 ms, largest 60 ms" in text
    assert "2 different ones *" in text and "1/2" in text and "1,2" in text
    data = as_json([good, other, []], [1, 1, 2], [10, 20, 60])
    assert [[s["right"] for s in frame] for frame in data["frames"]] == [[True], [False], []]
