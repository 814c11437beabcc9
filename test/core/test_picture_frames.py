"""Pictures as training frames: truths, what the depth network makes of them, batches in turn, the command."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import box_estimate, furniture, write_pictures
from typer.testing import CliRunner

from sparc_core.config import from_dict, load_yaml
from sparc_core.geometry.boxes import box_iou
from sparc_core.geometry.floor import floor_factor
from sparc_core.perception.depth_net import DepthNet, DepthNetConfig, OurDepthNormals
from sparc_core.perception.interfaces import DepthPrediction
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.perception.see import Perception
from sparc_core.pipeline import SHIPPED_WEIGHTS
from sparc_core.refine.model import load_network
from sparc_core.scripts.main import app
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.training import frame_store
from sparc_core.training.frame_data import FrameData, FrameDataConfig
from sparc_core.training.frame_store import MOVES, NORMAL_STEPS, BoxViews, FrameStore
from sparc_core.training.picture_frames import (
    MixedData,
    PictureImages,
    PictureTuneConfig,
    picture_frames,
)
from sparc_core.types import CATEGORIES, ESTIMATE_NUMBERS

EXAMPLE = Path(__file__).resolve().parents[2] / "config/training/finetune_pictures.yaml"
EXACT = FrameDataConfig(
    detections=3, box_jitter=0.0, masks_own=1.0, masks_cut=0.0, masks_missing=0.0, normals_missing=0.0,
    known_gravity=1.0, known_height=0.0, similar_model=0.0, unknown_extents=0.0, known_extents=0.0, threads=1,
)  # fmt: skip
SIZES = dict.fromkeys(CATEGORIES, 1.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four small pictures of the test furniture."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 4, 96, 64)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Weights of a small depth network."""
    path = tmp_path_factory.mktemp("depth") / "depth.safetensors"
    torch.manual_seed(0)
    config = DepthNetConfig(96, 64, (8, 8, 8))
    save_predictor(path, DepthNet(config).state_dict(), config)
    return path


def store_of(folder, out, network=None, estimates=None, box_jitter=0.0):
    perception = None if network is None else Perception(depth=OurDepthNormals.load(network))
    views = None if estimates is None else BoxViews(estimates, "estimates", box_jitter)
    return FrameStore(
        PictureImages(PictureFolder(folder)),
        "none" if network is None else "predicted",
        out,
        {},
        SIZES,
        perception,
        views,
    )


def test_a_frame_holds_the_truth_of_its_picture(folder):
    pictures = PictureFolder(folder)
    frames = picture_frames(pictures, furniture(), min_visible=0.0)
    assert [frame.name for frame in frames] == ["000000", "000001", "000002", "000003"]
    for position, frame in enumerate(frames):
        picture = pictures.read(position)
        named = {o.number: o for o in picture.objects}
        assert (frame.camera.width, frame.camera.height) == (96, 64)
        assert np.allclose((frame.camera.fx, frame.camera.cy), picture.intrinsics[[0, 3]])
        assert np.allclose(frame.up_cam, picture.up_cam)
        for target in frame.targets:
            number = picture.object[target.mask][0] - 1
            item = named[number]
            np.testing.assert_array_equal(target.mask, picture.object == number + 1)
            np.testing.assert_allclose(target.pose.R, item.R)
            np.testing.assert_allclose((target.pose.t, target.pose.s), (item.T_m, item.S_m))
            assert target.box_xyxy == tuple(item.box_xyxy) and target.cad == (item.model_id,)


def test_only_what_is_visible_enough_is_trained_on(folder):
    pictures = PictureFolder(folder)
    everything = picture_frames(pictures, furniture(), min_visible=0.0)
    most = picture_frames(pictures, furniture(), min_visible=0.9)
    shares = {(e["number"], o["number"]): o["visible"] for e in pictures.entries for o in e["objects"]}
    count = sum(len(frame.targets) for frame in most)
    assert 0 < count < sum(len(frame.targets) for frame in everything)
    assert count <= sum(share >= 0.9 for share in shares.values())
    with pytest.raises(ValueError, match="visible enough"):
        picture_frames(pictures, furniture(), min_visible=1.1)


def test_a_part_of_the_pictures_can_be_trained_on(folder):
    pictures = PictureFolder(folder)
    names = [
        [frame.name for frame in picture_frames(pictures, furniture(), 0.0, part)]
        for part in ((0.0, 0.5), (0.5, 1.0))
    ]
    assert names == [["000000", "000001"], ["000002", "000003"]]
    with pytest.raises(ValueError, match=r"picture_range must be within \[0, 1\], got \(0.6, 0.5\)"):
        PictureTuneConfig(picture_range=(0.6, 0.5))


