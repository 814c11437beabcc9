"""Which way objects are turned: squares of the picture, harmonics, training and the predictor."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from builders import write_pictures
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from sparc_core.geometry.rotation import azimuth_rad, level_frame
from sparc_core.perception.azimuth_net import (
    AzimuthNet,
    AzimuthNetConfig,
    AzimuthPredictor,
    cut_square,
    flags_of,
    place_of,
    shortened,
    square_of,
)
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.scripts.main import app
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.training.azimuth import (
    AzimuthBatch,
    AzimuthBatches,
    AzimuthLosses,
    AzimuthTraining,
    BoxTable,
    make_azimuth_trainer,
    measure_azimuth,
    mirrored_place,
    targets,
)
from sparc_core.training.predictor_trainer import PredictorTrainConfig
from sparc_core.types import CATEGORIES, Camera, Detection

NET = AzimuthNetConfig(32, channels=(4, 4, 8, 8), features=8)
UP = torch.tensor([0.1, -0.9, -0.42426407])
UP = UP / UP.norm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six small pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 6, 128, 96)


@pytest.fixture(scope="module")
def table(folder):
    return BoxTable(PictureFolder(folder), 48)


def training(**changes):
    train = PredictorTrainConfig(steps=6, pictures=8, learning_rate=3e-3, optimiser="muon", precision="fp32")
    return AzimuthTraining(**{"network": NET, "train": train, "kept_px": 48, **changes})


def test_the_azimuth_is_0_towards_the_camera_and_grows_with_turns_about_the_vertical():
    direction = torch.tensor([0.3, 0.1, 0.9])
    direction = direction / direction.norm()
    level = level_frame(UP, direction)
    np.testing.assert_allclose(level @ level.T, np.eye(3), atol=1e-6)
    towards = Rotation.from_matrix(level.T.double().numpy())  # y up, z horizontal towards the camera
    np.testing.assert_allclose(towards.apply([0, 1, 0]), UP, atol=1e-6)
    assert towards.apply([0, 0, 1]) @ -direction.numpy() > 0.8
    for turn in (-2.5, -0.4, 0.0, 1.0, 3.0):
        R = (towards * Rotation.from_euler("y", turn)).as_matrix()
        assert float(azimuth_rad(torch.tensor(R).float(), level)) == pytest.approx(turn, abs=1e-5)
    down = level_frame(torch.tensor([0.0, 0.0, -1.0]), torch.tensor([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(down @ down.T, np.eye(3), atol=1e-6)  # straight from above


@pytest.mark.parametrize(("half", "tolerance"), [(12.0, 1.0), (40.0, 6.0)], ids=["enlarged", "reduced"])
def test_a_square_shows_the_part_around_its_centre(half, tolerance):
    y, x = np.mgrid[0:90, 0:120].astype(float)
    smooth = 120 + 60 * np.sin(x / 15) + 40 * np.cos(y / 12)
    image = np.repeat(np.rint(smooth)[..., None], 3, -1).astype(np.uint8)
    centre, size = np.array([52.3, 43.8]), 32
    square = cut_square(image, centre, half, size)
    step = (np.arange(size) + 0.5) / size * 2 - 1
    at = np.meshgrid(centre[1] + half * step, centre[0] + half * step, indexing="ij")
    expected = map_coordinates(smooth, at, order=1, mode="nearest")
    inside = (at[0] > 1) & (at[0] < 88) & (at[1] > 1) & (at[1] < 118)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(square[inside, 0], expected[inside], atol=tolerance)
    beyond = cut_square(image, (-100.0, 40.0), 20.0, size)
    assert (beyond == 114).all()


def test_flags_tell_the_box_and_the_picture():
    boxes = torch.tensor([[10.0, 20.0, 50.0, 40.0], [90.0, 5.0, 119.0, 60.0]])
    centre, half = square_of(boxes)
    np.testing.assert_allclose(centre, [[30, 30], [104.5, 32.5]])
    np.testing.assert_allclose(half, [24, 33], rtol=1e-6)
    flags = flags_of(boxes, centre, half, torch.tensor([[120.0, 90.0]] * 2), 32).numpy()
    for b, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        for row, column in ((0, 0), (16, 16), (3, 20), (31, 31), (16, 30)):
            x = float(centre[b, 0]) + float(half[b]) * ((column + 0.5) / 16 - 1)
            y = float(centre[b, 1]) + float(half[b]) * ((row + 0.5) / 16 - 1)
            assert flags[b, 0, row, column] == (x0 <= x <= x1 and y0 <= y <= y1)
            assert flags[b, 1, row, column] == (-0.5 <= x <= 119.5 and -0.5 <= y <= 89.5)
    assert 0 < flags[1, 1].mean() < 1  # it sticks out


def test_targets_have_the_harmonics_that_the_symmetry_leaves(table):
    index = torch.arange(len(table))
    harmonics, known = targets(table, index, table.boxes_xyxy)
    for i in range(len(table)):
        order = int(table.symmetry_order[i])
        expected = {1: [True] * 3, 2: [False, True, True], 4: [False, False, True], 36: [False] * 3}[order]
        assert known[i].tolist() == expected
        box, (fx, fy, cx, cy) = table.boxes_xyxy[i].numpy(), table.intrinsics[i].tolist()
        ray = np.array([((box[0] + box[2]) / 2 - cx) / fx, ((box[1] + box[3]) / 2 - cy) / fy, 1])
        up, front = table.up_cam[i].numpy(), table.R[i, :, 2].numpy()
        towards = -ray + (ray @ up) * up
        towards /= np.linalg.norm(towards)
        theta = np.arctan2(front @ np.cross(up, towards), front @ towards)
        expected = [f(k * theta) for k in (1, 2, 4) for f in (np.cos, np.sin)]
        np.testing.assert_allclose(harmonics[i], expected, atol=1e-4)
        # a turn that the symmetry allows changes none of those that are known
        if order < 36:
            R = Rotation.from_matrix(table.R[i].double().numpy()) * Rotation.from_euler(
                "y", 2 * np.pi / order
            )
            level = level_frame(table.up_cam[i], torch.tensor(ray / np.linalg.norm(ray)).float())
            after = float(azimuth_rad(torch.tensor(R.as_matrix()).float(), level))
            again = np.array([f(k * after) for k in (1, 2, 4) for f in (np.cos, np.sin)])
            kept = np.repeat(known[i].numpy(), 2)
            assert kept.any()
            np.testing.assert_allclose(again[kept], np.array(expected)[kept], atol=1e-3)


def test_squares_that_are_kept_give_what_the_picture_gives(table, folder):
    """A box that was moved is cut out of the kept square in training, out of the picture at run time."""
    settings = training(colour=0.0, box_jitter=0.06, no_gravity=0.0)
    batches = AzimuthBatches(table, settings)
    index = torch.arange(min(6, len(table)))
    exact = table.boxes_xyxy[index]
    moved = exact + torch.tensor([0.03, -0.02, -0.03, 0.04]) * (exact[:, 2:] - exact[:, :2]).repeat(1, 2)
    found = batches._moved(index, exact, moved)
    centre, half = square_of(moved)
    pictures = PictureFolder(folder)
    owner = [i for i in range(len(pictures)) for o in pictures.read(i, ()).objects
             if min(o.box_xyxy[2] - o.box_xyxy[0], o.box_xyxy[3] - o.box_xyxy[1]) >= 10]  # fmt: skip
    shown = flags_of(moved, centre, half, table.size_px[index], 32)[:, 1].numpy() > 0
    for i in index.tolist():
        rgb = np.ascontiguousarray(pictures.read(owner[i], ()).rgb)
        direct = cut_square(rgb, centre[i].numpy(), float(half[i]), 32) / 255
        off = np.abs(found[i].permute(1, 2, 0).numpy() - direct)[shown[i]]
        assert off.mean() < 0.03, i


def test_a_mirrored_box_is_that_of_a_mirrored_camera():
    boxes = torch.tensor([[0.0, 20.0, 50.0, 60.0]])
    intrinsics, size = torch.tensor([[100.0, 90.0, 70.0, 40.0]]), torch.tensor([[120.0, 90.0]])
    place = place_of(boxes, intrinsics, size, UP[None])
    mirror = place_of(
        torch.tensor([[119.0 - 50.0, 20.0, 119.0, 60.0]]), torch.tensor([[100.0, 90.0, 119.0 - 70.0, 40.0]]),
        size, (UP * torch.tensor([-1.0, 1, 1]))[None],
    )  # fmt: skip
    torch.testing.assert_close(mirrored_place(place), mirror)
    assert place[0, 8] == 1 and place[0, 10] == 0  # it touches the left side


def test_losses_by_hand():
    class Says(torch.nn.Module):
        def forward(self, squares, place, category):
            return torch.tensor([[0.5, 0, 0, 1, 0, 0], [9, 9, 1, 0, 0, -1]]), torch.zeros(2, 9)

    truth = torch.tensor([[1.0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1]])
    known = torch.tensor([[True, True, True], [False, True, True]])
    nothing = torch.zeros(2, 1)
    batch = AzimuthBatch(nothing, nothing, nothing, torch.tensor([0, 3]), truth, known)
    losses = AzimuthLosses(Says(), 0.5)(batch)
    assert losses["azimuth"].item() == pytest.approx((0.25 + 0 + 1 + 0 + 4) / 5)
    assert losses["category"].item() == pytest.approx(0.5 * np.log(9))
    pairs = shortened(torch.tensor([[3.0, 4, 0.3, 0.4, 0, 0]]))
    np.testing.assert_allclose(pairs, [[0.6, 0.8, 0.3, 0.4, 0, 0]], atol=1e-6)


def test_training_lowers_the_loss_and_goes_on_where_it_stopped(folder):
    longer = dataclasses.replace(training().train, steps=150, pictures=16, learning_rate=5e-3)
    settings = training(train=longer)
    trainer, logs = make_azimuth_trainer(settings, PictureFolder(folder)), []
    trainer.run(logs.append)
    first, last = (np.mean([row["loss"] for row in part]) for part in (logs[:5], logs[-5:]))
    assert last < 0.9 * first

    def run(steps):
        trainer = make_azimuth_trainer(training(), PictureFolder(folder))
        trainer.run(lambda row: None, stop=lambda: trainer.step >= steps)
        return trainer

    whole, half, other = run(6), run(3), make_azimuth_trainer(training(), PictureFolder(folder))
    other.load_state(half.state())
    other.run(lambda row: None)
    for name, value in whole.averaged.items():
        assert torch.equal(value, other.averaged[name]), name


def test_only_a_part_of_the_pictures_is_trained_on(folder):
    pictures = PictureFolder(folder)
    parts = [
        make_azimuth_trainer(training(share=s), pictures).batches.table for s in ((0.0, 0.5), (0.5, 1.0))
    ]
    whole = make_azimuth_trainer(training(), pictures).batches.table
    assert len(parts[0]) + len(parts[1]) == len(whole)
    assert torch.equal(torch.cat([p.boxes_xyxy for p in parts]), whole.boxes_xyxy)
    for share in ((0.5, 0.5), (0.2, 1.2)):
        with pytest.raises(ValueError, match=r"azimuth training share must be within \[0, 1\]"):
            training(share=share)
    with pytest.raises(ValueError, match="size_px must be a multiple of 16, at least 32, got 40"):
        AzimuthNetConfig(40)
    with pytest.raises(ValueError, match="kept_px must be at least size_px, got 16"):
        training(kept_px=16)


def test_figures_of_a_network_that_knows_and_of_one_that_does_not(table):
    class Knows(AzimuthNet):
        off = 0.0

        def forward(self, squares, place, category):
            start = self.seen
            self.seen = (self.seen + len(squares)) % len(table) if category[0] < 0 else self.seen
            index = torch.arange(start, start + len(squares))
            harmonics = targets(table, index, table.boxes_xyxy[index])[0].unflatten(-1, (-1, 2))
            turn = torch.tensor([[k * self.off for k in (1, 2, 4)]])
            cos, sin = harmonics.unbind(-1)
            turned = (cos * turn.cos() - sin * turn.sin(), sin * turn.cos() + cos * turn.sin())
            return torch.stack(turned, -1).flatten(1), torch.eye(9)[table.label[index]]

    network = Knows(NET)
    network.seen = 0
    found = measure_azimuth(network, table)
    assert found == {f"{n}_{limit}": 1.0 for n in ("azimuth", "front") for limit in (20, 45)} | {
        "category": 1.0
    }
    network.off, network.seen = np.radians(30), 0
    found = measure_azimuth(network, table)
    assert found["front_20"] == 0 and found["front_45"] == 1


def test_the_command_trains_and_the_predictor_looks_at_pictures_of_any_camera(folder, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({
        "network": {"size_px": 32, "channels": [4, 4, 8, 8], "features": 8}, "kept_px": 48,
        "train": {"steps": 3, "pictures": 8},
    }))  # fmt: skip
    arguments = ["train-perception", "azimuth", "--out", str(tmp_path / "run"), "--config", str(config),
                 "--pictures", str(folder), "--validation", str(folder)]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3 and "azimuth_20" in rows[-1]["validation"]
    predictor = AzimuthPredictor.load(tmp_path / "run/weights.safetensors")
    rng = np.random.default_rng(0)
    for width, height, lens in ((64, 96, ()), (90, 60, (-0.2, 0.05, 0, 0, 0))):
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        model = {"distortion": lens, "distortion_model": "plumb_bob"} if lens else {}
        camera = Camera(width, height, 60.0, 60.0, width / 2, height / 2, up_cam=(0, -1, 0), **model)
        boxes = [
            (5.0, 6.0, 40.0, 50.0),
            (30.0, 30.0, 32.0, 31.0),
            (-20.0, 10.0, 30.0, 70.0),
            (200, 5, 300, 9),
        ]
        given = [Detection(box, "bed") for box in boxes] + [Detection(boxes[0], "lamp")]
        found = predictor.look(image, camera, given)
        assert [d.box_xyxy for d in found] == [d.box_xyxy for d in given]
        assert [d.azimuth is not None for d in found] == [True, False, True, False, True]
        for d in (found[0], found[2], found[4]):
            pairs = np.array(d.azimuth).reshape(3, 2)
            assert np.isfinite(pairs).all() and (np.linalg.norm(pairs, axis=1) <= 1 + 1e-5).all()
        assert predictor.look(image, camera, []) == []
        judged = predictor.look(image, camera, given, judge=True)
        assert [d.azimuth for d in judged] == [d.azimuth for d in found]
        assert judged[4].score == 1 and judged[1].score == 1  # not of the nine; not looked at
        every = [predictor.look(image, camera, [Detection(boxes[0], name)], judge=True)[0].score
                 for name in CATEGORIES]  # fmt: skip
        # scores of 1: what is left is the probability of the category, to the power 3/7
        assert sum(score ** (7 / 3) for score in every) == pytest.approx(1, abs=1e-4)
        (half,) = predictor.look(image, camera, [Detection(boxes[0], "bed", 0.5)], judge=True)
        assert half.score == pytest.approx(judged[0].score * 0.5 ** (4 / 7), rel=1e-5)
    with pytest.raises(ValueError, match="the camera is 90×60, the image 10×10"):
        predictor.look(np.zeros((10, 10, 3), np.uint8), camera, given)


def test_weights_of_another_kind_are_refused(tmp_path):
    save_predictor(tmp_path / "w.safetensors", AzimuthNet(NET).state_dict(), AzimuthTraining())
    with pytest.raises(ValueError, match="expected those of a AzimuthNetConfig, got AzimuthTraining"):
        AzimuthPredictor.load(tmp_path / "w.safetensors")
