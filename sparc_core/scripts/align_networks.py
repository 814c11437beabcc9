"""The networks and CAD models of `sparc align`, loaded when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparc_core.device import find_device


@dataclass(frozen=True)
class Networks:
    """What the user said of networks and CAD models; the options of `sparc align` by name.

    PyTorch and the networks take seconds to import, so nothing is loaded before the inputs were found to be
    readable.
    """

    weights: Path | None
    cad_library: str | None
    device: str
    scale_mode: str
    scale_modes: tuple[tuple[str, str], ...]
    retrieval: str
    detector: str
    depth_model: str
    box_model: str
    masks: str
    min_score: float
    fill_holes: bool
    download: bool
    stand_on_floor: bool = True

    def load_aligner(self):
        """The `Aligner`. Raises ValueError or OSError naming what cannot be loaded."""
        from sparc_core.cad.library import CadLibrary
        from sparc_core.pipeline import Aligner, AlignerConfig

        if self.weights is not None and not self.weights.is_file():
            raise FileNotFoundError(f"--weights {self.weights}: no such file")
        library = None if self.cad_library is None else CadLibrary.open(self.cad_library)
        config = AlignerConfig(
            scale_mode=self.scale_mode, scale_modes=self.scale_modes, stand_on_floor=self.stand_on_floor
        )
        return Aligner.load(
            self.weights, library, device=self.device, config=config, retrieval=self.retrieval
        )

    def load_perception(self, has_detections: bool, has_depth: bool):
        """The `Perception` with the predictors of what is not there. Raises ValueError naming what cannot be
        loaded."""
        from sparc_core.perception.see import Perception, PerceptionConfig

        config = PerceptionConfig(
            "" if has_detections else self.detector,
            "" if self.depth_model == "none" or (has_depth and not self.fill_holes) else self.depth_model,
            self.masks, self.min_score, self.fill_holes, self.download,
            "" if self.box_model == "none" else self.box_model,
        )  # fmt: skip
        return Perception.load(config, find_device(self.device))
