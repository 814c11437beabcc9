"""Pictures of rooms: enclosing rooms, shadows, textures, what is written and read back, and augmentation."""

import dataclasses
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from builders import furniture, posed_mesh, random_poses, scene_of, shape_caster, shapes
from typer.testing import CliRunner

from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.scripts.main import app
from sparc_core.synth.picture_set import PictureFolder, PictureSet, PictureSetConfig, write_picture
from sparc_core.synth.pictures import PictureConfig, PictureRenderer, _Draw
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.render import SceneRenderer, pixel_grid, single_scene
from sparc_core.synth.rooms import CEILING, FLOOR, enclose
from sparc_core.synth.scenes import SceneConfig, SceneSampler
from sparc_core.synth.textures import Noise, planks, scramble, tiles
from sparc_core.training.picture_batches import (
    AugmentConfig,
    PictureBatches,
    augmented,
    stack_pictures,
)

SMALL = PictureSetConfig(pictures=PictureConfig(160, 120))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def enclosed(batch=16, seed=0):
    sampler = SceneSampler(CadTensors.from_library(furniture()), SceneConfig(free_share=0.0))
    scene = sampler.sample(batch, generator(seed))
    return scene, enclose(scene, generator(seed))


def test_rooms_hold_camera_and_objects_and_have_right_angles():
    before, room = enclosed(64)
    assert room.plane_normal.shape == (64, 6, 3) and (room.plane_offset < 0).all()  # the camera is inside
    torch.testing.assert_close(room.plane_offset[:, FLOOR], before.plane_offset[:, 0])
    torch.testing.assert_close(room.plane_normal[:, FLOOR], before.plane_normal[:, 0], atol=1e-5, rtol=0)
    angles = room.plane_normal @ room.plane_normal.transpose(1, 2)
    assert torch.minimum(angles.abs(), (angles.abs() - 1).abs()).max() < 1e-5
    assert (room.plane_normal.sum(1).norm(dim=-1) < 1e-5).all()  # in opposite pairs
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    points = room.pose.transform(corners.expand(*room.model.shape, 8, 3))
    inside = torch.einsum("bpi,boki->bokp", room.plane_normal, points) - room.plane_offset[:, None, None]
    assert inside[room.present][..., 1:].min() > 0 and inside[room.present].min() > -1e-3  # on the floor


def test_every_ray_in_a_room_meets_something():
    _, room = enclosed(4)
    hits = RayCaster(furniture()).cast(room, pixel_grid(32, 24).expand(4, -1, -1) * 20)
    assert (hits.slot >= 0).all() and (hits.depth_m > 0).all()


def test_shadows_fall_where_trimesh_says_the_way_is_barred():
    pose = random_poses(2, seed=3, dtype=torch.float32)
    scene = scene_of([0, 3], pose)
    rng = np.random.default_rng(0)
    start, end = rng.uniform([-3, -3, 0], [3, 3, 6], (2, 400, 3)).astype(np.float32)
    meshes = [posed_mesh(shapes().models[m], *(x[i] for x in (pose.R, pose.T, pose.S)))
              for i, m in enumerate((0, 3))]  # fmt: skip
    way = end - start
    expected = np.zeros(400, bool)
    for mesh in meshes:
        where, ray, _ = mesh.ray.intersects_location(start, way, multiple_hits=True)
        along = ((where - start[ray]) * way[ray]).sum(1) / (way[ray] ** 2).sum(1)
        expected[ray[(along > 0) & (along < 1)]] = True
    found = shape_caster().blocked(scene, torch.from_numpy(start)[None], torch.from_numpy(end)[None])[0]
    assert 20 < expected.sum() < 380
    assert (found.numpy() == expected).mean() > 0.995  # a ray along an edge may differ
    absent = dataclasses.replace(scene, present=torch.zeros_like(scene.present))
    assert not shape_caster().blocked(absent, *(torch.from_numpy(x)[None] for x in (start, end))).any()


def test_noise_is_smooth_repeats_and_fills_its_range():
    noise = Noise(generator())
    points = 40 * torch.rand(5000, 3, generator=generator(1))
    values = noise(points)
    assert 0 <= values.min() < 0.1 and 0.9 < values.max() <= 1
    torch.testing.assert_close(noise(points + 32), values, atol=2e-4, rtol=0)
    assert (noise(points + 0.01) - values).abs().max() < 0.05
    assert torch.equal(Noise(generator())(points), values) and not torch.equal(
        Noise(generator(1))(points), values
    )


