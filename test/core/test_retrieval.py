"""Retrieval: the view frame, tokens, losses, that it learns to tell models apart, and ranking."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from builders import box_estimate, furniture
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.evaluation.retrieval import chamfer_ranking, measure_retrieval
from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images
from sparc_core.geometry.camera import project
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.perception.prepare import prepare_image
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.pipeline import AlignerConfig
from sparc_core.retrieval.extents import extents_likelihood
from sparc_core.retrieval.network import RetrievalConfig, RetrievalNet
from sparc_core.retrieval.region import TOKEN_CHANNELS, region_tokens, view_frame
from sparc_core.retrieval.retriever import Retriever, embed_cad_models
from sparc_core.scripts.main import app
from sparc_core.training.predictor_trainer import PredictorTrainConfig
from sparc_core.training.retrieval import (
    RegionBatches,
    RetrievalTraining,
    contrastive_losses,
    make_retrieval_trainer,
    similar_models,
)
from sparc_core.types import CATEGORIES, HINT_CHANNELS

SMALL = RetrievalConfig(n_pixels=24, n_points=32, latents=4, channels=24, heads=2, blocks=1, embedding=16)


def frame_of(up=(0.0, -1.0, 0.0), objects=1):
    return Frame(
        torch.tensor([[500.0, 500.0, 320.0, 240.0]]), torch.tensor([[640.0, 480.0]]),
        torch.tensor([[[200.0, 100.0, 440.0, 400.0]] * objects]), torch.ones(1, objects, dtype=torch.bool),
        torch.nn.functional.normalize(torch.tensor([up]), dim=-1), torch.tensor([True]),
    )  # fmt: skip


def test_the_view_frame_is_upright_and_faces_the_camera():
    rng = np.random.default_rng(0)
    for up in ((0.0, -1.0, 0.0), (0.1, -0.8, -0.5)):
        frame = frame_of(up)
        direction = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(1, 1, 3))).float() +
                                                  torch.tensor([0.0, 0, 3]), dim=-1)  # fmt: skip
        R = view_frame(frame, direction)[0, 0]
        torch.testing.assert_close(R @ R.T, torch.eye(3), atol=1e-5, rtol=0)
        assert float(torch.det(R)) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(R @ frame.up_cam[0], torch.tensor([0.0, 1, 0]), atol=1e-5, rtol=0)
        seen = R @ direction[0, 0]
        assert abs(float(seen[0])) < 1e-5 and seen[2] < 0  # away from the camera is −z
    above = view_frame(frame_of((0.0, 0.0, -1.0)), torch.tensor([[[0.0, 0.0, 1.0]]]))[0, 0]
    assert torch.isfinite(above).all() and float(torch.det(above)) == pytest.approx(1, abs=1e-5)


def seen_from(turn_deg, count=200):
    """Samples of a cloud of points round an object 3 m away, the camera walked round it by an angle."""
    rng = np.random.default_rng(1)
    points = torch.tensor(rng.uniform(-0.4, 0.4, (count, 3))).float() + torch.tensor([0.0, 0.0, 3.0])
    roll = torch.tensor(Rotation.from_euler("z", turn_deg, degrees=True).as_matrix()).float()
    points, up = points @ roll.T, roll @ torch.tensor([0.0, -1.0, 0.0])
    frame = frame_of(tuple(up.tolist()))
    uv, _ = project(points[None, None], frame.intrinsics)
    yes = torch.ones(1, 1, count, dtype=torch.bool)
    normals = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(1, 1, count, 3))).float(), dim=-1)
    rgb = torch.full((1, 1, count, 3), 0.5)
    depth = points[None, None, :, 2]
    hints = torch.zeros(1, 1, count, HINT_CHANNELS)
    return frame, PixelSamples(uv, rgb, normals @ roll.T, depth, yes.float(), yes, yes, yes, yes, hints)


def test_lifted_points_do_not_depend_on_how_the_camera_is_rolled():
    category = torch.tensor([[CATEGORIES.index("bed")]])
    tokens, context, valid = region_tokens(*seen_from(0), category)
    rolled, other, _ = region_tokens(*seen_from(15), category)
    assert tokens.shape == (1, 1, 200, TOKEN_CHANNELS) and valid.all()
    np.testing.assert_allclose(rolled[..., 3:9], tokens[..., 3:9], atol=0.02)
    assert (rolled[..., 13:] - tokens[..., 13:]).abs().max() > 0.05  # places in the box do
    named = context[0, 0, -len(CATEGORIES) :]
    assert named.argmax() == CATEGORIES.index("bed") and named.sum() == 1
    z = float(seen_from(0)[1].depth_m.median())
    size = [math.log(240 * z / 500), math.log(300 * z / 500)]
    np.testing.assert_allclose(context[0, 0, :2], size, atol=0.05)
    frame, samples = seen_from(0)
    blind = dataclasses.replace(samples, depth_m=samples.depth_m * 0, has_depth=~samples.has_depth)
    assert (region_tokens(frame, blind, category)[0][..., 3:6] == 0).all()


def test_contrastive_losses_by_hand():
    # two beds (models 0 and 1) and a sofa (model 2); candidates are the three
    similarity = torch.tensor([[2.0, 1.0, 9.0], [0.0, 3.0, 9.0], [9.0, 9.0, 1.0]])
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    found = contrastive_losses(similarity, torch.tensor([0, 1, 2]), same)

    def nll(values, right):
        return -(values[right] - math.log(sum(math.exp(v) for v in values)))

    rows = (nll([2, 1], 0) + nll([0, 3], 1) + 0) / 3
    columns = (nll([2, 0], 0) + nll([1, 3], 1) + 0) / 3
    assert float(found) == pytest.approx((rows + columns) / 2, abs=1e-5)
    # a candidate that nobody shows, of a category that is not there, must not poison the gradient
    wide = torch.cat((similarity, torch.zeros(3, 1)), 1).requires_grad_()
    other = contrastive_losses(wide, torch.tensor([0, 1, 2]), torch.cat((same, torch.zeros(3, 1) > 1), 1))
    other.backward()
    assert torch.isfinite(wide.grad).all() and other.item() == pytest.approx(float(found), abs=1e-6)


def test_similar_models_are_others_of_the_category():
    cad = CadTensors.from_library(CadLibrary.procedural(range(4), categories=("bed", "sofa")))
    similar = similar_models(cad, 5)
    for m, others in enumerate(similar.tolist()):
        assert m not in others and set(cad.category[others].tolist()) == {int(cad.category[m])}
        assert len(set(others)) == 3
    alone = CadTensors.from_library(CadLibrary.procedural([0], categories=("bed",)))
    assert similar_models(alone, 2).tolist() == [[0, 0]]


def test_the_vectors_do_not_depend_on_the_order_of_pixels_nor_on_padding():
    torch.manual_seed(0)
    network = RetrievalNet(SMALL).eval()
    tokens, context, valid = (x.flatten(0, 1) for x in region_tokens(*seen_from(0), torch.tensor([[1]])))
    plain = network.region(tokens, context, valid)
    assert plain.shape == (1, 16) and plain.norm().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(network.region(tokens.flip(1), context, valid), plain, atol=1e-5, rtol=0)
    more = torch.cat((tokens, tokens * 3 + 1), 1)
    padded = network.region(more, context, torch.cat((valid, ~valid), 1))
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=0)


def small_run(**changes):
    train = PredictorTrainConfig(steps=60, pictures=8, learning_rate=3e-3, precision="fp32")
    return RetrievalTraining(SMALL, dataclasses.replace(train, **changes))


def test_candidates_hold_what_is_seen_and_models_like_it():
    batches = RegionBatches(furniture(), small_run())
    batch = batches.draw(torch.Generator().manual_seed(0))
    seen = batch.model[batch.valid]
    assert set(seen.tolist()) <= set(batch.candidates.tolist())
    assert len(batch.candidates) == len(set(batch.candidates.tolist()))
    assert torch.equal(batches.data.cad.category[batch.model][batch.valid], batch.category[batch.valid])
    again = batches.draw(torch.Generator().manual_seed(0))
    assert torch.equal(again.samples.rgb, batch.samples.rgb)


def test_training_learns_to_tell_the_models_of_a_batch_apart():
    trainer, logs = make_retrieval_trainer(small_run(), furniture()), []
    batch = trainer.batches.draw(torch.Generator().manual_seed(0))
    trainer.batches.draw = lambda generator: batch
    trainer.run(logs.append)
    assert logs[-1]["contrast"] < 0.75 * logs[0]["contrast"]
    assert logs[-1]["completion"] < logs[0]["completion"]


@pytest.fixture(scope="module")
def prepared():
    library = CadLibrary.procedural(range(1_000_000, 1_000_004))
    image = max(synthetic_images(library, SyntheticSetConfig(scenes=3)), key=lambda i: len(i.detections))
    detections = [dataclasses.replace(d, model_id=None) for d in image.detections]
    found = prepare_image(
        image.rgb, image.camera, detections, image.depth_m, library, AlignerConfig(), torch.device("cpu")
    )
    return library, found, [detections[i].category for i in found.kept]


def test_a_retriever_ranks_the_models_of_the_category(prepared, tmp_path):
    library, image, categories = prepared
    torch.manual_seed(0)
    save_predictor(tmp_path / "r.safetensors", RetrievalNet(SMALL).state_dict(), SMALL, half=True)
    cad = CadTensors.from_library(library)
    retriever = Retriever.load(tmp_path / "r.safetensors", cad)
    assert retriever.vectors.shape == (36, 16)
    ranked = retriever.rank(image, categories, 3)
    assert len(ranked) == len(categories) > 1
    for (models, values), category in zip(ranked, categories, strict=True):
        assert len(models) == 3 and (values.diff() <= 0).all()
        assert {library.models[int(m)].category for m in models} == {category}
    again = retriever.rank(image, categories, 3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(ranked, again, strict=True))
    last = [int(library.indices_of_category(c)[-1]) for c in categories]
    beside = torch.nn.functional.one_hot(torch.tensor(last), len(library.models)) * 3.0
    told = retriever.rank(image, categories, 3, beside=beside)
    assert [int(models[0]) for models, _ in told] == last
    few = retriever.rank(image, ["lamp"] * len(categories), 3)
    assert all(len(models) == 0 for models, _ in few)
    with pytest.raises(ValueError, match="gone.safetensors: no such file"):
        Retriever.load(tmp_path / "gone.safetensors", cad)


def test_extents_that_are_expected_speak_for_models_of_that_size():
    packed = torch.tensor([box_estimate(S_m=(0.5, 0.9, 0.6)).packed(), (0.0,) * 14])
    models = torch.tensor([[0.5, 0.9, 0.6], [0.55, 0.9, 0.6], [0.5, 0.9, 1.8], [5.0, 9.0, 6.0]])
    found = extents_likelihood(packed, models)
    assert found.shape == (2, 4) and (found[1] == 0).all()
    spread = np.hypot(0.2, 0.12)
    expected = [0, -0.5 * (np.log(1.1) / spread) ** 2 / 3, -0.5 * 16 / 3, -0.5 * 16]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_new_models_only_need_their_vectors(prepared):
    library, *_ = prepared
    torch.manual_seed(0)
    network = RetrievalNet(SMALL).eval()
    cad = CadTensors.from_library(library)
    whole = embed_cad_models(network, cad)
    part = embed_cad_models(network, CadTensors.from_library(library.subset([5, 9])))
    torch.testing.assert_close(part, whole[[5, 9]], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("field", "value"), [("latents", 0), ("channels", 25)])
def test_wrong_sizes_are_named(field, value):
    with pytest.raises(ValueError, match=f"retrieval {field} must be"):
        dataclasses.replace(SMALL, **{field: value})


def test_ranking_is_counted_over_all_and_over_well_visible_objects():
    library = CadLibrary.procedural(range(1_000_000, 1_000_003))
    asked = []

    def first_of_category(image, categories, count):
        asked.append(len(categories))
        return [library.indices_of_category(c).tolist()[:count] for c in categories]

    found = measure_retrieval(library, {"first": first_of_category}, images=6)
    assert found["first"]["objects"] == found["chance"]["objects"] == sum(asked) > 6
    assert found["chance"]["top1"] == pytest.approx(1 / 3, abs=1e-3) and found["chance"]["top5"] == 1
    assert 0 < found["first"]["top1"] < 0.8 and found["first"]["top5"] == 1


def test_the_lookup_by_chamfer_distance_beats_chance_by_far():
    library = CadLibrary.procedural(range(1_000_000, 1_000_004), categories=("chair", "table", "bin"))
    found = measure_retrieval(library, {"chamfer": chamfer_ranking(library)}, images=4)
    assert found["chamfer"]["top1_well_visible"] > found["chance"]["top1_well_visible"] + 0.15


def test_the_command_trains_validates_and_resumes(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({
        "network": dataclasses.asdict(SMALL), "train": {"steps": 2, "pictures": 2, "precision": "fp32"},
    }))  # fmt: skip
    arguments = ["train-perception", "retrieval", "--out", str(tmp_path / "run"), "--config", str(config),
                 "--cad-library", "procedural:0-1", "--validation", "procedural:1000000-1000001"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2 and "top1" in rows[-1]["validation"]
    cad = CadTensors.from_library(furniture())
    assert Retriever.load(tmp_path / "run/weights.safetensors", cad).vectors.shape == (18, 16)
    again = CliRunner().invoke(app, [*arguments, "--resume"])
    assert again.exit_code == 0 and "resumed at step 2" in again.output
