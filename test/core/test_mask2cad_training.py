"""Mask2CAD: learning, weights, retrieval, and its place in the aligner's stead."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import yaml
from baseline_fixtures import DETECTOR, pictures, reader, region_folder, store
from builders import furniture
from mask2cad_networks import TINY, example, trained, training, truth_of
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from sparc_core.baselines.allocentric import to_allocentric
from sparc_core.baselines.mask2cad import Mask2CadConfig, Mask2CadNet, RegionAnswers
from sparc_core.baselines.mask2cad_aligner import Mask2Cad, Mask2CadAligner, ViewRetriever
from sparc_core.baselines.mask2cad_loss import pose_losses
from sparc_core.baselines.mask2cad_pose import (
    fit_statistics,
    pose_targets,
)
from sparc_core.baselines.view_set import ViewSet
from sparc_core.evaluation.mask2cad import measure_mask2cad
from sparc_core.evaluation.methods import MethodSpec, Setting
from sparc_core.geometry.camera import box_ray
from sparc_core.geometry.errors import rotation_error_deg
from sparc_core.geometry.rotation import matrix_to_quaternion, quaternion_to_matrix
from sparc_core.perception.predictor_file import load_predictor, save_predictor
from sparc_core.scripts.main import app
from sparc_core.training.mask2cad import Mask2CadTraining, ViewedBatches, make_mask2cad_trainer
from sparc_core.training.region_batches import SENSOR_ONLY, region_batch
from sparc_core.types import CATEGORIES, Camera, Detection

# --- training --------------------------------------------------------------------------------------------


def test_every_loss_falls_on_a_handful_of_pictures():
    _, seen = trained()
    for name in ("loss", "embedding", "bins", "offset", "extents", "depth"):
        first, last = (float(np.mean([m[name] for m in part])) for part in (seen[:8], seen[-8:]))
        assert last < 0.8 * first, (name, first, last)


def test_targets_have_all_their_digits_in_mixed_precision(monkeypatch):
    """The regime that trains with bf16: rotations in bf16 are off by a degree."""
    seen = []

    def kept(answers, targets, config):
        seen.append(targets)
        return pose_losses(answers, targets, config)

    monkeypatch.setattr("sparc_core.training.mask2cad.pose_losses", kept)
    trainer = make_mask2cad_trainer(training(), store(), furniture())
    batch = trainer.batches.draw(torch.Generator().manual_seed(0))
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = trainer.trained(batch)
        assert all(value.dtype == torch.float32 for value in losses.values())
    torch.testing.assert_close(seen[0].residual, seen[1].residual, atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[0].angle_rad, seen[1].angle_rad, atol=1e-5, rtol=0)


def test_batches_hold_views_of_the_regions_models_and_of_others():
    network = Mask2CadNet(TINY)
    fit_statistics(network, *truth_of(store()))
    views = ViewSet(furniture(), network)
    batch = ViewedBatches(store(), views, training(jitter_deg=0.0)).draw(torch.Generator().manual_seed(0))
    rows, count = batch.batch.row, 8
    names = [furniture().models[int(m)].model_id for m in batch.model]
    assert names == [store().model_ids[int(r)] for r in rows]
    shown = batch.view_model[:-count]
    assert set(batch.model.tolist()) <= set(shown.tolist())
    assert len(shown) == 2 * len(set(shown.tolist()))  # two views of every model
    own = set(furniture().models[int(m)].category for m in batch.model)
    assert {furniture().models[int(m)].category for m in shown} == own
    assert len(set(shown.tolist()) - set(batch.model.tolist())) > 0
    assert [CATEGORIES[int(c)] for c in batch.view_category] == [
        furniture().models[int(m)].category for m in batch.view_model
    ]
    # the last views are those of the truth
    regions = batch.batch.regions
    R = to_allocentric(batch.batch.truth.R, box_ray(regions.boxes_xyxy, regions.intrinsics))
    np.testing.assert_array_equal(batch.views[-count:], views.renderer.render(batch.model, R, TINY.view_px))
    turned = ViewedBatches(store(), views, training(jitter_deg=30.0)).draw(torch.Generator().manual_seed(0))
    assert (turned.views[-count:] != batch.views[-count:]).flatten(1).any(1).all()


def test_the_bins_of_a_run_are_rotations_of_its_store():
    network, _ = trained()
    boxes, pose, _ = truth_of(store())
    seen = matrix_to_quaternion(to_allocentric(pose.R, box_ray(boxes.boxes_xyxy, boxes.intrinsics)))
    for number in boxes.category.unique().tolist():
        bins = network.bins[number][network.has_bin[number]]
        assert 1 <= len(bins) <= TINY.bins
        distance = (bins[:, None] - seen[None, boxes.category == number]).abs().amax(-1).amin(1)
        assert distance.max() < 1e-4


def test_a_trained_network_finds_the_model_of_a_view():
    """Of a view that is no canonical one, among all models of the category."""
    network, _ = trained()
    views = ViewSet(furniture(), network)
    vectors = views.embed(network)
    models = views.viewable.nonzero()[:, 0]
    turn = torch.tensor(Rotation.from_rotvec([0.03, -0.08, 0.02]).as_matrix()).float()
    right = []
    for model in models.tolist():
        bins = quaternion_to_matrix(network.bins[views.category[model]])
        picture = views.renderer.render(torch.tensor([model]), (turn @ bins[0])[None], TINY.view_px)
        likeness = (vectors @ network.views(picture)[0]).amax(1)
        likeness[views.category != views.category[model]] = -torch.inf
        right.append(int(likeness.argmax()) == model)
    untrained = Mask2CadNet(TINY)
    assert np.mean(right) > 0.8, right
    assert not torch.allclose(vectors[models], views.embed(untrained)[models], atol=0.1)


def test_weights_come_back_as_they_were(tmp_path):
    network, _ = trained()
    path = tmp_path / "mask2cad.safetensors"
    save_predictor(path, network.state_dict(), TINY)
    loaded, config = load_predictor(path, Mask2CadConfig, Mask2CadNet)
    regions, _, _ = example(4)
    regions = dataclasses.replace(regions, category=torch.full((4,), int(store().tensors["category"][0])))
    for field in dataclasses.fields(RegionAnswers):
        assert torch.equal(getattr(loaded(regions), field.name), getattr(network(regions), field.name))
    assert config == TINY and torch.equal(loaded.bins, network.bins)
    save_predictor(path, network.state_dict(), TINY, half=True)
    half, _ = load_predictor(path, Mask2CadConfig, Mask2CadNet)
    R, again = (quaternion_to_matrix(n.bins[n.has_bin]) for n in (network, half))
    assert rotation_error_deg(R, again, torch.ones(len(R), dtype=torch.int64)).max() < 0.1
    again = make_mask2cad_trainer(training(), store(), furniture(), init=path)
    assert torch.equal(again.network.bins, half.bins)


def test_stores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the regions have 8 features, the network expects 96"):
        make_mask2cad_trainer(Mask2CadTraining(), store(), furniture())
    few = furniture().subset(range(3))
    with pytest.raises(ValueError, match="is not in the library of 3 models"):
        make_mask2cad_trainer(training(), store(), few)
    with pytest.raises(ValueError, match=r"views must be in \[1, 4\], got 5"):
        Mask2CadTraining(TINY, views=5)
    with pytest.raises(ValueError, match="distractors must not be negative"):
        training(distractors=-1)


# --- in the place of the aligner -------------------------------------------------------------------------


def unseen_batches():
    batch = region_batch(store(), torch.arange(len(store())), SENSOR_ONLY, torch.Generator().manual_seed(0))
    return [(batch.regions, batch.truth, batch.symmetry_order, batch.visible)]


def test_figures_of_known_answers():
    """A network whose answers are the truth has every share at 1, one that turns them by 30° none but the
    models."""
    network, _ = trained()
    regions, truth, order, _ = unseen_batches()[0]
    models = torch.tensor([furniture().index_of(name) for name in store().model_ids])
    vectors = ViewSet(furniture(), network).embed(network)
    targets = pose_targets(network, regions, truth, order)
    row = torch.arange(len(regions))

    class Knowing(Mask2CadNet):
        turn = torch.tensor([1.0, 0.0, 0.0, 0.0])

        def forward(self, seen):
            assert len(seen) == len(regions)
            residual = matrix_to_quaternion(
                quaternion_to_matrix(self.turn) @ quaternion_to_matrix(targets.residual[row, targets.bin])
            )
            logits = 20 * torch.nn.functional.one_hot(targets.bin, TINY.bins).float()
            return RegionAnswers(
                vectors[models, 0], logits, residual, targets.offset, targets.log_depth, targets.log_extents
            )

    knowing = Knowing(TINY)
    knowing.load_state_dict(network.state_dict())
    right = measure_mask2cad(knowing, furniture(), unseen_batches, models)
    for name in ("right", "right_10", "right_5dof", "right_rotation", "top1", "top5"):
        assert right[name] == 1, name
    assert right["chance"] == 0.5 and right["objects"] == len(models)
    knowing.turn = torch.tensor([math.cos(math.radians(15)), 0.0, 0.0, math.sin(math.radians(15))])
    turned = measure_mask2cad(knowing, furniture(), unseen_batches, models)
    assert turned["right"] == turned["right_5dof"] == turned["right_rotation"] == 0 and turned["top1"] == 1
    with pytest.raises(ValueError, match="expected one for each of"):
        measure_mask2cad(knowing, furniture(), unseen_batches, torch.cat((models, models)))


def aligner_for(network, library=None):
    return Mask2CadAligner(Mask2Cad(network), reader(), library or furniture())


def pictured(number=0):
    picture = pictures().read(number)
    camera = Camera(96, 72, *picture.intrinsics, up_cam=tuple(picture.up_cam))
    detections = [Detection(o.box_xyxy, o.category, 0.7) for o in picture.objects]
    return np.ascontiguousarray(picture.rgb), camera, detections, picture


def test_it_aligns_an_image_without_depth():
    """The poses are those that the network gives for the same region, the model is the most alike one."""
    network, _ = trained()
    rgb, camera, detections, picture = pictured()
    result = aligner_for(network).align(rgb, camera, detections)
    assert [o.detection for o in result.objects] == list(range(len(detections))) and not result.skipped
    rows = (store().tensors["picture"] == picture.number).nonzero()[:, 0]
    batch = region_batch(store(), rows, SENSOR_ONLY, torch.Generator().manual_seed(0))
    estimate = Mask2Cad(network).estimate(batch.regions)
    likeness = ViewRetriever(network, furniture()).likeness(estimate.vector, batch.regions.category)
    for d, item in enumerate(result.objects):
        np.testing.assert_allclose(item.R, estimate.pose.R[d], atol=0.05)  # stored features are 16-bit floats
        np.testing.assert_allclose(item.T_m, estimate.pose.T[d], rtol=0.05, atol=0.02)
        np.testing.assert_allclose(item.S_m, estimate.pose.S[d], rtol=0.05)
        model = furniture().models[int(likeness[d].argmax())]
        assert item.model_id == model.model_id and model.category == item.category == detections[d].category
        assert item.score == 0.7 and item.start == "mask2cad"
        np.testing.assert_allclose(item.R @ item.R.T, np.eye(3), atol=1e-5)
    starts = aligner_for(network).starts(rgb, camera, detections)
    np.testing.assert_array_equal(starts[0].R, result.objects[0].R)


def test_a_named_model_is_kept_and_unknown_categories_are_skipped():
    network, _ = trained()
    rgb, camera, detections, picture = pictured()
    names = [m.model_id for m in furniture().models if m.category == detections[0].category]
    for name in names:
        named = [dataclasses.replace(detections[0], model_id=name)]
        assert aligner_for(network).align(rgb, camera, named).objects[0].model_id == name
    half_blind = copy.deepcopy(network)
    half_blind.bins[CATEGORIES.index(detections[0].category)] = 0
    result = aligner_for(half_blind).align(rgb, camera, detections)
    assert result.skipped[0].detection == 0
    assert result.skipped[0].reason == "no object of its category occurred in training"
    kept = {o.detection for o in result.objects}
    assert kept == {i for i, d in enumerate(detections) if d.category != detections[0].category}


def test_it_loads_from_files_and_refuses_what_does_not_fit(tmp_path):
    network, _ = trained()
    weights, detector = tmp_path / "mask2cad.safetensors", tmp_path / "detector.safetensors"
    save_predictor(weights, network.state_dict(), TINY)
    save_predictor(detector, reader().network.network.state_dict(), DETECTOR)
    rgb, camera, detections, _ = pictured()
    loaded = Mask2CadAligner.load(weights, furniture(), detector).align(rgb, camera, detections)
    direct = aligner_for(network).align(rgb, camera, detections)
    for a, b in zip(loaded.objects, direct.objects, strict=True):
        np.testing.assert_array_equal(a.T_m, b.T_m)
        assert a.model_id == b.model_id
    with pytest.raises(ValueError, match="trained on regions of 8 features, the detector's have 96"):
        Mask2CadAligner.load(weights, furniture())
    with pytest.raises(ValueError, match="expected those of a Mask2CadConfig, got MaskRcnnConfig"):
        Mask2CadAligner.load(detector, furniture(), detector)


def test_the_command_trains_and_measures(tmp_path):
    config = tmp_path / "config.yaml"
    tiny = dataclasses.asdict(TINY)
    train = {"steps": 3, "pictures": 6, "precision": "fp32"}
    config.write_text(yaml.safe_dump({"network": tiny, "train": train, "views": 2}))
    regions = ["--regions", str(region_folder()), "--validation", str(region_folder())]
    library = ["--cad-library", "procedural:0-1", "--validation-library", "procedural:0-1"]
    command = ["train-baseline", "mask2cad", "--out", str(tmp_path / "run"), "--config", str(config)]
    done = CliRunner().invoke(app, [*command, *regions, *library, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    figures = lines[-1]["validation"]
    assert figures["objects"] == len(store()) and figures["chance"] == 0.5
    assert 0 <= figures["top1"] <= figures["top5"] == 1
    loaded = Mask2Cad.load(tmp_path / "run" / "weights.safetensors")
    assert loaded.network.config == TINY
    other = ["--cad-library", "procedural:7-7", "--out", str(tmp_path / "b")]
    wrong = CliRunner().invoke(app, [*command, *regions, *library[2:], *other])
    assert wrong.exit_code != 0 and "is not in the library" in wrong.output


def test_the_benchmarks_know_it_by_its_file(tmp_path):
    network = Mask2CadNet(dataclasses.replace(TINY, features=96))
    fit_statistics(network, *truth_of(store()))
    weights = tmp_path / "mask2cad.safetensors"
    save_predictor(weights, network.state_dict(), network.config)
    setting = Setting(furniture())
    placed = MethodSpec.parse(f"{weights},scale_mode=fixed").load(setting)
    rgb, camera, detections, _ = pictured()
    result = placed.align(rgb, camera, detections)
    assert len(result.objects) == len(detections)
    for item in result.objects:
        extents = furniture().models[furniture().index_of(item.model_id)].extents_m
        np.testing.assert_allclose(item.S_m, extents, rtol=1e-5)
    refined = MethodSpec.parse(f"{weights}+shipped").load(setting).align(rgb, camera, detections)
    assert {o.start for o in refined.objects} == {"track"}
    save_predictor(weights, Mask2CadNet(TINY).state_dict(), TINY)
    with pytest.raises(ValueError, match="trained on regions of 8 features, the detector's have 96"):
        MethodSpec.parse(str(weights)).load(setting)
