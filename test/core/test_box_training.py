"""What the box network is to say of stored pictures, and its training."""

import dataclasses

import numpy as np
import pytest
import torch
from box_fixtures import NET, UP, pictures
from scipy.spatial.transform import Rotation

from sparc_core.geometry.rotation import azimuth_rad, level_frame
from sparc_core.perception.box_inputs import (
    BoxInputs,
    cut_square,
    flags_of,
    mirrored_place,
    mirrored_sides,
    place_of,
    square_of,
)
from sparc_core.perception.box_net import BoxNet, BoxNetConfig, BoxOutput, corrected, shortened
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.training.box_figures import MOVED, look_at_table, measure_boxes
from sparc_core.training.box_table import BoxTable, cut_kept
from sparc_core.training.box_truth import BoxTruth, truth_of
from sparc_core.training.boxes import BoxBatch, BoxBatches, BoxLosses, BoxTraining, make_box_trainer
from sparc_core.training.predictor_trainer import PredictorTrainConfig
from sparc_core.types import CATEGORIES


@pytest.fixture(scope="module")
def folder():
    """Six small pictures."""
    return pictures()


@pytest.fixture(scope="module")
def table(folder):
    return BoxTable(PictureFolder(folder), 48)


def training(**changes):
    train = PredictorTrainConfig(steps=6, pictures=2, learning_rate=3e-3, optimiser="muon", precision="fp32")
    return BoxTraining(**{"network": NET, "train": train, "kept_px": 48, "proposals": 0.0, **changes})


def test_targets_have_the_harmonics_that_the_symmetry_leaves(table):
    index = torch.arange(len(table))
    truth = truth_of(table, index, table.boxes_xyxy)
    harmonics, known = truth.harmonics, truth.turned
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


def test_truth_is_that_of_the_pictures(table, folder):
    pictures, position = PictureFolder(folder), 0
    truth = truth_of(table, torch.arange(len(table)), table.boxes_xyxy)
    for i in range(len(pictures)):
        picture = pictures.read(i, ())
        up = np.array(picture.up_cam)
        fx, fy, cx, cy = picture.intrinsics
        floor = max((o.S_m[1] / 2 - up @ o.T_m for o in picture.objects if o.category != "display"),
                    default=np.nan)  # fmt: skip
        for o in picture.objects:
            x0, y0, x1, y1 = o.box_xyxy
            if min(x1 - x0, y1 - y0) < 10:
                continue
            x, y, z = o.T_m
            seen = np.array([fx * x / z + cx - (x0 + x1) / 2, fy * y / z + cy - (y0 + y1) / 2])
            expected = np.clip(2 * seen / [x1 - x0, y1 - y0], -1.5, 1.5)
            np.testing.assert_allclose(truth.centre[position], expected, atol=1e-3)
            assert float(truth.distance[position].exp()) == pytest.approx(np.linalg.norm(o.T_m), rel=1e-4)
            np.testing.assert_allclose(truth.extents[position].exp(), o.S_m, rtol=1e-4)
            assert bool(truth.stands[position]) == (not np.isnan(floor))
            if not np.isnan(floor):
                assert float(truth.height[position].exp()) == pytest.approx(max(floor, 0.1), rel=1e-3)
            assert CATEGORIES[truth.label[position]] == o.category
            position += 1
    assert position == len(table)


def test_squares_that_are_kept_give_what_the_picture_gives(table, folder):
    """A box that was moved is cut out of the kept square in training, out of the picture at run time."""
    index = torch.arange(min(6, len(table)))
    exact = table.boxes_xyxy[index]
    moved = exact + torch.tensor([0.03, -0.02, -0.03, 0.04]) * (exact[:, 2:] - exact[:, :2]).repeat(1, 2)
    found = cut_kept(table.squares[index], exact, moved, 32)
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


