"""Token assembly: both layouts channel by channel, and what the object-frame channels promise."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import random_poses, scene_of, shape_caster, shape_tensors
from scipy.spatial import cKDTree
from token_inputs import (
    BOXES,
    CAD,
    INTRINSICS,
    assemble,
    frame_for,
    random_inputs,
    samples_at,
    unit,
)

from sparc_core.cad.tensors import CadPoints
from sparc_core.geometry.camera import project
from sparc_core.geometry.pose import Pose
from sparc_core.inputs.assemble import (
    CUBE_LIMIT,
    DEPTH_UNIT_M,
    GROUPS,
    OBJECT_LIMIT,
    InputConfig,
    assemble_tokens,
)
from sparc_core.perception.samples import CadSamples, PixelSamples

# where the groups of channels of the object layout are
CAMERA, LIFTED, CUBE, OFFSET, CLOSEST_NORMAL, DISTANCE, NORMAL, AGREEMENT, PAIR, PAIR_VIEW, PAIRED, IN_BOX = (
    slice(0, 13), slice(13, 16), slice(16, 19), slice(19, 22), slice(22, 25), slice(25, 27), slice(27, 30),
    slice(30, 31), slice(31, 40), slice(40, 42), slice(42, 43), slice(43, 45),
)  # fmt: skip
HINTS = slice(45, 47)


@pytest.mark.parametrize("layout", ["object", "paper"])
@pytest.mark.parametrize("objects", [1, 3])
def test_sizes_are_those_the_config_announces(layout, objects):
    config = InputConfig(layout, BOXES, CAD)
    tokens = assemble(layout, random_inputs(objects))
    count = BOXES + (2 if layout == "paper" else 1) * CAD
    assert tokens.features.shape == (1, objects, count, config.token_channels)
    assert tokens.valid.shape == (1, objects, count)
    assert (0 if tokens.context is None else tokens.context.shape[-1]) == config.context_channels
    assert torch.isfinite(tokens.features).all()


def test_the_papers_thirteen_channels_in_the_order_stated():
    inputs = random_inputs(objects=2)
    _, pose, boxes, reprojected, _, cad = inputs
    tokens = assemble("paper", inputs)
    assert InputConfig("paper").token_channels == 13 and tokens.context is None
    for group, samples in (
        (tokens.features[:, :, :BOXES], boxes),
        (tokens.features[:, :, BOXES:-CAD], reprojected),
    ):
        np.testing.assert_array_equal(group[..., 0:3], samples.rgb)
        np.testing.assert_array_equal(group[..., 3:6], samples.normal_cam)
        np.testing.assert_allclose(group[..., 6], samples.depth_m / DEPTH_UNIT_M, rtol=1e-6)
        np.testing.assert_array_equal(group[..., 7], samples.mask)
        x, y = (samples.uv_px[..., 0] - 320) / 500, (samples.uv_px[..., 1] - 240) / 480
        np.testing.assert_allclose(
            group[..., 8:11], unit(torch.stack((x, y, torch.ones_like(x)), -1)), atol=1e-6
        )
    own = tokens.features[:, :, -CAD:]
    points = pose.transform(cad.reprojected.points)
    np.testing.assert_array_equal(own[..., [0, 1, 2, 7]], 0)
    np.testing.assert_allclose(own[..., 3:6], pose.transform_normals(cad.reprojected.normals), atol=1e-6)
    np.testing.assert_allclose(own[..., 6], points[..., 2] / DEPTH_UNIT_M, rtol=1e-5)
    np.testing.assert_allclose(own[..., 8:11], unit(points), atol=1e-6)
    tau = [0] * BOXES + [1] * CAD + [2] * CAD
    assert tokens.features[0, 0, :, 11].tolist() == tau and tokens.features[0, 1, :, 11].tolist() == tau
    assert tokens.features[0, :, :, 12].tolist() == [[0] * len(tau), [1] * len(tau)]


def test_the_object_layout_keeps_the_camera_channels_and_says_what_is_missing():
    frame, pose, boxes, reprojected, in_front, cad = random_inputs()
    none = torch.zeros_like(boxes.depth_m, dtype=torch.bool)
    boxes = dataclasses.replace(boxes, has_depth=none, has_mask=none)
    inputs = (frame, pose, boxes, reprojected, in_front, cad)
    object_frame, paper = assemble("object", inputs).features, assemble("paper", inputs).features
    np.testing.assert_array_equal(object_frame[..., :11], paper[:, :, :-CAD, :11])
    for flag in (11, 12):
        assert object_frame[0, 0, :, flag].tolist() == [0] * BOXES + [1] * CAD
    assert object_frame[0, 1, :, PAIRED][:, 0].tolist() == [0] * BOXES + [1] * CAD


def test_reprojected_pixels_carry_their_cad_point_its_normal_depth_and_view():
    inputs = random_inputs()
    _, pose, _, _, _, cad = inputs
    features, cad = assemble("object", inputs).features, cad.reprojected
    metric = cad.points * pose.S[:, :, None] / pose.S.square().mean(-1).sqrt()[..., None, None]
    pair = torch.cat((metric, cad.points, pose.normals_in_object_axes(cad.normals)), -1)
    points_cam = pose.transform(cad.points)
    cosine = (pose.transform_normals(cad.normals) * unit(points_cam)).sum(-1, keepdim=True)
    view = torch.cat((points_cam[..., 2:] / DEPTH_UNIT_M, cosine), -1)
    np.testing.assert_allclose(features[:, :, BOXES:, PAIR], pair, atol=1e-6)
    np.testing.assert_allclose(features[:, :, BOXES:, PAIR_VIEW], view, atol=1e-5)
    assert (features[:, :, :BOXES, PAIR.start : PAIR_VIEW.stop] == 0).all()


def test_lifted_pixels_carry_the_closest_point_of_the_cad_surface():
    inputs = random_inputs(seed=5)
    frame, pose, boxes, _, _, cad = inputs
    pose = Pose(pose.R, pose.T, pose.S * 3)  # large objects, so that nothing is clamped
    inputs = (frame, pose, *inputs[2:])
    features = assemble("object", inputs).features
    x = (boxes.uv_px - INTRINSICS[0, 2:]) / INTRINSICS[0, :2] * boxes.depth_m[..., None]
    points = torch.cat((x, boxes.depth_m[..., None]), -1).double().numpy()
    for n in range(2):
        R, T, S = (getattr(pose, name)[0, n].double().numpy() for name in ("R", "T", "S"))
        size = np.sqrt((S**2).mean())
        tree = cKDTree(cad.surface.points[0, n].double().numpy() * S)
        own = (points[0, n] - T) @ R
        _, index = tree.query(own)
        offset = (tree.data[index] - own) / size
        normal = pose.normals_in_object_axes(cad.surface.normals)[0, n].numpy()[index]
        found = features[0, n, :BOXES].numpy()
        np.testing.assert_allclose(found[:, OFFSET], offset, atol=1e-4)
        np.testing.assert_allclose(found[:, CLOSEST_NORMAL], normal, atol=1e-5)
        np.testing.assert_allclose(found[:, 25], np.linalg.norm(offset, axis=1), atol=1e-4)
        np.testing.assert_allclose(found[:, 26], (offset * normal).sum(1), atol=1e-4)
        cosine = ((boxes.normal_cam[0, n].numpy() @ R) * normal).sum(1)
        np.testing.assert_allclose(found[:, AGREEMENT][:, 0], cosine, atol=1e-4)


def test_groups_of_channels_can_be_left_out():
    inputs = random_inputs()
    every = assemble("object", inputs)
    where = {
        "camera": [CAMERA], "mean extents": [LIFTED], "unit cube": [CUBE], "place in box": [IN_BOX],
        "closest point": [OFFSET, CLOSEST_NORMAL, DISTANCE],
        "object normal": [NORMAL, AGREEMENT], "CAD point": [PAIR, PAIR_VIEW],
    }  # fmt: skip
    assert {*where, "hints"} == set(GROUPS)
    told = assemble_tokens(InputConfig("object", BOXES, CAD, hints=True), *inputs)
    assert torch.equal(told.features[..., :45], every.features)
    where["hints"] = [HINTS]
    for name, parts in where.items():
        config = InputConfig("object", BOXES, CAD, hints=True, left_out=(name,))
        tokens, every = assemble_tokens(config, *inputs), told
        out = torch.zeros(47, dtype=torch.bool)
        for part in parts:
            out[part] = True
        assert (tokens.features[..., out] == 0).all(), name
        assert torch.equal(tokens.features[..., ~out], every.features[..., ~out]), name
        assert torch.equal(tokens.context, every.context)
    blind = assemble_tokens(InputConfig("object", BOXES, CAD, hints=True, left_out=("context",)), *inputs)
    assert (blind.context == 0).all() and torch.equal(blind.features, every.features)
    for layout, name in (("paper", "unit cube"), ("object", "colours")):
        with pytest.raises(ValueError, match=f"the {layout} layout has no group '{name}'"):
            InputConfig(layout, left_out=(name,))


def test_hints_are_those_of_the_pixels():
    inputs = random_inputs(seed=5)
    _, _, boxes, reprojected, _, _ = inputs
    config = InputConfig("object", BOXES, CAD, hints=True)
    tokens = assemble_tokens(config, *inputs)
    assert torch.equal(tokens.features[:, :, :BOXES, HINTS], boxes.hints)
    assert torch.equal(tokens.features[:, :, BOXES:, HINTS], reprojected.hints)
    assert tokens.context.shape[-1] == config.context_channels == 44
    assert (tokens.context[..., 26:] == 0).all()  # nothing was predicted


def test_place_in_the_box_runs_from_minus_one_to_one():
    frame, pose, boxes, reprojected, in_front, cad = random_inputs()
    corners = torch.tensor([[100.0, 80], [300, 280], [200, 180], [250, 80], [0, 180], [639, 479]])
    boxes = dataclasses.replace(boxes, uv_px=corners.expand(1, 2, 6, 2))
    features = assemble("object", (frame, pose, boxes, reprojected, in_front, cad)).features
    expected = [[-1, -1], [1, 1], [0, 0], [0.5, -1], [-2, 0], [2, 2]]  # clamped at 2
    np.testing.assert_allclose(features[0, 1, :BOXES, IN_BOX], expected, atol=1e-6)


def test_with_exact_depth_and_the_true_pose_a_visible_reprojected_point_lifts_onto_itself():
    cad, caster = shape_tensors(), shape_caster()
    model = [0, 3]  # both convex, so a point is visible when its normal faces the camera
    pose = random_poses(2, seed=4, dtype=torch.float32)
    pose = Pose(pose.R, torch.tensor([[-0.8, 0.2, 3.0], [0.9, -0.1, 2.5]]), pose.S * 0.5)
    one = pose.map(lambda x: x[None])
    points, normals = cad.points[model][None, :, :200], cad.normals[model][None, :, :200]
    uv, in_front = project(one.transform(points), INTRINSICS)
    hits = caster.cast(scene_of(model, pose, intrinsics=INTRINSICS[0].tolist()), uv.flatten(1, 2))
    gen = torch.Generator().manual_seed(0)
    read = samples_at(uv, hits.depth_m.view(1, 2, 200), hits.normal_cam.view(1, 2, 200, 3), gen)
    surface = CadPoints(points, normals)
    cad_samples = CadSamples(surface, surface, one.S, torch.zeros(1, 2, dtype=torch.bool))
    tokens = assemble_tokens(
        InputConfig("object", 200, 200), frame_for(2), one, read, read, in_front, cad_samples
    )
    lifted = tokens.features[0, :, 200:]
    view = (one.transform_normals(normals) * unit(one.transform(points))).sum(-1)[0]
    facing = view < -0.1
    assert (facing.sum(-1) > 50).all()
    np.testing.assert_allclose(lifted[..., CUBE][facing], points[0][facing], atol=2e-3)
    np.testing.assert_allclose(
        lifted[..., NORMAL][facing], one.normals_in_object_axes(normals)[0][facing], atol=2e-2
    )
    assert lifted[..., OFFSET][facing].norm(dim=-1).max() < 5e-3  # it lies on the surface
    # on the far side the ray stops at the near one: the lifted point is another
    hidden = view > 0.3
    assert (lifted[..., CUBE] - points[0])[hidden].norm(dim=-1).mean() > 0.3


def test_object_frame_channels_do_not_change_when_object_and_scene_move_together():
    gen = torch.Generator().manual_seed(1)
    q = torch.rand(1, 2, BOXES, 3, generator=gen) - 0.5
    normals = unit(torch.randn(1, 2, BOXES, 3, generator=gen))
    S = torch.tensor([[[0.5, 0.9, 0.6], [1.2, 0.4, 0.7]]])
    known = torch.zeros(1, 2, dtype=torch.bool)
    few = slice(0, CAD)
    reprojected = CadPoints(q[:, :, few] * 0.9, normals[:, :, few])
    cad = CadSamples(reprojected, CadPoints(q * 0.8, normals), S, known)
    features = []
    for seed in (1, 2):
        pose = random_poses(1, 2, seed=seed, dtype=torch.float32)
        pose = Pose(pose.R, pose.T + torch.tensor([0.0, 0.0, 1.0]), S)
        points = pose.transform(q)
        uv, _ = project(points, INTRINSICS)
        samples = samples_at(
            uv, points[..., 2], normals @ pose.R.transpose(-1, -2), torch.Generator().manual_seed(2)
        )
        reprojected = PixelSamples(
            *(getattr(samples, f.name)[:, :, :CAD] for f in dataclasses.fields(samples))
        )
        inputs = (frame_for(2), pose, samples, reprojected, torch.ones(1, 2, CAD, dtype=torch.bool), cad)
        features.append(assemble("object", inputs).features)
    for channels in (slice(LIFTED.start, PAIR.stop), PAIRED):
        np.testing.assert_allclose(features[0][..., channels], features[1][..., channels], atol=1e-5)
    np.testing.assert_allclose(features[0][:, :, :BOXES, CUBE], q, atol=1e-5)
    # the camera-frame channels beside them do change
    assert (features[0][..., CAMERA] - features[1][..., CAMERA]).abs().max() > 0.1


def test_lifted_points_far_from_the_object_are_clamped_and_without_depth_zero():
    frame, pose, boxes, reprojected, in_front, cad = random_inputs()
    far = dataclasses.replace(boxes, depth_m=torch.full_like(boxes.depth_m, 90.0))
    features = assemble("object", (frame, pose, far, reprojected, in_front, cad)).features
    assert float(features[:, :, :BOXES, LIFTED].abs().max()) == OBJECT_LIMIT
    assert float(features[:, :, :BOXES, CUBE].abs().max()) == CUBE_LIMIT
    assert float(features[:, :, :BOXES, OFFSET].abs().max()) == OBJECT_LIMIT
    nothing = torch.zeros_like(boxes.depth_m)
    blind = dataclasses.replace(
        boxes, depth_m=nothing, has_depth=nothing.bool(), normal_cam=boxes.normal_cam * 0
    )
    features = assemble("object", (frame, pose, blind, reprojected, in_front, cad)).features
    assert (features[:, :, :BOXES, LIFTED.start : AGREEMENT.stop] == 0).all()


@pytest.mark.parametrize("layout", ["object", "paper"])
def test_tokens_off_the_image_or_behind_the_camera_are_invalid(layout):
    frame, pose, boxes, reprojected, in_front, cad = random_inputs()
    boxes = dataclasses.replace(boxes, inside=torch.arange(BOXES).expand(1, 2, BOXES) != 0)
    reprojected = dataclasses.replace(reprojected, inside=torch.arange(CAD).expand(1, 2, CAD) != 1)
    in_front = torch.arange(CAD).expand(1, 2, CAD) != 2
    valid = assemble(layout, (frame, pose, boxes, reprojected, in_front, cad)).valid[0, 1].tolist()
    read = [False, *[True] * (BOXES - 1), True, False, False, *[True] * (CAD - 3)]
    # the paper's CAD tokens are not read from the image: they always take part
    assert valid == read + ([True] * CAD if layout == "paper" else [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "camera"}, r"input layout must be one of \('object', 'paper'\), got 'camera'"),
        ({"n_bbox": 0}, "input n_bbox must be at least 1, got 0"),
        ({"n_surface": 0}, "input n_surface must be at least 1, got 0"),
        ({"n_cad": -1}, "input n_cad must be at least 1, got -1"),
        ({"layout": "paper", "hints": True}, "inputs hints: the paper layout has none"),
        ({"left_out": ("hints",)}, "inputs left_out: there are no hints to leave out"),
    ],
)
def test_a_config_names_the_field_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        InputConfig(**arguments)
