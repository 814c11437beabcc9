"""Adapters of other people's models, end to end with small random ones in their authors' file formats."""

import numpy as np
import pytest
import torch
from segment_anything.build_sam import _build_sam
from transformers import (
    BertConfig,
    BertTokenizerFast,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    SwinConfig,
)

from sparc_core.perception import device_fallback
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.hf_depth import HuggingFaceDepth
from sparc_core.perception.hf_detector import (
    PROMPTS,
    ClosedSetDetector,
    OpenVocabularyDetector,
    detector_of,
)
from sparc_core.perception.sam_masks import SamMasker
from sparc_core.types import CATEGORIES, Camera

STAGES = ["stage2", "stage3", "stage4"]
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def sam_checkpoint(tmp_path_factory):
    """A tiny SAM as segment-anything's own code builds and saves it."""
    torch.manual_seed(0)
    sam = _build_sam(32, 2, 2, [1])
    path = tmp_path_factory.mktemp("sam") / "sam_tiny.pth"
    torch.save(sam.state_dict(), path)
    return path, sam


def test_sam_is_built_from_its_parameters_and_answers_for_every_box(sam_checkpoint):
    path, sam = sam_checkpoint
    masker = SamMasker.load(path)
    model = masker.network.network
    for name, value in sam.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    windows = [block.window_size for block in model.image_encoder.blocks]
    assert windows == [block.window_size for block in sam.image_encoder.blocks] == [14, 0]
    boxes = np.array([[5, 5, 40, 40], [30, 10, 79, 59], [0, 0, 20, 20]], np.float32)
    found = masker.masks(IMAGE, boxes)
    assert found.shape == (3, 60, 80) and found.dtype == np.float32 and set(np.unique(found)) <= {0, 1}
    one_by_one = np.concatenate([masker.masks(IMAGE, boxes[i : i + 1]) for i in range(3)])
    assert (found == one_by_one).mean() > 0.999  # in a batch as alone
    assert masker.masks(IMAGE, np.zeros((0, 4))).shape == (0, 60, 80)


def test_other_files_are_no_sam(sam_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="gone.pth: no such file"):
        SamMasker.load(tmp_path / "gone.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="text.pth: not readable"):
        SamMasker.load(tmp_path / "text.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth: expected parameters by name, got a list"):
        SamMasker.load(tmp_path / "list.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth: not those of a segment-anything model"):
        SamMasker.load(tmp_path / "other.pth")


@pytest.fixture(scope="module")
def rt_detr(tmp_path_factory):
    """A tiny RT-DETR in a folder, as transformers saves it."""
    torch.manual_seed(0)
    resnet = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=STAGES,
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=resnet, d_model=16, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16, encoder_attention_heads=2, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16,
        decoder_attention_heads=2, decoder_layers=1, num_queries=12, num_denoising=0,
        id2label={0: "couch", 1: "person", 2: "tv"}, label2id={"couch": 0, "person": 1, "tv": 2},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("rt_detr")
    model = RTDetrForObjectDetection(config)
    for name, value in model.named_parameters():
        if "class_embed" in name:
            value.data.normal_()  # otherwise one class wins everywhere
    model.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


def test_a_closed_set_detector_keeps_furniture_under_our_names(rt_detr):
    detector = detector_of(rt_detr, min_score=0.0)
    assert isinstance(detector, ClosedSetDetector)
    assert detector.categories == {0: "sofa", 1: None, 2: "display"}
    found = detector.detect(IMAGE)
    assert found and {d.category for d in found} <= {"sofa", "display"}
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)
    strict = ClosedSetDetector.load(rt_detr, min_score=1.0)
    assert strict.detect(IMAGE) == []
    own = ClosedSetDetector.load(rt_detr, min_score=0.0, classes={"couch": "chair", "tv": "chair"})
    assert {d.category for d in own.detect(IMAGE)} == {"chair"}
    with pytest.raises(ValueError, match="none of the detector.s classes is one of.*couch.*person.*tv"):
        ClosedSetDetector.load(rt_detr, classes={})


@pytest.fixture(scope="module")
def grounding_dino(tmp_path_factory):
    """A tiny Grounding DINO with a vocabulary that knows our prompts."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dino")
    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?"]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, out_features=STAGES
        ),
        text_config=BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16,
        ),
        d_model=32, encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2, decoder_layers=2,
        decoder_ffn_dim=16, decoder_attention_heads=2, num_queries=10,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(image_processor, tokenizer).save_pretrained(folder)
    return str(folder)


def test_an_open_vocabulary_detector_is_asked_for_the_prompts(grounding_dino):
    detector = detector_of(grounding_dino, min_score=0.0)
    assert isinstance(detector, OpenVocabularyDetector)
    found = detector.detect(IMAGE)
    assert {d.category for d in found} <= set(CATEGORIES)
    assert detector._category("trash can") == "bin" and detector._category("a lamp") is None
    assert detector._category("chair bookshelf") == "bookshelf"  # the longest piece


def test_models_that_are_not_there_are_named_and_not_downloaded(tmp_path):
    with pytest.raises(ValueError, match="nobody/nothing: cannot be loaded.*nothing is downloaded"):
        detector_of("nobody/nothing")
    with pytest.raises(ValueError, match="cannot be loaded"):
        HuggingFaceDepth.load(str(tmp_path))


def depth_anything(folder, kind):
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=56,
        patch_size=14, out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind, max_depth=20,
    )  # fmt: skip
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return str(folder)


def test_metric_depth_has_the_images_size_and_normals_and_relative_depth_is_refused(tmp_path):
    predictor = HuggingFaceDepth.load(depth_anything(tmp_path / "metric", "metric"))
    found = predictor.predict(IMAGE, Camera(80, 60, 70.0, 70.0, 39.5, 29.5))
    assert found.depth_m.shape == (60, 80) and found.depth_m.dtype == np.float32
    assert (found.depth_m > 0).all() and (found.depth_m < 20).all()
    length = np.linalg.norm(found.normals_cam, axis=-1)
    assert ((np.abs(length - 1) < 1e-3) | (length == 0)).all() and (length > 0).mean() > 0.5
    with pytest.raises(ValueError, match="predicts relative depth; a metric one is needed"):
        HuggingFaceDepth.load(depth_anything(tmp_path / "relative", "relative"))


def test_out_of_memory_on_the_gpu_goes_on_on_the_cpu_and_says_so_once(monkeypatch):
    said = []  # not by caplog: ROS 2's launch, where it is a pytest plugin, has loggers of its own
    monkeypatch.setattr(device_fallback.log, "warning", lambda text, *values: said.append(text % values))
    network = MovableNetwork(torch.nn.Linear(1, 1), "cpu", "a detector")
    network.device, calls = torch.device("meta"), []  # stands for a GPU here

    def predict(module, device):
        calls.append(device.type)
        if device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("2 GiB wanted")
        return 7

    assert network.run(predict) == 7 and network.run(predict) == 7
    assert calls == ["meta", "cpu", "cpu"]
    assert said == ["a detector: the GPU is out of memory, it goes on on the CPU: 2 GiB wanted"]
