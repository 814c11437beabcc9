"""Fine-tuning on ScanNet25k, on the fixture: truths, channels, order, a step that helps."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import scannet_fixture as fixture
import torch
from scannet_prepared import prepared as prepare

from sparc_core.config import from_dict, load_yaml
from sparc_core.datasets.prepared import PreparedScannet
from sparc_core.datasets.roca import read_roca
from sparc_core.datasets.shapenet import load_library
from sparc_core.perception.observe import ImageChannels, ImageSource
from sparc_core.pipeline import SHIPPED_WEIGHTS
from sparc_core.refine.model import Calibration, load_network
from sparc_core.training import frame_store
from sparc_core.training.finetune import FinetuneConfig, sized_cad
from sparc_core.training.frame_data import FrameData, FrameDataConfig
from sparc_core.training.frame_order import FrameOrder, FramesAhead
from sparc_core.training.frame_source import FrameSource
from sparc_core.training.frame_store import FrameStore
from sparc_core.training.frame_targets import training_frames
from sparc_core.training.train import Trainer, update_starts
from sparc_core.types import HINT_CHANNELS, PixelHints

YAML = Path(__file__).resolve().parents[2] / "config/training/finetune_scannet25k.yaml"
EXACT = FrameDataConfig(
    detections=2, box_jitter=0.0, masks_own=1.0, masks_cut=0.0, masks_missing=0.0, normals_missing=0.0,
    known_gravity=1.0, similar_model=0.0, unknown_extents=0.0, known_extents=0.0, threads=1,
)  # fmt: skip
SIZES = {"chair": 1.0, "table": 1.2, "bookshelf": 2.0, "bin": 0.6}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fixture.write_tree(tmp_path_factory.mktemp("licensed"))


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory):
    return prepare(tree, tmp_path_factory.mktemp("prepared") / "all")


@pytest.fixture(scope="module")
def library(prepared):
    return load_library(PreparedScannet(prepared).cad.values())


@pytest.fixture(scope="module")
def dataset(prepared):
    return PreparedScannet(prepared)


def frames_of(dataset, *scenes, min_visible=0.5, detections=None):
    return training_frames(dataset, scenes, min_visible, frozenset(dataset.cad), detections)


@pytest.fixture
def open_data(dataset, library, tmp_path):
    """FrameData of some scenes."""

    def opened(*scenes, config=EXACT, **options):
        found = frames_of(dataset, *scenes)
        store = FrameStore(dataset, "sensor", tmp_path / "channels", {}, SIZES)
        return FrameData(found, library, store, config, load_network(SHIPPED_WEIGHTS)[1].inputs, **options)

    return opened


@pytest.fixture
def open_trainer(open_data, library):
    """A trainer of the shipped network on both scenes."""

    def opened(**changes):
        network, model = load_network(SHIPPED_WEIGHTS)
        values = {"images": 3, "warmup_steps": 1, "epochs": 0.0, "steps": 4, "refinements": 2, **changes}
        config = FinetuneConfig(data=EXACT, **values).resolved(model, 3)

        def data(trainer, library):
            order = FrameOrder(3, config.seed, trainer.rank, trainer.processes)
            return open_data("scene0001_00", "scene0002_00", order=order)

        trainer = Trainer(config, library, "cpu", data)
        trainer.start_from(network)
        return trainer

    return opened


# what is trained on


def test_truths_of_a_batch_reproject_onto_the_fixtures_boxes_and_points(dataset, library, open_data):
    data = open_data("scene0001_00", "scene0002_00")
    batch = data.batch(3, generator())  # one epoch: 000000 and 000100 of scene 1, 000000 of scene 2
    seen, whole = [], 0
    for b in range(3):
        for n in range(2):
            if not batch.frame.object_valid[b, n]:
                continue
            model = library.models[batch.surface.model[b, n]]
            points = batch.truth.map(lambda x, b=b, n=n: x[b, n]).transform(
                torch.from_numpy(model.vertices).float()
            )
            answers = {}
            for scene, names in (("scene0001_00", ("000000", "000100")), ("scene0002_00", ("000000",))):
                for name in names:
                    for number, (key, *_) in enumerate(fixture.OBJECTS[scene]):
                        if "_".join(key) == model.model_id:
                            R, t, s = fixture.in_camera(scene, number, name)
                            truth = (fixture.cad_mesh(key).vertices * s) @ R.T + t
                            gap = np.abs(_bounds(points.numpy()) - _bounds(truth)).max()
                            answers[scene, number, name] = gap
            (scene, number, name), gap = min(answers.items(), key=lambda pair: pair[1])
            assert gap < 1e-4, (b, n, answers)
            box = np.array(fixture.roca_box(scene, number, name)) - 0.5
            if box[0] > 0:  # what the image cuts has its lowest vertex beside it
                assert np.abs(batch.frame.boxes_xyxy[b, n].numpy() - box).max() < 1.01
                whole += 1
            up = np.linalg.inv(fixture.FRAMES[scene][name])[:3, 2]
            assert batch.frame.up_cam[b].numpy() @ up > 0.995 and bool(batch.frame.has_up[b])
            seen.append((scene, number, name))
    assert sorted(seen) == [
        ("scene0001_00", 0, "000000"), ("scene0001_00", 0, "000100"), ("scene0001_00", 2, "000000"),
        ("scene0001_00", 2, "000100"), ("scene0002_00", 0, "000000"),
    ]  # fmt: skip
    assert whole == 4
    orders = batch.symmetry_order[batch.frame.object_valid].tolist()
    assert sorted(orders) == [1, 1, 2, 36, 36]  # chairs, bookshelf, round tables


def _bounds(points):
    return np.stack([points.min(0), points.max(0)])


def test_visible_points_of_the_true_pose_are_read_at_their_own_depth_inside_the_mask(open_data):
    data = open_data("scene0001_00")
    batch = data.batch(2, generator())
    points = batch.truth.transform(batch.surface.samples.points[batch.surface.model])
    fx, fy, cx, cy = batch.frame.intrinsics[0].tolist()
    uv = points[..., :2] / points[..., 2:] * torch.tensor([fx, fy]) + torch.tensor([cx, cy])
    read = batch.source.sample(uv)
    gap = (read.depth_m - points[..., 2])[read.inside]
    on_surface = gap.abs() < 0.02
    assert on_surface.float().mean() > 0.3  # about half of a surface faces the camera
    assert (gap < 0.05).float().mean() > 0.98  # nothing lies behind what it should hide
    assert read.mask[read.inside][on_surface].mean() > 0.95
    facing = (read.normal_cam * points / points.norm(dim=-1, keepdim=True)).sum(-1)
    assert (facing[read.has_normal] < 0).all()
    length = read.normal_cam[read.has_normal].norm(dim=-1)
    assert torch.allclose(length, torch.ones_like(length), atol=1e-5)


def test_frames_are_read_as_an_image_is_at_run_time():
    g = generator()
    depth, normals = (torch.rand(2, 6, 8, *more, generator=g) for more in ((), (3,)))
    rgb = torch.randint(0, 256, (2, 6, 8, 3), generator=g).byte()
    depth[:, :2] = 0
    masks = torch.rand(2, 3, 6, 8, generator=g) > 0.5
    has_mask = torch.tensor([[True, False, True], [True, True, False]])
    uv = torch.rand(2, 3, 40, 2, generator=g) * torch.tensor([10.0, 8.0]) - 1.5
    hints = torch.rand(2, 6, 8, HINT_CHANNELS, generator=g)
    source = FrameSource(rgb / 255, depth, normals, hints, masks, has_mask)
    read = source.sample(uv)
    assert not read.inside.all() and read.inside.any()
    for b in range(2):
        channels = ImageChannels(rgb[b], depth[b], normals[b], masks[b], has_mask[b], hints[b])
        alone = ImageSource(channels, torch.arange(3)[None]).sample(uv[b : b + 1])
        for f in dataclasses.fields(read):
            assert torch.equal(getattr(read, f.name)[b], getattr(alone, f.name)[0]), f.name
    assert torch.equal(source.first_images(1).sample(uv[:1]).mask, read.mask[:1])


def test_only_what_is_seen_is_trained_on(dataset):
    (frame,) = frames_of(dataset, "scene0002_00")
    assert [t.category for t in frame.targets] == ["bookshelf"]  # the bin is hidden, the chair not in view
    (more,) = frames_of(dataset, "scene0002_00", min_visible=0.0)
    assert len(more.targets) == 1  # no pixel of the bin is seen, so it has no box
    without_chairs = frozenset(key for key in dataset.cad if key != fixture.CHAIR)
    left = training_frames(dataset, ["scene0001_00"], 0.5, without_chairs)
    assert [[t.category for t in f.targets] for f in left] == [["table"], ["table"]]


def test_a_detectors_boxes_and_models_stand_for_the_objects_they_overlap(dataset, tree):
    found = dict(read_roca(tree / "per_frame_preds.json"))
    first = "scene0001_00", "000000"
    chair = next(d for d in found[first] if d.category == "chair")
    moved = dataclasses.replace(chair, box_xyxy=tuple(v + 5 for v in chair.box_xyxy), cad=fixture.TABLE)
    found[first] = (moved, dataclasses.replace(chair, category="sofa"))
    frames = frames_of(dataset, "scene0001_00", "scene0003_00", detections=found)
    assert [(f.scene, f.name, len(f.targets)) for f in frames] == [
        ("scene0001_00", "000000", 1), ("scene0001_00", "000100", 2),
    ]  # fmt: skip
    (target,) = frames[0].targets
    assert target.box_xyxy == moved.box_xyxy and target.cad == fixture.TABLE and target.category == "chair"
    true = next(t for t in frames_of(dataset, "scene0001_00")[0].targets if t.category == "chair")
    assert target.pose.t == pytest.approx(true.pose.t) and target.symmetry == "none"


def test_masks_are_given_in_the_shares_that_were_asked_for(open_data):
    shares = {"masks_own": 0.0, "masks_cut": 1.0, "masks_missing": 0.0}
    cut = open_data("scene0001_00", config=dataclasses.replace(EXACT, **shares)).batch(2, generator()).source
    own = open_data("scene0001_00").batch(2, generator()).source
    assert cut.has_mask.all() and own.has_mask.all()
    overlap = (cut.masks & own.masks).sum(-1) / (cut.masks | own.masks).sum(-1)
    assert (overlap > 0.5).all() and not torch.equal(cut.masks, own.masks)
    shares = {"masks_own": 0.0, "masks_missing": 1.0}
    none = open_data("scene0001_00", config=dataclasses.replace(EXACT, **shares)).batch(2, generator()).source
    assert not none.has_mask.any() and not none.masks.any()
    bare = dataclasses.replace(EXACT, normals_missing=1.0, known_gravity=0.0)
    batch = open_data("scene0001_00", config=bare).batch(2, generator())
    assert not batch.box_samples.has_normal.any() and not batch.frame.has_up.any()


def test_sizes_are_the_median_of_the_training_scenes(dataset):
    sized = sized_cad(dataset, ["scene0001_00"])
    chair = (1.3 * 1.4 * 1.2) ** (1 / 3)
    metres = {file.category: file.metres_per_unit for file in sized.values()}
    assert metres["chair"] == pytest.approx(chair) and metres["table"] == pytest.approx(1.4)
    assert metres["bin"] == dataset.cad[fixture.BIN].metres_per_unit  # no bin there


# order and files


def test_every_epoch_has_every_frame_once_and_processes_share_it():
    order = FrameOrder(5, seed=3)
    epochs = [[order.frame(5 * e + i) for i in range(5)] for e in range(4)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs) and epochs[0] != epochs[1]
    assert [order.frame(i) for i in range(5)] == epochs[0]  # and again, the same
    shared = [FrameOrder(5, 3, rank, 2) for rank in range(2)]
    together = [shared[i % 2].frame(i // 2) for i in range(20)]
    assert together == [frame for epoch in epochs for frame in epoch]


def test_frames_are_read_ahead_once_each_in_order():
    loads = []
    ahead = FramesAhead(lambda number: loads.append(number) or number * 10, FrameOrder(4, 0), threads=1)
    first, values = ahead.take(4)
    assert sorted(first) == [0, 1, 2, 3] and values == [10 * n for n in first]
    second, _ = ahead.take(4)
    assert loads[:8] == first + second
    ahead.seek(4)
    assert ahead.take(4)[0] == second
    broken = FramesAhead(lambda number: 1 / 0, FrameOrder(4, 0), threads=1)
    with pytest.raises(ZeroDivisionError):
        broken.take(1)


def test_what_took_long_to_compute_is_kept_and_a_broken_file_is_named(dataset, tmp_path, monkeypatch):
    (frame, *_) = frames_of(dataset, "scene0001_00")
    store = FrameStore(dataset, "sensor", tmp_path, {}, SIZES)
    first = store.load(frame)

    def refuse(*arguments):
        raise AssertionError("computed twice")

    monkeypatch.setattr(frame_store, "normals_from_depth", refuse)
    again = FrameStore(dataset, "sensor", tmp_path, {}, SIZES).load(frame)
    for f in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, f.name), getattr(again, f.name))
    with pytest.raises(AssertionError, match="computed twice"):
        FrameStore(dataset, "sensor", tmp_path, {"min_visible": 0.1}, SIZES).load(frame)
    (file,) = tmp_path.rglob("000000.npz")
    file.write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"000000.npz: expected the channels of a frame .*; remove it"):
        store.load(frame)


def _inside(box, shape):
    """(H, W) bool: pixels whose centres lie in a box."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])