def test_planks_and_tiles_have_joints_where_they_should():
    x = torch.arange(0, 2, 0.0005)
    across = torch.stack((torch.full_like(x, 0.3), x), -1)
    dark = planks(across, 0.1, 1.0, Noise(generator())) < 0.75
    edges = (dark[1:] & ~dark[:-1]).sum()
    assert 18 <= edges <= 24  # a joint every 10 cm, perhaps one along the line
    _, joint = tiles(across, 0.25, 0.01, Noise(generator()))
    np.testing.assert_allclose(joint.float().mean(), 0.01 / 0.25, atol=0.01)
    values = scramble(torch.arange(2000.0), torch.zeros(2000))
    assert 0 <= values.min() and values.max() < 1 and abs(float(values.mean()) - 0.5) < 0.03


def test_a_picture_has_the_depth_and_normals_of_its_own_camera():
    _, room = enclosed(2)
    caster = PictureSet(furniture(), SMALL).caster
    picture = PictureRenderer(caster, PictureConfig(160, 120)).take(room, 1, generator())
    fx, fy, cx, cy = (float(v) for v in picture.intrinsics)
    y, x = np.mgrid[0:120, 0:160]
    points = np.stack(((x - cx) / fx, (y - cy) / fy, np.ones_like(x)), -1) * picture.depth_m[..., None]
    # pixels of the floor lie on it, and their normals are its own
    normal, offset = room.plane_normal[1, FLOOR].numpy(), float(room.plane_offset[1, FLOOR])
    on_floor = (picture.object == -1) & ((picture.normal_cam @ normal) > 0.999)
    assert on_floor.mean() > 0.05
    np.testing.assert_allclose(points[on_floor] @ normal, offset, atol=1e-3)
    assert picture.rgb.shape == (120, 160, 3) and picture.rgb.dtype == np.uint8
    assert (picture.object < room.model.shape[1]).all() and (picture.object >= 0).any()
    again = PictureRenderer(caster, PictureConfig(160, 120)).take(room, 1, generator())
    np.testing.assert_array_equal(again.rgb, picture.rgb)
    other = PictureRenderer(caster, PictureConfig(160, 120)).take(room, 1, generator(1))
    assert (other.rgb != picture.rgb).mean() > 0.5
    np.testing.assert_array_equal(other.depth_m, picture.depth_m)


def test_plain_pictures_are_those_of_the_scene_renderer():
    sampler = SceneSampler(CadTensors.from_library(furniture()), SceneConfig(width_px=64, height_px=48))
    scene = sampler.sample(1, generator())
    caster = PictureSet(furniture(), SMALL).caster
    picture = PictureRenderer(caster, PictureConfig(64, 48)).take(scene, 0, generator(), plain=True)
    np.testing.assert_array_equal(picture.rgb, SceneRenderer(caster).render(scene).rgb)


