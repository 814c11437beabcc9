"""σ against the detection's score, worked by hand."""

import pytest

from sparc_core.evaluation.picture_plots import plot_accuracy_against_latency, plot_rankings
from sparc_core.evaluation.ranking import CURVE_PERCENT, RANKINGS, rank_figures, ranking_table


def prediction(score, detection_score, right_for=(), image=0, category="chair"):
    return {
        "image": image, "category": category, "score": score, "detection_score": detection_score,
        "right_for": list(right_for),
    }  # fmt: skip


def objects(*categories, image=0):
    return [{"image": image, "category": category} for category in categories]


def test_each_ranking_orders_by_its_own_score():
    # two chairs; σ knows which two are right, the detector prefers the wrong one
    found = [prediction(0.9, 0.5, [0]), prediction(0.8, 0.6, [1]), prediction(0.1, 0.9)]
    figures = rank_figures(objects("chair", "chair"), found)
    assert list(figures) == list(RANKINGS) == ["σ", "detection score", "product"]
    assert figures["σ"]["ap"] == 100
    # wrong, right, right: precision 1/2 and 2/3; the better one behind counts for both
    assert figures["detection score"]["ap"] == pytest.approx(100 * (2 / 3 + 2 / 3) / 2, abs=0.01)
    assert figures["product"]["ap"] == 100  # 0.45, 0.48, 0.09
    # at most two of three are kept
    assert [figures[name]["chosen"] for name in RANKINGS] == [100, 50, 100]
    assert figures["σ"]["curve"][-1] == pytest.approx(66.67)
    assert figures["σ"]["curve"][0] == 100 and figures["detection score"]["curve"][0] == 0
    assert len(figures["σ"]["curve"]) == len(CURVE_PERCENT)


def test_the_product_wants_both_scores():
    found = [prediction(0.4, 0.4, [0]), prediction(0.95, 0.05), prediction(0.05, 0.95)]
    figures = rank_figures(objects("chair"), found)
    assert [figures[name]["ap"] for name in RANKINGS] == [50, 50, 100]


def test_a_second_prediction_for_the_same_object_counts_as_wrong_and_may_push_another_out():
    found = [prediction(0.9, 0.2, [0]), prediction(0.8, 0.3, [0]), prediction(0.7, 0.4, [1])]
    figures = rank_figures(objects("chair", "chair"), found)
    # right, a duplicate, right: precision 1 and 2/3
    assert figures["σ"]["ap"] == pytest.approx(100 * (1 + 2 / 3) / 2, abs=0.01)
    assert figures["σ"]["chosen"] == 50 and figures["detection score"]["chosen"] == 100
    # in the curve each stands for itself, as in the paper's figure
    assert figures["σ"]["curve"][-1] == 100


def test_a_prediction_between_two_objects_takes_the_one_that_is_left():
    found = [prediction(0.9, 0.9, [0]), prediction(0.8, 0.8, [0, 1])]
    assert rank_figures(objects("chair", "chair"), found)["σ"]["ap"] == 100


def test_objects_that_nobody_found_cost_recall_and_pictures_are_kept_apart():
    truth = objects("chair", "table") + objects("chair", image=1)
    found = [prediction(0.9, 0.9, [0], image=0), prediction(0.8, 0.8, [0], image=1)]
    figures = rank_figures(truth, found)["σ"]
    assert figures["ap"] == pytest.approx(66.67) and figures["ap_class"] == 50
    assert figures["chosen"] == pytest.approx(66.67)
    beside = rank_figures(truth, [*found, prediction(0.95, 0.1, image=1, category="sofa")])["σ"]
    assert beside["ap"] < figures["ap"] and beside["ap_class"] == 50  # there are no sofas to be found


def test_what_is_kept_is_counted_in_each_picture_and_category():
    truth = objects("chair", "table") + objects("chair", image=1)
    # one chair a picture: the wrong one before the right one leaves no place for it
    found = [prediction(0.9, 0.1), prediction(0.8, 0.2, [0]), prediction(0.7, 0.1, [1], category="table")]
    figures = rank_figures(truth, found)
    assert figures["σ"]["chosen"] == pytest.approx(33.33)
    assert figures["detection score"]["chosen"] == pytest.approx(66.67)


def test_nothing_predicted_is_nothing_found():
    figures = rank_figures(objects("chair"), [])["σ"]
    assert figures == {"ap": 0, "ap_class": 0, "chosen": 0, "curve": []}


def test_the_table_has_a_row_a_ranking():
    figures = rank_figures(objects("chair"), [prediction(0.9, 0.4, [0])])
    table = ranking_table([("RGB alone", figures)]).splitlines()
    assert table[2:] == [f"| RGB alone | {name} | 100.0 | 100.0 | 100.0 |" for name in RANKINGS]


def test_the_plots_are_written_and_refuse_what_they_cannot_show(tmp_path):
    figures = rank_figures(objects("chair"), [prediction(0.9, 0.4, [0])])
    plot_rankings([{"track": "a", "ranking": figures}], tmp_path / "ranking.png")
    plot_accuracy_against_latency({"x": 5.0}, {"a": {"x": 40.0, "y": 3.0}}, tmp_path / "latency.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("ranking.png", "latency.png"))
    with pytest.raises(ValueError, match="no track whose results could be ranked"):
        plot_rankings([], tmp_path / "none.png")
    with pytest.raises(ValueError, match="no method has both"):
        plot_accuracy_against_latency({"x": 5.0}, {"a": {"y": 3.0}}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
