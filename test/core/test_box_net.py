"""What is in a box: squares of the picture, the network, and the predictor at the end of its training."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from box_fixtures import NET, UP, pictures
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from sparc_core.geometry.rotation import azimuth_rad, level_frame
from sparc_core.perception.box_inputs import (
    BoxInputs,
    cut_square,
    flags_of,
    mirrored_sides,
    place_of,
    square_of,
)
from sparc_core.perception.box_net import BoxNet, BoxOutput
from sparc_core.perception.box_predictor import BoxPredictor, estimates
from sparc_core.perception.judgement import distinct_objects, lowest_score
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.scripts.main import app
from sparc_core.training.boxes import BoxTraining
from sparc_core.types import CATEGORIES, Camera, Detection


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
        torch.tensor([[3.0, 4, 0, 1, 0.5, 0]]), torch.zeros(1, 9), torch.zeros(1, 5),
        torch.tensor([[np.log(2.0), np.log(0.1)]]),
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


def test_the_command_trains_and_the_predictor_looks_at_pictures_of_any_camera(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({
        "network": {"size_px": 32, "channels": [4, 4, 8, 8], "features": 8, "heads": 2, "background": False},
            "kept_px": 48, "proposals": 0.0,
        "train": {"steps": 3, "pictures": 8},
    }))  # fmt: skip
    arguments = ["train-perception", "boxes", "--out", str(tmp_path / "run"), "--config", str(config),
                 "--pictures", str(pictures()), "--validation", str(pictures())]  # fmt: skip
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
    with pytest.raises(ValueError, match="the camera is 90×60, the image 10×10"):
        predictor.look(np.zeros((10, 10, 3), np.uint8), camera, given)


class Fixed(BoxNet):
    """Judges every box alike: a half for the bed, and the same sides whatever the box."""

    sides_said = (0.0, 0.0, 0.0, 0.0)

    def look_both_ways(self, boxes):
        found = self.look(boxes)
        logits = torch.zeros_like(found.logits)
        logits[:, CATEGORIES.index("bed")] = np.log(8.0)
        sides = torch.tensor([(*self.sides_said, 0.0)]).expand(len(logits), 5)
        return dataclasses.replace(found, logits=logits, sides=sides)


def judge(sides=(0.0, 0.0, 0.0, 0.0)):
    torch.manual_seed(0)
    network = Fixed(NET)
    network.sides_said = sides
    return BoxPredictor(network)


def mirror_inputs():
    """Two boxes of a picture, from the same random numbers every time."""
    generator = torch.Generator().manual_seed(0)
    camera = torch.tensor([[60.0, 60.0, 45.0, 30.0]]).expand(2, 4)
    size, up = torch.tensor([[90.0, 60.0]]).expand(2, 2), torch.tensor([[0.1, -0.9, -0.2]]).expand(2, 3)
    boxes = torch.tensor([[0.0, 10.0, 40.0, 50.0], [30.0, 5.0, 60.0, 30.0]])
    rgb = torch.rand(2, 3, 32, 32, generator=generator)
    squares = torch.cat((rgb, flags_of(boxes, *square_of(boxes), size, 32)), 1)
    place = place_of(boxes, camera, size, up)
    return BoxInputs(squares, place, torch.tensor([1, -1]), torch.zeros(2).int())


def test_boxes_are_judged_as_their_mirror_images_are():
    torch.manual_seed(0)
    network = BoxNet(NET).eval()
    given = mirror_inputs()
    with torch.no_grad():
        alone, other = network.look(given), network.look(given.mirrored())
        both, mirror = network.look_both_ways(given), network.look_both_ways(given.mirrored())
    torch.testing.assert_close(both.token, alone.token)
    torch.testing.assert_close(both.logits, (alone.logits + other.logits) / 2)
    torch.testing.assert_close(both.logits, mirror.logits)
    assert (both.logits - alone.logits).abs().max() > 1e-3
    # a left side that moves to the right is in the mirror a right one that moves to the left
    torch.testing.assert_close(both.sides[:, 0], (alone.sides[:, 0] - other.sides[:, 2]) / 2)
    torch.testing.assert_close(both.sides[:, 1], (alone.sides[:, 1] + other.sides[:, 1]) / 2)
    torch.testing.assert_close(both.sides[:, [0, 2]], -mirror.sides[:, [2, 0]])
    torch.testing.assert_close(both.sides[:, 4], mirror.sides[:, 4])


def test_what_is_expected_of_boxes_is_that_of_their_mirror_images():
    torch.manual_seed(0)
    network = BoxNet(NET).eval()
    with torch.no_grad():
        once, both = network(mirror_inputs()), network.expect_both_ways(mirror_inputs())
        mirror = network.expect_both_ways(mirror_inputs().mirrored())
    for name in ("logits", "distance", "extents", "height"):
        torch.testing.assert_close(getattr(both, name), getattr(mirror, name))
    assert (both.distance - once.distance).abs().max() > 1e-3
    turn, aside = torch.tensor([1.0, -1.0] * 3), torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(both.harmonics, turn * mirror.harmonics)
    torch.testing.assert_close(both.centre, aside * mirror.centre)
    torch.testing.assert_close(both.sides[:, :4], mirrored_sides(mirror.sides[:, :4]))
    torch.testing.assert_close(both.sides[:, 4], mirror.sides[:, 4])


def test_a_mirrored_picture_has_its_objects_where_they_are_in_the_mirror():
    torch.manual_seed(0)
    predictor = BoxPredictor(BoxNet(NET))
    camera = Camera(90, 60, 60.0, 60.0, 42.0, 30.0, up_cam=(0.1, -0.9, -0.2))
    x, y, z = camera.up_cam
    mirror = dataclasses.replace(camera, cx=89 - camera.cx, up_cam=(-x, y, z))
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    (seen,) = predictor.look(image, camera, [Detection((10.0, 8.0, 50.0, 48.0), "bed")])
    (other,) = predictor.look(image[:, ::-1].copy(), mirror, [Detection((39.0, 8.0, 79.0, 48.0), "bed")])
    np.testing.assert_allclose(seen.estimate.T_m, np.array(other.estimate.T_m) * (-1, 1, 1), rtol=1e-3)
    np.testing.assert_allclose(seen.estimate.S_m, other.estimate.S_m, rtol=1e-3)
    turn = (1, -1) * (len(seen.estimate.azimuth) // 2)
    np.testing.assert_allclose(seen.estimate.azimuth, np.array(other.estimate.azimuth) * turn, atol=1e-3)


def test_every_box_is_judged_once_in_all_categories():
    """A detector gave a box in two categories, and one that is nearly the same."""
    camera, image = Camera(90, 60, 60.0, 60.0, 45.0, 30.0), np.zeros((60, 90, 3), np.uint8)
    box, near, small = (5.0, 6.0, 40.0, 50.0), (5.0, 6.0, 40.0, 51.0), (30.0, 30.0, 32.0, 31.0)
    given = [Detection(small, "bed", 0.8), Detection(box, "sofa", 0.5), Detection(box, "bed", 0.4),
             Detection(near, "bed", 0.3), Detection(box, "lamp", 0.45)]  # fmt: skip
    judged = judge().look(image, camera, given, 0.0)
    scores = {(d.category, d.box_xyxy): d.score for d in judged}
    assert [d.score for d in judged] == sorted(scores.values(), reverse=True) and len(scores) == 11
    expected = dict.fromkeys(CATEGORIES, 0.01**0.2 * 0.5**0.2 * (1 / 16) ** 0.6)
    expected["bed"] = 0.4**0.2 * 0.5**0.2 * 0.5**0.6
    expected["sofa"] = 0.5**0.4 * (1 / 16) ** 0.6
    for name, score in expected.items():
        assert scores[name, box] == pytest.approx(score, rel=1e-5), name
    # what the network does not know, or is too small to look at, is left as it is
    assert scores["lamp", box] == 0.45 and scores["bed", small] == 0.8
    assert [d.estimate is None for d in judged if d.box_xyxy == small] == [True]
    # what is left out is not compared with the others
    some = judge().look(image, camera, given, 0.46)
    assert [(d.category, d.box_xyxy) for d in some] == [("bed", small), ("bed", box)]
    (single,) = judge().look(image, camera, given[2:3])
    np.testing.assert_allclose(some[1].estimate.packed(), single.estimate.packed(), rtol=1e-4, atol=1e-6)
    assert judge().look(image, camera, [], 0.0) == []
    # a box that no category can lift is not looked at
    low, weak = lowest_score(0.46), [Detection(box, "bed", lowest_score(0.46) - 1e-3)]
    assert low == pytest.approx(0.46**2.5) and judge().look(image, camera, weak, 0.46) == []


def test_a_second_box_of_one_thing_loses_its_score_and_a_neighbour_keeps_it():
    first, same, neighbour = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 8.0), (8.0, 0.0, 18.0, 10.0)
    far = (50.0, 0.0, 60.0, 10.0)
    given = [Detection(same, "bed", 0.85), Detection(first, "bed", 0.9), Detection(neighbour, "bed", 0.8),
             Detection(same, "sofa", 0.5), Detection(far, "bed", 0.01)]  # fmt: skip
    found = {(d.category, d.box_xyxy): d.score for d in distinct_objects(given, 0.0)}
    # overlaps of 80 of 100, 20 of 180, and 16 of 164 of what is left of it
    expected = {
        ("bed", first): 0.9, ("sofa", same): 0.5, ("bed", neighbour): 0.8 * np.exp(-((1 / 9) ** 2) / 0.3),
        ("bed", far): 0.01, ("bed", same): 0.85 * np.exp(-(0.8**2 + (16 / 164) ** 2) / 0.3),
    }  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-5)
    kept = distinct_objects(given, 0.45)
    assert [d.box_xyxy for d in kept] == [first, neighbour, same] and kept[2].category == "sofa"
    assert distinct_objects([], 0.0) == []


def test_boxes_that_are_judged_are_corrected_and_looked_at_again():
    camera = Camera(90, 60, 60.0, 60.0, 45.0, 30.0, up_cam=(0.0, -1.0, 0.0))
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    given = [Detection((20.0, 10.0, 60.0, 30.0), "bed", 0.9), Detection((16.0, 10.0, 54.0, 30.0), "bed", 0.8),
             Detection((16.0, 10.0, 54.0, 30.0), "sofa", 0.8)]  # fmt: skip
    sides = (0.1, -0.2, 0.8, 0.05)
    judged = judge(sides).look(image, camera, given, 0.17)
    assert [d.category for d in judged] == ["bed", "sofa"]  # the second bed is the first
    x1 = 60 + 40 * 0.45  # no side moves further
    np.testing.assert_allclose(judged[0].box_xyxy, (24, 6, x1, 31), atol=1e-4)
    again = judge(sides).look(image, camera, judged)
    assert [d.box_xyxy for d in again] == [d.box_xyxy for d in judged]  # boxes from outside are left alone
    for d, same in zip(judged, again, strict=True):
        np.testing.assert_allclose(d.estimate.packed(), same.estimate.packed(), rtol=1e-5)
    outside = judge((-0.4, 0, 0.4, 0)).look(image, camera, [Detection((2.0, 5.0, 85.0, 40.0), "bed")], 0.5)
    np.testing.assert_allclose(outside[0].box_xyxy, (-0.5, 5, 89.5, 40))  # cut at the picture's border
    bent = dataclasses.replace(camera, distortion=(-0.2, 0.05, 0, 0, 0), distortion_model="plumb_bob")
    through_lens = judge(sides).look(image, bent, given, 0.17)
    np.testing.assert_allclose(through_lens[0].box_xyxy, (24, 6, x1, 31), atol=1e-4)


def test_weights_of_another_kind_are_refused(tmp_path):
    save_predictor(tmp_path / "w.safetensors", BoxNet(NET).state_dict(), BoxTraining())
    with pytest.raises(ValueError, match="expected those of a BoxNetConfig, got BoxTraining"):
        BoxPredictor.load(tmp_path / "w.safetensors")
