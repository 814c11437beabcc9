"""The methods that the benchmarks can put in the aligner's place, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sparc_core.baselines.mask2cad_aligner import Mask2Cad, Mask2CadAligner
from sparc_core.baselines.reader import RegionReader
from sparc_core.baselines.roca import Roca
from sparc_core.baselines.single_shot import PoseEstimator, SingleShotAligner, SingleShotConfig
from sparc_core.pipeline import SHIPPED_RETRIEVAL, Aligner
from sparc_core.types import AlignmentResult

OURS = "multi-sparc"
#: Loads a baseline's weights: (file, device) -> estimator.
ESTIMATORS: dict[str, Callable[[Path, str], PoseEstimator]] = {"roca": Roca.load, "mask2cad": Mask2Cad.load}
START, BESIDE = "start", "beside"


class StartedAligner:
    """The aligner, refining a baseline's poses in place of a search, or beside one."""

    def __init__(self, aligner: Aligner, first: SingleShotAligner, search_beside: bool):
        self.aligner, self.first, self.search_beside = aligner, first, search_beside
        self.cad_library, self.cad = aligner.cad_library, aligner.cad

    def align(
        self, image_rgb, camera, detections, depth_m=None, normals_cam=None, *, depth_predicted: bool = False
    ) -> AlignmentResult:
        """As `Aligner.align`; the time is that of both."""
        seen = (image_rgb, camera, detections, depth_m, normals_cam)
        estimated = self.first.align(*seen, depth_predicted=depth_predicted)
        starts = self.first.starts_of(estimated, len(detections), self.search_beside)
        result = self.aligner.align(*seen, depth_predicted=depth_predicted, starts=starts)
        total = {n: t + estimated.timing_ms.get(n, 0.0) for n, t in result.timing_ms.items()}
        return replace(result, timing_ms=total)


def method_of(name: str, aligner: Aligner, retrieval: str = "shipped"):
    """What `name` stands for, with the aligner's CAD library: "multi-sparc" is the aligner itself,
    "roca:FILE" or "mask2cad:FILE" a baseline, "start:roca:FILE" the aligner refining its poses instead of
    searching, "beside:roca:FILE" doing both.

    retrieval: "shipped", "size" or a file, for the baseline's choice of CAD models; Mask2CAD chooses by its
    own. Raises ValueError for another name, and for a file that does not fit.
    """
    if name == OURS:
        return aligner
    how, _, rest = name.partition(":")
    if how not in (START, BESIDE):
        how, rest = "", name
    kind, _, file = rest.partition(":")
    if kind not in ESTIMATORS or not file:
        known = ", ".join(f"{k}:FILE" for k in ESTIMATORS)
        raise ValueError(
            f"method {name!r}: expected {OURS}, {known}, or one of these after {START}: or {BESIDE}:"
        )
    device = str(aligner.device)
    seeing = (ESTIMATORS[kind](Path(file), device), RegionReader.load(device=device), aligner.cad_library)
    config = SingleShotConfig(aligner.config.scale_mode)
    if kind == "mask2cad":
        first = Mask2CadAligner(*seeing, device, config)
    else:
        chosen = {"shipped": SHIPPED_RETRIEVAL, "size": None}.get(retrieval, retrieval)
        first = SingleShotAligner(*seeing, device, config, chosen)
    return StartedAligner(aligner, first, how == BESIDE) if how else first
