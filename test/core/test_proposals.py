"""What a detector finds in stored pictures, and the box network that learns to judge it."""

import dataclasses
import json

import box_fixtures
import numpy as np
import pytest
import torch
from baseline_fixtures import DETECTOR
from builders import write_pictures
from typer.testing import CliRunner

from sparc_core.perception.box_net import BoxNet
from sparc_core.perception.box_predictor import BoxPredictor
from sparc_core.perception.mask_rcnn import MaskRcnnDetector, build_mask_rcnn
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.scripts.main import app
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.training.box_table import NONE, BoxTable
from sparc_core.training.boxes import BoxBatches, BoxLosses, BoxTraining, make_box_trainer
from sparc_core.training.predictor_trainer import PredictorTrainConfig
from sparc_core.training.proposals import distinct, labelled, read_proposals
from sparc_core.types import CATEGORIES, Camera, Detection

NET = dataclasses.replace(box_fixtures.NET, background=True)


@pytest.fixture
def folder(tmp_path):
    """Three small pictures."""
    (tmp_path / "pictures").mkdir()
    return write_pictures(tmp_path / "pictures", 3, 128, 96)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A detector that knows nothing and finds a lot."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    save_predictor(path, build_mask_rcnn(DETECTOR).state_dict(), DETECTOR)
    return path


def training(**changes):
    train = PredictorTrainConfig(steps=6, pictures=4, optimiser="muon", precision="fp32")
    return BoxTraining(**{"network": NET, "train": train, "kept_px": 48, "missing": 0.0, **changes})


def test_boxes_without_masks_are_those_of_the_detections(weights, folder):
    detector = MaskRcnnDetector.load(weights, min_score=0.1)
    image = PictureFolder(folder).read(0, ()).rgb
    boxes, scores = detector.detect_boxes(image)
    found = detector.detect(image)
    assert len(found) > 3
    np.testing.assert_allclose(boxes, [d.box_xyxy for d in found], atol=1e-4)
    np.testing.assert_allclose(scores, [d.score for d in found], atol=1e-6)
    most = np.median(scores)
    assert 0 < len(MaskRcnnDetector.load(weights, min_score=most).detect_boxes(image)[0]) < len(found)


def test_of_boxes_that_are_one_the_best_stays():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10.5], [0, 0, 10, 20], [50, 50, 60, 60]], dtype=float)
    found = distinct(boxes, np.array([0.5, 0.6, 0.3, 0.4]))
    np.testing.assert_array_equal(found, boxes[[1, 3, 2]])
    assert distinct(np.zeros((0, 4)), np.zeros(0)).shape == (0, 4)


def test_a_box_shows_the_object_that_it_covers_best_or_none(folder):
    chair, other = (
        dataclasses.replace(PictureFolder(folder).read(0, ()).objects[0], box_xyxy=box)
        for box in ((0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0))
    )
    boxes = np.array(
        [[0, 0, 10, 12], [19, 0, 30, 10], [0, 0, 10, 22], [0, 0, 10, 30], [50, 50, 60, 60]], float
    )
    found = labelled(boxes, (chair, other))  # IoU 0.83, 0.91, 0.45, 0.33, 0
    np.testing.assert_array_equal([box for box, _ in found], boxes[[0, 1, 3, 4]])
    assert [item for _, item in found] == [chair, other, None, None]
    assert [item for _, item in labelled(boxes[:2], ())] == [None, None]
    assert labelled(np.zeros((0, 4)), (chair,)) == []


def test_the_command_writes_boxes_and_keeps_those_that_are_there(weights, folder):
    def call(count, *more):
        arguments = ["train-perception", "proposals", "--pictures", str(folder), "--count", str(count)]
        return CliRunner().invoke(app, [*arguments, "--detector", str(weights), *more])

    result = call(1)
    assert result.exit_code == 0 and "1 of them new" in result.output, result.output
    first = (folder / "proposals.jsonl").read_text()
    result = call(9, "--threads", "1")
    assert result.exit_code == 0 and "2 of them new" in result.output, result.output
    text = (folder / "proposals.jsonl").read_text()
    assert text.startswith(first)
    found = read_proposals(folder)
    assert list(found) == [0, 1, 2] and all(len(boxes) for boxes in found.values())
    picture = PictureFolder(folder).read(2, ())
    boxes, scores = MaskRcnnDetector.load(weights, min_score=0.05).detect_boxes(picture.rgb)
    np.testing.assert_allclose(found[2], distinct(boxes, scores), atol=0.006)

    (folder / "proposals.jsonl").write_text(text + '{"number": 7}\n')
    with pytest.raises(ValueError, match=r"proposals.jsonl, line 4: not a picture's number and boxes_xyxy"):
        read_proposals(folder)
    result = call(1, "--detector", "none.safetensors")
    assert result.exit_code == 2 and "none.safetensors: no such file" in result.output


