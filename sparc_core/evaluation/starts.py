"""What the start poses alone are worth: the reference every network has to beat."""

from __future__ import annotations

import torch

from sparc_core.evaluation.report import ErrorTable
from sparc_core.evaluation.synthetic import SyntheticImage
from sparc_core.geometry.errors import pose_errors
from sparc_core.geometry.pose import Pose
from sparc_core.inputs.select import select_box_pixels
from sparc_core.perception.prepare import prepare_image
from sparc_core.refine.batch import build_search


def add_best_start(table: ErrorTable, aligner, image: SyntheticImage) -> None:
    """Add, for every object, the start of the four that is nearest to the truth in rotation: what a
    perfect choice without any refinement gives. aligner: an `Aligner`."""
    prepared = prepare_image(
        image.rgb,
        image.camera,
        image.detections,
        image.depth_m,
        aligner.cad_library,
        aligner.config,
        aligner.device,
    )
    batch = build_search(prepared, aligner.cad, len(image.detections), aligner.config, aligner.cad_library)
    generator = torch.Generator().manual_seed(0)
    samples = batch.source.sample(
        select_box_pixels(batch.block_frame, aligner.model_config.inputs.n_bbox, generator)
    )
    start = batch.rows(torch.arange(len(batch.block)), samples).start
    count = len(image.detections)
    pose = Pose(torch.eye(3).repeat(count, 1, 1), torch.full((count, 3), torch.inf), torch.ones(count, 3))
    kept = torch.tensor(prepared.kept)
    truth = image.truth.map(lambda x: x[kept].expand(len(batch.block), *x[kept].shape))
    order = image.symmetry_order[kept].expand(len(batch.block), -1)
    best = pose_errors(start, truth, order).rotation_deg.argmin(0)
    columns = torch.arange(len(kept))
    pose.R[kept], pose.T[kept], pose.S[kept] = (
        start.R[best, columns],
        start.T[best, columns],
        start.S[best, columns],
    )
    table.add(image, pose, torch.zeros(count))
