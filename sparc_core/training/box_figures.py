"""How well a box network knows the boxes of stored pictures."""

from __future__ import annotations

import math

import torch
from torchvision.ops import box_iou

from sparc_core.perception.box_inputs import BoxInputs, flags_of, place_of, square_of
from sparc_core.perception.box_net import BoxNet, BoxOutput, corrected, placed
from sparc_core.synth.corrupt import jitter_boxes
from sparc_core.training.box_table import NONE, BoxTable, cut_kept
from sparc_core.training.box_truth import truth_of
from sparc_core.types import AZIMUTH_ORDERS

MOVED = 0.15  # by how much boxes are moved when it is measured how well they are corrected


@torch.no_grad()
def look_at_table(network: BoxNet, table: BoxTable, named: bool = True, moved=None) -> BoxOutput:
    """What a network says of all boxes of a table; named: told the categories; moved (N, 4): other boxes in
    their place."""
    network, size, parts = network.eval(), network.config.size_px, []
    for pictures in torch.arange(len(table.count)).split(50):
        index, picture = table.of_pictures(pictures)
        exact, size_px = table.boxes_xyxy[index], table.size_px[index]
        boxes = exact if moved is None else moved[index]
        rgb = cut_kept(table.squares[index], exact, boxes, size)
        squares = torch.cat((rgb, flags_of(boxes, *square_of(boxes), size_px, size)), 1)
        place = place_of(boxes, table.intrinsics[index], size_px, table.up_cam[index])
        category = table.label[index] if named else torch.full_like(index, -1)
        parts.append(vars(network(BoxInputs(squares, place, category, picture))))
    return BoxOutput(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def measure_boxes(network: BoxNet, table: BoxTable) -> dict[str, float]:
    """Shares of the boxes whose azimuth is found within 20° and 45°, where the object's symmetry leaves one,
    up to that; of those without a symmetry alone ("front_…"); of those whose category is found, where it is
    not told; whose centre is found within 20 cm ("place_20cm"); whose extents are all within 20 %. Medians:
    distance_off (share of the distance), place_off_m; height_off (share of the camera's height). Boxes whose
    sides were moved by up to `MOVED` of their size: their mean IoU with the exact ones, before ("moved_iou")
    and after they are corrected ("corrected_iou")."""
    found = look_at_table(network, table)
    every = torch.arange(len(table))
    truth = truth_of(table, every, table.boxes_xyxy)
    pairs, true_pairs = (x.harmonics.unflatten(-1, (-1, 2)) for x in (found, truth))
    angle = torch.atan2(pairs[..., 1], pairs[..., 0]) - torch.atan2(true_pairs[..., 1], true_pairs[..., 0])
    off_deg = torch.rad2deg(torch.atan2(angle.sin(), angle.cos()).abs()) / torch.tensor(AZIMUTH_ORDERS)
    lowest = truth.turned.float().argmax(1)  # the lowest harmonic that there is
    turned = truth.turned.any(1)
    own = off_deg[every, lowest]
    figures = {}
    for limit in (20, 45):
        figures[f"azimuth_{limit}"] = (own[turned] <= limit).float().mean()
        figures[f"front_{limit}"] = (own[turned & (lowest == 0)] <= limit).float().mean()
    logits = look_at_table(network, table, named=False).logits
    figures["category"] = (logits[:, :NONE].argmax(1) == table.label).float().mean()
    off_m = (placed(found, table.boxes_xyxy, table.intrinsics) - table.T).norm(dim=-1)
    figures["place_20cm"] = (off_m <= 0.2).float().mean()
    figures["place_off_m"] = off_m.median()
    figures["distance_off"] = (found.distance[:, 0] - truth.distance[:, 0]).abs().median().expm1()
    figures["height_off"] = (found.height[:, 0] - truth.height[:, 0]).abs()[truth.stands].nanmedian().expm1()
    wrong = (found.extents[:, :3] - truth.extents).exp() - 1
    figures["extents_20"] = (wrong.abs() <= 0.2).all(1).float().mean()
    jittered = jitter_boxes(
        table.boxes_xyxy[:, None], table.size_px, MOVED, torch.Generator().manual_seed(0)
    )[:, 0]  # fmt: skip
    moved = corrected(jittered, look_at_table(network, table, moved=jittered).sides[:, :4])
    for name, boxes in (("moved_iou", jittered), ("corrected_iou", moved)):
        figures[name] = box_iou(boxes, table.boxes_xyxy).diagonal().mean()
    return {name: round(float(v), 4) for name, v in figures.items() if not math.isnan(v)}