class Counts:
    """Tells every box a number of its own in place of an estimate."""

    def look(self, image_rgb, camera, detections, judged_min_score=None):
        assert camera.up_cam is not None
        return [
            dataclasses.replace(d, estimate=box_estimate((box_number(d.box_xyxy),) * 6, (1, 2, 3)))
            for d in detections
        ]


def box_number(box) -> float:
    return round(sum(box) / 1000, 4)


@pytest.mark.parametrize("box_jitter", [0.0, 0.3])
def test_a_batch_holds_what_was_predicted_of_its_boxes(folder, network, tmp_path, box_jitter):
    library = furniture()
    frames = picture_frames(PictureFolder(folder), library, 0.0)
    store = store_of(folder, tmp_path, network, Counts(), box_jitter)
    inputs = load_network(SHIPPED_WEIGHTS)[1].inputs
    told = dataclasses.replace(EXACT, estimates_missing=0.0)
    data, generator = FrameData(frames, library, store, told, inputs), torch.Generator().manual_seed(0)
    every = [data.batch(4, generator) for _ in range(5)]
    for batch in every:
        valid, found = batch.frame.object_valid, batch.frame.estimate
        assert found.shape == (*valid.shape, ESTIMATE_NUMBERS) and valid.sum() > 4
        expected = [[box_number(box) for box in row] for row in batch.frame.boxes_xyxy.tolist()]
        np.testing.assert_allclose(found[..., 0][valid], torch.tensor(expected)[valid], atol=1e-3)
        assert (found[valid][:, 6:9] == torch.tensor([1.0, 2.0, 3.0])).all() and (found[~valid] == 0).all()
    exact = {t.box_xyxy for frame in frames for t in frame.targets}
    seen = {tuple(box) for b in every for box in b.frame.boxes_xyxy[b.frame.object_valid].tolist()}
    if box_jitter:  # every box in several places, none of them far off
        assert len(exact) < len(seen) <= MOVES * len(exact)
        overlap = box_iou(sorted(seen), sorted(exact)).max(1)
        assert overlap.min() > 0.2 and 0.7 < overlap.mean() < 0.95
    else:
        assert seen <= exact
    withheld = dataclasses.replace(EXACT, estimates_missing=1.0)
    batch = FrameData(frames, library, store, withheld, inputs).batch(4, torch.Generator().manual_seed(0))
    assert (batch.frame.estimate == 0).all()


class Factors:
    """Channels of a store, whose depth is to be multiplied by 1.2, and by 0.8 where the height is known."""

    def __init__(self, store):
        self.store, self.views = store, store.views

    def load(self, frame):
        factor = np.array([[1.2], [0.8]], np.float32)
        return dataclasses.replace(self.store.load(frame), depth_factor=factor)


class TooFar:
    """The true depth of a folder's pictures, but for a factor of 1.25."""

    def __init__(self, folder):
        self.pictures = [PictureFolder(folder).read(i) for i in range(4)]

    def predict(self, image_rgb, camera):
        found = next(p for p in self.pictures if np.array_equal(p.rgb, image_rgb))
        return DepthPrediction(1.25 * found.depth_m, found.normal_cam)


class Below:
    """Expects every object straight below the camera, 0.6 m high, its centre `depth_m` down."""

    depth_m = 1.0

    def look(self, image_rgb, camera, detections, judged_min_score=None):
        T_m = -self.depth_m * np.array(camera.up_cam)
        return [
            dataclasses.replace(d, estimate=box_estimate(T_m=T_m, S_m=(0.1, 0.6, 0.1))) for d in detections
        ]


def test_by_what_depth_is_multiplied_to_have_its_floor_where_it_is(folder, tmp_path):
    for frame in picture_frames(PictureFolder(folder), furniture(), 0.0):
        told = 1.1 * frame.above_floor_m
        below = Below()
        below.depth_m = told - 0.3
        store = store_of(folder, tmp_path / frame.name, None, below)
        store.depth, store.perception = "predicted", Perception(depth=TooFar(folder))
        by_objects, by_height = store.load(frame).depth_factor[:, 0]
        assert by_height == pytest.approx(1 / 1.25, rel=0.02)
        assert by_objects == pytest.approx(floor_factor(1.25 * frame.above_floor_m, None, told), rel=0.02)


