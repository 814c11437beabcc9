"""The search: who is looked at again, whose σ wins, and what happens to blocks that are not full."""

import dataclasses

import numpy as np
import pytest
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images
from sparc_core.network.alignment import NetworkOutput
from sparc_core.perception.prepare import prepare_image
from sparc_core.pipeline import Aligner, AlignerConfig
from sparc_core.refine.batch import build_search
from sparc_core.refine.model import Calibration
from sparc_core.refine.search import Search
from sparc_core.types import Detection


class PlannedNetwork:
    """Leaves poses where they are; its k-th call scores as looks[k] says, given rows and objects."""

    def __init__(self, looks):
        self.looks, self.calls, self.contexts = looks, [], []

    def __call__(self, tokens, context, token_valid, object_valid):
        rows, objects = object_valid.shape
        self.calls.append((rows, tokens.clone()))
        self.contexts.append(context.clone())
        logit = self.looks[len(self.calls) - 1](rows, objects)
        return NetworkOutput(torch.zeros(rows, objects, 10), logit)


@pytest.fixture(scope="module")
def aligner():
    return Aligner.load(cad_library=CadLibrary.procedural(range(1_000_000, 1_000_002)), device="cpu")


@pytest.fixture(scope="module")
def image(aligner):
    images = synthetic_images(aligner.cad_library, SyntheticSetConfig(scenes=4))
    return max(images, key=lambda i: len(i.detections))


def search(aligner, image, detections, looks, **options):
    """A search whose every row is scored without being refined."""
    config = AlignerConfig(refinements=1, **options)
    prepared = prepare_image(
        image.rgb, image.camera, detections, image.depth_m, aligner.cad_library, config, aligner.device
    )
    batch = build_search(prepared, aligner.cad, aligner.model_config.n_mul, config, aligner.cad_library)
    # the first call is the one refinement
    network = PlannedNetwork([lambda rows, objects: torch.zeros(rows, objects), *looks])
    plain = dataclasses.replace(aligner.model_config, calibration=Calibration())
    return Search(network, plain, aligner.cad, batch, config), network


def of_starts(*values):
    """Logits of the four starts (rows), the same for all objects."""
    return lambda rows, objects: torch.tensor(values)[:, None].expand(rows, objects).clone()


def test_without_second_looks_the_best_first_score_wins(aligner, image):
    given = image.detections[:2]
    searching, network = search(aligner, image, given, [of_starts(0.1, 0.4, 2.0, 1.0)], second_looks=0)
    results = searching.run()
    assert [r.start for r in results] == ["azimuth_180"] * 2
    assert [r.score for r in results] == pytest.approx([1 / (1 + np.exp(-2.0))] * 2)
    assert [rows for rows, _ in network.calls] == [4, 4]


def test_the_score_is_calibrated_for_the_depths_source_and_the_scale_mode_and_the_choice_is_not(
    aligner, image
):
    given = image.detections[:2]
    searching, _ = search(aligner, image, given, [of_starts(0.1, 0.4, 2.0, 1.0)], second_looks=0)
    calibration = Calibration(
        sensor=(0.5, -0.25), predicted=(2.0, 1.0), sensor_fixed=(1.0, 1.0), predicted_fixed=(0.25, 0.0)
    )
    model = dataclasses.replace(searching.model, calibration=calibration)
    for source, mode, logit in (
        ("sensor", "free", 0.75), ("predicted", "free", 5.0), ("none", "free", 2.0),
        ("sensor", "fixed", 3.0), ("predicted", "fixed", 0.5), ("none", "fixed", 2.0),
    ):  # fmt: skip
        again, network = search(
            aligner, image, given, [of_starts(0.1, 0.4, 2.0, 1.0)], second_looks=0, scale_mode=mode
        )
        other = Search(network, model, again.cad, again.batch, again.config, depth_source=source)
        results = other.run()
        assert [r.start for r in results] == ["azimuth_180"] * 2
        assert [r.score for r in results] == pytest.approx([1 / (1 + np.exp(-logit))] * 2, abs=1e-6)


def test_only_the_finalists_are_looked_at_again_and_the_mean_decides(aligner, image):
    given = image.detections[:2]

    def second(rows, objects):
        assert rows == 2  # the finalists, best first: 180° and 270°
        return torch.tensor([[-1.0, 3.0], [2.0, 0.0]])

    searching, network = search(
        aligner, image, given, [of_starts(0.1, 0.4, 2.0, 1.0), second, second], second_looks=2, finalists=2
    )
    results = searching.run()
    # means over the three looks: (2 − 1 − 1) / 3 against (1 + 2 + 2) / 3, and (2 + 3 + 3) / 3 against 1 / 3
    assert [r.start for r in results] == ["azimuth_270", "azimuth_180"]
    assert [r.score for r in results] == pytest.approx([1 / (1 + np.exp(-5 / 3)), 1 / (1 + np.exp(-8 / 3))])
    looks = [tokens[0, 0, :, :3] for _, tokens in network.calls[-2:]]
    assert not torch.equal(*looks)  # each look has pixels of its own


