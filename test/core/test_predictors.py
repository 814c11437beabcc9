"""Our predictors: losses, files, adapters, figures, and training that goes on where it stopped."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from builders import furniture, write_pictures
from safetensors.torch import save_file
from torchvision.models import resnet18
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.feature_extraction import create_feature_extractor
from typer.testing import CliRunner

from sparc_core.evaluation.perception import BoxFigures, DepthFigures
from sparc_core.perception import device_fallback
from sparc_core.perception.depth_net import (
    DepthNet,
    DepthNetConfig,
    OurDepthNormals,
)
from sparc_core.perception.mask_rcnn import COCO_CLASSES, MaskRcnnConfig, MaskRcnnDetector, build_mask_rcnn
from sparc_core.perception.predictor_file import load_predictor, save_predictor
from sparc_core.perception.trunk import ResnetTrunk
from sparc_core.scripts.main import app
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.training.predictor_trainer import PredictorTrainConfig, one_cycle
from sparc_core.training.predictors import DepthTraining, DetectorTraining, make_trainer
from sparc_core.training.retrieval import RetrievalTraining, make_retrieval_trainer
from sparc_core.types import Camera, Detection

DEPTH = DepthNetConfig(64, 48, channels=(8, 8, 8))
DETECTOR = MaskRcnnConfig(
    short_px=48, long_px=64, channels=8, box_features=16, mask_channels=8, box_samples=8
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six small pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 6, 64, 48)


def test_the_trunk_is_a_resnet_18_of_torchvision_and_keeps_its_names():
    torch.manual_seed(0)
    trunk, whole, images = ResnetTrunk().eval(), resnet18(weights=None).eval(), torch.rand(1, 3, 64, 96)
    left = whole.load_state_dict(trunk.state_dict(), strict=False)
    assert not left.unexpected_keys and all(n.startswith(("layer4.", "fc.")) for n in left.missing_keys)
    found = trunk(images)
    expected = create_feature_extractor(whole, ["layer1", "layer2", "layer3"])(images).values()
    assert [f.shape[1:] for f in found] == [(64, 16, 24), (128, 8, 12), (256, 4, 6)]
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    for network, prefix in ((DepthNet(DEPTH), "trunk."), (build_mask_rcnn(DETECTOR), "backbone.body.")):
        names = {name for name in network.state_dict() if name.startswith(prefix)}
        assert names == {prefix + name for name in trunk.state_dict()}


def test_weights_come_back_in_16_bits_and_wrong_files_are_named(tmp_path):
    torch.manual_seed(0)
    network, path = DepthNet(DEPTH), tmp_path / "d.safetensors"
    save_predictor(path, network.state_dict(), DEPTH, half=True)
    found, config = load_predictor(path, DepthNetConfig, DepthNet)
    assert config == DEPTH
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            torch.testing.assert_close(found.state_dict()[name], value.half().float())
        else:
            assert torch.equal(found.state_dict()[name], value)
    with pytest.raises(ValueError, match=r"d.safetensors: expected those of a MaskRcnnConfig, got DepthNet"):
        MaskRcnnDetector.load(path)
    with pytest.raises(ValueError, match="gone.safetensors: no such file"):
        OurDepthNormals.load(tmp_path / "gone.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="text.safetensors: not a readable"):
        OurDepthNormals.load(tmp_path / "text.safetensors")
    save_file(network.state_dict(), path, metadata={"kind": "DepthNetConfig"})
    with pytest.raises(ValueError, match="d.safetensors: holds no config; it was not written by sparc train"):
        OurDepthNormals.load(path)
    state = network.state_dict()
    del state["head.bias"]
    save_predictor(path, state, DEPTH)
    with pytest.raises(ValueError, match="do not fit the network: head.bias is missing"):
        OurDepthNormals.load(path)


def test_coco_weights_of_torchvisions_own_file_are_loaded_and_their_classes_mapped(tmp_path):
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / "maskrcnn.pth")
    detector = MaskRcnnDetector.load_coco(tmp_path / "maskrcnn.pth")
    for name, value in network.state_dict().items():
        assert torch.equal(detector.network.network.state_dict()[name], value), name
    assert detector.names[COCO_CLASSES.index("couch")] == "sofa"
    assert detector.names[COCO_CLASSES.index("person")] is None
    assert {n for n in detector.names if n} == {"chair", "sofa", "bed", "table", "display"}
    save_file(network.state_dict(), tmp_path / "maskrcnn.safetensors")
    again = MaskRcnnDetector.load_coco(tmp_path / "maskrcnn.safetensors")
    assert torch.equal(again.network.network.state_dict()[name], value)
    with pytest.raises(ValueError, match="no such file"):
        MaskRcnnDetector.load_coco(tmp_path / "other.pth")


class PlannedBoxes(torch.nn.Module):
    """In place of a Mask R-CNN: always the same answer."""

    def forward(self, images):
        self.image = images[0]
        masks = torch.zeros(3, 1, *images[0].shape[-2:])
        masks[0, 0, 2:5, 3:7] = 0.9
        return [{
            "boxes": torch.tensor([[3.0, 2, 7, 5], [0, 0, 9, 9], [1, 1, 4, 4]]),
            "labels": torch.tensor([2, 1, 2]), "scores": torch.tensor([0.9, 0.8, 0.2]), "masks": masks,
        }]  # fmt: skip


def test_detections_have_our_names_boxes_between_pixels_and_masks():
    network = PlannedBoxes()
    detector = MaskRcnnDetector(network, (None, None, "bed"))
    image = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    found = detector.detect(image)
    assert [(d.category, round(d.score, 3)) for d in found] == [
        ("bed", 0.9)
    ]  # another class, too low a score
    assert found[0].box_xyxy == (2.5, 1.5, 6.5, 4.5)
    assert found[0].mask.sum() == 12 and found[0].mask[2:5, 3:7].all()
    np.testing.assert_allclose(network.image.permute(1, 2, 0).numpy() * 255, image, atol=1e-3)
    with pytest.raises(ValueError, match="min_score"):
        MaskRcnnDetector(network, (None,), min_score=2)


def small_predictors():
    """Our predictors with random weights, and for each what it finds in an image."""
    torch.manual_seed(0)
    image, camera = np.full((48, 64, 3), 90, np.uint8), Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
    depth = OurDepthNormals(DepthNet(DEPTH))
    detector = MaskRcnnDetector(build_mask_rcnn(DETECTOR), (None, *DETECTOR.categories), min_score=0.0)
    return {
        "depth network": (depth.network, lambda: depth.predict(image, camera).depth_m.tolist()),
        "Mask R-CNN": (detector.network, lambda: [(d.box_xyxy, d.score) for d in detector.detect(image)]),
    }


@pytest.mark.parametrize("name", ["depth network", "Mask R-CNN"])
def test_out_of_memory_on_the_gpu_goes_on_on_the_cpu_and_says_so_once(monkeypatch, name):
    said, calls = [], []
    monkeypatch.setattr(device_fallback.log, "warning", lambda text, *values: said.append(text % values))
    movable, find = small_predictors()[name]
    expected = find()
    movable.device = torch.device("meta")  # stands for a GPU here

    def full_but_on_the_cpu(network, inputs):
        calls.append(inputs[0][0].device.type)
        if calls[-1] != "cpu":
            raise torch.cuda.OutOfMemoryError("2 GiB wanted")

    movable.network.register_forward_pre_hook(full_but_on_the_cpu)
    assert expected and find() == expected and find() == expected
    assert calls == ["meta", "cpu", "cpu"]
    assert said == [f"{name}: the GPU is out of memory, it goes on on the CPU: 2 GiB wanted"]


def test_depth_figures_by_hand():
    figures = DepthFigures()
    truth = np.array([[1.0, 2.0, 0.0]])
    facing = np.array([[[0, 0, -1.0], [0, 0, -1.0], [0, 0, 0]]])
    tilt = math.radians(20)
    found = np.array([[[0, 0, -1.0], [0, math.sin(tilt), -math.cos(tilt)], [1, 0, 0]]])
    seen = (np.array([[1.1, 3.0, 9.0]]), found, truth, facing)
    figures.add(*seen, np.array([[False, True, True]]))
    scale = (1 / 1.1 + 2 / 3) / 2  # the median of two ratios
    expected = {
        "abs_rel": pytest.approx((0.1 + 0.5) / 2), "delta": 0.5,
        "abs_rel_scaled": pytest.approx((1 - 1.1 * scale + (3 * scale - 2) / 2) / 2, abs=1e-4),
        "normals_11.25": 0.5, "normals_22.5": 1.0, "normals_30": 1.0,
        "object_abs_rel": 0.5, "object_delta": 0.0, "object_abs_rel_scaled": 0.0,
        "object_normals_11.25": 0.0, "object_normals_22.5": 1.0, "object_normals_30": 1.0,
    }  # fmt: skip
    assert figures.summary() == expected
    figures.add(*seen, np.zeros((1, 3), bool))  # a picture without objects counts as such only for the room
    assert figures.summary() == expected
    figures.add(*seen[:2], np.zeros((1, 3)), np.zeros((1, 3, 3)), np.ones((1, 3), bool))  # nothing is known
    assert len(figures.rows) == 2
    assert math.isnan(DepthFigures().summary()["abs_rel"])


def test_box_figures_by_hand():
    figures = BoxFigures(("bed", "sofa"))
    figures.add(
        [Detection((0, 0, 10, 10), "bed", 0.9), Detection((50, 50, 60, 60), "bed", 0.95)],
        [(0, 0, 10, 10)], ["bed"],
    )  # fmt: skip
    figures.add([Detection((0, 0, 10, 10), "bed", 0.8)], [(0, 0, 10, 10)], ["sofa"])
    found = figures.summary()
    # bed: precision 1/2 at full recall; sofa: never found
    assert found["box_ap50"] == pytest.approx(0.25, abs=1e-3)
    assert BoxFigures(("bed",)).summary()["box_ap50"] != BoxFigures(("bed",)).summary()["box_ap50"]  # NaN
    nothing = BoxFigures(("bed",))
    nothing.add([], [(0, 0, 1, 1)], ["bed"])
    assert nothing.summary() == {"box_ap50": 0.0, "box_ap": 0.0}


def test_pixels_of_objects_by_hand():
    figures, shape = DepthFigures(), (4, 8)
    depth, normals = np.ones(shape), np.broadcast_to([0.0, 0.0, -1.0], (*shape, 3))
    true, share = np.zeros(shape, bool), np.zeros(shape)
    true[:, :4], share[:, 2:6] = True, 0.9
    figures.add(depth, normals, depth, normals, true, share)
    figures.add(depth, normals, depth, normals, ~true | true, np.ones(shape))
    figures.add(depth, normals, depth, normals, ~true & true, share)  # nothing to be found: it does not count
    assert figures.summary()["object_iou"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-4)
    silent = DepthFigures()
    silent.add(depth, normals, depth, normals, true)
    assert "object_iou" not in silent.summary()


def test_a_network_that_has_not_been_tried_with_muon_refuses_it():
    with pytest.raises(ValueError, match="optimiser must be adamw for this network, got muon"):
        train = PredictorTrainConfig(optimiser="muon")
        make_retrieval_trainer(RetrievalTraining(train=train), furniture(), "cpu")


@pytest.mark.parametrize(
    "settings",
    [
        DepthTraining(DEPTH, PredictorTrainConfig(steps=6, pictures=2, precision="fp32")),
        DepthTraining(DEPTH, PredictorTrainConfig(steps=6, pictures=2, precision="fp32", optimiser="muon")),
        DetectorTraining(DETECTOR, PredictorTrainConfig(steps=6, pictures=2, precision="fp32")),
        DetectorTraining(
            DETECTOR, PredictorTrainConfig(steps=6, pictures=2, precision="fp32", optimiser="muon")
        ),
    ],
    ids=["depth", "depth with Muon", "detector", "detector with Muon"],
)
def test_an_interrupted_run_equals_an_uninterrupted_one(folder, settings):
    def trainer(seed=0):
        changed = dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=seed))
        return make_trainer(changed, PictureFolder(folder), "cpu")

    whole, logs = trainer(), []
    whole.run(logs.append)
    assert len(logs) == 6 and all(np.isfinite(row["loss"]) for row in logs)
    assert logs[-1]["learning_rate"] < logs[1]["learning_rate"]
    first = trainer()
    first.run(lambda row: None, stop=lambda: first.step >= 3)
    assert first.step == 3
    second, state = trainer(), first.state()
    with pytest.raises(ValueError, match="the checkpoint is of 2 processes, not 1"):
        second.load_state({**state, "generators": state["generators"] * 2})
    second.load_state(state)
    rest = []
    second.run(rest.append)
    assert [row["loss"] for row in rest] == [row["loss"] for row in logs[3:]]
    for name, value in whole.averaged.items():
        assert torch.equal(value, second.averaged[name]), name
    assert second.step == 6 and not torch.equal(
        next(iter(trainer(1).network.parameters())), next(iter(whole.network.parameters()))
    )


def test_muon_steps_convolutions_as_matrices_and_leaves_both_ends_to_adamw(folder):
    train = PredictorTrainConfig(steps=1, pictures=1, learning_rate=0.01, weight_decay=0.0, optimiser="muon")
    for settings in (DepthTraining(DEPTH, train), DetectorTraining(DETECTOR, train)):
        trainer = make_trainer(settings, PictureFolder(folder), "cpu")
        network, rng = trainer.network, torch.Generator().manual_seed(0)
        ends = {id(parameter) for parameter in settings.ends(network)}
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=rng)
        for group in trainer.optimiser.param_groups:
            group["lr"] = 0.01
        trainer.optimiser.step()
        for name, value in network.named_parameters():
            step = value.detach() - before[name]
            if value.ndim >= 2 and id(value) not in ends:
                singular = torch.linalg.svdvals(step.flatten(1))
                assert singular.max() < 2.5 * singular.min(), name  # orthogonal, as far as Muon goes
            else:
                np.testing.assert_allclose(step.abs(), 0.01, rtol=1e-3, err_msg=name)
        trainer.optimiser.zero_grad()
        assert all(parameter.grad is None for parameter in network.parameters())


def test_training_lowers_the_depth_loss(folder):
    settings = DepthTraining(DEPTH, PredictorTrainConfig(steps=60, pictures=4, learning_rate=2e-3))
    trainer, logs = make_trainer(settings, PictureFolder(folder), "cpu"), []
    trainer.run(logs.append)
    first, last = (np.mean([row["loss"] for row in part]) for part in (logs[:5], logs[-5:]))
    assert last < first - 0.3


def test_a_detector_begins_with_the_trunk_of_a_depth_network(folder, tmp_path):
    torch.manual_seed(1)
    depth = DepthNet(DEPTH)
    save_predictor(tmp_path / "d.safetensors", depth.state_dict(), DEPTH)
    settings = DetectorTraining(DETECTOR, PredictorTrainConfig(steps=1, pictures=1))
    trainer = make_trainer(settings, PictureFolder(folder), "cpu", trunk=tmp_path / "d.safetensors")
    body, trunk = trainer.network.backbone.body.state_dict(), depth.trunk.state_dict()
    assert torch.equal(body["layer3.0.conv1.weight"], trunk["layer3.0.conv1.weight"])
    assert torch.equal(body["conv1.weight"], trunk["conv1.weight"][:, :3])
    with pytest.raises(ValueError, match="expected those of a DepthNetConfig"):
        save_predictor(tmp_path / "m.safetensors", trainer.network.state_dict(), DETECTOR)
        make_trainer(settings, PictureFolder(folder), "cpu", trunk=tmp_path / "m.safetensors")


def test_training_begins_with_given_weights_and_refuses_those_that_do_not_fit(folder, tmp_path):
    torch.manual_seed(1)
    start = DepthNet(DEPTH)
    save_predictor(tmp_path / "d.safetensors", start.state_dict(), DEPTH)
    settings = DepthTraining(DEPTH, PredictorTrainConfig(steps=1, pictures=1))
    trainer = make_trainer(settings, PictureFolder(folder), "cpu", init=tmp_path / "d.safetensors")
    for name, value in start.state_dict().items():
        assert torch.equal(trainer.averaged[name], value), name
    assert trainer.network.training and all(p.requires_grad for p in trainer.network.parameters())
    larger = dataclasses.replace(settings, network=dataclasses.replace(DEPTH, channels=(16, 8, 8)))
    with pytest.raises(ValueError, match=r"d\.safetensors: do not fit the network"):
        make_trainer(larger, PictureFolder(folder), "cpu", init=tmp_path / "d.safetensors")


def test_one_cycle_goes_up_and_down_once():
    values = [one_cycle(i / 100, 0.1) for i in range(101)]
    assert values[0] == pytest.approx(0.04) and values[10] == 1 and values[100] == pytest.approx(0)
    assert values[:11] == sorted(values[:11]) and values[10:] == sorted(values[10:], reverse=True)
    assert one_cycle(0.0, 0.0) == 1


def test_a_run_follows_the_clock_where_it_is_told_to(folder):
    settings = DepthTraining(DEPTH, PredictorTrainConfig(steps=1000, time_limit_min=1.0, pictures=1))
    trainer = make_trainer(settings, PictureFolder(folder), "cpu")
    trainer.step, trainer.elapsed_s = 10, 30.0
    assert trainer.progress == 0.5
    trainer.elapsed_s, seen = 59.99, []
    trainer.run(seen.append)
    assert trainer.progress == 1 and 1 <= len(seen) <= 20


@pytest.mark.parametrize(("kind", "figure"), [("depth", "abs_rel"), ("detector", "box_ap50")])
def test_the_command_trains_validates_and_resumes(folder, tmp_path, kind, figure):
    sizes = {"depth": dataclasses.asdict(DEPTH), "detector": dataclasses.asdict(DETECTOR)}[kind]
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"network": sizes, "train": {"steps": 3, "pictures": 2}}))
    arguments = ["train-perception", kind, "--out", str(tmp_path / "run"), "--config", str(config),
                 "--pictures", str(folder), "--validation", str(folder)]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3 and figure in rows[-1]["validation"]
    assert (tmp_path / "run/curves.png").stat().st_size > 1000
    load = {"depth": OurDepthNormals.load, "detector": MaskRcnnDetector.load}[kind]
    load(tmp_path / "run/weights.safetensors")
    assert "exists: give --resume" in CliRunner().invoke(app, arguments).output
    again = CliRunner().invoke(app, [*arguments, "--resume"])
    assert again.exit_code == 0 and "resumed at step 3" in again.output
    wrong = [*arguments[:-1], str(tmp_path)]
    wrong[3] = str(tmp_path / "other")
    assert "pictures.jsonl: no such file" in CliRunner().invoke(app, wrong).output


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="mask_rcnn anchors_px needs 4 levels, got 1"):
        MaskRcnnConfig(anchors_px=((8,),))
    with pytest.raises(ValueError, match="mask_rcnn channels must be at least 1"):
        MaskRcnnConfig(channels=0)
    with pytest.raises(ValueError, match="training precision must be fp32 or bf16, got 'half'"):
        PredictorTrainConfig(precision="half")
    with pytest.raises(
        ValueError, match=r"training optimiser must be one of \('adamw', 'muon'\), got 'lamb'"
    ):
        PredictorTrainConfig(optimiser="lamb")
    assert sum(p.numel() for p in build_mask_rcnn(MaskRcnnConfig()).parameters()) < 6e6
