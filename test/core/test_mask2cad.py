"""Mask2CAD: poses from answers and back, and losses worked by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from builders import furniture
from mask2cad_networks import TINY, example, network_for
from scipy.spatial.transform import Rotation

from sparc_core.baselines.allocentric import to_allocentric
from sparc_core.baselines.mask2cad import Mask2CadConfig, RegionAnswers, box_context
from sparc_core.baselines.mask2cad_loss import Mask2CadLossConfig, contrastive_loss, pose_losses
from sparc_core.baselines.mask2cad_pose import (
    PoseTargets,
    pose_targets,
    poses_of,
)
from sparc_core.baselines.view_set import ViewSet
from sparc_core.geometry.camera import box_ray
from sparc_core.geometry.errors import rotation_error_deg
from sparc_core.geometry.rotation import quaternion_to_matrix
from sparc_core.types import CATEGORIES

# --- between poses and answers ---------------------------------------------------------------------------


def test_right_answers_give_the_true_poses():
    """Targets turned into answers come back as the poses they were made from, up to the symmetry."""
    regions, pose, order = example()
    network = network_for(regions, pose, order)
    targets = pose_targets(network, regions, pose, order)
    row = torch.arange(len(regions))
    for chosen in (targets.bin, torch.zeros_like(targets.bin)):  # a wrong bin is put right by its residual
        logits = torch.nn.functional.one_hot(chosen, TINY.bins).float() * 20
        answers = RegionAnswers(
            torch.zeros(12, 16), logits, 3 * targets.residual[row, chosen], targets.offset, targets.log_depth,
            targets.log_extents,
        )  # fmt: skip
        found, probability = poses_of(network, regions, answers)
        torch.testing.assert_close(found.T, pose.T, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.S, pose.S)
        assert rotation_error_deg(found.R, pose.R, order).max() < 0.1
        assert probability.min() > 0.99


def test_targets_are_those_of_scipy_and_of_the_projection():
    regions, pose, order = example()
    network = network_for(regions, pose, order)
    targets = pose_targets(network, regions, pose, order)
    bins = quaternion_to_matrix(network.bins[regions.category]).numpy()
    seen = to_allocentric(pose.R, box_ray(regions.boxes_xyxy, regions.intrinsics)).numpy()
    for d in range(len(regions)):
        turn = 2 * np.pi / int(order[d])
        turns = Rotation.from_rotvec(np.arange(int(order[d]))[:, None] * [0, turn, 0])
        angles = []
        for k in range(TINY.bins):
            residual = Rotation.from_matrix(seen[d]) * turns * Rotation.from_matrix(bins[d, k]).inv()
            best = residual[int(residual.magnitude().argmin())]
            angles.append(best.magnitude())
            expected = Rotation.from_quat(targets.residual[d, k].numpy(), scalar_first=True)
            assert (expected * best.inv()).magnitude() < 2e-3 or angles[-1] > np.pi - 2e-3
        assert int(targets.bin[d]) == int(np.argmin(angles))
        np.testing.assert_allclose(targets.angle_rad[d], angles, atol=2e-3)
        x0, y0, x1, y1 = regions.boxes_xyxy[d].tolist()
        u = 300 * pose.T[d, 0] / pose.T[d, 2] + 160
        v = 320 * pose.T[d, 1] / pose.T[d, 2] + 120
        offset = [(u - (x0 + x1) / 2) / (x1 - x0), (v - (y0 + y1) / 2) / (y1 - y0)]
        np.testing.assert_allclose(targets.offset[d], offset, atol=1e-4)
        diagonal = math.hypot((x1 - x0) / 300, (y1 - y0) / 320)
        assert float(targets.log_depth[d]) == pytest.approx(math.log(pose.T[d, 2] * diagonal), abs=1e-5)


def test_a_network_begins_with_the_usual_sizes_and_depths():
    regions, pose, order = example()
    network = network_for(regions, pose, order)
    answers = network(regions)
    chairs = regions.category == CATEGORIES.index("chair")
    usual = pose.S[chairs].log().median(0).values
    assert (answers.log_extents[chairs] - usual).abs().max() < 0.05
    np.testing.assert_allclose(answers.residual.detach(), [[0.95, 0, 0, 0]] * 12, atol=0.05)
    assert answers.vector.norm(dim=-1).detach().numpy() == pytest.approx(1, abs=1e-5)
    assert network.has_bin.any(1).tolist() == [name in ("chair", "table") for name in CATEGORIES]


def test_bins_that_a_category_has_not_are_never_chosen():
    regions, pose, order = example()
    network = network_for(regions, pose, order)
    network.bins[CATEGORIES.index("chair"), 2:] = 0
    answers, targets = network(regions), pose_targets(network, regions, pose, order)
    chairs = regions.category == CATEGORIES.index("chair")
    for values, there in ((answers.bin_logits, -answers.bin_logits), (targets.angle_rad, targets.angle_rad)):
        assert torch.isfinite(values[~chairs]).all() and torch.isfinite(values[chairs, :2]).all()
        assert (there[chairs, 2:] == torch.inf).all()
    assert targets.bin[chairs].max() < 2


def test_what_lies_outside_the_mask_and_the_depth_are_not_seen():
    regions, pose, order = example()
    network = network_for(regions, pose, order).eval()
    mask = torch.zeros_like(regions.mask)
    mask[:, 1:4, 1:4] = 1
    masked = dataclasses.replace(regions, mask=mask)
    other = dataclasses.replace(
        masked, features=torch.where(mask[:, None] > 0, masked.features, 9.0),
        depth_m=torch.full_like(mask, 2.0), depth_predicted=~masked.depth_predicted,
    )  # fmt: skip
    changed = dataclasses.replace(masked, features=masked.features.flip(-1))
    for field in dataclasses.fields(RegionAnswers):
        once, again, not_so = (getattr(network(r), field.name) for r in (masked, other, changed))
        torch.testing.assert_close(once, again)
        assert not torch.equal(once, not_so)


def test_the_context_tells_size_place_and_cut_sides():
    regions, _, _ = example()
    boxes = torch.tensor([[0.0, 20.0, 120.0, 84.0]])
    context = box_context(dataclasses.replace(regions[:1], boxes_xyxy=boxes))[0]
    expected = [
        (60 - 160) / 300,
        (52 - 120) / 320,
        math.log(120 / 300),
        math.log(64 / 320),
        1,
        0,
        0,
        0,
        0,
        -1,
        0,
    ]
    np.testing.assert_allclose(context[:11], expected, atol=1e-5)
    assert context[11:].argmax() == CATEGORIES.index("chair") and context[11:].sum() == 1


def test_categories_that_were_never_seen_are_refused():
    regions, pose, order = example()
    network = network_for(regions, pose, order)
    strange = dataclasses.replace(regions, category=torch.full((12,), CATEGORIES.index("bed")))
    with pytest.raises(ValueError, match="has seen no bed in training"):
        pose_targets(network, strange, pose, order)
    with pytest.raises(ValueError, match="has seen no bed in training"):
        poses_of(network, strange, network(strange))
    with pytest.raises(ValueError, match="has no views of 'bathtub_0000000'"):
        ViewSet(furniture(), network).canonical(torch.tensor([0]))


# --- losses ----------------------------------------------------------------------------------------------


def unit(*angles_deg):
    angle = torch.deg2rad(torch.tensor(angles_deg, dtype=torch.float64))
    return torch.stack((angle.cos(), angle.sin()), -1)


def test_the_contrastive_loss_by_hand():
    """One region, two views of its model and three of others of its category, one of another category."""
    config = Mask2CadLossConfig(positives=1, negatives=2)
    shows = torch.tensor([[True, True, False, False, False, False]])
    same = torch.tensor([[True, True, True, True, True, False]])
    loss = contrastive_loss(unit(0), unit(20, 50, 40, 70, 120, 0), shows, same, config)
    p, n1, n2 = (math.exp(math.cos(math.radians(a)) / 0.15) for a in (50, 40, 70))  # the hardest ones
    assert float(loss) == pytest.approx(-math.log(p / (p + 1.5 * (n1 + n2))), rel=1e-6)
    both = contrastive_loss(
        unit(0), unit(20, 50, 40, 70, 120, 0), shows, same, Mask2CadLossConfig(positives=9, negatives=9)
    )
    n3 = math.exp(math.cos(math.radians(120)) / 0.15)
    q = math.exp(math.cos(math.radians(20)) / 0.15)
    rest = 1.5 * (n1 + n2 + n3)
    assert float(both) == pytest.approx(
        -0.5 * (math.log(p / (p + rest)) + math.log(q / (q + rest))), rel=1e-6
    )


def test_regions_without_others_of_their_category_do_not_count():
    shows = torch.tensor([[True, False], [False, True]])
    views = unit(10, 200)
    alone = contrastive_loss(unit(0, 90), views, shows, shows, Mask2CadLossConfig())
    assert float(alone) == 0
    first = torch.tensor([[True, True], [False, True]])
    both = contrastive_loss(unit(0, 90), views, shows, first, Mask2CadLossConfig())
    single = contrastive_loss(unit(0), views, shows[:1], first[:1], Mask2CadLossConfig())
    torch.testing.assert_close(both, single)


def answered(bin_logits, residual, other=0.0):
    count = len(bin_logits)
    full = torch.full((count,), other)
    return RegionAnswers(
        torch.zeros(count, 2), torch.tensor(bin_logits), torch.tensor(residual),
        full[:, None].expand(count, 2), full, full[:, None].expand(count, 3),
    )  # fmt: skip


def test_the_pose_losses_by_hand():
    """Two regions; the second chose a bin 40° off, so that its residual is not trained."""
    identity = [1.0, 0.0, 0.0, 0.0]
    targets = PoseTargets(
        torch.tensor([0, 0]), torch.tensor([[identity] * 2] * 2), torch.tensor([[0.1, 1.0], [0.2, 0.7]]),
        torch.zeros(2, 2), torch.zeros(2), torch.zeros(2, 3),
    )  # fmt: skip
    answers = answered([[2.0, 0.0], [0.0, 2.0]], [[0.9, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]], other=0.3)
    losses = pose_losses(answers, targets, Mask2CadLossConfig())
    cross = 0.5 * (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2)))
    assert float(losses["bins"]) == pytest.approx(0.25 * cross, rel=1e-5)
    residual = (0.5 * 0.1**2 + 0.15 * (1 - 0.075)) / 4
    assert float(losses["residual"]) == pytest.approx(5 * residual, rel=1e-5)
    for name in ("offset", "depth", "extents"):
        assert float(losses[name]) == pytest.approx(5 * 0.15 * (0.3 - 0.075), rel=1e-5)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="width must be a multiple of 8, got 20"):
        Mask2CadConfig(width=20)
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        Mask2CadConfig(bins=0)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        Mask2CadLossConfig(temperature=0)
