"""What is in a box: squares of the picture, the network, and the predictor at the end of its training."""

import json

import numpy as np
import pytest
import torch
from builders import write_pictures
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from sparc_core.geometry.rotation import azimuth_rad, level_frame
from sparc_core.perception.box_net import (
    BoxInputs,
    BoxNet,
    BoxNetConfig,
    BoxOutput,
    BoxPredictor,
    cut_square,
    estimates,
    flags_of,
    square_of,
)
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.scripts.main import app
from sparc_core.training.boxes import (
    BoxTraining,
)
from sparc_core.types import CATEGORIES, Camera, Detection

NET = BoxNetConfig(32, channels=(4, 4, 8, 8), features=8, layers=1, heads=2, background=False)
UP = torch.tensor([0.1, -0.9, -0.42426407])
UP = UP / UP.norm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six small pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 6, 128, 96)


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


def test_boxes_are_compared_with_those_of_their_own_picture_alone():
    torch.manual_seed(0)
    network, generator = BoxNet(NET).eval(), torch.Generator().manual_seed(1)
    squares, place = (torch.rand(*shape, generator=generator) for shape in ((5, 5, 32, 32), (5, 18)))

    def look(keep, picture):
        keep = torch.tensor(keep)
        return network(BoxInputs(squares[keep], place[keep], keep % 3, torch.tensor(picture)))

    every = look([0, 1, 2, 3, 4], [0, 0, 7, 7, 7])
    for keep, picture in (([0, 1], [0, 0]), ([2, 3, 4], [1, 1, 1])):
        for name, value in vars(look(keep, picture)).items():
            torch.testing.assert_close(value, getattr(every, name)[keep], msg=name)
    alone = look([2], [0])
    assert (alone.distance - every.distance[2]).abs().max() > 1e-4
    torch.testing.assert_close(alone.logits, every.logits[2:3])


def test_estimates_are_metres_in_the_camera_frame():
    camera = Camera(200, 100, 80.0, 90.0, 95.0, 52.0)
    boxes = torch.tensor([[20.0, 10.0, 60.0, 50.0]])
    found = BoxOutput(
        torch.tensor([[3.0, 4, 0, 1, 0.5, 0]]), torch.zeros(1, 9), torch.tensor([[np.log(2.0), np.log(0.1)]]),
        torch.tensor([[0.5, -1.0, 0.0]]), torch.tensor([[0.0, np.log(2), np.log(3), np.log(0.2)]]),
        torch.zeros(1, 2),
    )  # fmt: skip
    (estimate,) = estimates(found, boxes, camera)
    ray = np.array([(50.0 - 95) / 80, (10.0 - 52) / 90, 1])  # half of half its width to the right, on top
    np.testing.assert_allclose(estimate.T_m, 2 * ray / np.linalg.norm(ray), atol=1e-5)
    np.testing.assert_allclose(estimate.S_m, [1, 2, 3], rtol=1e-5)
    np.testing.assert_allclose(estimate.azimuth, [0.6, 0.8, 0, 1, 0.5, 0], atol=1e-6)
    assert (estimate.distance_sigma_log, estimate.extents_sigma_log) == pytest.approx((0.1, 0.2))
    assert estimate.packed() == (*estimate.azimuth, *estimate.T_m, *[estimate.distance_sigma_log],
                                 *estimate.S_m, estimate.extents_sigma_log)  # fmt: skip


def test_the_command_trains_and_the_predictor_looks_at_pictures_of_any_camera(folder, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({
        "network": {"size_px": 32, "channels": [4, 4, 8, 8], "features": 8, "heads": 2, "background": False},
            "kept_px": 48, "proposals": 0.0,
        "train": {"steps": 3, "pictures": 8},
    }))  # fmt: skip
    arguments = ["train-perception", "boxes", "--out", str(tmp_path / "run"), "--config", str(config),
                 "--pictures", str(folder), "--validation", str(folder)]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3 and "place_20cm" in rows[-1]["validation"]
    predictor = BoxPredictor.load(tmp_path / "run/weights.safetensors")
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
        assert [d.estimate is not None for d in found] == [True, False, True, False, True]
        for d in (found[0], found[2], found[4]):
            numbers = np.array(d.estimate.packed())
            assert np.isfinite(numbers).all() and (numbers[9:] > 0).all() and d.estimate.T_m[2] > 0
            assert (np.linalg.norm(numbers[:6].reshape(3, 2), axis=1) <= 1 + 1e-5).all()
        assert predictor.look(image, camera, []) == []
        every = [predictor.look(image, camera, [Detection(boxes[0], name)], 0.0)[0].score
                 for name in CATEGORIES]  # fmt: skip
        # scores of 1: what is left is the probability of the category, to the power 0.7
        assert sum(score ** (1 / 0.7) for score in every) == pytest.approx(1, abs=1e-4)
        judged = predictor.look(image, camera, given, 0.0)
        assert [d.score for d in judged] == sorted((d.score for d in judged), reverse=True)
        kept = {d.box_xyxy: d for d in judged if d.category == "bed"}
        share = kept[boxes[0]].score
        assert share == pytest.approx(every[CATEGORIES.index("bed")], rel=1e-4)
        assert kept[boxes[1]].score == 1 and kept[boxes[1]].estimate is None  # not looked at
        assert [d.score for d in judged if d.category == "lamp"] == [1]  # not one of the nine
        (half,) = predictor.look(image, camera, [Detection(boxes[0], "bed", 0.5)], 0.0)
        assert half.score == pytest.approx(share * 0.5**0.3, rel=1e-5)
        # what is left out is not compared with the others
        some = predictor.look(image, camera, given, 0.9)
        assert {(d.category, d.box_xyxy) for d in some} == {
            ("lamp", boxes[0]),
            ("bed", boxes[1]),
            ("bed", boxes[3]),
        }
        (lamp,) = [d for d in some if d.category == "lamp"]
        (single,) = predictor.look(image, camera, [given[4]])
        np.testing.assert_allclose(lamp.estimate.packed(), single.estimate.packed(), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="the camera is 90×60, the image 10×10"):
        predictor.look(np.zeros((10, 10, 3), np.uint8), camera, given)


def test_weights_of_another_kind_are_refused(tmp_path):
    save_predictor(tmp_path / "w.safetensors", BoxNet(NET).state_dict(), BoxTraining())
    with pytest.raises(ValueError, match="expected those of a BoxNetConfig, got BoxTraining"):
        BoxPredictor.load(tmp_path / "w.safetensors")