def test_predicted_depth_comes_from_the_network_and_none_is_none(dataset, tmp_path):
    from sparc_core.perception.see import Perception
    from sparc_core.types import Camera

    class Flat:
        def predict(self, image_rgb, camera: Camera):
            from sparc_core.perception.interfaces import DepthPrediction

            normals = np.broadcast_to(np.float32([0, 0, -1]), (*image_rgb.shape[:2], 3))
            ones = np.ones(image_rgb.shape[:2], np.float32)
            hints = PixelHints(on_object(ones), 2 * ones)
            return DepthPrediction(2.5 * ones, normals, ones, ones, hints)

    def on_object(ones):
        x0, y0, x1, y1 = (int(v) for v in frame.targets[0].box_xyxy)
        share = 0.1 * ones
        share[y0 : y1 + 1, x0 : x1 + 1] = 0.9
        return share

    (frame, *_) = frames_of(dataset, "scene0001_00")
    found = FrameStore(dataset, "predicted", tmp_path, {}, SIZES, Perception(depth=Flat())).load(frame)
    assert found.depth_m == pytest.approx(2.5) and (found.normals_cam == [0, 0, -127]).all()
    assert (found.hints[..., 1] == 127).all()  # 2 is cut off
    # flat as the depth is, the mask is what the network knows to be objects
    known = found.hints[..., 0] > 64
    np.testing.assert_array_equal(found.cut_masks[0], known & _inside(frame.targets[0].box_xyxy, known.shape))
    empty = FrameStore(dataset, "none", tmp_path, {}, SIZES).load(frame)
    assert not empty.depth_m.any() and not empty.normals_cam.any() and not empty.has_cut.any()
    assert empty.hints.shape[-1] == HINT_CHANNELS and not empty.hints.any()


