"""Start poses that are given instead of searched for: rows of the batch, and the shipped network on them."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.report import poses_of
from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images
from sparc_core.geometry.errors import pose_errors
from sparc_core.perception.prepare import prepare_image
from sparc_core.pipeline import Aligner, AlignerConfig
from sparc_core.refine.batch import build_search
from sparc_core.refine.initial import GIVEN_START
from sparc_core.types import StartPose


@pytest.fixture(scope="module")
def library():
    return CadLibrary.procedural(range(1_000_000, 1_000_002))


@pytest.fixture(scope="module")
def aligner(library):
    return Aligner.load(cad_library=library, device="cpu")


@pytest.fixture(scope="module")
def image(library):
    images = synthetic_images(library, SyntheticSetConfig(scenes=6))
    return max(images, key=lambda i: int(i.well_visible.sum()))


def truths(image, **changes):
    """The true poses as starts."""
    return [
        StartPose(d.model_id, *(getattr(image.truth, name)[i].double().numpy() for name in ("R", "T", "S")),
                  **changes)
        for i, d in enumerate(image.detections)
    ]  # fmt: skip


def batch_of(aligner, image, starts, **options):
    config = AlignerConfig(**options)
    prepared = prepare_image(
        image.rgb, image.camera, image.detections, image.depth_m, aligner.cad_library, config, aligner.device
    )
    return build_search(prepared, aligner.cad, 5, config, aligner.cad_library, starts), prepared


def test_given_starts_are_one_row_in_blocks_of_their_own(aligner, image):
    starts = truths(image)
    assert len(starts) >= 4
    starts[1] = None
    starts[2] = dataclasses.replace(starts[2], search=True)
    batch, _ = batch_of(aligner, image, starts)
    given, searched = batch.detection.tolist()[0], batch.detection.tolist()[-1]
    assert [d for d in given if d >= 0] == [d for d in range(len(starts)) if d not in (1, 2)][:5]
    assert [d for d in searched if d >= 0] == [1, 2]
    rows = [(int(b), int(s)) for b, s in zip(batch.block, batch.start, strict=True)]
    last = len(batch.detection) - 1
    assert rows == [(b, GIVEN_START) for b in range(last)] + [(last, s) for s in (0, 1, 2, 3, GIVEN_START)]
    # in the given row of the searched block only the object that has a start takes part
    assert batch.valid[-1].tolist() == [False, True] + [False] * (batch.valid.shape[1] - 2)


def test_the_given_row_starts_from_the_given_pose(aligner, image):
    starts = truths(image)
    batch, _ = batch_of(aligner, image, starts)
    samples = batch.source.sample(torch.zeros(*batch.detection.shape, 4, 2))
    pose = batch.rows(torch.tensor([0]), samples).start
    for n, d in enumerate(batch.detection[0].tolist()):
        np.testing.assert_allclose(pose.T[0, n], starts[d].T_m, atol=1e-6)
        np.testing.assert_allclose(pose.R[0, n], starts[d].R, atol=1e-6)
        np.testing.assert_allclose(pose.S[0, n], starts[d].S_m, atol=1e-6)
    # what is expected of the extents is the CAD model's, not the start's
    np.testing.assert_allclose(batch.extents_m[0], aligner.cad.extents_m[batch.model[0]])


def test_fixed_scale_keeps_the_models_size_whatever_the_start_says(aligner, image):
    batch, _ = batch_of(aligner, image, truths(image), scale_mode="fixed")
    samples = batch.source.sample(torch.zeros(*batch.detection.shape, 4, 2))
    pose = batch.rows(torch.tensor([0]), samples).start
    np.testing.assert_allclose(pose.S[0], aligner.cad.extents_m[batch.model[0]])


def test_without_starts_the_batch_is_that_of_a_search(aligner, image):
    plain, prepared = batch_of(aligner, image, ())
    none, _ = batch_of(aligner, image, [None] * len(image.detections))
    for name in ("detection", "block", "candidate", "start", "model", "valid"):
        assert torch.equal(getattr(plain, name), getattr(none, name))
    assert plain.start.max() < GIVEN_START and len(prepared.kept) == len(image.detections)


def test_near_starts_become_right_poses_and_say_that_they_were_tracks(aligner, image):
    rng = np.random.default_rng(0)
    starts = [dataclasses.replace(s, T_m=s.T_m + rng.normal(0, 0.05, 3)) for s in truths(image)]
    result = aligner.align(image.rgb, image.camera, image.detections, image.depth_m, starts=starts)
    assert [o.start for o in result.objects] == ["track"] * len(image.detections)
    errors = pose_errors(poses_of(result, len(starts))[0], image.truth, image.symmetry_order)
    well = image.well_visible
    assert errors.within((0.1, 10.0, 0.1))[well].float().mean() >= 0.75
    assert [o.score > 0.5 for o, w in zip(result.objects, well, strict=True) if w].count(True) >= int(
        well.sum()
    ) - 1


def test_a_wrong_start_does_no_harm_to_a_search_beside_it(aligner, image):
    turn = Rotation.from_euler("y", 100, degrees=True).as_matrix()
    wrong = [
        dataclasses.replace(s, R=s.R @ turn, T_m=s.T_m + (0.5, 0, 2.5), search=True) for s in truths(image)
    ]
    right = {}
    for name, starts in (("search", None), ("beside", wrong)):
        result = aligner.align(image.rgb, image.camera, image.detections, image.depth_m, starts=starts)
        errors = pose_errors(poses_of(result, len(wrong))[0], image.truth, image.symmetry_order)
        right[name] = errors.within((0.2, 20.0, 0.2))
    assert right["search"].float().mean() >= 0.75
    assert right["beside"][right["search"]].all()


def test_starts_that_do_not_fit_are_refused(aligner, image):
    with pytest.raises(ValueError, match="starts: expected one for each of"):
        aligner.align(image.rgb, image.camera, image.detections, image.depth_m, starts=[None])
    wrong = [dataclasses.replace(s, model_id="no_such") for s in truths(image)]
    with pytest.raises(ValueError, match="no_such"):
        aligner.align(image.rgb, image.camera, image.detections, image.depth_m, starts=wrong)
