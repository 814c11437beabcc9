"""A baseline in the aligner's place, its poses as starts, and its figures."""

import dataclasses

import numpy as np
import pytest
import torch
from baseline_fixtures import pictures, reader, store
from builders import furniture, random_poses

from sparc_core.baselines.roca import Roca, RocaConfig, RocaNet
from sparc_core.baselines.single_shot import NO_ESTIMATE, Estimate, SingleShotAligner, SingleShotConfig
from sparc_core.evaluation.single_shot import measure_estimator
from sparc_core.geometry.pose import Pose
from sparc_core.pipeline import Aligner
from sparc_core.training.region_batches import RegionNoise, region_batch
from sparc_core.types import CATEGORIES, Camera, Detection


class Planned:
    """Estimates that are known beforehand, by category."""

    name = "planned"

    def __init__(self, poses, enough=True):
        self.poses, self.enough = poses, enough

    def estimate(self, regions):
        self.regions = regions
        poses = [self.poses[CATEGORIES[c]] for c in regions.category.tolist()]
        return Estimate(
            Pose(*(torch.stack([torch.tensor(p[i]) for p in poses]) for i in range(3))),
            torch.full((len(poses),), self.enough),
        )


@pytest.fixture
def scene():
    """A picture of at least two categories, the first object of each, its camera and detections."""
    picture = next(
        p for p in map(pictures().read, range(8)) if len({o.category for o in p.objects}) > 1
    )  # fmt: skip
    first = {o.category: o for o in reversed(picture.objects)}
    detections = [Detection((1.0, 1.0, 9.0, 9.0), "lamp")]
    detections += [Detection(o.box_xyxy, c, 0.7, o.model_id) for c, o in first.items()]
    return picture, Camera(96, 72, *picture.intrinsics), detections, first


def test_every_detection_gets_the_pose_of_its_own_region(scene):
    picture, camera, detections, first = scene
    planned = Planned({c: (o.R, o.T_m, o.S_m) for c, o in first.items()})
    baseline = SingleShotAligner(planned, reader(), furniture())
    result = baseline.align(picture.rgb, camera, detections, picture.depth_m, depth_predicted=True)
    assert [o.detection for o in result.objects] == list(range(1, len(detections)))
    assert [(s.detection, s.reason) for s in result.skipped] == [(0, "category 'lamp' is none of the nine")]
    for o, (category, true) in zip(result.objects, first.items(), strict=True):
        assert (o.category, o.model_id, o.score, o.start) == (category, true.model_id, 0.7, "planned")
        np.testing.assert_allclose(o.T_m, true.T_m, atol=1e-5)
        np.testing.assert_allclose(o.R, true.R, atol=1e-5)
    assert planned.regions.depth_predicted.all()
    planned.enough = False
    none = baseline.align(picture.rgb, camera, detections[1:], picture.depth_m)
    assert not none.objects and {s.reason for s in none.skipped} == {NO_ESTIMATE}
    with pytest.raises(ValueError, match="image_rgb is"):
        baseline.align(picture.rgb[:10], camera, detections, picture.depth_m)


def test_without_depth_there_is_no_estimate(scene):
    picture, camera, detections, _ = scene
    baseline = SingleShotAligner(Roca(RocaNet(RocaConfig(feature_channels=8))), reader(), furniture())
    result = baseline.align(picture.rgb, camera, detections[1:])
    assert not result.objects and {s.reason for s in result.skipped} == {NO_ESTIMATE}
    assert baseline.align(picture.rgb, camera, []).objects == ()


def test_a_detection_that_names_no_model_gets_one_of_its_category(scene):
    picture, camera, detections, first = scene
    planned = Planned({c: (o.R, o.T_m, o.S_m) for c, o in first.items()})
    unnamed = [dataclasses.replace(d, model_id=None) for d in detections[1:]]
    result = SingleShotAligner(planned, reader(), furniture()).align(
        picture.rgb, camera, unnamed, picture.depth_m
    )
    assert all(o.model_id.startswith(o.category) for o in result.objects) and result.objects


@pytest.mark.parametrize("mode", ["free", "uniform", "fixed"])
def test_scale_modes_bind_the_scale(scene, mode):
    picture, camera, detections, first = scene
    name, true = next(iter(first.items()))
    model = furniture().models[furniture().index_of(true.model_id)]
    stretched = (model.extents_m * [1.0, 2.0, 4.0]).tolist()
    baseline = SingleShotAligner(
        Planned({name: (true.R, true.T_m, stretched)}), reader(), furniture(), config=SingleShotConfig(mode)
    )
    found = baseline.align(picture.rgb, camera, detections[1:2], picture.depth_m).objects[0].S_m
    expected = {"free": [1.0, 2.0, 4.0], "uniform": [2.0, 2.0, 2.0], "fixed": [1.0, 1.0, 1.0]}[mode]
    np.testing.assert_allclose(found / model.extents_m, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="scale_mode must be one of"):
        SingleShotConfig("large")


def test_its_poses_are_starts_of_the_refinement(scene):
    picture, camera, detections, first = scene
    planned = Planned({c: (o.R, o.T_m, o.S_m) for c, o in first.items()})
    baseline = SingleShotAligner(planned, reader(), furniture())
    known = detections[1:]
    starts = baseline.starts(picture.rgb, camera, detections, picture.depth_m)
    assert starts[0] is None and not any(s.search for s in starts[1:])
    np.testing.assert_allclose(starts[1].T_m, next(iter(first.values())).T_m, atol=1e-5)
    aligner = Aligner.load(cad_library=furniture(), device="cpu")
    result = aligner.align(picture.rgb, camera, known, picture.depth_m, starts=starts[1:])
    assert {o.start for o in result.objects} == {"track"}
    beside = baseline.starts(picture.rgb, camera, known, picture.depth_m, search_beside=True)
    assert all(s.search for s in beside)


def test_figures_of_an_estimator_by_hand():
    truth = random_poses(4, dtype=torch.float32)
    shift = torch.tensor([[0.05, 0, 0], [0.15, 0, 0], [0.5, 0, 0], [0.0, 0, 0]])

    class Shifted:
        def estimate(self, regions):
            enough = torch.tensor([True, True, True, False])
            return Estimate(Pose(truth.R, truth.T + shift, truth.S), enough)

    visible = torch.tensor([0.9, 0.2, 0.9, 0.9])
    batch = region_batch(store(), torch.arange(4), RegionNoise(), torch.Generator().manual_seed(0))
    rows = [(batch.regions, truth, torch.ones(4, dtype=torch.int64), visible)]
    found = measure_estimator(Shifted(), rows, "a_")
    assert found["a_right"] == 0.5 and found["a_right_10"] == 0.25 and found["a_objects"] == 4
    assert found["a_right_well_visible"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["a_translation_m"] == pytest.approx(0.15, abs=1e-4) and found["a_rotation_deg"] < 0.1
    assert found["a_scale"] == 0
