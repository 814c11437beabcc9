"""`sparc finetune scannet25k` on the fixture: a run, its resumption, bad input."""

import pytest
import scannet_fixture as fixture
import torch
import yaml
from scannet_prepared import prepared as prepare
from scannet_prepared import sparc

from sparc_core.datasets.prepared import PreparedScannet
from sparc_core.datasets.splits import split_scenes
from sparc_core.pipeline import SHIPPED_WEIGHTS
from sparc_core.refine.model import load_network
from sparc_core.training.frame_store import FrameStore

TINY = {
    "images": 2, "epochs": 0, "steps": 4, "refinements": 2, "warmup_steps": 1, "loss": {"points": 50},
    "data": {"threads": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fixture.write_tree(tmp_path_factory.mktemp("licensed"))


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory):
    return prepare(tree, tmp_path_factory.mktemp("prepared") / "all")


@pytest.fixture(scope="module")
def dataset(prepared):
    return PreparedScannet(prepared)


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "train.txt").write_text("scene0001_00\nscene0002_00\n")
    (tmp_path / "val.txt").write_text("scene0003_00\n")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path


def finetune(prepared, lists, *more):
    given = {"--train": lists / "train.txt", "--validation": lists / "val.txt", "--out": lists / "run"}
    given |= {"--config": lists / "tiny.yaml", "--device": "cpu", "--cache": lists / "channels"}
    given |= dict(zip(more[::2], more[1::2], strict=True))
    return sparc("finetune", "scannet25k", prepared, *(v for pair in given.items() for v in pair))


def test_the_command_trains_validates_writes_weights_and_resumes(prepared, lists):
    result = finetune(prepared, lists)
    assert result.exit_code == 0, result.output
    assert "train: 3 frames, 5 objects (1 bookshelf, 2 chair, 2 table)" in result.output
    assert "validation: 1 frames, 1 objects (1 chair)" in result.output
    assert "finished at step 4" in result.output
    out = lists / "run"
    validation = yaml.safe_load((out / "train.jsonl").read_text().splitlines()[-1])["validation"]
    assert validation["objects"] == 1 and validation["right"] in (0.0, 1.0) and "class" in validation
    before, shipped = (
        load_network(p)[0].state_dict() for p in (out / "weights.safetensors", SHIPPED_WEIGHTS)
    )
    assert before.keys() == shipped.keys() and any(not torch.equal(v, shipped[k]) for k, v in before.items())
    assert yaml.safe_load((out / "config.yaml").read_text())["data"]["depth"] == "sensor"
    again = finetune(prepared, lists)
    assert again.exit_code == 2 and "give --resume to go on" in again.output
    (lists / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"steps": 8}))
    more = sparc(
        "finetune", "scannet25k", prepared, "--train", lists / "train.txt", "--validation", lists / "val.txt",
        "--out", out, "--config", lists / "tiny.yaml", "--device", "cpu", "--cache", lists / "channels",
        "--resume",
    )  # fmt: skip
    assert more.exit_code == 0 and "resumed at step 4" in more.output and "finished at step 8" in more.output


def test_wrong_input_is_named(prepared, tree, lists):
    unknown, empty, broken = (lists / name for name in ("unknown.txt", "empty.txt", "broken.yaml"))
    unknown.write_text("scene0001_00\nscene0707_00\n")
    empty.write_text("\n")
    broken.write_text("data: {masks_own: 0.9}\n")
    for changes, message in (
        (("--train", unknown), "unknown.txt: 1 of its 2 scenes are not in"),
        (("--train", empty), "empty.txt: expected one scene a line, got none"),
        (("--train", lists / "nowhere.txt"), "nowhere.txt: no such file"),
        (("--validation", lists / "train.txt"), "scene0001_00 is a room of"),
        (("--config", broken), "must add up to 1, got 1.5500"),
        (("--init", lists / "train.txt"), "train.txt"),
        (("--depth", "no-such-file"), "no-such-file"),
        (("--detections", lists / "nothing.json"), "nothing.json: no such file"),
        (
            ("--detections", tree / "per_frame_preds.json"),
            "val.txt: none of the frames of its 1 scenes shows",
        ),
    ):
        result = finetune(prepared, lists, *changes)
        text = " ".join(result.output.split())
        assert result.exit_code == 2 and message in text, (changes, result.output, result.exception)
    result = finetune(tree, lists)
    assert result.exit_code == 2 and "dataset.json: no such file" in result.output


def test_scenes_that_are_not_prepared_may_be_left_out_and_no_list_takes_all_others(dataset, lists):
    unknown = lists / "unknown.txt"
    unknown.write_text("scene0001_00\nscene0707_00\n")
    assert split_scenes(dataset, unknown, lists / "val.txt", keep_going=True) == (
        ["scene0001_00"], ["scene0003_00"], ["scene0707_00"],
    )  # fmt: skip
    assert split_scenes(dataset, None, lists / "val.txt")[0] == ["scene0001_00", "scene0002_00"]
    unknown.write_text("scene0707_00\n")
    with pytest.raises(ValueError, match="none of its scenes is in"):
        split_scenes(dataset, unknown, lists / "val.txt", keep_going=True)


def test_sensor_depth_that_was_not_prepared_is_refused(dataset, tmp_path):
    bare = PreparedScannet(dataset.folder)
    bare.has_depth = False
    with pytest.raises(ValueError, match="prepared without depth images"):
        FrameStore(bare, "sensor", tmp_path, {}, {"chair": 1.0})
