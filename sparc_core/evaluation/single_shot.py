"""How far the poses of a baseline are off, on prepared regions."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from sparc_core.baselines.regions import Regions
from sparc_core.baselines.single_shot import PoseEstimator
from sparc_core.geometry.errors import THRESHOLDS, pose_errors
from sparc_core.geometry.pose import Pose

WELL_VISIBLE = 0.5

#: Objects, their true poses (D,), symmetry orders (D,) and the share that is seen of each (D,).
LabelledRegions = tuple[Regions, Pose, torch.Tensor, torch.Tensor]


def measure_estimator(
    estimator: PoseEstimator, batches: Iterable[LabelledRegions], prefix: str = ""
) -> dict[str, float]:
    """Shares of the objects within Scan2CAD's threshold ("right"), of the well-visible ones, and of all
    within 10/10/10; medians of the errors (metres, degrees, share) over all that have an estimate. An object
    without one is wrong."""
    rows = []
    for regions, truth, symmetry_order, visible in batches:
        found = estimator.estimate(regions)
        errors = pose_errors(found.pose, truth, symmetry_order)
        within = [errors.within(threshold) & found.enough for threshold in THRESHOLDS.values()]
        rows.append(torch.stack([
            errors.translation_m, errors.rotation_deg, errors.scale, *within[:2], visible >= WELL_VISIBLE,
            found.enough,
        ], -1).double().cpu())  # fmt: skip
    metres, degrees, scale, right, strict, well, enough = torch.cat(rows).unbind(-1)
    well, enough = well > 0, enough > 0
    figures = {
        "right": right.mean(),
        "right_well_visible": right[well].mean(),
        "right_10": strict.mean(),
        "translation_m": metres[enough].nanmedian(),
        "rotation_deg": degrees[enough].nanmedian(),
        "scale": scale[enough].nanmedian(),
        "objects": len(right),
    }
    return {prefix + name: round(float(value), 4) for name, value in figures.items()}