def test_every_finalist_is_looked_at_in_its_own_pose(aligner, image):
    """The two objects rank their starts differently, so a row of the second look mixes two starts."""
    first = torch.tensor([[3.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
    looks = [lambda rows, objects: first, lambda rows, objects: torch.zeros(2, 2)]
    searching, network = search(aligner, image, image.detections[:2], looks, second_looks=1, finalists=2)
    searching.run()
    # the viewing direction in object axes tells the starts apart
    scored, again = (context[..., 7:10] for context in network.contexts[-2:])
    for n, ranked in enumerate(([0, 1], [3, 2])):
        np.testing.assert_allclose(again[:, n], scored[ranked, n], atol=1e-6)
    assert (scored[0, 0] - scored[1, 0]).abs().max() > 0.1


def test_objects_with_fewer_candidates_never_win_with_a_row_that_is_not_theirs(aligner, image):
    # the first names its model (4 rows), the second leaves two models of the category to try (8 rows)
    named = image.detections[0]
    unnamed = dataclasses.replace(image.detections[1], model_id=None)

    def first(rows, objects):
        assert rows == 8
        logit = torch.zeros(rows, objects)
        logit[4:] = 5.0  # the second candidate's rows, which the first object does not have
        return logit

    searching, _ = search(aligner, image, (named, unnamed), [first], second_looks=0)
    results = searching.run()
    library = aligner.cad_library
    assert library.models[results[0].model].model_id == named.model_id
    assert results[0].score == pytest.approx(0.5)
    assert library.models[results[1].model].category == unnamed.category
    assert results[1].score == pytest.approx(1 / (1 + np.exp(-5.0)))


def test_a_part_of_the_rows_can_be_searched_alone(aligner, image):
    given = image.detections[:3]
    searching, _ = search(aligner, image, given, [lambda r, n: torch.zeros(r, n)] * 3, second_looks=2)
    results = searching.run(torch.tensor([1]))
    assert [r.start for r in results] == ["azimuth_90"] * 3


def test_a_score_of_starts_chooses_before_anything_is_refined_and_only_that_start_is(aligner, image):
    """Two objects prefer different starts: their refinement shares one row."""
    scores = torch.tensor([[3.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
    searching, network = search(aligner, image, image.detections[:2], [])
    network.looks = [lambda rows, objects: scores, *[lambda rows, objects: torch.zeros(rows, objects)] * 2]
    searching.model = dataclasses.replace(searching.model, score_of="start")
    searching.config = dataclasses.replace(searching.config, refinements=2)
    results = searching.run()
    assert [rows for rows, _ in network.calls] == [4, 1, 1]
    assert [r.start for r in results] == ["azimuth_0", "azimuth_270"]
    assert [r.score for r in results] == pytest.approx([1 / (1 + np.exp(-3.0))] * 2)
    # the viewing direction in object axes tells the starts apart
    scored, refined = network.contexts[0][..., 7:10], network.contexts[1][..., 7:10]
    np.testing.assert_allclose(refined[0], torch.stack((scored[0, 0], scored[3, 1])), atol=1e-6)
    for n, (result, row) in enumerate(zip(results, (0, 3), strict=True)):
        part = searching.batch.rows(torch.tensor([row]), searching._new_pixels())
        np.testing.assert_allclose(result.R, part.start.R[0, n], atol=1e-6)


def test_a_score_of_starts_leaves_the_detections_score(aligner, image):
    detections = [dataclasses.replace(d, score=s) for d, s in zip(image.detections, (0.3, 0.7), strict=False)]
    model = dataclasses.replace(aligner.model_config, score_of="start")
    first = Aligner(aligner.network, model, aligner.cad_library, aligner.device, aligner.config)
    result = first.align(image.rgb, image.camera, detections, image.depth_m)
    assert [o.score for o in result.objects] == [0.3, 0.7]
    usual = aligner.align(image.rgb, image.camera, detections, image.depth_m)
    assert not {0.3, 0.7} & {o.score for o in usual.objects}


def test_blocks_of_objects_come_back_in_the_order_of_the_detections(aligner, image):
    # seven detections in blocks of five: two blocks, three places padded
    given = tuple(Detection(image.detections[i % 2].box_xyxy, image.detections[i % 2].category, 1.0,
                            image.detections[i % 2].model_id) for i in range(7))  # fmt: skip
    looks = [lambda rows, objects: torch.zeros(rows, objects)] * 5
    searching, network = search(aligner, image, given, looks, finalists=3)
    assert [r.detection for r in searching.run()] == list(range(7))
    assert network.calls[-1][0] == 2 * 3  # two blocks, three finalists
