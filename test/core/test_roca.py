"""ROCA: network, losses and training."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from baseline_fixtures import region_folder, store
from typer.testing import CliRunner

from sparc_core.baselines.roca import MIN_CELLS, Roca, RocaConfig, RocaNet, RocaOutput, point_range
from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import rotation_y
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.scripts.main import app
from sparc_core.synth.corrupt import NoiseConfig
from sparc_core.training.predictor_trainer import PredictorTrainConfig
from sparc_core.training.region_batches import RegionNoise, region_batch
from sparc_core.training.roca import (
    RocaLossConfig,
    RocaLosses,
    RocaTraining,
    category_weights,
    make_roca_trainer,
    roca_losses,
    with_extents_of,
)

NETWORK = RocaConfig(feature_channels=8, code=24, hidden=24)


def batch_of(count=None, noise=None, seed=0):
    rows = torch.arange(count or len(store()))
    return region_batch(store(), rows, noise or RegionNoise(), torch.Generator().manual_seed(seed))


def settings_of(steps, **changes):
    train = PredictorTrainConfig(steps=steps, pictures=8, learning_rate=3e-3, precision="fp32", **changes)
    return with_extents_of(RocaTraining(NETWORK, train), store())


# --- network


def test_the_network_gives_a_pose_an_object_and_depends_on_no_other():
    torch.manual_seed(0)
    network, regions = RocaNet(NETWORK).eval(), batch_of().regions
    found = network(regions)
    count = len(regions)
    assert found.pose.R.shape == (count, 3, 3) and found.noc.shape == (count, 196, 3)
    torch.testing.assert_close(torch.linalg.det(found.pose.R), torch.ones(count), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.pose.S, torch.ones(count, 3), atol=0.1, rtol=0)  # the config's extents
    alone = network(regions[2:3])
    torch.testing.assert_close(alone.pose.T[0], found.pose.T[2], atol=1e-5, rtol=1e-4)
    used = (regions.mask.flatten(1) > 0.5) & regions.has_depth.flatten(1)
    assert torch.equal(found.weight > 0, used)
    assert torch.equal(found.enough, used.sum(1) >= MIN_CELLS)


def test_what_is_outside_the_mask_moves_nothing_but_what_the_features_pool():
    torch.manual_seed(0)
    network, regions = RocaNet(NETWORK).eval(), batch_of().regions
    outside = regions.mask <= 0.5
    assert outside.any()
    hidden = dataclasses.replace(regions, mask=torch.where(outside, 0.0, regions.mask))
    found = network(hidden)
    # the context and the middle depth see the mask's cells only, apart from whether depth is known at all
    changed = torch.where(outside & hidden.has_depth, 7.0, hidden.depth_m)
    other = network(dataclasses.replace(hidden, depth_m=changed))
    torch.testing.assert_close(found.pose.T[found.enough], other.pose.T[found.enough])
    torch.testing.assert_close(found.pose.R[found.enough], other.pose.R[found.enough])


def test_the_scale_begins_at_the_categorys_extents():
    torch.manual_seed(0)
    extents = tuple((0.1 * (i + 1), 1.0, 2.0) for i in range(9))
    regions = batch_of().regions
    network = RocaNet(dataclasses.replace(NETWORK, median_extents_m=extents)).eval()
    expected = torch.tensor(extents)[regions.category]
    torch.testing.assert_close(network(regions).pose.S, expected, rtol=0.05, atol=0)


def test_the_range_of_the_points_leaves_out_flying_pixels_and_unused_ones():
    values = torch.linspace(-1, 1, 101)[None, :, None].repeat(2, 1, 3)
    used = torch.ones(2, 101, dtype=torch.bool)
    values[0, 50], used[1] = 1e3, False
    values[0, 0, 0], used[0, 0] = -1e3, False
    low, high = point_range(values, used)
    np.testing.assert_allclose(low[0], -0.9, atol=0.03)
    np.testing.assert_allclose(high[0], 0.9, atol=0.03)
    assert not low[1].any() and not high[1].any()


@pytest.mark.parametrize("local", [False, True])
def test_gradients_are_finite_whatever_the_regions_lack(local):
    torch.manual_seed(0)
    batch = batch_of()
    nothing = torch.zeros_like(batch.regions.depth_m)
    for changed in (
        batch.regions,
        dataclasses.replace(batch.regions, depth_m=nothing),
        dataclasses.replace(batch.regions, mask=nothing),
        dataclasses.replace(batch.regions, depth_m=nothing + 2, mask=nothing + 1),
    ):
        settings = dataclasses.replace(
            settings_of(1), network=dataclasses.replace(NETWORK, local_features=local)
        )
        trainer = make_roca_trainer(settings, store())
        losses = trainer.trained(dataclasses.replace(batch, regions=changed))
        sum(losses.values()).backward()
        assert all(torch.isfinite(value) for value in losses.values())
        grads = [p.grad for p in trainer.network.parameters()]
        assert all(torch.isfinite(g).all() for g in grads if g is not None) and any(g.any() for g in grads)


# --- losses


def output_of(pose, noc, T_first=None) -> RocaOutput:
    count, cells = noc.shape[:2]
    return RocaOutput(
        pose, pose.T if T_first is None else T_first, noc, torch.ones(count, cells),
        torch.ones(count, dtype=torch.bool),
    )  # fmt: skip


def test_losses_by_hand():
    batch = batch_of(2)
    batch = dataclasses.replace(batch, symmetry_order=torch.ones(2, dtype=torch.int64))
    half = rotation_y(torch.tensor(math.pi))
    pose = Pose(batch.truth.R @ half, batch.truth.T + torch.tensor([3.0, 4.0, 0.0]), batch.truth.S + 0.1)
    noc = batch.noc.flatten(1, 2) + torch.tensor([0.1, 0.0, -0.2])
    noc[:, ~batch.own.flatten(1).any(0)] = 9.0  # cells of nobody
    losses = roca_losses(output_of(pose, noc, batch.truth.T + 1), batch)
    expected = {"scale": 0.1, "translation": 5.0, "translation_first": math.sqrt(3), "noc": 0.3}
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], torch.full((2,), value), atol=1e-5, rtol=1e-4, msg=name)
    # half a turn about y changes the sign of the first and third column
    by_hand = 2 * batch.truth.R[:, :, [0, 2]].abs().sum((1, 2)) / 9
    torch.testing.assert_close(losses["rotation"], by_hand, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("order", "turns"), [(1, 1), (2, 1), (4, 3), (36, 5)])
def test_an_equal_turn_of_a_symmetric_object_costs_nothing(order, turns):
    batch = batch_of(3)
    batch = dataclasses.replace(batch, symmetry_order=torch.full((3,), order))
    turn = rotation_y(torch.tensor(2 * math.pi * turns / order))
    pose = Pose(batch.truth.R @ turn, batch.truth.T, batch.truth.S)
    losses = roca_losses(output_of(pose, batch.noc.flatten(1, 2) @ turn), batch)
    assert losses["rotation"].max() < 1e-5 and losses["noc"].max() < 1e-5
    # rotation and coordinates have to agree on the turn
    if order > 1:
        other = roca_losses(output_of(pose, batch.noc.flatten(1, 2)), batch)
        assert (other["rotation"] + other["noc"] > 0.02).all()
    wrong = Pose(batch.truth.R @ rotation_y(torch.tensor(math.pi / order)), batch.truth.T, batch.truth.S)
    assert (roca_losses(output_of(wrong, batch.noc.flatten(1, 2)), batch)["rotation"] > 0.01).all()


def test_rare_categories_count_more_by_the_logarithm():
    weight = category_weights(torch.tensor([0] * 100 + [1] * 10))
    assert float(weight[1] / weight[0]) == pytest.approx(math.log(101) / math.log(11))
    assert float((100 * weight[0] + 10 * weight[1]) / 110) == pytest.approx(1)
    assert torch.isfinite(weight).all()


# --- training


def test_a_handful_of_objects_is_learned():
    clear = RegionNoise(NoiseConfig(perfect=1.0, sensor=0.0, monocular=0.0, none=0.0), true_masks=1.0)
    network = dataclasses.replace(NETWORK, dropout=0.0)
    settings = dataclasses.replace(settings_of(200), noise=clear, network=network)
    trainer, logs = make_roca_trainer(settings, store()), []
    trainer.run(logs.append)
    assert set(logs[0]) >= {"loss", "rotation", "noc", "scale", "translation", "translation_first"}

    def mean(name, rows):
        return np.mean([row[name] for row in rows])

    for name in ("loss", "rotation", "noc", "translation"):
        assert mean(name, logs[-10:]) < 0.7 * mean(name, logs[:10]), name


def test_mixed_precision_leaves_procrustes_and_losses_exact():
    torch.manual_seed(0)
    network, batch = RocaNet(NETWORK).eval(), batch_of()
    losses = RocaLosses(network, RocaLossConfig(), torch.ones(9))
    exact = losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found, mixed = network(batch.regions), losses(batch)
    square = found.pose.R.transpose(-1, -2) @ found.pose.R
    torch.testing.assert_close(square, torch.eye(3).expand_as(square), atol=1e-5, rtol=0)
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.03, atol=0.02, msg=name)


def test_an_interrupted_run_equals_an_uninterrupted_one():
    whole, logs = make_roca_trainer(settings_of(6), store()), []
    whole.run(logs.append)
    first = make_roca_trainer(settings_of(6), store())
    first.run(lambda row: None, stop=lambda: first.step >= 3)
    second, rest = make_roca_trainer(settings_of(6, seed=1), store()), []
    second.load_state(first.state())
    second.run(rest.append)
    assert [row["loss"] for row in rest] == [row["loss"] for row in logs[3:]]
    for name, value in whole.averaged.items():
        assert torch.equal(value, second.averaged[name]), name


def test_the_command_trains_validates_and_resumes(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        json.dumps({"network": {"code": 16, "hidden": 16}, "train": {"steps": 3, "pictures": 4}})
    )
    arguments = ["train-baseline", "roca", "--out", str(tmp_path / "run"), "--config", str(config),
                 "--device", "cpu", "--regions", str(region_folder()),
                 "--validation", str(region_folder())]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    assert {"sensor_right", "predicted_translation_m"} <= set(rows[-1]["validation"])
    assert (tmp_path / "run/curves.png").stat().st_size > 1000
    assert Roca.load(tmp_path / "run/weights.safetensors").network.config.feature_channels == 8
    again = CliRunner().invoke(app, [*arguments, "--resume"])
    assert again.exit_code == 0 and "resumed at step 3" in again.output
    wrong = [*arguments[:-1], str(tmp_path)]
    wrong[3] = str(tmp_path / "other")
    assert "holds no regions" in CliRunner().invoke(app, wrong).output


def test_weights_come_back_and_wrong_ones_are_named(tmp_path):
    torch.manual_seed(0)
    network, path = RocaNet(NETWORK).eval(), tmp_path / "r.safetensors"
    save_predictor(path, network.state_dict(), NETWORK)
    regions = batch_of().regions
    again = Roca.load(path)
    assert torch.equal(again.estimate(regions).pose.T, network(regions).pose.T)
    with pytest.raises(ValueError, match="trained on 8 feature channels, the detector has 4"):
        again.estimate(dataclasses.replace(regions, features=regions.features[:, :4]))
    with pytest.raises(ValueError, match=r"no\.safetensors: no such file"):
        Roca.load(tmp_path / "no.safetensors")
    for change, message in (
        ({"code": 0}, "roca code must be at least 1, got 0"),
        ({"dropout": 1.0}, r"roca dropout must be in \[0, 1\), got 1.0"),
        ({"median_extents_m": ((1.0, 1.0, 0.0),) * 9}, "median_extents_m must be 3 lengths for each of 9"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(NETWORK, **change)
    with pytest.raises(ValueError, match="roca loss noc must not be negative, got -1"):
        RocaLossConfig(noc=-1)
