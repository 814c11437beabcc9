"""Weighted Procrustes: against scipy, exact coordinates, mirrored fits, and gradients."""

import numpy as np
import pytest
import torch
from builders import random_poses
from scipy.spatial.transform import Rotation

from sparc_core.baselines.procrustes import nearest_rotation, weighted_procrustes


def points(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_procrustes_agrees_with_scipy_on_weighted_noisy_points():
    source, target, weight = points(0, 5, 20, 3), points(1, 5, 20, 3), points(2, 5, 20).abs()
    R, shift = weighted_procrustes(source, target, weight)
    for i in range(5):
        expected, _ = Rotation.align_vectors(target[i].numpy(), source[i].numpy(), weight[i].numpy())
        np.testing.assert_allclose(R[i], expected.as_matrix(), atol=1e-9)
        mean, to = (np.average(x[i], axis=0, weights=weight[i]) for x in (source, target))
        np.testing.assert_allclose(shift[i], to - expected.apply(mean), atol=1e-9)


def test_exact_coordinates_give_the_exact_pose():
    pose = random_poses(6)
    noc = points(3, 6, 30, 3).clamp(-0.5, 0.5)
    about = pose.transform(noc) - pose.T[:, None]
    weight = points(4, 6, 30).abs()
    R, shift = weighted_procrustes(noc * pose.S[:, None], about, weight)
    torch.testing.assert_close(R, pose.R, atol=1e-9, rtol=0)
    torch.testing.assert_close(shift, torch.zeros_like(shift), atol=1e-9, rtol=0)
    # where the first translation is a little off, the shift brings it back
    off = 0.01 * points(5, 6, 1, 3)
    R, shift = weighted_procrustes(noc * pose.S[:, None], about - off, weight)
    left = (shift + off[:, 0]).norm(dim=-1)
    assert (left < 0.5 * off[:, 0].norm(dim=-1)).all()


def test_a_mirrored_best_fit_is_not_a_rotation_and_not_given():
    M = torch.diag(torch.tensor([3.0, 2.0, -1.0], dtype=torch.float64))[None]
    assert float(torch.linalg.det(nearest_rotation(M))) == pytest.approx(1)
    expected, _ = Rotation.align_vectors(np.eye(3) * [3, 2, -1], np.eye(3))
    np.testing.assert_allclose(nearest_rotation(M)[0], expected.as_matrix(), atol=1e-9)


def test_the_gradient_of_the_rotation_is_that_of_finite_differences():
    M = points(6, 8, 3, 3).requires_grad_()
    assert (torch.linalg.det(M) < 0).any() and (torch.linalg.det(M) > 0).any()
    assert torch.autograd.gradcheck(nearest_rotation, (M,), atol=1e-6)
    # equal singular values, where the derivative of the SVD itself is infinite
    turned = torch.from_numpy(Rotation.random(3, np.random.default_rng(0)).as_matrix()).requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, (turned,), atol=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_gradients_stay_finite_where_the_rotation_is_not_determined(rank):
    basis = torch.eye(3)
    M = sum((basis[i][:, None] * basis[i][None] for i in range(rank)), torch.zeros(3, 3))
    M = (-M if rank == 2 else M)[None].requires_grad_()
    R = nearest_rotation(M)
    (R * torch.arange(9.0).view(3, 3)).sum().backward()
    assert torch.isfinite(R).all() and torch.isfinite(M.grad).all()
    source, target = torch.zeros(2, 5, 3, requires_grad=True), torch.zeros(2, 5, 3)
    weight = torch.zeros(2, 5, requires_grad=True)
    R, shift = weighted_procrustes(source, target, weight)
    (R.sum() + shift.sum()).backward()
    assert not shift.any() and torch.isfinite(source.grad).all() and torch.isfinite(weight.grad).all()