def test_where_the_height_of_the_camera_is_told_what_was_predicted_stands_on_the_floor(
    folder, network, tmp_path
):
    library, pictures = furniture(), PictureFolder(folder)
    frames = picture_frames(pictures, library, 0.0)
    for position, frame in enumerate(frames):
        standing = [o for o in pictures.read(position).objects if o.category != "display"]
        under = [o.S_m[1] / 2 - np.dot(frame.up_cam, o.T_m) for o in standing]
        assert frame.above_floor_m == (pytest.approx(max(under)) if under else None)
    store = Factors(store_of(folder, tmp_path, network, Counts()))
    inputs = load_network(SHIPPED_WEIGHTS)[1].inputs

    def batches(known_height, frames=frames, **more):
        settings = dataclasses.replace(EXACT, estimates_missing=0.0, known_height=known_height, **more)
        data, generator = (
            FrameData(frames, library, store, settings, inputs),
            torch.Generator().manual_seed(0),
        )
        return [data.batch(4, generator) for _ in range(3)]

    told = 0
    for without, batch in zip(batches(0.0), batches(1.0), strict=True):
        assert not without.frame.above_floor_m.any()
        for b, above in enumerate(batch.frame.above_floor_m.tolist()):
            fits = [f for f in frames if np.allclose(f.camera.fx, batch.frame.intrinsics[b, 0].item())]
            frame, valid = fits[0], batch.frame.object_valid[b]
            if frame.above_floor_m is None:
                assert above == 0
                continue
            told += 1
            off = above / frame.above_floor_m
            assert 0.9 < off < 1.1 and off != 1
            ratio = batch.box_samples.depth_m[b, valid] / without.box_samples.depth_m[b, valid]
            np.testing.assert_allclose(ratio, 0.8 * off / 1.2, rtol=1e-3)
            up = torch.from_numpy(frame.up_cam).float()
            before, after = (x.frame.estimate[b, valid] for x in (without, batch))
            factor = after[:, 6:7] / before[:, 6:7]
            torch.testing.assert_close(
                after[:, [6, 7, 8, 10, 11, 12]], before[:, [6, 7, 8, 10, 11, 12]] * factor
            )
            torch.testing.assert_close(after[:, [*range(6), 9, 13]], before[:, [*range(6), 9, 13]])
            below = after[:, 11] / 2 - after[:, 6:9] @ up
            moved = (factor[:, 0] / off - 1).abs() > 1e-4
            torch.testing.assert_close(below[moved], torch.full_like(below, above)[moved])
    assert told >= 9
    unknown = [dataclasses.replace(frame, above_floor_m=None) for frame in frames]
    for without, batch, lost in zip(
        batches(0.0), batches(1.0, unknown), batches(1.0, known_gravity=0.0), strict=True
    ):
        assert not batch.frame.above_floor_m.any() and not lost.frame.above_floor_m.any()
        torch.testing.assert_close(batch.box_samples.depth_m, without.box_samples.depth_m)
        torch.testing.assert_close(batch.frame.estimate, without.frame.estimate)
        factor = without.box_samples.depth_m / lost.box_samples.depth_m
        np.testing.assert_allclose(factor[batch.frame.object_valid], 1.2, rtol=1e-3)


def test_another_box_network_leaves_the_depth_that_was_predicted(folder, network, tmp_path):
    frame = picture_frames(PictureFolder(folder), furniture(), 0.0)[0]

    def written():
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}

    store_of(folder, tmp_path, network, Counts(), 0.1).load(frame)
    first = written()
    other = store_of(folder, tmp_path, network, Counts(), 0.1)
    assert written() == first  # nothing is computed before it is read
    other.load(frame)
    assert written() == first and len(first) == 2
    store_of(folder, tmp_path, network, Counts(), 0.2).load(frame)
    assert len(written()) == 3 and first.items() <= written().items()


@pytest.mark.parametrize(("version", "again"), [("DEPTH_VERSION", "predicted"), ("VIEWS_VERSION", "boxes")])
def test_what_an_older_version_kept_is_not_read(folder, network, tmp_path, monkeypatch, version, again):
    frame = picture_frames(PictureFolder(folder), furniture(), 0.0)[0]
    store_of(folder, tmp_path, network, Counts(), 0.1).load(frame)
    before = set(tmp_path.rglob("*.npz"))
    monkeypatch.setattr(frame_store, version, 1_000)
    store_of(folder, tmp_path, network, Counts(), 0.1).load(frame)
    (new,) = set(tmp_path.rglob("*.npz")) - before
    assert new.relative_to(tmp_path).parts[0].startswith(again)


def test_the_channels_are_what_the_network_predicts(folder, network, tmp_path):
    frame = picture_frames(PictureFolder(folder), furniture(), 0.0)[1]
    channels = store_of(folder, tmp_path, network).load(frame)
    picture = PictureFolder(folder).read(1)
    np.testing.assert_array_equal(channels.rgb, picture.rgb)
    camera = dataclasses.replace(frame.camera, up_cam=tuple(picture.up_cam))
    seen = OurDepthNormals.load(network).predict(np.ascontiguousarray(picture.rgb), camera)
    np.testing.assert_allclose(channels.depth_m, seen.depth_m, atol=6e-4)
    np.testing.assert_allclose(channels.normals_cam / NORMAL_STEPS, seen.normals_cam, atol=0.6 / NORMAL_STEPS)
    np.testing.assert_array_equal(channels.masks, [target.mask for target in frame.targets])
    assert np.abs(channels.depth_m - picture.depth_m).mean() > 0.1  # not the true depth


