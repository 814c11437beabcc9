"""The open benchmark: its scores by hand, its tracks, its records and what comes out as figures."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from builders import furniture
from scipy.spatial.distance import cdist
from typer.testing import CliRunner

from sparc_core.baselines.single_shot import Estimate
from sparc_core.cad.tensors import CadTensors
from sparc_core.evaluation import methods
from sparc_core.evaluation.bench import TRACKS, BenchConfig, BenchRunner, most_similar_models
from sparc_core.evaluation.bench_report import TrackRecords, markdown_table, summarise_track
from sparc_core.evaluation.calibration import fit_calibration, reliability
from sparc_core.evaluation.mesh_score import average_precision, mesh_ap, surface_f1
from sparc_core.evaluation.plots import plot_bench, plot_training
from sparc_core.geometry.pose import Pose
from sparc_core.pipeline import SHIPPED_HINTED, SHIPPED_WEIGHTS
from sparc_core.refine.model import load_network, save_weights
from sparc_core.scripts.main import app
from sparc_core.types import AlignedObject, AlignmentResult
from sparc_core.weights_file import write_weights

RIGHT = "20cm/20deg/20%"
LIBRARY = "procedural:0-1"  # two models of each category: each is the other's most similar


def test_f1_of_surfaces_against_all_distances():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(80, 3))
    points = truth[:60] + 0.12 * rng.normal(size=(60, 3))
    distance = cdist(points, truth) * 10 / 4.0
    for radius, found in zip((0.3, 0.5, 0.7), surface_f1(points, truth, longest_side_m=4.0), strict=True):
        precision = (distance.min(1) <= radius).mean()
        recall = (distance.min(0) <= radius).mean()
        assert 0.1 < found < 1
        assert found == pytest.approx(2 * precision * recall / (precision + recall))
    assert surface_f1(truth, truth, 1.0) == [1, 1, 1]
    assert surface_f1(truth + 100, truth, 1.0) == [0, 0, 0]
    assert surface_f1(truth + np.inf, truth, 1.0) == [0, 0, 0]  # an object that was not aligned


def test_average_precision_by_hand():
    score = np.array([0.2, 0.9, 0.6, 0.8])
    # sorted by score: right, wrong, right, wrong; precisions at the right ones 1 and 2/3
    correct = np.array([False, True, True, False])
    assert average_precision(score, correct, truths=2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(score, correct, truths=4) == pytest.approx((1 + 2 / 3) / 4)
    # the wrong one first: precision 1/2 and 2/3 beyond it, and the better counts for both
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([False, True, True]), 2) == pytest.approx(
        2 / 3
    )
    assert np.isnan(average_precision(score, correct, truths=0))


def test_mesh_ap_averages_categories_and_limits():
    score, category = np.array([0.9, 0.8, 0.7]), np.array(["bed", "bed", "sofa"])
    found = mesh_ap(score, np.array([0.97, 0.52, 0.72]), category)
    assert found["AP50"] == 100
    # bed: 1 at 0.5, then only the first of two up to 0.95; sofa: 1 up to 0.7
    bed, sofa = (1 + 9 * 0.5) / 10, 5 / 10
    assert found["AP"] == pytest.approx(100 * (bed + sofa) / 2)


def test_calibration_by_hand():
    score = np.array([0.05, 0.95, 0.95, 1.0, 0.0])
    correct = np.array([False, True, False, True, True])
    found = reliability(score, correct)
    assert found.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert found.mean_score[[0, 9]] == pytest.approx([0.025, 2.9 / 3])
    assert found.right[[0, 9]] == pytest.approx([0.5, 2 / 3])
    assert found.ece == pytest.approx((2 * 0.475 + 3 * 0.3) / 5)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        reliability(np.array([1.2]), np.array([True]))


def test_a_fitted_calibration_is_the_one_the_outcomes_were_drawn_with():
    rng = np.random.default_rng(0)
    logit = rng.normal(0.5, 1.5, 20_000)
    correct = rng.random(20_000) < 1 / (1 + np.exp(-(0.6 * logit - 0.8)))
    score = 1 / (1 + np.exp(-logit))
    slope, offset = fit_calibration(score, correct)
    assert slope == pytest.approx(0.6, abs=0.04) and offset == pytest.approx(-0.8, abs=0.05)
    better = 1 / (1 + np.exp(-(slope * logit + offset)))
    assert reliability(better, correct).ece < 0.02 < reliability(score, correct).ece
    with pytest.raises(ValueError, match="poses that are right and poses that are wrong"):
        fit_calibration(score, np.ones(20_000, bool))


def test_the_command_calibrates_a_weights_file(tmp_path):
    weights = tmp_path / "w.safetensors"
    shutil.copy(SHIPPED_WEIGHTS, weights)
    arguments = ["calibrate", str(weights), "--images", "4", "--jobs", "1", "--cad-library", LIBRARY]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (before, _), (after, model) = load_network(SHIPPED_WEIGHTS), load_network(weights)
    fitted = [
        getattr(model.calibration, n) for n in ("sensor", "predicted", "sensor_fixed", "predicted_fixed")
    ]
    assert len({*fitted, (1.0, 0.0)}) == 5
    assert model.calibration.none == (1.0, 0.0)
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])


def test_a_network_that_reads_hints_is_calibrated_on_pictures(tmp_path):
    weights = tmp_path / "w.safetensors"
    shutil.copy(SHIPPED_HINTED, weights)
    arguments = ["calibrate", str(weights), "--images", "6", "--jobs", "1", "--cad-library", LIBRARY]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (before, shipped), (after, model) = load_network(SHIPPED_HINTED), load_network(weights)
    assert model.calibration.predicted not in ((1.0, 0.0), shipped.calibration.predicted)
    assert (
        dataclasses.replace(model.calibration, predicted=shipped.calibration.predicted) == shipped.calibration
    )
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])


def test_a_score_of_starts_is_not_calibrated(tmp_path):
    network, model = load_network(SHIPPED_WEIGHTS)
    weights = tmp_path / "w.safetensors"
    save_weights(weights, network.state_dict(), dataclasses.replace(model, score_of="start"))
    result = CliRunner().invoke(app, ["calibrate", str(weights), "--images", "1", "--jobs", "1"])
    assert result.exit_code == 2 and "its score judges starts, not poses" in result.stderr


def test_the_most_similar_model_is_another_of_the_category():
    library = furniture()
    similar = most_similar_models(library, CadTensors.from_library(library))
    for m, other in enumerate(similar.tolist()):
        assert other != m and library.models[other].category == library.models[m].category
    alone = library.subset([0])
    assert most_similar_models(alone, CadTensors.from_library(alone)).tolist() == [-1]


@pytest.fixture(scope="module")
def runner():
    return BenchRunner(BenchConfig(images=2, cad_library=LIBRARY))


def as_found(room, kept, shift=0.0, score=0.75):
    """What an aligner would return that knows the truth, moved along x."""
    objects = tuple(
        AlignedObject(
            d, "chair", "any", (0.0, 0.0, 1.0, 1.0), room.truth.R[i].numpy(),
            room.truth.T[i].numpy() + [shift, 0, 0], room.truth.S[i].numpy(), score, "azimuth_0",
        )
        for d, i in enumerate(kept)
    )  # fmt: skip
    return AlignmentResult(room.camera, objects, (), {"observe": 1.0, "total": 3.0})


def test_records_hold_the_errors_against_the_truth(runner):
    room = runner.rooms.room(0)
    kept = torch.arange(len(room.slots))
    exact = runner._records(TRACKS[0], 0, room, kept, room.models, as_found(room, kept))
    for record in exact:
        assert record["translation_m"] < 1e-6 and record["rotation_deg"] < 0.1 and record["scale"] < 1e-6
        assert record["f1"] == [1, 1, 1] and record["score"] == 0.75 and record["alignment_ms"] == 2
    off = runner._records(TRACKS[0], 0, room, kept, room.models, as_found(room, kept, shift=0.3))
    assert all(record["translation_m"] == pytest.approx(0.3, abs=1e-5) for record in off)
    missing = dataclasses.replace(as_found(room, kept), objects=())
    lost = runner._records(TRACKS[0], 0, room, kept, room.models, missing)
    assert all(np.isinf(r["translation_m"]) and r["score"] == 0 and r["f1"] == [0, 0, 0] for r in lost)


def test_every_track_sees_the_same_rooms_its_own_way(runner):
    room = runner.rooms.room(1)
    by_channels = {track.channels: track for track in TRACKS}
    depth, normals, slot = runner._observe(by_channels["perfect"], 1, room)
    assert depth is room.view.depth_m and normals is room.view.normal_cam and slot is room.view.slot
    assert runner._observe(by_channels["sensor"], 1, room) == (room.sensor_depth_m, None, None)
    guess, normals, slot = runner._observe(by_channels["mono"], 1, room)
    seen = depth > 0
    assert (guess[seen] > 0).mean() > 0.95  # predictors leave no holes
    ratio = guess[seen] / depth[seen]
    assert 0.001 < abs(np.median(ratio) - 1) < 0.3  # but their scale is off
    length = np.linalg.norm(normals, axis=-1)
    np.testing.assert_allclose(length[seen & (length > 0)], 1, atol=1e-4)
    angle = np.degrees(np.arccos(np.clip((normals * room.view.normal_cam).sum(-1)[seen], -1, 1)))
    assert 3 < np.median(angle) < 35
    assert 0.9 < (slot == room.view.slot).mean() < 1
    again = runner._observe(by_channels["mono"], 1, room)
    assert all(np.array_equal(a, b) for a, b in zip((guess, normals, slot), again, strict=True))


def test_runs_are_repeatable_and_give_the_models_their_track_says(runner):
    records = runner.run(0)
    assert {r["track"] for r in records} == {track.name for track in TRACKS}
    similar = {track.name for track in TRACKS if track.similar}
    for record in records:
        assert (record["model"] != record["given"]) == (record["track"] in similar)
        if "true size" in record["track"]:
            assert record["scale"] < 1e-5
    timed = ("perception_ms", "alignment_ms")
    again = BenchRunner(runner.config).run(0)
    plain = [[{k: v for k, v in r.items() if k not in timed} for r in part] for part in (records, again)]
    assert plain[0] == plain[1]


def record(**changes):
    values = {
        "track": "t", "image": 0, "category": "bed", "model": "a", "given": "a", "translation_m": 0.02,
        "rotation_deg": 1.0, "scale": 0.02, "scale_mean": 0.0, "score": 0.9, "f1": [0.9, 0.9, 0.9],
        "symmetry_order": 1, "distance_m": 2.0, "seen": 0.9, "well_visible": True, "objects": 2,
        "perception_ms": 10.0, "alignment_ms": 20.0,
    }  # fmt: skip
    return values | changes


def test_summaries_count_objects_classes_and_quadrants():
    records = [
        record(), record(translation_m=0.08), record(category="sofa", rotation_deg=90.0, score=0.1),
        record(category="sofa", rotation_deg=180.0, symmetry_order=4, well_visible=False, image=1),
        record(category="sofa", scale=0.5, image=1),
    ]  # fmt: skip
    found = summarise_track("t", TrackRecords.from_records(records))
    everything = found["all"]
    assert everything["objects"] == 5 and found["well_visible"]["objects"] == 4 and found["images"] == 2
    assert everything["accuracy"] == {RIGHT: 40, "10/10/10": 40, "5/5/5": 20}
    assert everything["class_accuracy"] == {RIGHT: 50, "10/10/10": 50, "5/5/5": 25}
    assert everything["quadrant"] == 75  # a bin that is alike after a quarter turn has none
    assert everything["median"] == {"translation_cm": 2, "rotation_deg": 1, "scale_percent": 2}
    assert found["by_category"]["sofa"][RIGHT] == 0 and found["by_category"]["bed"][RIGHT] == 100
    assert found["latency_ms"]["alignment"]["p50"] == 20
    assert sum(b["objects"] for b in found["reliability"]) == 5


def test_plots_and_table_are_written(tmp_path):
    records = [record(image=i, score=i / 40, seen=0.5 + i / 80) for i in range(40)]
    summary = summarise_track("sensor, right model", TrackRecords.from_records(records))
    for file in plot_bench([summary], tmp_path):
        assert file.stat().st_size > 5000
    table = markdown_table([summary]).splitlines()
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| sensor, right model (all) | 40 | 100.0 | 100.0 | 100.0 |")
    found = {"right": 0.1, "10": 0, "5": 0, "best_start": 0.2}
    log = [{"step": s, "align_loss": 1 / s, "score_loss": 0.5, "validation": found} for s in (1, 2, 3)]
    plot_training(log, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_the_command_writes_figures_table_and_plots(tmp_path):
    arguments = ["evaluate", "bench", "--out", str(tmp_path), "--images", "2", "--jobs", "1", "--records",
                 "--cad-library", LIBRARY, "--track", "sensor, right model"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "bench.json").read_text())
    assert facts["method"]["files"] == ["shipped"]
    assert facts["bench"]["images"] == 2 and [t["track"] for t in facts["tracks"]] == ["sensor, right model"]
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert len(lines) == facts["tracks"][0]["all"]["objects"] > 0
    assert (tmp_path / "bench.md").exists() and (tmp_path / "reliability.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--track", "radar"], "unknown track 'radar'"),
        (["--images", "0"], "images must be at least 1"),
        (["--only", "nobody"], "no CAD model"),
        (["--method", "missing.safetensors"], "missing.safetensors: no such file"),
        (["--method", "a=,finalists=3"], "method a: a file is missing"),
        (["--method", "small.yaml"], "method small.yaml: a network with random weights"),
        (["--device", "gpu"], "'gpu'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    result = CliRunner().invoke(
        app, ["evaluate", "bench", "--out", str(tmp_path / "o"), "--cad-library", LIBRARY, *arguments]
    )
    assert result.exit_code == 2 and message in result.output


class AllAlike:
    """A baseline's network whose every answer is the same."""

    name = "alike"

    def estimate(self, regions):
        count = len(regions)
        pose = Pose(
            torch.eye(3).repeat(count, 1, 1), torch.tensor([[0.0, 0, 2]] * count), torch.ones(count, 3)
        )
        return Estimate(pose, torch.ones(count, dtype=torch.bool))


def test_a_baseline_runs_over_the_same_tracks(tmp_path, monkeypatch):
    monkeypatch.setattr(methods.Roca, "load", lambda file, device: AllAlike())
    weights = tmp_path / "roca.safetensors"
    write_weights(weights, {}, {"kind": "RocaConfig"})
    tracks = ("sensor, similar model", "mono, right model, true size")
    config = BenchConfig(images=1, tracks=tracks, cad_library=LIBRARY)
    found = BenchRunner(config, methods.MethodSpec.parse(str(weights))).run(0)
    ours = BenchRunner(config).run(0)
    assert [(r["track"], r["given"]) for r in found] == [(r["track"], r["given"]) for r in ours]
    for record in found:
        truth_m, off_m = record["distance_m"], record["translation_m"]
        assert abs(truth_m - 2) - 1e-5 <= off_m <= truth_m + 2 and record["alignment_ms"] > 0
        assert (record["scale"] < 1e-5) == ("true size" in record["track"])
