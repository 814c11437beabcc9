"""What a synthetic camera detects and reads: boxes, visibility, masks and channels at pixels."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import random_poses, scene_of, shape_caster, shape_tensors, shapes
from scipy.ndimage import maximum_filter, minimum_filter

from sparc_core.geometry.camera import project
from sparc_core.geometry.pose import Pose
from sparc_core.synth.corrupt import NoiseConfig, draw_noise
from sparc_core.synth.observe import SceneObserver, detect, take_slots

WALL = ((0.0, 0.0, -1.0), -6.0)
FLOOR = ((0.0, -1.0, 0.0), -1.5)
BALL, BOX = 3, 1
EXACT_MASKS = {"masks_exact": 1.0, "masks_slab": 0.0, "masks_missing": 0.0}
PERFECT = {"perfect": 1.0, "sensor": 0.0, "monocular": 0.0, "none": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def upright(*T, S=(0.8, 0.8, 0.8)):
    return Pose(torch.eye(3).expand(len(T), 3, 3), torch.tensor(T), torch.tensor([S] * len(T)))


def two_objects():
    """A ball on the left and a box on the right, before a wall, above a floor."""
    return scene_of([BALL, BOX], upright((-0.7, 0.0, 3.0), (0.7, 0.2, 3.5)), planes=[FLOOR, WALL])


def observe(scene, keep=2, seed=0, **shares):
    config = NoiseConfig(**{**PERFECT, **EXACT_MASKS, "box_jitter": 0.0, "normals_missing": 0.0, **shares})
    found = detect(shape_caster(), shape_tensors(), scene, keep, generator(seed))
    noise = draw_noise(config, 1, scene.model.shape[1], generator(seed))
    return SceneObserver(shape_caster(), scene, found, noise, config, generator(seed)), found


def slot_picture(scene):
    """(480, 640) what each pixel sees."""
    v, u = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
    uv = torch.stack((u, v), -1).reshape(1, -1, 2)
    return shape_caster().cast(scene, uv).slot.reshape(480, 640).numpy(), uv


def test_a_box_holds_the_objects_points_on_the_image_and_depth_is_that_of_its_near_side():
    rotation = random_poses(1, seed=2, dtype=torch.float32).R
    pose = Pose(rotation, torch.tensor([[0.2, -0.1, 3.0]]), torch.tensor([[0.9, 0.6, 1.2]]))
    scene = scene_of([BALL], pose, planes=[WALL])
    found = detect(shape_caster(), shape_tensors(), scene, 1, generator())
    model = shapes().models[BALL]
    cam = pose.transform(torch.from_numpy(model.points)[None, :192])
    normals = pose.transform_normals(torch.from_numpy(model.normals)[None, :192])
    uv = project(cam, scene.intrinsics)[0][0]
    np.testing.assert_allclose(found.boxes_xyxy[0, 0], torch.cat((uv.amin(0), uv.amax(0))), atol=4)
    assert float(found.visible[0, 0]) > 0.95  # nothing hides it; its far side does not count against it
    near_side = (normals * cam).sum(-1)[0] < 0
    # rays towards points of the far side end on the near side
    assert float(found.median_depth_m) == pytest.approx(float(cam[0, near_side, 2].median()), abs=0.1)
    assert float(cam[0, :, 2].median()) > float(found.median_depth_m) + 0.15


def test_boxes_fit_the_silhouettes_in_the_image():
    scene = two_objects()
    found = detect(shape_caster(), shape_tensors(), scene, 2, generator())
    assert found.valid.all() and sorted(found.slot[0].tolist()) == [0, 1]
    picture, _ = slot_picture(scene)
    for slot, box in zip(found.slot[0].tolist(), found.boxes_xyxy[0].tolist(), strict=True):
        rows, columns = np.nonzero(picture == slot)
        full = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        # 192 points do not reach the very edge
        assert (np.abs(box - full) < 0.1 * (full[2] - full[0])).all()
        assert (np.array(box)[:2] > full[:2] - 1).all() and (np.array(box)[2:] < full[2:] + 1).all()


def test_hidden_absent_small_and_outside_objects_are_not_detected():
    big, small = (1.0, 1.0, 1.0), (0.3, 0.3, 0.3)
    pose = Pose(
        torch.eye(3).expand(6, 3, 3),
        torch.tensor([[0, 0, 2.0], [0, 0, 4.0], [-1.3, 0, 3], [1.3, 0, 3], [0, 0, -3], [30.0, 0, 3]]),
        torch.tensor([big, small, small, (0.05, 0.05, 0.05), big, big]),
    )
    present = [True, True, False, True, True, True]
    scene = scene_of([BOX] * 6, pose, present=present, planes=[WALL])
    found = detect(shape_caster(), shape_tensors(), scene, 6, generator())
    # 0 hides 1, 2 is absent, 3 is 8 pixels wide, 4 behind the camera, 5 off the image
    assert found.slot[0, found.valid[0]].tolist() == [0]
    assert torch.isfinite(found.boxes_xyxy).all() and torch.isfinite(found.median_depth_m).all()


def test_a_half_hidden_object_is_boxed_where_it_is_seen():
    pose = upright((0.0, 0.0, 4.0), (0.5, 0.0, 2.5))
    pose = Pose(pose.R, pose.T, torch.tensor([[1.0, 1.0, 0.2], [0.6, 3.0, 0.2]]))
    found = detect(shape_caster(), shape_tensors(), scene_of([BOX, BOX], pose), 2, generator())
    own = found.slot[0] == 0
    box = found.boxes_xyxy[0, own][0]
    edge = 319.5 + 500 * 0.2 / 2.4  # the nearer box begins at x = 0.2, z = 2.4
    assert float(box[2]) == pytest.approx(edge, abs=12) and float(box[2]) < edge
    assert float(box[0]) == pytest.approx(319.5 - 500 * 0.5 / 3.9, abs=6)
    points = pose.map(lambda x: x[:1]).transform(torch.from_numpy(shapes().models[BOX].points)[None, :192])[0]
    share = (319.5 + 500 * points[:, 0] / points[:, 2] < edge).float().mean()
    assert float(found.visible[0, own]) == pytest.approx(float(share), abs=0.02) and 0.5 < share < 0.95
    pickier = detect(
        shape_caster(),
        shape_tensors(),
        scene_of([BOX, BOX], pose),
        2,
        generator(),
        min_visible=float(share) + 0.03,
    )
    assert found.valid[0, own].all() and not pickier.valid[0, pickier.slot[0] == 0].any()


def test_only_the_first_slots_are_detected_the_others_are_clutter():
    scene = dataclasses.replace(two_objects(), objects=1)
    found = detect(shape_caster(), shape_tensors(), scene, 1, generator())
    assert found.slot.tolist() == [[0]]


def test_take_slots_picks_the_poses_of_the_detections():
    pose = random_poses(2, 3)
    slot = torch.tensor([[2, 0], [1, 1]])
    taken = take_slots(pose, slot)
    assert torch.equal(taken.T[0, 0], pose.T[0, 2]) and torch.equal(taken.R[1, 1], pose.R[1, 1])


def test_exact_masks_are_the_objects_own_pixels_away_from_edges():
    scene = two_objects()
    observer, found = observe(scene, perfect=0.0, sensor=1.0)
    picture, uv = slot_picture(scene)
    samples = observer.sample(uv[:, None].expand(1, 2, -1, 2))
    assert samples.has_mask.all()
    for n, slot in enumerate(found.slot[0].tolist()):
        own = picture == slot
        mask = samples.mask[0, n].reshape(480, 640).numpy() > 0.5
        # away from edges: the same object 8 pixels to all sides
        surely, surely_not = minimum_filter(own, 17), ~maximum_filter(own, 17)
        assert surely.sum() > 1000 and surely_not.sum() > 1000
        assert mask[surely].all()
        assert not mask[surely_not].any()
        assert 0 < (mask != own).mean() < 0.05  # ragged at the border, and only there


def test_masks_cut_from_depth_hold_the_object_but_not_the_wall_behind_nor_the_floor_below():
    # the ball stands on the floor, the corners of its box look past it
    scene = scene_of([BALL], upright((0.0, 0.0, 3.0)), planes=[((0.0, -1.0, 0.0), -0.4), WALL])
    observer, _ = observe(scene, keep=1, masks_exact=0.0, masks_slab=1.0)
    x0, y0, x1, y1 = observer.frame.boxes_xyxy[0, 0].tolist()
    uv = torch.tensor(
        [[(x0 + x1) / 2, (y0 + y1) / 2], [x0 + 1, y0 + 1], [x1 - 1, y1 - 1], [(x0 + x1) / 2, y0 - 30]]
    )
    samples = observer.sample(uv[None, None])
    hits = shape_caster().cast(scene, uv[None])
    assert hits.slot[0].tolist() == [0, 2, 1, 2]  # ball, wall, floor, wall
    assert abs(float(hits.depth_m[0, 2]) - 3) < 0.4  # the floor is no farther away than the ball
    assert samples.has_mask.all()
    assert samples.mask[0, 0].tolist() == [1, 0, 0, 0]


def test_some_masks_cut_from_depth_go_astray():
    scene = scene_of([BALL], upright((0.0, 0.0, 3.0)), planes=[((0.0, -1.0, 0.0), -0.4), WALL])
    held = {}
    for astray in (0.0, 1.0):
        held[astray] = 0.0
        for seed in range(12):
            masks = {"masks_exact": 0.0, "masks_slab": 1.0, "masks_astray": astray}
            observer, _ = observe(scene, keep=1, seed=seed, **masks)
            middle = observer.frame.boxes_xyxy[0, :, :2] / 2 + observer.frame.boxes_xyxy[0, :, 2:] / 2
            held[astray] += float(observer.sample(middle[None, :, None]).mask) / 12
    assert held[0.0] == 1 and 0.1 < held[1.0] < 0.9


def test_missing_masks_and_masks_from_missing_depth_are_flagged():
    uv = torch.tensor([200.0, 240.0]).expand(1, 2, 1, 2)
    missing = observe(two_objects(), masks_exact=0.0, masks_missing=1.0)[0].sample(uv)
    assert not missing.has_mask.any() and (missing.mask == 0).all()
    blind = observe(two_objects(), perfect=0.0, none=1.0, masks_exact=0.0, masks_slab=1.0)[0].sample(uv)
    assert not blind.has_mask.any() and not blind.has_depth.any() and not blind.has_normal.any()
    assert (blind.depth_m == 0).all() and (blind.normal_cam == 0).all()
    seen = observe(two_objects(), perfect=0.0, none=1.0)[0].sample(uv)
    assert seen.has_mask.all()  # a predicted mask needs no depth


def test_perfect_channels_are_what_the_rays_hit():
    scene = two_objects()
    observer, _ = observe(scene)
    uv = torch.rand(1, 2, 300, 2, generator=generator(3)) * torch.tensor([639.0, 479.0])
    samples = observer.sample(uv)
    hits = shape_caster().cast(scene, uv.flatten(1, 2))
    assert torch.equal(samples.depth_m, hits.depth_m.view(1, 2, 300))
    assert samples.has_depth.all() and samples.inside.all()
    np.testing.assert_allclose(samples.normal_cam.norm(dim=-1), samples.has_normal.float(), atol=1e-5)
    np.testing.assert_allclose(samples.normal_cam, hits.normal_cam.view(1, 2, 300, 3), atol=1e-5)
    assert samples.has_normal.all() and samples.rgb.min() >= 0 and samples.rgb.max() <= 1


def test_colours_are_lit_from_one_side_and_differ_from_image_to_image_in_tint():
    scene = two_objects()
    uv = torch.tensor([[100.0, 60.0], [320.0, 450.0]]).repeat_interleave(200, 0).expand(1, 2, 400, 2)
    tints = []
    for seed in range(8):
        observer, _ = observe(scene, seed=seed)
        wall, floor = observer.sample(uv).rgb[0, 0].view(2, 200, 3).mean(1)
        light = observer.lighting
        assert light.direction[0] @ torch.tensor([0.0, 0.0, -1.0]) > -1
        normals = torch.tensor([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0]])
        brightness = light.ambient[0] + (1.05 - light.ambient[0]) * (normals @ light.direction[0]).clamp(
            min=0
        )
        expected = (0.55 + 0.35 * 0.5) * light.tint[0] * brightness.T
        np.testing.assert_allclose(torch.stack((wall, floor)), expected.clamp(0, 1), atol=0.02)
        tints.append(light.tint[0, 0])
    assert (torch.stack(tints).std(0) > 0.05).all()


def test_images_without_normals_keep_their_depth():
    uv = torch.tensor([200.0, 240.0]).expand(1, 2, 4, 2)
    samples = observe(two_objects(), normals_missing=1.0)[0].sample(uv)
    assert samples.has_depth.all() and not samples.has_normal.any() and (samples.normal_cam == 0).all()


def test_off_the_image_everything_is_zero_and_flagged():
    uv = torch.tensor([[-0.6, 10.0], [640.0, 10.0], [10.0, 479.6], [-0.4, -0.4], [639.4, 479.4]])
    samples = observe(two_objects())[0].sample(uv.expand(1, 2, 5, 2))
    assert samples.inside[0, 1].tolist() == [False, False, False, True, True]
    for name in ("rgb", "normal_cam", "depth_m", "mask"):
        assert (getattr(samples, name)[0, :, :3] == 0).all(), name
    for name in ("has_depth", "has_normal", "has_mask"):
        assert not getattr(samples, name)[0, :, :3].any(), name


def test_boxes_are_jittered_and_gravity_is_a_little_off():
    observer, found = observe(two_objects(), box_jitter=0.05)
    size = found.boxes_xyxy[..., 2:] - found.boxes_xyxy[..., :2]
    shift = (observer.frame.boxes_xyxy - found.boxes_xyxy).abs()
    assert (shift <= 0.0501 * torch.cat((size, size), -1)).all() and shift.max() > 0.5
    up = observer.frame.up_cam[0]
    assert float(up.norm()) == pytest.approx(1, abs=1e-5)
    assert 0 < float(torch.rad2deg(torch.acos(-up[1]))) < 6


def test_the_same_generator_reads_the_same():
    uv = torch.rand(1, 2, 50, 2, generator=generator(3)) * torch.tensor([639.0, 479.0])
    one, same, other = (
        observe(two_objects(), seed=s, perfect=0.0, sensor=1.0)[0].sample(uv) for s in (1, 1, 2)
    )
    assert torch.equal(one.depth_m, same.depth_m) and torch.equal(one.rgb, same.rgb)
    assert not torch.equal(one.depth_m, other.depth_m)
