"""Training: resuming bit for bit, learning at all, similar models, and refused configurations."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
import torch
from builders import furniture

from sparc_core.geometry.rotation import rotation_angle_rad
from sparc_core.inputs.assemble import InputConfig
from sparc_core.network.config import NetworkConfig
from sparc_core.refine.model import ModelConfig
from sparc_core.synth.scenes import SceneConfig
from sparc_core.training import train
from sparc_core.training.data import DataConfig, SyntheticData
from sparc_core.training.loss import LossConfig
from sparc_core.training.optimiser import OPTIMISERS, make_optimiser
from sparc_core.training.train import TrainConfig, Trainer, masked_mean, rescue_lost, update_starts

INPUTS = InputConfig(n_bbox=8, n_cad=6)
MODEL = ModelConfig(INPUTS, NetworkConfig(45, 26, latents=4, channels=12, blocks=1, self_layers=1))
DATA = DataConfig(SceneConfig(objects=2, clutter=1), detections=2)


def tiny(**changes):
    """A run of two image batches, three optimiser steps each."""
    arguments = {"model": MODEL, "data": DATA, "loss": LossConfig(points=50)}
    return TrainConfig(**{**arguments, "images": 4, "steps": 6, "warmup_steps": 1, **changes})


def parameters(trainer):
    return {f"{k}/{n}": v for k in ("network", "averaged") for n, v in trainer.state()[k].items()}


def test_muon_steps_the_hidden_matrices_and_adamw_the_rest():
    network = Trainer(tiny(), furniture()).network
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimiser = make_optimiser("muon", network, 0.01, 0.0, network.ends())
    generator_ = generator()
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator_)
    optimiser.step()
    step = {name: value.detach() - before[name] for name, value in network.named_parameters()}
    for name, change in step.items():
        if change.ndim == 2 and name not in ("embed_token.weight", "head.3.weight"):
            # orthogonalised: all singular values alike, and of the size of AdamW's steps
            singular = torch.linalg.svdvals(change)
            assert singular.max() < 2.2 * singular.min(), name
            rms = float(change.square().mean().sqrt())
            assert 0.1 * 0.01 < rms < 0.4 * 0.01, name
        elif change.ndim < 3:
            # AdamW's first step has the learning rate's size everywhere
            np.testing.assert_allclose(change.abs(), 0.01, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(optimiser):
    config = tiny(optimiser=optimiser)
    whole, log = Trainer(config, furniture()), []
    whole.run(log.append)
    assert whole.step == 6 and whole.progress == 1 and len(log) == 2

    first, resumed_log = Trainer(config, furniture()), []
    first.run(resumed_log.append, stop=lambda: first.step >= 3)
    assert first.step == 3
    file = io.BytesIO()
    torch.save(first.state(), file)
    torch.randn(7)  # other work in between must not matter
    second = Trainer(config, furniture())
    second.load_state(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    second.run(resumed_log.append)
    assert second.step == 6
    for name, value in parameters(whole).items():
        assert torch.equal(value, parameters(second)[name]), name
    # and it did learn something in between
    assert any(not torch.equal(value, parameters(first)[name]) for name, value in parameters(whole).items())
    for a, b in zip(log, resumed_log, strict=True):
        assert {k: v for k, v in a.items() if k != "elapsed_s"} == {
            k: v for k, v in b.items() if k != "elapsed_s"
        }


def test_a_checkpoint_of_another_number_of_processes_is_taken_over():
    one = Trainer(tiny(), furniture())
    one.run(lambda metrics: None, stop=lambda: one.step >= 3)
    state = one.state()
    fewer = Trainer(tiny(), furniture())
    fewer.load_state({**state, "generators": [*state["generators"], generator(7).get_state()]})
    assert torch.equal(fewer.generator.get_state(), one.generator.get_state())
    added = Trainer(tiny(), furniture())
    added.rank = 1  # stands for a second process, of which the checkpoint knows nothing
    added.load_state(state)
    assert added.step == 3
    draws = [torch.rand(8, generator=t.generator) for t in (fewer, added, Trainer(tiny(), furniture()))]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws, 2))
    for name, value in parameters(one).items():
        assert torch.equal(value, parameters(added)[name]), name


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs():
    runs = [Trainer(tiny(steps=3, seed=seed), furniture()) for seed in (1, 1, 2)]
    for trainer in runs:
        trainer.run(lambda metrics: None)
    one, same, other = (parameters(trainer) for trainer in runs)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("single", [False, True], ids=["multi", "SPARC 2022"])
def test_both_losses_fall_on_scenes_seen_again_and_again(single):
    model = ModelConfig(INPUTS, NetworkConfig(45, 26, latents=4, channels=24, blocks=1, self_layers=1))
    changes = {}
    if single:
        model = dataclasses.replace(model, parametrisation="additive", score_of="start", n_mul=1)
        changes = {"converged_share": 0.0, "classifier_share": 0.5}
    trainer = Trainer(
        tiny(model=model, steps=10_000, learning_rate=3e-3, warmup_steps=20, images=8, **changes), furniture()
    )
    trainer.network.train()
    history = []
    for _ in range(30):
        trainer.generator.manual_seed(3)
        history.append(trainer._train_on(trainer.data.batch(8, trainer.generator)))
    for name in ("align_loss", "score_loss"):
        values = np.array([metrics[name] for metrics in history])
        assert values[-8:].mean() < 0.7 * values[:4].mean(), (name, values[:4], values[-8:])


def watch_poses(trainer, batch, monkeypatch):
    """What `_losses` was given and gave back in each of the three refinements of one batch."""
    losses, seen = trainer._losses, []

    def watched(batch, pose, scoring):
        found, updated = losses(batch, pose, scoring)
        seen.append((pose, scoring, updated))
        return found, updated

    monkeypatch.setattr(trainer, "_losses", watched)
    monkeypatch.setattr(train, "classifier_poses", lambda truth, generator: truth)
    trainer._train_on(batch)
    assert len(seen) == 3
    return seen


def test_some_images_train_the_score_on_drawn_poses_and_the_others_go_on_from_the_last_update(monkeypatch):
    trainer = Trainer(tiny(classifier_share=0.5, converged_share=0.0), furniture())
    batch = trainer.data.batch(4, generator())
    seen = watch_poses(trainer, batch, monkeypatch)
    for pose, scoring, _ in seen:
        assert scoring[:, 0].tolist() == [True, True, False, False]
        assert torch.equal(pose.T[:2], batch.truth.T[:2])
        assert not torch.equal(pose.T[2:], batch.truth.T[2:])
        assert not pose.T.requires_grad
    for (_, _, updated), (pose, _, _) in zip(seen[:-1], seen[1:], strict=True):
        near = (updated.T[2:, :, 2] > 0.2) & (updated.T[2:].norm(dim=-1) < 15)
        assert near.any() and torch.equal(pose.R[2:][near], updated.R[2:][near])


def test_some_poses_that_train_the_score_are_those_a_search_ends_up_at(monkeypatch):
    trainer = Trainer(tiny(classifier_share=0.5, converged_share=1.0), furniture())
    batch = trainer.data.batch(4, generator())
    for pose, _, _ in watch_poses(trainer, batch, monkeypatch):
        assert not torch.isclose(pose.T[:2], batch.truth.T[:2], atol=1e-6).all(-1).any()
    scoring = torch.tensor([True, True, False, False])[:, None].expand(4, 2)
    start = batch.truth
    travelled, which = trainer._travelled_poses(batch, start, scoring)
    assert torch.equal(which, scoring) and not travelled.T.requires_grad
    assert torch.equal(travelled.R[2:], start.R[2:])
    # turned by 0°, 90°, 180° or 270°, then refined by a network that hardly moves anything yet
    turn = torch.rad2deg(rotation_angle_rad(start.R[:2].transpose(-1, -2) @ travelled.R[:2]))
    assert ((turn[..., None] - torch.tensor([0.0, 90.0, 180.0])).abs().amin(-1) < 30).all()
    assert not torch.equal(travelled.R[:2], start.R[:2])


def test_a_score_of_starts_is_trained_on_starts_turned_by_quarters(monkeypatch):
    model = dataclasses.replace(MODEL, score_of="start", parametrisation="additive", n_mul=1)
    trainer = Trainer(tiny(model=model, classifier_share=0.5, converged_share=0.0, images=16), furniture())
    batch = trainer.data.batch(16, generator())
    drawn = []
    monkeypatch.setattr(
        train, "update_starts", lambda *given: drawn.append(update_starts(*given)) or drawn[-1]
    )
    seen = watch_poses(trainer, batch, monkeypatch)
    start = drawn[0]
    for pose, _, _ in seen:
        assert torch.equal(pose.T[:8], start.T[:8]) and torch.equal(pose.S[:8], start.S[:8])
        turn = torch.rad2deg(rotation_angle_rad(start.R[:8].transpose(-1, -2) @ pose.R[:8])).round()
        assert set(turn.unique().tolist()) == {0, 90, 180}
    assert torch.equal(seen[0][0].R[8:], start.R[8:])


def test_update_images_have_no_score_loss_and_score_images_no_alignment_loss():
    trainer = Trainer(tiny(), furniture())
    batch = trainer.data.batch(4, generator())
    for scoring, absent, present in ((True, "align_loss", "score_loss"), (False, "score_loss", "align_loss")):
        found, _ = trainer._losses(batch, batch.truth, torch.full((4, 2), scoring))
        assert found[absent].item() == 0 and found[present].item() > 0


def test_the_learning_rate_warms_up_and_ends_at_a_hundredth():
    trainer = Trainer(tiny(steps=100, warmup_steps=10, learning_rate=1.0), furniture())
    rates = []
    for trainer.step in range(101):
        rates.append(trainer._schedule())
    assert rates[0] == pytest.approx(0.1, rel=0.01) and rates[4] == pytest.approx(0.5, rel=0.01)
    assert max(rates) == pytest.approx(0.98, abs=0.02) and rates[100] == pytest.approx(0.01)
    assert rates[50] == pytest.approx(0.505, abs=1e-3)


def test_the_averaged_weights_trail_the_trained_ones():
    trainer = Trainer(tiny(steps=3), furniture())
    begin = {n: v.clone() for n, v in trainer.network.state_dict().items()}
    trainer.run(lambda metrics: None)
    now = trainer.network.state_dict()
    name = max(now, key=lambda n: float((now[n] - begin[n]).abs().max()))
    moved, trailed = (now[name] - begin[name]).norm(), (trainer.averaged[name] - begin[name]).norm()
    assert 0 < trailed < moved
    averaged = trainer.averaged_network()
    assert torch.equal(averaged.state_dict()[name], trainer.averaged[name]) and not averaged.training
    assert not any(p.requires_grad for p in averaged.parameters())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_share_of_the_models_is_swapped_for_another_of_the_same_category_only():
    data = SyntheticData(furniture(), dataclasses.replace(DATA, similar_model=0.5), INPUTS)
    category = torch.arange(9).repeat(200)[None]
    model = category * 2  # the first of each category's two models
    assert torch.equal(data.cad.category[model], category)
    swapped = data.draws.similar(model, category, generator())
    assert torch.equal(data.cad.category[swapped], category)
    # half are swapped, half of those for the other of two
    assert float((swapped != model).float().mean()) == pytest.approx(0.25, abs=0.04)
    never = SyntheticData(furniture(), dataclasses.replace(DATA, similar_model=0.0), INPUTS)
    assert torch.equal(never.draws.similar(model, category, generator()), model)


def test_a_batch_pairs_each_detection_with_its_truth_model_and_symmetry():
    exact = dataclasses.replace(DATA, similar_model=0.0, unknown_extents=0.0, known_extents=0.0)
    data = SyntheticData(furniture(), exact, INPUTS)
    batch = data.batch(6, generator())
    scene, slot = batch.source.scene, batch.source.detections.slot
    assert batch.frame.object_valid.any()
    for b in range(6):
        for n in range(2):
            s = int(slot[b, n])
            assert torch.equal(batch.truth.T[b, n], scene.pose.T[b, s])
            assert batch.surface.model[b, n] == scene.model[b, s]
            assert batch.symmetry_order[b, n] == data.cad.symmetry_order[scene.model[b, s]]
            assert batch.category[b, n] == data.cad.category[scene.model[b, s]]
            assert torch.equal(batch.surface.expected_m[b, n], data.cad.extents_m[scene.model[b, s]])
    expected = batch.surface.expected_m
    assert (batch.scale_low_m <= expected).all() and (expected <= batch.scale_high_m).all()
    assert batch.box_samples.uv_px.shape == (6, 2, 8, 2)


def test_extents_that_are_not_known_are_expected_to_be_the_categorys_median():
    unknown = dataclasses.replace(DATA, unknown_extents=1.0, known_extents=0.0)
    data = SyntheticData(furniture(), unknown, INPUTS)
    batch = data.batch(2, generator())
    for b, n in itertools.product(range(2), range(2)):
        extents = data.cad.extents_m[data.cad.category == batch.category[b, n]]
        assert torch.equal(batch.surface.expected_m[b, n], extents.median(0).values)


def test_known_extents_are_the_true_ones_and_stay_so(monkeypatch):
    known = dataclasses.replace(DATA, unknown_extents=0.0, known_extents=1.0)
    trainer = Trainer(tiny(data=known, classifier_share=0.5), furniture())
    batch = trainer.data.batch(4, generator())
    assert batch.surface.extents_known.all() and torch.equal(batch.surface.expected_m, batch.truth.S)
    losses, seen = trainer._losses, []

    def watched(batch, pose, scoring):
        found, updated = losses(batch, pose, scoring)
        seen.extend((pose.S, updated.S))
        return found, updated

    monkeypatch.setattr(trainer, "_losses", watched)
    trainer._train_on(batch)
    assert len(seen) == 6
    for S in seen:
        np.testing.assert_allclose(S.detach(), batch.truth.S, rtol=1e-6)


def test_visible_objects_project_into_their_boxes():
    data = SyntheticData(furniture(), DATA, INPUTS)
    batch = data.batch(24, generator(1))
    T, boxes = batch.truth.T, batch.frame.boxes_xyxy
    uv = T[..., :2] / T[..., 2:] * batch.frame.intrinsics[:, None, :2] + batch.frame.intrinsics[:, None, 2:]
    size = boxes[..., 2:] - boxes[..., :2]
    near = ((uv >= boxes[..., :2] - size) & (uv <= boxes[..., 2:] + size)).all(-1)
    valid = batch.frame.object_valid
    # objects cut by the image border or hidden in part may have their centre outside the box
    assert valid.sum() > 20 and near[valid].float().mean() > 0.85


def test_poses_that_left_the_room_are_put_back_near_the_truth_and_others_are_left_alone():
    data = SyntheticData(furniture(), DATA, INPUTS)
    batch = data.batch(4, generator())
    pose = dataclasses.replace(batch.truth, T=batch.truth.T.clone())
    pose.T[0, 0] = torch.tensor([0.0, 0.0, -1.0])
    pose.T[1, 0] = torch.tensor([0.0, 0.0, 16.0])
    pose.T[2, 0] = torch.tensor([0.5, 0.0, 8.0])
    back = rescue_lost(pose, batch, generator())
    for image in (0, 1):
        assert float((back.T[image, 0] - batch.truth.T[image, 0]).norm()) < 2
        assert not torch.equal(back.T[image, 0], pose.T[image, 0])
    assert torch.equal(back.T[2, 0], pose.T[2, 0])


def test_masked_mean_counts_only_what_is_masked():
    values = torch.tensor([1.0, 2.0, 30.0])
    assert float(masked_mean(values, torch.tensor([True, True, False]))) == 1.5
    assert float(masked_mean(values, torch.zeros(3, dtype=torch.bool))) == 0
