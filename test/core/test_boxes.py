"""Overlap of boxes."""

import numpy as np
import torch
from torchvision import ops

from sparc_core.geometry.boxes import box_iou


def test_box_iou_by_hand():
    a = [(0, 0, 10, 10), (2, 2, 4, 4), (np.nan,) * 4]
    b = [(5, 0, 15, 10), (10, 0, 20, 10), (0, 0, 10, 10)]
    np.testing.assert_allclose(box_iou(a, b), [[50 / 150, 0, 1], [0, 0, 0.04], [0, 0, 0]])


def test_one_box_and_none_have_a_matrix_too():
    assert box_iou((0, 0, 10, 10), np.zeros((0, 4))).shape == (1, 0)
    assert box_iou((0, 0, 10, 10), (2, 2, 4, 4)).shape == (1, 1)


def test_an_empty_box_overlaps_nothing():
    assert box_iou([(5, 5, 5, 5)], [(5, 5, 5, 5)]) == 0


def test_it_agrees_with_torchvision():
    corners = np.random.default_rng(0).uniform(0, 100, (2, 40, 2, 2))
    a, b = np.sort(corners, axis=2).reshape(2, 40, 4)
    np.testing.assert_allclose(box_iou(a, b), ops.box_iou(torch.tensor(a), torch.tensor(b)), atol=1e-12)