def test_drawn_boxes_are_of_whole_pictures_and_truth_is_mirrored_with_them(table):
    """Every drawn box is one of the table or its mirror image; boxes of one picture are mirrored together."""
    still = training(box_jitter=0.0, colour=0.0, no_gravity=0.0, no_category=0.0, missing=0.0)
    batch = BoxBatches(table, still).draw(torch.Generator().manual_seed(3))
    truth, boxes = batch.truth, batch.boxes
    every = torch.arange(len(table))
    boxes_xyxy = table.boxes_xyxy.clamp(min=0).minimum(table.size_px.repeat(1, 2) - 1)
    known = truth_of(table, every, boxes_xyxy)
    place = place_of(boxes_xyxy, table.intrinsics, table.size_px, table.up_cam)
    turn = torch.tensor([1.0, -1.0]).repeat(3)
    mirrored = set()
    for k in range(len(truth.label)):
        own = [i for i in range(len(table)) if torch.equal(known.distance[i], truth.distance[k])]
        assert len(own) == 1
        (i,) = own
        is_mirrored = not torch.allclose(boxes.place[k], place[i])
        mirrored.add((int(boxes.picture[k]), is_mirrored))
        torch.testing.assert_close(boxes.place[k], mirrored_place(place[i]) if is_mirrored else place[i])
        sign = torch.tensor([-1.0, 1.0]) if is_mirrored else torch.ones(2)
        torch.testing.assert_close(truth.centre[k], known.centre[i] * sign)
        sides = known.sides[i]
        torch.testing.assert_close(truth.sides[k], mirrored_sides(sides) if is_mirrored else sides)
        torch.testing.assert_close(truth.harmonics[k], known.harmonics[i] * (turn if is_mirrored else 1))
        assert boxes.category[k] == truth.label[k] == table.label[i]
    assert len(mirrored) == len(set(boxes.picture.tolist())) == 2
    assert len(truth.label) in {int(a + b) for a in table.count for b in table.count}
    few = BoxBatches(table, training(missing=1.0)).draw(torch.Generator())
    assert len(few.truth.label) == 1


def test_the_sides_of_moved_boxes_lead_back_to_the_object(table):
    index = torch.arange(len(table))
    exact = table.boxes_xyxy
    torch.testing.assert_close(truth_of(table, index, exact).sides, torch.zeros(len(index), 4))
    moved = exact + torch.tensor([0.2, -0.1, 0.3, 0.05]) * (exact[:, 2:] - exact[:, :2]).repeat(1, 2)
    sides = truth_of(table, index, moved).sides
    torch.testing.assert_close(corrected(moved, sides), exact, rtol=1e-4, atol=1e-3)
    # in a mirror of a picture that is 200 wide
    width = torch.tensor([200.0, 0, 200, 0])
    mirror = torch.tensor([-1.0, 1, -1, 1])
    flipped, goal = (width + mirror * boxes[:, [2, 1, 0, 3]] for boxes in (moved, exact))
    torch.testing.assert_close(corrected(flipped, mirrored_sides(sides)), goal, rtol=1e-4, atol=1e-3)
    far = corrected(torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[3.0, -9, -2, 0]]))
    assert (far[:, 2:] > far[:, :2]).all()  # never turned inside out


def test_losses_by_hand():
    two = torch.zeros(2, 1)

    class Says(torch.nn.Module):
        def forward(self, boxes):
            return BoxOutput(
                torch.tensor([[0.5, 0, 0, 1, 0, 0], [9, 9, 1, 0, 0, -1]]), torch.zeros(2, 9),
                torch.tensor([[0.1, 0, 0, 0, np.log(0.1)], [0, 0, 0, 0.2, np.log(0.2)]]),
                torch.tensor([[0.3, np.log(0.1)], [0.0, np.log(2.0)]]), torch.zeros(2, 3), torch.zeros(2, 4),
                torch.tensor([[0.4, 0.0], [5.0, 0.0]]),
            )  # fmt: skip

    harmonics = torch.tensor([[1.0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1]])
    turned = torch.tensor([[True, True, True], [False, True, True]])
    truth = BoxTruth(
        torch.tensor([0, 3]), harmonics, turned, torch.tensor([[0.1], [1.0]]),
        torch.tensor([[0.3, -0.1], [0, 0]]), torch.tensor([[0.3, 0, 0.6], [0, 0, 0]]), two,
        torch.tensor([[0.1, 0, 0, 0.2], [0, 0, 0, 0]]), torch.tensor([True, False]),
    )  # fmt: skip
    batch = BoxBatch(BoxInputs(two, two, two, two), truth)
    losses = BoxLosses(Says(), training(metric_weight=2.0, sides_weight=2.0, beta=0.0))(batch)
    assert losses["azimuth"].item() == pytest.approx((0.25 + 0 + 1 + 0 + 4) / 5)
    assert losses["category"].item() == pytest.approx(np.log(9))
    first, second = 0.5 * 2**2 + np.log(0.1), 0.5 * 0.5**2 + np.log(2)
    assert losses["distance"].item() == pytest.approx(first + second)
    assert losses["centre"].item() == pytest.approx(0.5 * (0.09 + 0.01) / 2)
    assert losses["extents"].item() == pytest.approx(0.5 * (0.09 + 0.36) / 3)
    assert losses["height"].item() == pytest.approx(2 * 0.5 * 0.16)  # that of the first alone
    both = (0.5 * 2**2 / 4 + np.log(0.1)) + (0.5 * 1 / 4 + np.log(0.2))
    assert losses["sides"].item() == pytest.approx(both)
    even = BoxLosses(Says(), training(metric_weight=1.0, beta=0.5))(batch)
    assert even["distance"].item() == pytest.approx((0.1 * first + 2 * second) / 2)
    pairs = shortened(torch.tensor([[3.0, 4, 0.3, 0.4, 0, 0]]))
    np.testing.assert_allclose(pairs, [[0.6, 0.8, 0.3, 0.4, 0, 0]], atol=1e-6)