def test_lamps_hang_below_the_ceiling_inside_the_room():
    _, room = enclosed(1, seed=4)
    renderer = PictureRenderer(shape_caster())
    draw = _Draw(generator())
    for _ in range(30):
        lamp = renderer._lamp(single_scene(room, 0), draw)
        distance = room.plane_normal[0] @ lamp - room.plane_offset[0]
        assert (distance > 0).all() and 0.09 < distance[CEILING] < 0.71


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Six pictures on disk, and what was drawn."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures = PictureSet(furniture(), SMALL, seed=1)
    drawn = [pictures.draw(i) for i in range(6)]
    lines = [write_picture(folder, i, *drawn[i]) for i in range(6)]
    (folder / "pictures.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    return folder, drawn


def test_pictures_come_back_as_they_were_written(written):
    folder, drawn = written
    stored = PictureFolder(folder)
    assert len(stored) == 6
    for i in (0, 5):
        picture, objects = drawn[i]
        found = stored.read(i)
        np.testing.assert_allclose(found.depth_m, picture.depth_m, atol=6e-4)
        np.testing.assert_allclose(found.normal_cam, picture.normal_cam, atol=0.005)
        np.testing.assert_array_equal(found.object, picture.object + 1)
        assert np.abs(found.rgb.astype(int) - picture.rgb).mean() < 4
        np.testing.assert_allclose(found.intrinsics, picture.intrinsics, atol=1e-3)
        assert [o.model_id for o in found.objects] == [o.model_id for o in objects]
        for item in found.objects:
            rows, columns = np.nonzero(found.object == item.number + 1)
            expected = (columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5)
            assert tuple(item.box_xyxy) == expected
            assert item.visible >= SMALL.min_visible
    assert stored.read(2, ()).depth_m is None
    (folder / "000003_depth.png").rename(folder / "gone.png")
    with pytest.raises(ValueError, match=r"000003_depth.png: missing"):
        stored.read(3)
    (folder / "gone.png").rename(folder / "000003_depth.png")


def test_furniture_meant_as_clutter_is_to_be_found_too(written):
    _, drawn = written
    numbers = {o.number for _, objects in drawn for o in objects}
    assert max(numbers) >= SMALL.scenes.objects
    for picture, objects in drawn:  # what fills much of the picture is labelled, whatever slot it has
        seen, pixels = np.unique(picture.object[picture.object >= 0], return_counts=True)
        assert {o.number for o in objects} >= set(seen[pixels > 0.1 * picture.object.size].tolist())


def test_an_objects_pose_puts_it_onto_its_pixels(written):
    folder, _ = written
    stored, hit = PictureFolder(folder), []
    for i in range(6):
        picture = stored.read(i)
        fx, fy, cx, cy = picture.intrinsics
        for item in picture.objects:
            model = next(m for m in furniture().models if m.model_id == item.model_id)
            pose = Pose(*(torch.tensor(x, dtype=torch.float32) for x in (item.R, item.T_m, item.S_m)))
            points = pose.transform(torch.from_numpy(model.points)).numpy()
            points = points[points[:, 2] > 0.1]
            u = np.rint(points[:, 0] / points[:, 2] * fx + cx).astype(int)
            v = np.rint(points[:, 1] / points[:, 2] * fy + cy).astype(int)
            inside = (u >= 0) & (u < 160) & (v >= 0) & (v < 120)
            own = picture.object[v[inside], u[inside]] == item.number + 1
            front = np.abs(picture.depth_m[v[inside], u[inside]] - points[inside, 2]) < 0.03
            hit.append(own[front].mean())
    assert np.median(hit) > 0.9


def test_mirrored_and_cropped_pictures_keep_their_geometry(written):
    folder, _ = written
    picture = PictureFolder(folder).read(0)
    for config in (AugmentConfig(mirror=1, crop=0), AugmentConfig(mirror=0, crop=1, smallest=0.6)):
        changed = augmented(picture, config, np.random.default_rng(0))
        fx, fy, cx, cy = changed.intrinsics
        y, x = np.mgrid[0:120, 0:160]
        points = np.stack(((x - cx) / fx, (y - cy) / fy, np.ones_like(x)), -1) * changed.depth_m[..., None]
        # neighbouring points of a surface lie in the plane that the normal says
        step = points[:, 1:] - points[:, :-1]
        off = np.abs((step * changed.normal_cam[:, :-1]).sum(-1)) / np.maximum(
            np.linalg.norm(step, axis=-1), 1e-6
        )
        assert np.median(off[step[..., 2] != 0]) < 0.12
        assert set(np.unique(changed.object)) <= set(np.unique(picture.object))
    mirrored = augmented(picture, AugmentConfig(mirror=1, crop=0, colour=0, grey=0), np.random.default_rng(0))
    np.testing.assert_array_equal(mirrored.rgb, picture.rgb[:, ::-1])


def test_the_pose_of_an_object_in_a_mirror_puts_its_mirrored_model_onto_the_mirrored_points(written):
    folder, _ = written
    picture = PictureFolder(folder).read(0)
    mirrored = augmented(picture, AugmentConfig(mirror=1, crop=0), np.random.default_rng(0))
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (50, 3))
    for before, after in zip(picture.objects, mirrored.objects, strict=True):
        there = points * before.S_m @ np.array(before.R).T + before.T_m
        model = points * [-1, 1, 1]
        found = model * after.S_m @ np.array(after.R).T + after.T_m
        np.testing.assert_allclose(found, there * [-1, 1, 1], atol=1e-4)
        assert np.linalg.det(after.R) == pytest.approx(1, abs=1e-3)


def test_batches_tell_which_pixels_are_labelled(written):
    folder, _ = written
    picture = PictureFolder(folder).read(0)
    hidden = replace(picture, objects=picture.objects[1:])  # the first is not to be found
    for shown in (picture, hidden):
        found = stack_pictures([shown]).labelled[0].numpy()
        assert found[shown.object == 0].all()
        for item in picture.objects:
            assert (found[shown.object == item.number + 1] == (item in shown.objects)).all()


