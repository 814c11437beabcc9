"""Mask2CAD in the place of the aligner: poses of detections from one look, CAD models by their views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sparc_core.baselines.mask2cad import Mask2CadConfig, Mask2CadNet
from sparc_core.baselines.mask2cad_pose import poses_of
from sparc_core.baselines.reader import RegionReader
from sparc_core.baselines.regions import Regions
from sparc_core.baselines.single_shot import Estimate, SingleShotAligner, SingleShotConfig
from sparc_core.baselines.view_set import ViewSet
from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.pose import Pose
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.prepare import PreparedImage
from sparc_core.types import Detection


@dataclass(frozen=True, eq=False)
class Mask2CadEstimate(Estimate):
    """probability (D,) of the rotation's bin; vector (D, E) of length one, to find the CAD model with.
    `enough` is False where the network has seen no object of the category in training."""

    probability: torch.Tensor
    vector: torch.Tensor


class Mask2Cad:
    """A `PoseEstimator`: rotation, centre, depth and extents from features and box alone (Mask2CAD-b5)."""

    name = "mask2cad"

    def __init__(self, network: Mask2CadNet):
        self.network = network.eval()

    @classmethod
    def load(cls, weights: Path, device="cpu") -> Mask2Cad:
        """From a file of `sparc train-baseline mask2cad`. Raises ValueError naming the file."""
        return cls(load_predictor(Path(weights), Mask2CadConfig, Mask2CadNet, device)[0])

    @torch.no_grad()
    def estimate(self, regions: Regions) -> Mask2CadEstimate:
        """One pose for each of D objects."""
        known = self.network.has_bin.any(1)[regions.category]
        answers = self.network(regions[known])
        found, chosen = poses_of(self.network, regions[known], answers)
        count, device = len(regions), regions.features.device
        pose = Pose(torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 3), torch.ones(count, 3)).map(
            lambda x: x.to(device)
        )
        probability = torch.zeros(count, device=device)
        vector = torch.zeros(count, self.network.config.embedding, device=device)
        pose.R[known], pose.T[known], pose.S[known] = found.R, found.T, found.S
        probability[known], vector[known] = chosen, answers.vector
        return Mask2CadEstimate(pose, known, probability, vector)


class ViewRetriever:
    """The CAD models of one library by their views, embedded once."""

    def __init__(self, network: Mask2CadNet, library: CadLibrary):
        views = ViewSet(library, network)
        self.vectors = views.embed(network)
        self.category, self.viewable = (x.to(self.vectors.device) for x in (views.category, views.viewable))

    def likeness(self, vector: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
        """(D, M) cosine of the region's vectors (D, E) with the most alike view of every model; −inf for
        models of other categories than (D,) and for those without views."""
        found = (vector @ self.vectors.flatten(0, 1).T).unflatten(1, self.vectors.shape[:2]).amax(-1)
        fits = (self.category == category[:, None]) & self.viewable
        return torch.where(fits, found, -torch.inf)


class Mask2CadAligner(SingleShotAligner):
    """Gives every detection Mask2CAD's pose, and the CAD model that it names, else the one with the most
    similar view. σ is the detector's score."""

    no_estimate = "no object of its category occurred in training"

    def __init__(
        self,
        estimator: Mask2Cad,
        reader: RegionReader,
        library: CadLibrary,
        device: torch.device | str = "cpu",
        config: SingleShotConfig | None = None,
    ):
        """Raises ValueError for a detector with other features than the network was trained on."""
        wanted, has = estimator.network.config.features, reader.channels
        if wanted != has:
            raise ValueError(
                f"Mask2CAD was trained on regions of {wanted} features, the detector's have {has}"
            )
        super().__init__(estimator, reader, library, device, config)
        self.views = ViewRetriever(estimator.network, library)

    @classmethod
    def load(
        cls,
        weights: Path,
        library: CadLibrary,
        detector: Path | None = None,
        device="cpu",
        config: SingleShotConfig | None = None,
    ) -> Mask2CadAligner:
        """weights: a file of `sparc train-baseline mask2cad`; detector: the one whose regions it was trained
        on, None for the shipped one. Raises ValueError naming a file that does not fit."""
        reader = RegionReader.load(detector, device)
        return cls(Mask2Cad.load(weights, device), reader, library, device, config)

    def _models(
        self, prepared: PreparedImage, kept: list[Detection], regions: Regions, found: Mask2CadEstimate
    ) -> list[str]:
        likeness = self.views.likeness(found.vector, regions.category)
        best = likeness.argmax(1).tolist()
        return [d.model_id or self.cad_library.models[m].model_id for d, m in zip(kept, best, strict=True)]