def test_training_lowers_the_loss_and_goes_on_where_it_stopped(folder):
    longer = dataclasses.replace(training().train, steps=150, pictures=4, learning_rate=5e-3)
    settings = training(train=longer)
    trainer, logs = make_box_trainer(settings, PictureFolder(folder)), []
    trainer.run(logs.append)
    first, last = (np.mean([row["loss"] for row in part]) for part in (logs[:5], logs[-5:]))
    assert last < 0.9 * first

    def run(steps):
        trainer = make_box_trainer(training(), PictureFolder(folder))
        trainer.run(lambda row: None, stop=lambda: trainer.step >= steps)
        return trainer

    whole, half, other = run(6), run(3), make_box_trainer(training(), PictureFolder(folder))
    other.load_state(half.state())
    other.run(lambda row: None)
    for name, value in whole.averaged.items():
        assert torch.equal(value, other.averaged[name]), name


def test_only_a_part_of_the_pictures_is_trained_on(folder):
    pictures = PictureFolder(folder)
    parts = [make_box_trainer(training(share=s), pictures).batches.table for s in ((0.0, 0.5), (0.5, 1.0))]
    whole = make_box_trainer(training(), pictures).batches.table
    assert len(parts[0]) + len(parts[1]) == len(whole)
    assert torch.equal(torch.cat([p.boxes_xyxy for p in parts]), whole.boxes_xyxy)
    for share in ((0.5, 0.5), (0.2, 1.2)):
        with pytest.raises(ValueError, match=r"box training share must be within \[0, 1\]"):
            training(share=share)
    with pytest.raises(ValueError, match="size_px must be a multiple of 16, at least 32, got 40"):
        BoxNetConfig(40)
    with pytest.raises(ValueError, match="kept_px must be at least size_px, got 16"):
        training(kept_px=16)


def test_figures_of_a_network_that_knows_and_of_one_that_does_not(table):
    class Knows(BoxNet):
        turn, further, larger, seen = 0.0, 1.0, 1.0, 0
        given = table.boxes_xyxy

        def forward(self, boxes):
            index = torch.arange(self.seen, self.seen + len(boxes.category))
            self.seen = (self.seen + len(index)) % len(table)
            truth = truth_of(table, index, self.given[index])
            turn = torch.tensor([[k * self.turn for k in (1, 2, 4)]])
            cos, sin = truth.harmonics.unflatten(-1, (-1, 2)).unbind(-1)
            turned = (cos * turn.cos() - sin * turn.sin(), sin * turn.cos() + cos * turn.sin())
            distance, extents = truth.distance + np.log(self.further), truth.extents + np.log(self.larger)
            known = [truth.sides, distance, truth.centre, extents, truth.height]
            known = [torch.nn.functional.pad(x, (0, 1)) for x in known]
            return BoxOutput(torch.stack(turned, -1).flatten(1), torch.eye(9)[table.label[index]], *known)

    network = Knows(NET)
    found = measure_boxes(network, table)
    inside = truth_of(table, torch.arange(len(table)), table.boxes_xyxy).centre.abs().amax(1) < 1.5
    shares = {f"{n}_{limit}" for n in ("azimuth", "front") for limit in (20, 45)} | {"category", "extents_20"}
    assert {name: found[name] for name in shares} == dict.fromkeys(shares, 1.0)
    assert found["place_20cm"] >= inside.float().mean() > 0.5
    assert found["place_off_m"] == found["distance_off"] == found["height_off"] == 0
    network.turn, network.further, network.larger = np.radians(30), 1.1, 1.25
    found = measure_boxes(network, table)
    assert found["front_20"] == 0 and found["front_45"] == 1 and found["extents_20"] == 0
    assert found["distance_off"] == pytest.approx(0.1, abs=1e-3)
    off = look_at_table(network, table).distance[:, 0].exp() / 11
    assert found["place_off_m"] == pytest.approx(float(off.median()), rel=0.05)
    assert found["moved_iou"] == found["corrected_iou"] < 0.9
    network.given = jitter_boxes(
        table.boxes_xyxy[:, None], table.size_px, MOVED, torch.Generator().manual_seed(0)
    )[:, 0]  # fmt: skip
    assert measure_boxes(network, table)["corrected_iou"] == pytest.approx(1, abs=1e-3)
