"""What a node loads when it is configured: aligner, CAD library, predictors, detections of a file.

In: parameters. Out: a frozen `Loaded`. ValueError names the parameter that cannot be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.files.detections import read_detections
from sparc_core.perception.see import Perception, PerceptionConfig
from sparc_core.pipeline import Aligner, AlignerConfig
from sparc_core.types import Detection
from sparc_ros.markers import export_mesh_uris
from sparc_ros.parameters import NodeParameters, parse_scale_modes


@dataclass(frozen=True, eq=False)
class Loaded:
    """mesh_uris: file:// URI of each model id. file_detections: None unless they come from a file."""

    aligner: Aligner
    perception: Perception
    mesh_uris: Mapping[str, str]
    file_detections: tuple[Detection, ...] | None

    @property
    def library(self) -> CadLibrary:
        """The aligner's CAD library."""
        return self.aligner.cad_library


def load_everything(parameters: NodeParameters, load: Callable, library: CadLibrary | None = None) -> Loaded:
    """Everything that the parameters name. library: one that is open already.

    load(parameters, library) makes the aligner: `load_aligner`, or a stand-in for tests.
    """
    # More threads than free cores wait for each other: ten times slower on a busy machine.
    torch.set_num_threads(parameters.thread_count)
    detections = _detections_from_file(parameters)
    aligner = load(parameters, library)
    perception = load_perception(parameters, str(aligner.device))
    return Loaded(
        aligner, perception, export_mesh_uris(aligner.cad_library, parameters.mesh_path), detections
    )


def load_aligner(parameters: NodeParameters, library: CadLibrary | None = None) -> Aligner:
    """The aligner with the CAD library and weights the parameters name; ValueError names the parameter."""
    if library is None:
        try:
            library = CadLibrary.open(parameters.cad_library)
        except (ValueError, OSError) as error:
            raise ValueError(f"parameter cad_library: {error}") from error
    config = AlignerConfig(
        scale_mode=parameters.scale_mode,
        scale_modes=parse_scale_modes(parameters.scale_modes),
        max_candidates=parameters.max_candidates,
        stand_on_floor=parameters.stand_on_floor,
    )
    weights = Path(parameters.weights).expanduser() if parameters.weights else None
    try:
        return Aligner.load(
            weights, library, device=parameters.device, config=config, retrieval=parameters.retrieval
        )
    except (ValueError, OSError) as error:
        raise ValueError(
            f"parameter weights ({parameters.weights or 'shipped'}), retrieval ({parameters.retrieval}) or "
            f"device ({parameters.device}): {error}"
        ) from error


def load_perception(parameters: NodeParameters, device: str) -> Perception:
    """The predictors that the parameters name; ValueError names the parameters."""
    predicts_depth = parameters.depth_model != "none" and (not parameters.use_depth or parameters.fill_holes)
    try:
        config = PerceptionConfig(
            parameters.detector if parameters.detections_source == "detector" else "",
            parameters.depth_model if predicts_depth else "",
            parameters.masks,
            parameters.detector_min_score,
            parameters.fill_holes,
            estimates="" if parameters.box_model == "none" else parameters.box_model,
        )
        return Perception.load(config, device)
    except (ValueError, OSError) as error:
        raise ValueError(f"parameter detector, depth_model, box_model or masks: {error}") from error


def _detections_from_file(parameters: NodeParameters) -> tuple[Detection, ...] | None:
    if parameters.detections_source != "file":
        return None
    try:
        return read_detections(parameters.detections_file)
    except (ValueError, OSError) as error:
        raise ValueError(f"parameter detections_file: {error}") from error
