"""Methods that the benchmarks compare: how one is named, and how each kind of file is read and run.

All benchmarks take the same text (`MethodSpec.parse`); what kind of method a file holds stands in the file.
A kind of your own is added to `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import yaml

from sparc_core.baselines.mask2cad import Mask2CadConfig
from sparc_core.baselines.mask2cad_aligner import Mask2CadAligner
from sparc_core.baselines.reader import RegionReader
from sparc_core.baselines.roca import Roca, RocaConfig
from sparc_core.baselines.single_shot import SingleShotAligner, SingleShotConfig
from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.config import from_dict, load_yaml, to_dict
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.perception.see import SHIPPED
from sparc_core.pipeline import SHIPPED_HINTED, SHIPPED_WEIGHTS, Aligner, AlignerConfig, retrieval_file
from sparc_core.refine.model import ModelConfig, load_network
from sparc_core.types import AlignmentResult, Camera, Detection, PixelHints
from sparc_core.weights_file import read_weights

SEARCH = "search"
FORM = "[NAME=]FILE, FIRST+FILE or FIRST+search+FILE, with options behind: ,OPTION=VALUE"
YAML_SUFFIXES = (".yaml", ".yml")
# as in the papers: as many tokens as in training, one look at each start, no fit to the depth
AS_IN_THE_PAPERS = AlignerConfig(n_bbox=0, n_cad=0, finalists=1, second_looks=0, depth_fit=False, max_rows=16)


class Method(Protocol):
    """What is compared. cad_library, cad: the CAD models it places."""

    cad_library: CadLibrary
    cad: CadTensors

    def align(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        depth_m: np.ndarray | None = None,
        normals_cam: np.ndarray | None = None,
        *,
        depth_predicted: bool = False,
        hints: PixelHints | None = None,
    ) -> AlignmentResult:
        """As `Aligner.align`."""
        ...


@dataclass(frozen=True)
class Setting:
    """What all methods of a benchmark share. device: "cpu", "cuda" or "cuda:N". retrieval: how CAD models are
    chosen for detections that name none: "size", "shipped" or a file; Mask2CAD chooses by its own."""

    library: CadLibrary
    device: str = "cpu"
    retrieval: Path | str = "size"


class StartedAligner:
    """The aligner, refining a single-shot method's poses in place of a search, or beside one."""

    def __init__(self, aligner: Aligner, first: SingleShotAligner, search_beside: bool):
        self.aligner, self.first, self.search_beside = aligner, first, search_beside
        self.cad_library, self.cad = aligner.cad_library, aligner.cad

    def align(
        self, image_rgb, camera, detections, depth_m=None, normals_cam=None, *,
        depth_predicted: bool = False, hints: PixelHints | None = None,
    ) -> AlignmentResult:  # fmt: skip
        """As `Aligner.align`; the time is that of both."""
        seen = (image_rgb, camera, detections, depth_m, normals_cam)
        options = {"depth_predicted": depth_predicted, "hints": hints}
        estimated = self.first.align(*seen, **options)
        starts = self.first.starts_of(estimated, len(detections), self.search_beside)
        result = self.aligner.align(*seen, **options, starts=starts)
        total = {n: t + estimated.timing_ms.get(n, 0.0) for n, t in result.timing_ms.items()}
        return replace(result, timing_ms=total)


@dataclass(frozen=True)
class MethodSpec:
    """A method by its files. files: one, or two where the second refines the poses of the first, instead of
    its search or (search_beside) beside it. Each is a weights file, "shipped", or a YAML file with a
    `TrainConfig` for a network with random weights, whose latency alone means something. options: of the
    last one's configuration."""

    name: str
    files: tuple[str, ...]
    options: tuple[tuple[str, object], ...] = ()
    search_beside: bool = False

    def __post_init__(self):
        if not self.name:
            raise ValueError(f"a method's name is empty; expected {FORM}")
        if not self.files or not all(self.files):
            raise ValueError(f"method {self.name}: a file is missing; expected {FORM}")
        if len(self.files) > 2:
            raise ValueError(f"method {self.name}: more than two files, {self.files}; expected {FORM}")
        if self.search_beside and len(self.files) < 2:
            raise ValueError(f"method {self.name}: a search beside nothing; expected {FORM}")

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """The method that a text of the `FORM` means; without a name the text is the name. Raises ValueError
        saying what is wrong with another text."""
        head, *options = text.split(",")
        name, equals, files = head.partition("=")
        name, files = (name.strip(), files) if equals else (text, head)
        parts = tuple(part.strip() for part in files.split("+"))
        beside = len(parts) == 3 and parts[1] == SEARCH
        values = tuple(_option(option, name) for option in options)
        return cls(name, parts[::2] if beside else parts, values, beside)

    @classmethod
    def of_file(cls, file: Path, config: AlignerConfig) -> MethodSpec:
        """The aligner with a weights file, whatever its path, and this very configuration."""
        return cls(str(file), (str(file),), tuple(to_dict(config).items()))

    def with_options(self, **options) -> MethodSpec:
        """The same method with these options instead of its own."""
        return replace(self, options=tuple((dict(self.options) | options).items()))

    @property
    def untrained(self) -> bool:
        """Whether some of it has random weights."""
        return any(Path(file).suffix in YAML_SUFFIXES for file in self.files)

    def load(self, setting: Setting) -> Method:
        """Raises ValueError naming what cannot be read, and for options that the method has not."""
        *first, last = self.files
        method = read_method(last, setting, dict(self.options))
        if not first:
            return method
        if not isinstance(method, Aligner):
            raise ValueError(f"method {self.name}: only an aligner refines poses, {last} is another method")
        before = read_method(first[0], setting, {"scale_mode": method.config.scale_mode})
        if not isinstance(before, SingleShotAligner):
            raise ValueError(f"method {self.name}: {first[0]} is no single-shot method to start from")
        return StartedAligner(method, before, self.search_beside)