# training


def test_one_step_with_the_papers_optimiser_lowers_the_loss_of_the_same_samples(open_trainer):
    trainer = open_trainer()
    trainer.network.train()
    batch = trainer._draw()

    def losses():
        trainer.generator.manual_seed(5)
        pose = update_starts(batch, trainer.config, trainer.generator)
        scoring = torch.tensor([True, False, False])[:, None].expand(3, 2)
        return trainer._losses(batch, pose, scoring)[0]

    before = losses()
    assert before["align_loss"] > 0 and before["score_loss"] > 0
    trainer._optimise(before["loss"])
    after = losses()
    assert after["loss"] < before["loss"] and after["align_loss"] < before["align_loss"]


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(open_trainer):
    whole = open_trainer(images=2)  # of three frames, so that the second batch has another one
    whole.run(lambda metrics: None)
    first = open_trainer(images=2)
    first.run(lambda metrics: None, stop=lambda: first.step >= 2)
    assert (whole.step, first.step) == (4, 2)
    file = io.BytesIO()
    torch.save(first.state(), file)
    second = open_trainer(images=2)
    second.load_state(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    second.run(lambda metrics: None)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_steps_follow_from_epochs_and_the_calibration_of_before_is_dropped():
    model = dataclasses.replace(load_network(SHIPPED_WEIGHTS)[1], calibration=Calibration((2.0, 0.0)))
    config = FinetuneConfig().resolved(model, frames=20_000)
    assert config.steps == 500 * 1000 * 3 and config.model.calibration == Calibration()
    assert FinetuneConfig(epochs=2.0).resolved(model, 21, processes=2).steps == 2 * 3
    assert FinetuneConfig(epochs=0.0, steps=7).resolved(model, 21).steps == 7


def test_the_configuration_file_is_the_defaults():
    assert from_dict(FinetuneConfig, load_yaml(YAML)) == FinetuneConfig()
