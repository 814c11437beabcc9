"""Methods that can be put to the same test: whatever has the aligner's `align`.

A method is named and read from weights files; what kind it is stands in the file's metadata. Those of another
method are added to `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import yaml

from sparc_core.baselines.mask2cad import Mask2CadConfig
from sparc_core.baselines.mask2cad_aligner import Mask2CadAligner
from sparc_core.baselines.reader import RegionReader
from sparc_core.baselines.roca import Roca, RocaConfig
from sparc_core.baselines.single_shot import SingleShotAligner
from sparc_core.cad.library import CadLibrary
from sparc_core.config import from_dict, load_yaml, to_dict
from sparc_core.evaluation.methods import StartedAligner
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.pipeline import SHIPPED_WEIGHTS, Aligner, AlignerConfig
from sparc_core.refine.model import ModelConfig, load_network
from sparc_core.types import AlignmentResult, Camera, Detection
from sparc_core.weights_file import read_weights

SHIPPED = "shipped"
# as in the papers: as many tokens as in training, one look at each start, no fit to the depth
AS_IN_THE_PAPERS = AlignerConfig(n_bbox=0, n_cad=0, finalists=1, second_looks=0, depth_fit=False, max_rows=16)


class Method(Protocol):
    """What is compared. Every detection names its CAD model."""

    def align(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        depth_m: np.ndarray | None = None,
        normals_cam: np.ndarray | None = None,
        *,
        depth_predicted: bool = False,
    ) -> AlignmentResult:
        """As `Aligner.align`."""
        ...


@dataclass(frozen=True)
class MethodSpec:
    """A method as it is named: NAME=FILE, NAME=FIRST+FILE to refine the poses of a first method, and options
    of the aligner behind commas (NAME=FILE,depth_fit=false). FILE: weights, "shipped", or a YAML file with a
    `TrainConfig` for a network with random weights, whose latency alone means something."""

    name: str
    files: tuple[str, ...]
    options: tuple[tuple[str, object], ...] = ()

    def __post_init__(self):
        if not self.name or not all(self.files) or not 1 <= len(self.files) <= 2:
            raise ValueError(f"a method is NAME=FILE or NAME=FIRST+FILE, got {self.name!r}, {self.files}")

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Raises ValueError for text of another form."""
        name, equals, rest = text.partition("=")
        files, *options = rest.split(",")
        if not equals or any("=" not in option for option in options):
            raise ValueError(f"a method is NAME=FILE or NAME=FIRST+FILE[,OPTION=VALUE…], got {text!r}")
        values = ((key, yaml.safe_load(value)) for key, value in (o.split("=", 1) for o in options))
        return cls(name.strip(), tuple(files.split("+")), tuple(values))

    @property
    def untrained(self) -> bool:
        """Whether some of it has random weights."""
        return any(Path(file).suffix in (".yaml", ".yml") for file in self.files)

    def load(self, library: CadLibrary, device: str) -> Method:
        """Raises ValueError naming what cannot be read, and for options that the method has not."""
        *first, last = self.files
        method = read_method(last, library, device, dict(self.options))
        if not first:
            return method
        if not isinstance(method, Aligner):
            raise ValueError(f"method {self.name}: only an aligner refines poses, {last} is another method")
        before = read_method(first[0], library, device, {})
        if not isinstance(before, SingleShotAligner):
            raise ValueError(f"method {self.name}: {first[0]} is no single-shot method to start from")
        return StartedAligner(method, before, search_beside=False)


def read_method(file: str, library: CadLibrary, device: str, options: dict) -> Method:
    """A method from one file on a device ("cpu" or "cuda"); options: of `AlignerConfig`, for an aligner."""
    if Path(file).suffix in (".yaml", ".yml"):
        model = from_dict(ModelConfig, load_yaml(file).get("model", {}), f"{file}: model")
        torch.manual_seed(0)
        network = MultiSparcNet(model.network).to(device).eval().requires_grad_(False)
        return _aligner(network, model, library, device, options)
    path = SHIPPED_WEIGHTS if file == SHIPPED else Path(file)
    metadata = read_weights(path)[1]
    if "model_config" in metadata:
        return _aligner(*load_network(path, device), library, device, options)
    kind = metadata.get("kind")
    if kind not in READERS:
        known = ", ".join(("a network of the aligner", *READERS))
        raise ValueError(f"weights {path}: no method for the kind {kind!r}; there are {known}")
    if options:
        raise ValueError(f"weights {path}: a {kind} has none of the options {sorted(options)}")
    return READERS[kind](path, library, device)


def _aligner(network, model: ModelConfig, library: CadLibrary, device: str, options: dict) -> Aligner:
    """An aligner with the paper's run-time choices where its tokens are the paper's, and the options."""
    chosen = to_dict(AS_IN_THE_PAPERS if model.inputs.layout == "paper" else AlignerConfig()) | options
    config = from_dict(AlignerConfig, chosen, "options of the method")
    return Aligner(network, model, library, torch.device(device), config)


def _read_roca(path: Path, library: CadLibrary, device: str) -> Method:
    return SingleShotAligner(Roca.load(path, device), RegionReader.load(None, device), library, device)


def _read_mask2cad(path: Path, library: CadLibrary, device: str) -> Method:
    return Mask2CadAligner.load(path, library, device=device)


Reader = Callable[[Path, CadLibrary, str], Method]
# by the kind in the metadata of a weights file
READERS: dict[str, Reader] = {
    RocaConfig.__name__: _read_roca,
    Mask2CadConfig.__name__: _read_mask2cad,
}
