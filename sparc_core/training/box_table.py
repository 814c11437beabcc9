"""The boxes of stored pictures, all held in memory as small squares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from sparc_core.cad.symmetry import SYMMETRY_ORDERS
from sparc_core.perception.box_inputs import GROWTH, cut_square, square_of
from sparc_core.synth.picture_set import PicturedObject, PictureFolder, StoredPicture
from sparc_core.training.proposals import labelled
from sparc_core.types import CATEGORIES

MARGIN = 1.6  # side of a kept square over the longer side of the box: room for boxes that are moved
MIN_BOX_PX = 10.0
NONE = len(CATEGORIES)  # the label of a box that shows no object


class BoxTable:
    """All boxes of a folder's pictures in memory, (N, …): squares (N, 3, P, P) uint8 around them, boxes_xyxy,
    object_xyxy (what is seen of the object), intrinsics, size_px, up_cam, R, T, S, height (NaN unknown),
    label and symmetry_order; the boxes of a picture lie together: first, count of every picture's.

    proposals: boxes by the pictures' numbers, that a detector found. They come behind the others, each as if
    it were a picture of its own, from picture `pictures` on."""

    def __init__(self, pictures: PictureFolder, kept_px: int, positions=None, proposals=None):
        groups, alone = [], []
        for position in range(len(pictures)) if positions is None else positions:
            picture = pictures.read(position, ())
            picture = replace(picture, rgb=np.ascontiguousarray(picture.rgb))
            above = picture.above_floor_m
            height = math.nan if above is None else above
            true = [(np.array(item.box_xyxy), item) for item in picture.objects]
            groups.append([_row(picture, height, *pair, kept_px) for pair in true if _large(pair[0])])
            found = labelled((proposals or {}).get(picture.number, ()), picture.objects)
            alone += [[_row(picture, height, *pair, kept_px)] for pair in found if _large(pair[0])]
        groups = [group for group in groups if group]
        if not groups:
            raise ValueError(f"{pictures.folder}: no picture shows an object of {MIN_BOX_PX:.0f} pixels")
        self.pictures = len(groups)
        rows = [row for group in groups + alone for row in group]
        columns = [np.stack(values) for values in zip(*rows, strict=True)]
        self.squares = torch.from_numpy(columns[0]).permute(0, 3, 1, 2)
        self.boxes_xyxy, self.object_xyxy, self.intrinsics, self.size_px, self.up_cam = (
            torch.from_numpy(values).float() for values in columns[1:6]
        )
        self.R, self.T, self.S, self.height = (torch.from_numpy(values).float() for values in columns[6:10])
        self.label, self.symmetry_order = (torch.from_numpy(values) for values in columns[10:])
        self.count = torch.tensor([len(group) for group in groups + alone])
        self.first = self.count.cumsum(0) - self.count

    def __len__(self) -> int:
        return len(self.label)

    def of_pictures(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (K,) of the boxes of pictures (P,), one picture after the other, and for each which of the
        P it is of."""
        place = torch.repeat_interleave(torch.arange(len(pictures)), self.count[pictures])
        within = torch.arange(len(place)) - (self.count[pictures].cumsum(0) - self.count[pictures])[place]
        return self.first[pictures][place] + within, place


def _large(box: np.ndarray) -> bool:
    return (box[2:] - box[:2]).min() >= MIN_BOX_PX


def _row(
    picture: StoredPicture, camera_height: float, box: np.ndarray, item: PicturedObject | None, kept_px: int
) -> tuple:
    """A row of the table. What is not known of a box without an object is that of a cube around the camera's
    principal ray."""
    height, width = picture.rgb.shape[:2]
    half = MARGIN / 2 * (box[2:] - box[:2]).max()
    square = cut_square(picture.rgb, (box[:2] + box[2:]) / 2, half, kept_px)
    R, T, S = (np.eye(3), (0, 0, 1), (1, 1, 1)) if item is None else (item.R, item.T_m, item.S_m)
    whole = box if item is None else np.array(item.box_xyxy)
    label, order = (NONE, 1) if item is None else (
        CATEGORIES.index(item.category), SYMMETRY_ORDERS[item.symmetry]
    )  # fmt: skip
    return (
        square, box, whole, picture.intrinsics, np.array([width, height]), picture.up_cam, np.array(R),
        np.array(T), np.array(S), np.array(camera_height), np.array(label), np.array(order),
    )  # fmt: skip


def cut_kept(kept: torch.Tensor, exact: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, size, size) in [0, 1] the squares of boxes (B, 4), out of squares (B, 3, P, P) uint8 that were
    kept of the exact ones."""
    kept_centre, kept_half = square_of(exact)
    kept_half = kept_half * (MARGIN / GROWTH)
    centre, half = square_of(boxes)
    matrix = torch.zeros(len(boxes), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = half / kept_half
    matrix[:, :, 2] = (centre - kept_centre) / kept_half[:, None]
    grid = F.affine_grid(matrix, (len(boxes), 3, size, size), align_corners=False)
    return F.grid_sample(kept.float() / 255, grid, padding_mode="border", align_corners=False)