def test_pictures_of_an_older_version_are_refused(written, tmp_path):
    folder, _ = written
    lines = [json.loads(line) for line in (folder / "pictures.jsonl").read_text().splitlines()]
    del lines[1]["objects"][0]["symmetry"]
    (tmp_path / "pictures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="pictures.jsonl: written by an older version; write the pictures"):
        PictureFolder(tmp_path)


def test_gravity_is_mirrored_turned_a_little_or_left_out(written):
    folder, _ = written
    picture = PictureFolder(folder).read(0)
    rng = np.random.default_rng(0)

    def told(**changes):
        return augmented(
            picture, AugmentConfig(**{"no_gravity": 0, "gravity_off_deg": 0, **changes}), rng
        ).up_cam

    np.testing.assert_allclose(told(mirror=0), picture.up_cam)
    np.testing.assert_allclose(told(mirror=1), picture.up_cam * [-1, 1, 1])
    assert not told(no_gravity=1).any()
    turned = np.array([told(mirror=0, gravity_off_deg=2.0) for _ in range(400)])
    off = np.degrees(np.linalg.norm(np.cross(turned, picture.up_cam), axis=-1))
    # two of the three turns, those across the direction, move it: a Rayleigh distribution
    assert np.mean(off) == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.1)


def test_pictures_are_scaled_with_their_intrinsics(written):
    folder, _ = written
    pictures = PictureFolder(folder)
    small = PictureBatches(pictures, 2, None, 0, (80, 60)).collect([0, 1])
    assert (
        small.rgb.shape == (2, 3, 60, 80) and small.depth_m.shape == (2, 60, 80) and len(small.objects) == 2
    )
    picture = pictures.read(1)
    fx, fy, cx, cy = picture.intrinsics
    np.testing.assert_allclose(
        small.intrinsics[1], [fx / 2, fy / 2, (cx - 0.5) / 2, (cy - 0.5) / 2], rtol=1e-5
    )
    np.testing.assert_array_equal(small.depth_m[1], picture.depth_m[::2, ::2])
    mean = picture.rgb.reshape(60, 2, 80, 2, 3).mean((1, 3))
    np.testing.assert_allclose(small.rgb[1].permute(1, 2, 0) * 255, mean, atol=0.51)
    up = [pictures.read(i).up_cam for i in (0, 1)]
    np.testing.assert_allclose(small.up_cam, up, rtol=1e-6)


def test_batches_follow_the_generator_and_their_boxes_fit_their_masks(written):
    folder, _ = written
    batches = PictureBatches(PictureFolder(folder), 3, AugmentConfig())
    one, same, other = (batches.draw(generator(s)) for s in (1, 1, 2))
    assert torch.equal(one.rgb, same.rgb) and torch.equal(one.depth_m, same.depth_m)
    assert not torch.equal(one.rgb, other.rgb)
    assert one.rgb.shape == (3, 3, 120, 160) and one.normal.shape == (3, 3, 120, 160)
    for objects in one.objects:
        for box, mask in zip(objects["boxes"], objects["masks"], strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert ((objects["labels"] >= 1) & (objects["labels"] <= 9)).all()
    empty = dataclasses.replace(PictureFolder(folder).read(0), objects=())
    assert stack_pictures([empty]).objects[0]["boxes"].shape == (0, 4)


def test_the_command_renders_what_is_missing_and_names_what_is_wrong(tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text("pictures: {width_px: 64, height_px: 48}\n")
    arguments = ["train-perception", "pictures", "--out", str(tmp_path / "p"), "--config", str(config),
                 "--cad-library", "procedural:0-0", "--jobs", "1"]  # fmt: skip
    for count, new in ((2, 2), (3, 1)):
        result = CliRunner().invoke(app, [*arguments, "--count", str(count)])
        assert result.exit_code == 0, result.output
        assert f"{count} pictures in {tmp_path / 'p'}, {new} of them new" in result.output.replace("\n", " ")
    assert [json.loads(x)["number"] for x in (tmp_path / "p/pictures.jsonl").read_text().splitlines()]
    assert cv2.imread(str(tmp_path / "p/000002.jpg")).shape == (48, 64, 3)
    result = CliRunner().invoke(app, [*arguments[:-4], "--cad-library", "procedural:x"])
    assert result.exit_code == 2 and "procedural:x" in result.output
    with pytest.raises(ValueError, match="pictures.jsonl: no such file"):
        PictureFolder(tmp_path)