OURS = MethodSpec(SHIPPED, (SHIPPED,))


def parse_trained(text: str) -> MethodSpec:
    """As `MethodSpec.parse`, for what measures accuracy alone. Raises ValueError for random weights too."""
    spec = MethodSpec.parse(text)
    if spec.untrained:
        raise ValueError(f"method {text}: a network with random weights, which `evaluate rivals` alone times")
    return spec


def _option(text: str, name: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise ValueError(f"method {name}: expected OPTION=VALUE behind the comma, got {text!r}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"method {name}: {text!r} has no readable value") from error


def read_method(file: str, setting: Setting, options: dict) -> Method:
    """The method that one file holds. Raises ValueError naming a file or options that do not fit."""
    path = SHIPPED_WEIGHTS if file == SHIPPED else Path(file)
    kind = _kind_of(path)
    if kind not in KINDS:
        known = "; ".join(k.files for k in KINDS.values())
        raise ValueError(f"weights {path}: no method for the kind {kind!r}; there are {known}")
    return KINDS[kind].read(path, setting, options)


def _kind_of(path: Path) -> str | None:
    """The name of the configuration that the file carries."""
    if path.suffix in YAML_SUFFIXES:
        return CONFIGURATION
    metadata = read_weights(path)[1]
    return ModelConfig.__name__ if "model_config" in metadata else metadata.get("kind")


def _read_network(path: Path, setting: Setting, options: dict) -> Aligner:
    return _aligner(path, *load_network(path, setting.device), setting, options)


def _read_configuration(path: Path, setting: Setting, options: dict) -> Aligner:
    model = from_dict(ModelConfig, load_yaml(path).get("model", {}), f"{path}: model")
    torch.manual_seed(0)
    network = MultiSparcNet(model.network).to(setting.device).eval().requires_grad_(False)
    return _aligner(path, network, model, setting, options)


def _aligner(path: Path, network, model: ModelConfig, setting: Setting, options: dict) -> Aligner:
    """An aligner with the paper's run-time choices where its tokens are the paper's, and the options."""
    chosen = to_dict(AS_IN_THE_PAPERS if model.inputs.layout == "paper" else AlignerConfig()) | options
    config = from_dict(AlignerConfig, chosen, f"options of {path}")
    device = torch.device(setting.device)
    aligner = Aligner(network, model, setting.library, device, config)
    aligner.choose_models_by(setting.retrieval)
    if path == SHIPPED_WEIGHTS:
        aligner.take_hinted(SHIPPED_HINTED)
    return aligner


def _read_roca(path: Path, setting: Setting, options: dict) -> SingleShotAligner:
    config = from_dict(SingleShotConfig, options, f"options of {path}")
    roca, reader = Roca.load(path, setting.device), RegionReader.load(None, setting.device)
    chosen_by = retrieval_file(setting.retrieval)
    return SingleShotAligner(roca, reader, setting.library, setting.device, config, chosen_by)


def _read_mask2cad(path: Path, setting: Setting, options: dict) -> Mask2CadAligner:
    config = from_dict(SingleShotConfig, options, f"options of {path}")
    return Mask2CadAligner.load(path, setting.library, None, setting.device, config)


@dataclass(frozen=True)
class FileKind:
    """files: which files are of this kind, in error messages. read: file, setting and options to a method."""

    files: str
    read: Callable[[Path, Setting, dict], Method]


CONFIGURATION = "TrainConfig"
# by the configuration that the file carries; whether an aligner is Multi-SPARC or the single-object SPARC of
# 2022 (`n_mul`, `score_of`, `parametrisation`) stands in its `ModelConfig`
KINDS: dict[str, FileKind] = {
    ModelConfig.__name__: FileKind("weights of `sparc pretrain` or `sparc finetune`", _read_network),
    RocaConfig.__name__: FileKind("weights of `sparc train-baseline roca`", _read_roca),
    Mask2CadConfig.__name__: FileKind("weights of `sparc train-baseline mask2cad`", _read_mask2cad),
    CONFIGURATION: FileKind("a YAML file of `sparc pretrain`, for random weights", _read_configuration),
}