def test_a_batch_points_at_the_objects(folder, tmp_path):
    library = furniture()
    frames = picture_frames(PictureFolder(folder), library, 0.0)
    data = FrameData(
        frames, library, store_of(folder, tmp_path), EXACT, load_network(SHIPPED_WEIGHTS)[1].inputs
    )
    batch = data.batch(4, torch.Generator().manual_seed(0))
    for b in range(4):
        for n in torch.nonzero(batch.frame.object_valid[b])[:, 0].tolist():
            centre = batch.truth.T[b, n]
            fx, fy, cx, cy = batch.frame.intrinsics[b].tolist()
            u, v = fx * centre[0] / centre[2] + cx, fy * centre[1] / centre[2] + cy
            x0, y0, x1, y1 = batch.frame.boxes_xyxy[b, n].tolist()
            grown = 0.6 * max(x1 - x0, y1 - y0) + 20  # what is hidden or cut off lies outside the box
            assert x0 - grown < u < x1 + grown and y0 - grown < v < y1 + grown
    inside = batch.box_samples.mask * batch.frame.object_valid[..., None]
    assert inside.sum() > 20


class Recorded:
    """Training data that tell only which image is next."""

    def __init__(self, name):
        self.name, self.images, self.cad = name, 0, None

    def batch(self, images, generator):
        self.images += images
        return f"{self.name}{self.images}"

    def seek(self, images):
        self.images = images


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7, 1.0])
def test_batches_come_in_turn_and_go_on_where_they_were(share):
    mixed = MixedData(Recorded("a"), Recorded("b"), share, images=4)
    whole = [mixed.batch(4, None) for _ in range(20)]
    assert sum(name.startswith("b") for name in whole) == round(20 * share)
    for batches in (0, 1, 7, 13):
        again = MixedData(Recorded("a"), Recorded("b"), share, images=4)
        again.seek(batches * 4)
        assert [again.batch(4, None) for _ in range(20 - batches)] == whole[batches:]
    with pytest.raises(ValueError, match="4 images were announced, got 5"):
        mixed.batch(5, None)


TINY = {
    "steps": 4, "images": 2, "refinements": 2, "warmup_steps": 1, "picture_share": 0.5,
    "loss": {"points": 50},
    "data": {"detections": 2, "scenes": {"objects": 2, "clutter": 1}},
    "pictures": {"detections": 2, "threads": 1},
}  # fmt: skip


def tune(folder, out, values, *arguments):
    config = out.parent / "tune.yaml"
    config.write_text(json.dumps(values))
    return CliRunner().invoke(app, [
        "finetune", "pictures", "--pictures", str(folder), "--validation", str(folder),
        "--config", str(config), "--out", str(out), "--cache", str(out.parent),
        "--cad-library", "procedural:0-1", "--validation-library", "procedural:0-1",
        "--validation-images", "2", "--device", "cpu", "--threads", "1", *map(str, arguments),
    ])  # fmt: skip


def test_the_command_trains_the_shipped_network_on_and_resumes(folder, network, tmp_path):
    values = TINY | {"pictures": TINY["pictures"] | {"depth": str(network)}}
    done = tune(folder, tmp_path / "run", values)
    assert done.exit_code == 0, done.output
    assert "4 pictures to train on, 4 to validate on" in done.output and "finished at step 4" in done.output
    before, after = load_network(SHIPPED_WEIGHTS)[0], load_network(tmp_path / "run/weights.safetensors")[0]
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(moved)
    assert len(list(tmp_path.glob("channels/predicted-*/pictures/*.npz"))) >= 3
    longer = tune(folder, tmp_path / "run", values | {"steps": 6}, "--resume")
    assert longer.exit_code == 0 and "resumed at step 4" in longer.output, longer.output


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"picture_share": 0.0}, "picture_share must be in"),
        ({"pictures": {"depth": "sensor"}}, "pictures have no sensor"),
        ({"pictures": {"depth": "nowhere.safetensors"}}, "nowhere.safetensors"),
    ],
)
def test_wrong_values_are_named(folder, tmp_path, values, message):
    done = tune(folder, tmp_path / "run", TINY | values)
    assert done.exit_code == 2 and message in " ".join(done.output.split()), done.output


def test_a_library_without_the_pictures_models_is_named(folder, tmp_path):
    shown = PictureFolder(folder).entries[0]["objects"][0]["model_id"]
    done = tune(folder, tmp_path / "run", TINY, "--hold-out", shown)
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and f"CAD models ['{shown}'" in said and "are missing" in said


def test_the_example_configuration_is_one():
    settings = from_dict(PictureTuneConfig, load_yaml(EXAMPLE), str(EXAMPLE))
    assert settings.pictures.depth == "shipped" and settings.picture_share == 1.0
