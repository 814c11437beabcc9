"""Which pixels and CAD points are looked at, and what an image gives at a pixel."""

import numpy as np
import pytest
import torch

from sparc_core.cad.tensors import CadPoints
from sparc_core.inputs.select import grown_boxes, select_box_pixels, select_cad_points
from sparc_core.perception.observe import ImageChannels, ImageSource
from sparc_core.perception.samples import Frame


def frame_with(*boxes, width=640.0, height=480.0):
    """A frame of one image."""
    return Frame(
        torch.tensor([[500.0, 500.0, 319.5, 239.5]]), torch.tensor([[width, height]]), torch.tensor([boxes]),
        torch.ones(1, len(boxes), dtype=torch.bool), torch.tensor([[0.0, -1.0, 0.0]]), torch.tensor([True]),
    )  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distances(a, b):
    """(A, B) between points; `torch.cdist` rounds too coarsely for equal ones."""
    return (a[:, None] - b[None]).norm(dim=-1)


def test_boxes_grow_by_a_tenth_of_their_size_in_all():
    grown = grown_boxes(frame_with([100.0, 50.0, 200.0, 170.0]))
    np.testing.assert_allclose(grown, [[[95, 44, 205, 176]]])


def test_grown_boxes_are_cut_at_the_outermost_pixel_centres():
    grown = grown_boxes(frame_with([1.0, 2.0, 101.0, 102.0], [600.0, 440.0, 639.0, 479.0]))
    np.testing.assert_allclose(grown, [[[0, 0, 106, 107], [598.05, 438.05, 639, 479]]], atol=1e-4)


def test_box_pixels_are_integer_pixels_of_the_image_spread_over_the_grown_box():
    frame = frame_with([100.0, 50.0, 200.0, 170.0], [600.0, 440.0, 639.0, 479.0], [-30.0, -30.0, 10.0, 10.0])
    uv = select_box_pixels(frame, 5000, generator())[0]
    assert uv.shape == (3, 5000, 2)
    assert torch.equal(uv, uv.round())
    boxes = grown_boxes(frame)[0]
    # a pixel covers half a pixel to each side of its centre
    assert (uv >= boxes[:, None, :2] - 0.5).all() and (uv <= boxes[:, None, 2:] + 0.5).all()
    assert (uv >= 0).all() and (uv <= torch.tensor([639.0, 479.0])).all()
    # the whole box is used: its edges and all four quarters
    np.testing.assert_allclose(uv.amin(1), boxes[:, :2], atol=1)
    np.testing.assert_allclose(uv.amax(1), boxes[:, 2:], atol=1)
    right, low = (uv[0] > torch.tensor([150.0, 110.0])).unbind(-1)
    quarters = torch.bincount(2 * right.long() + low.long(), minlength=4)
    assert (quarters > 1100).all() and (quarters < 1400).all()


def test_box_pixels_follow_the_generator():
    frame = frame_with([100.0, 50.0, 200.0, 170.0])
    assert torch.equal(select_box_pixels(frame, 20, generator(3)), select_box_pixels(frame, 20, generator(3)))
    assert not torch.equal(
        select_box_pixels(frame, 20, generator(3)), select_box_pixels(frame, 20, generator(4))
    )


def test_cad_points_come_with_their_own_normals_and_from_their_own_model():
    points = torch.randn(3, 40, 3, generator=generator(1))
    normals = points * 2 + torch.arange(3)[:, None, None]  # tells model and point apart
    model = torch.tensor([[2, 0], [1, 1]])
    found = select_cad_points(CadPoints(points, normals), model, 16, generator())
    chosen, own_normals = found.points, found.normals
    assert chosen.shape == own_normals.shape == (2, 2, 16, 3)
    np.testing.assert_allclose(own_normals, chosen * 2 + model[..., None, None], atol=1e-5)
    for b in range(2):
        for n in range(2):
            distance = distances(chosen[b, n], points[model[b, n]])
            assert (distance.amin(1) < 1e-6).all()
            assert distance.argmin(1).unique().numel() == 16  # no point twice


def test_two_objects_with_one_model_get_points_of_their_own_and_another_draw_others():
    points = torch.randn(1, 500, 3, generator=generator(1))
    library, gen = CadPoints(points, points), generator()
    model = torch.zeros(1, 2, dtype=torch.long)
    first, second = (select_cad_points(library, model, 8, gen).points for _ in range(2))
    assert not torch.equal(first[0, 0], first[0, 1])
    assert not torch.equal(first, second)


def test_all_stored_points_can_be_asked_for_but_not_more():
    points = torch.randn(1, 12, 3, generator=generator(1))
    model = torch.zeros(1, 1, dtype=torch.long)
    library = CadPoints(points, points)
    everything = select_cad_points(library, model, 12, generator()).points[0, 0]
    assert (distances(everything, points[0]).amin(0) < 1e-6).all()
    with pytest.raises(ValueError, match="n_cad is 13, but the library stores 12 points"):
        select_cad_points(library, model, 13, generator())


def image_source():
    """A 4 × 3 image whose values tell the pixel: red = column, green = row, depth = 1 + column + 10 row."""
    row, column = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    depth = 1 + column + 10 * row
    depth[2, 3] = 0
    normals = torch.zeros(3, 4, 3)
    normals[..., 2] = -1
    normals[0, 0] = 0
    masks = torch.stack((column == 1, row == 1))
    channels = ImageChannels(
        torch.stack((column, row, row * 0), -1).byte(), depth, normals, masks, torch.tensor([True, False])
    )
    return ImageSource(channels, torch.tensor([[0, 1]]))


def read(source, *pixels):
    uv = torch.tensor(pixels, dtype=torch.float32).expand(1, 2, len(pixels), 2)
    return source.sample(uv)


def test_an_image_is_read_at_the_nearest_pixel_centre():
    samples = read(image_source(), (0.0, 0.0), (1.4, 0.6), (3.4, 1.4), (-0.4, -0.4))
    np.testing.assert_allclose(255 * samples.rgb[0, 0, :, :2], [[0, 0], [1, 1], [3, 1], [0, 0]], atol=1e-5)
    np.testing.assert_allclose(samples.depth_m[0, 1], [1, 12, 14, 1])
    assert samples.inside.all()


def test_off_the_image_nothing_is_read():
    samples = read(image_source(), (-0.6, 0.0), (3.6, 1.0), (1.0, 2.6), (1.0, -9e8), (1.0, 1.0))
    assert samples.inside[0, 0].tolist() == [False, False, False, False, True]
    for name in ("rgb", "normal_cam", "depth_m", "mask"):
        assert (getattr(samples, name)[0, :, :4] == 0).all(), name
    for name in ("has_depth", "has_normal", "has_mask"):
        assert not getattr(samples, name)[0, :, :4].any(), name


def test_missing_depth_normals_and_masks_are_flagged_and_masks_belong_to_their_object():
    samples = read(image_source(), (1.0, 1.0), (3.0, 2.0), (0.0, 0.0))
    assert samples.has_depth[0, 0].tolist() == [True, False, True]
    assert samples.has_normal[0, 0].tolist() == [True, True, False]
    assert samples.has_mask[0].all(-1).tolist() == [True, False]
    assert samples.mask[0].tolist() == [[1, 0, 0], [0, 0, 0]]