def test_proposals_are_learnt_as_what_they_show(folder):
    pictures = PictureFolder(folder)
    plain = BoxTable(pictures, 48)
    picture = pictures.read(1, ())
    item = next(o for o in picture.objects if np.min(np.subtract(o.box_xyxy[2:], o.box_xyxy[:2])) > 12)
    right, nothing = np.array(item.box_xyxy) + [1, 0, 0, 1], np.array([0.0, 0, 12, 12])
    assert labelled([nothing], picture.objects)[0][1] is None
    row = {"number": picture.number, "boxes_xyxy": [right.tolist(), nothing.tolist(), [0, 0, 12, 8]]}
    with pytest.raises(ValueError, match="write it with sparc train-perception proposals"):
        make_box_trainer(training(), pictures)
    (folder / "proposals.jsonl").write_text(json.dumps({**row, "number": 99}) + "\n")
    with pytest.raises(ValueError, match=r"proposals.jsonl: it has no boxes of the pictures to train on"):
        make_box_trainer(training(), pictures)
    (folder / "proposals.jsonl").write_text(json.dumps(row) + "\n")
    trainer = make_box_trainer(training(), pictures)
    table = trainer.batches.table
    assert len(table) == len(plain) + 2  # the third is too small
    assert table.pictures == plain.pictures and table.count[plain.pictures :].tolist() == [1, 1]
    assert table.label.tolist() == [*plain.label.tolist(), CATEGORIES.index(item.category), NONE]
    torch.testing.assert_close(table.boxes_xyxy[-2:], torch.from_numpy(np.stack((right, nothing))).float())
    torch.testing.assert_close(table.T[-2], torch.tensor(item.T_m))

    settings = training(no_category=0.0, proposals=5.0)
    batch = BoxBatches(table, settings).draw(torch.Generator().manual_seed(0))
    empty = batch.truth.label == NONE
    assert 2 < empty.sum() < 18 and (batch.boxes.picture >= 4).sum() == 20  # one box each, of its own
    assert (batch.boxes.category[empty] == -1).all()
    assert torch.equal(batch.boxes.category[~empty], batch.truth.label[~empty])
    assert torch.equal(batch.boxes.picture.unique(), torch.arange(24))
    rows = []
    trainer.run(rows.append)
    assert len(rows) == 6 and all(np.isfinite(row["loss"]) for row in rows)
    for wrong in ({"proposals": 0.0}, {"network": dataclasses.replace(NET, background=False)}):
        with pytest.raises(ValueError, match="proposals must be positive with a network background, else 0"):
            training(**wrong)


def test_of_a_box_without_an_object_only_that_is_learnt(folder):
    row = {"number": 0, "boxes_xyxy": [[0, 0, 12, 12]]}
    (folder / "proposals.jsonl").write_text(json.dumps(row) + "\n")
    trainer = make_box_trainer(training(), PictureFolder(folder))
    table = trainer.batches.table
    assert table.label[-1] == NONE
    batch = BoxBatches(table, training()).draw(torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    losses = BoxLosses(BoxNet(NET).eval(), training())
    before = losses(batch)
    for name in ("harmonics", "distance", "centre", "extents", "height", "sides"):
        value = getattr(batch.truth, name)
        value[batch.truth.label == NONE] += 7
    after = losses(batch)
    assert before.keys() == after.keys() and all(before[n] == after[n] for n in before)
    batch.truth.label[batch.truth.label == NONE] = 0
    assert losses(batch)["category"] != before["category"]


def test_a_box_without_an_object_loses_its_score(folder, tmp_path):
    """Of a network with a background the probabilities of the nine are what that leaves of 1."""
    torch.manual_seed(0)
    network = BoxNet(NET)
    network.category.bias.data[-1] = 2.0
    save_predictor(tmp_path / "w.safetensors", network.state_dict(), NET)
    picture = PictureFolder(folder).read(0, ())
    height, width = picture.rgb.shape[:2]
    camera = Camera(width, height, *(float(v) for v in picture.intrinsics), up_cam=tuple(picture.up_cam))
    given = [Detection((10.0, 10.0, 60.0, 60.0), name) for name in CATEGORIES]  # each of them for sure
    predictor = BoxPredictor.load(tmp_path / "w.safetensors")
    judged = predictor.look(picture.rgb, camera, given, 0.0)
    left = sum(d.score ** (1 / 0.6) for d in judged)
    assert 0.3 < left < 0.7  # e² against nine of about 1 each
