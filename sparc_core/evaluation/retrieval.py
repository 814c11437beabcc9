"""How often the right CAD model is found: on rooms of the synthetic set, through the run-time chain.

Beside the learned retrieval stand a lookup by Chamfer distance, which fits every model to the lifted points,
and chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.evaluation.synthetic import RoomRenderer
from sparc_core.geometry.camera import bearing_z1, intrinsics_tensor
from sparc_core.geometry.rotation import rotation_y
from sparc_core.perception.prepare import PreparedImage, prepare_image
from sparc_core.pipeline import AlignerConfig
from sparc_core.refine.depth_fit import masked_depth_points
from sparc_core.retrieval.region import view_frame
from sparc_core.synth.scenes import SceneConfig
from sparc_core.types import Detection

LAYOUT = SceneConfig(objects=8, clutter=2, free_share=0.0)
AZIMUTHS = 12
ITERATIONS = 5
SURFACE_POINTS = 384

#: A way to rank: (image, categories of its kept detections, how many) -> positions of models, the best first.
Ranking = Callable[[PreparedImage, list[str], int], list[list[int]]]


def measure_retrieval(
    library: CadLibrary,
    rankings: dict[str, Ranking],
    images: int = 100,
    seed: int = 5,
    well_visible: float = 0.5,
) -> dict[str, dict[str, float]]:
    """For every way to rank: top1 and top5, shares of the objects whose own model is first or among five,
    over all and over well-visible objects; "chance" draws from the category."""
    rooms = RoomRenderer(library, LAYOUT, seed)
    hits: dict[str, list[list[float]]] = {name: [] for name in (*rankings, "chance")}
    for number in range(images):
        room = rooms.room(number)
        models = [library.models[int(m)] for m in room.models]
        detections = [
            Detection(tuple(box.tolist()), model.category)
            for box, model in zip(room.boxes_xyxy, models, strict=True)
        ]
        prepared = prepare_image(
            room.view.rgb, room.camera, detections, room.sensor_depth_m, library, AlignerConfig(),
            torch.device("cpu"),
        )  # fmt: skip
        if not prepared.kept:
            continue
        categories = [detections[i].category for i in prepared.kept]
        found = {name: rank(prepared, categories, 5) for name, rank in rankings.items()}
        for position, i in enumerate(prepared.kept):
            right, well = int(room.models[i]), bool(room.on_image[i] and room.seen[i] >= well_visible)
            for name, ranked in found.items():
                best = list(ranked[position])
                hits[name].append([best[:1] == [right], right in best[:5], well])
            count = len(library.indices_of_category(models[i].category))
            hits["chance"].append([1 / count, min(1.0, 5 / count), well])
    return {name: _shares(torch.tensor(rows, dtype=torch.float64)) for name, rows in hits.items()}


def _shares(rows: torch.Tensor) -> dict[str, float]:
    if len(rows) == 0:
        return {"objects": 0}
    well = rows[rows[:, 2] > 0]
    return {
        "top1": round(float(rows[:, 0].mean()), 4), "top5": round(float(rows[:, 1].mean()), 4),
        "top1_well_visible": round(float(well[:, 0].mean()), 4),
        "top5_well_visible": round(float(well[:, 1].mean()), 4), "objects": len(rows),
    }  # fmt: skip


def size_ranking(image: PreparedImage, categories: list[str], count: int) -> list[list[int]]:
    """What the aligner tries without a retrieval: the models whose size fits the box and its depth best."""
    return [candidates[:count].tolist() for candidates in image.candidates]


def chamfer_ranking(library: CadLibrary) -> Ranking:
    """Models ranked by how far the lifted points of the mask lie from them, at their true size and at the
    best of `AZIMUTHS` turns, after a few steps of translation alone."""
    cad = CadTensors.from_library(library)

    def rank(image: PreparedImage, categories: list[str], count: int) -> list[list[int]]:
        detection = torch.arange(len(image.kept))
        intrinsics = intrinsics_tensor(image.camera)
        seen = masked_depth_points(image.channels, intrinsics, torch.Generator().manual_seed(0))
        frame = image.frame(detection[None])
        boxes = frame.boxes_xyxy[0]
        rays = bearing_z1((boxes[None, :, :2] + boxes[None, :, 2:]) / 2, intrinsics[None])
        upright = view_frame(frame, torch.nn.functional.normalize(rays, dim=-1))[0]
        ranked = []
        for d, category in enumerate(categories):
            members = torch.from_numpy(library.indices_of_category(category))
            if not seen.weight[d].any():
                ranked.append(members[:count].tolist())
                continue
            points = (seen.rays[d] * seen.depth_m[d][:, None]) @ upright[d].T
            distance = torch.stack([_distance(points, cad, int(m)) for m in members])
            ranked.append(members[distance.argsort()[:count]].tolist())
        return ranked

    return rank


def _distance(points: torch.Tensor, cad: CadTensors, model: int) -> torch.Tensor:
    """Mean distance of points (K, 3), y up, to a model, at the best turn."""
    surface = cad.points[model, :SURFACE_POINTS] * cad.extents_m[model]
    angles = torch.arange(AZIMUTHS) * (2 * math.pi / AZIMUTHS)
    turned = surface @ rotation_y(angles).transpose(1, 2)
    # what is seen is the near side: the seen points' farthest depth is the model's middle to begin with
    middle = (points.amin(0) + points.amax(0)) / 2
    shift = middle.expand(AZIMUTHS, 3)
    for _ in range(ITERATIONS):
        distance = torch.cdist(points.expand(AZIMUTHS, -1, -1), turned + shift[:, None])
        nearest = distance.argmin(-1)
        target = turned.gather(1, nearest[..., None].expand(-1, -1, 3)) + shift[:, None]
        shift = shift + (points - target).mean(1)
    return torch.cdist(points.expand(AZIMUTHS, -1, -1), turned + shift[:, None]).amin(-1).mean(-1).amin()
