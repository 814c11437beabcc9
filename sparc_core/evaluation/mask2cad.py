"""How well Mask2CAD does on prepared regions: poses, the published 5-DoF setting, and CAD models."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from sparc_core.baselines.mask2cad import Mask2CadNet
from sparc_core.baselines.mask2cad_aligner import Mask2Cad, ViewRetriever
from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.single_shot import LabelledRegions, measure_estimator
from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose

TOP = 5
RIGHT = THRESHOLDS["20cm/20deg/20%"]


def measure_mask2cad(
    network: Mask2CadNet,
    library: CadLibrary,
    batches: Callable[[], Iterable[LabelledRegions]],
    models: torch.Tensor,
) -> dict[str, float]:
    """`measure_estimator`, and the shares of the objects

    - within 20 cm, 20° and 20 % when the true depth and extents are given, as in the paper ("right_5dof"),
      and within 20° at all ("right_rotation");
    - whose CAD model is the most similar of its category in the library ("top1"), is among the `TOP` most
      similar, and that drawing one at random would find ("chance").

    batches: makes the objects with the truth, the same ones each time; models (M,): the library's number of
    each, in that order.
    """
    estimator, retriever = Mask2Cad(network), ViewRetriever(network, library)
    rows, first = [], 0
    for regions, truth, symmetry_order, _ in batches():
        found = estimator.estimate(regions)
        own = models[first : first + len(regions)].to(found.vector.device)
        first += len(regions)
        likeness = retriever.likeness(found.vector, regions.category)
        mine = likeness.gather(1, own[:, None])
        there = found.enough & torch.isfinite(mine[:, 0])
        rank = (likeness > mine).sum(1)  # how many are more alike
        among = torch.isfinite(likeness).sum(1).clamp(min=1)
        ray = found.pose.T / found.pose.T[:, 2:].clamp(min=1e-6)
        given = pose_errors(Pose(found.pose.R, ray * truth.T[:, 2:], truth.S), truth, symmetry_order)
        rows.append(torch.stack([
            found.enough & given.within(RIGHT), found.enough & (given.rotation_deg <= RIGHT[1]),
            there & (rank < 1), there & (rank < TOP), 1 / among,
        ], -1).double().cpu())  # fmt: skip
    if first != len(models):
        raise ValueError(f"models: expected one for each of {first} objects, got {len(models)}")
    names = ("right_5dof", "right_rotation", "top1", f"top{TOP}", "chance")
    shares = torch.cat(rows).mean(0).tolist()
    return {
        **measure_estimator(estimator, batches()),
        **{name: round(share, 4) for name, share in zip(names, shares, strict=True)},
    }
