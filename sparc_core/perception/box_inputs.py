"""What the box network is given of every box: a square of the picture, and how the box is seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from sparc_core.geometry.camera import bearing_z1, cut_sides

GROWTH = 1.2  # side of the square over the longer side of the box
PLACE = 18  # numbers of `place_of`
SIZE = slice(6, 8)  # of `place_of`: ln of the box's size as an angle
MIN_DOWN = 0.02  # sine of the angle below the horizon at which a floor still has a distance


@dataclass(frozen=True, eq=False)
class BoxInputs:
    """K boxes of one or more pictures. squares (K, 5, S, S): RGB in [0, 1], whether a pixel is in the box,
    whether it is on the picture; place (K, `PLACE`) of `place_of`; category (K,) index, −1 unknown; picture
    (K,) which picture a box is of."""

    squares: torch.Tensor
    place: torch.Tensor
    category: torch.Tensor
    picture: torch.Tensor

    def to(self, device) -> BoxInputs:
        """The same on a device."""
        return BoxInputs(**{name: value.to(device) for name, value in vars(self).items()})

    def mirrored(self) -> BoxInputs:
        """The same boxes in a mirror."""
        return replace(self, squares=self.squares.flip(-1), place=mirrored_place(self.place))


def square_of(boxes_xyxy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (B, 2) and half the side (B,) in pixels of the squares for boxes (B, 4)."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    return (low + high) / 2, GROWTH / 2 * (high - low).amax(1)


def flags_of(
    boxes_xyxy: torch.Tensor, centre: torch.Tensor, half: torch.Tensor, size_px: torch.Tensor, size: int
) -> torch.Tensor:
    """(B, 2, size, size): whether the pixels of squares are in their box, and on the picture of size_px
    (B, 2)."""
    step = (torch.arange(size, device=half.device) + 0.5) / size * 2 - 1
    x, y = (centre[:, i, None] + half[:, None] * step for i in (0, 1))

    def both(across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return down[:, :, None] & across[:, None]

    low, high = boxes_xyxy[:, :2, None], boxes_xyxy[:, 2:, None]
    inside = both((x >= low[:, 0]) & (x <= high[:, 0]), (y >= low[:, 1]) & (y <= high[:, 1]))
    limit = size_px[:, :, None] - 0.5
    shown = both((x >= -0.5) & (x <= limit[:, 0]), (y >= -0.5) & (y <= limit[:, 1]))
    return torch.stack((inside, shown), 1).float()


def place_of(
    boxes_xyxy: torch.Tensor, intrinsics: torch.Tensor, size_px: torch.Tensor, up_cam: torch.Tensor
) -> torch.Tensor:
    """(B, `PLACE`) how a box is seen: up (0 where gravity is not known), ray through its middle, ln of its
    size as an angle, which of its sides are cut by the picture's border; and where gravity is known, for the
    middle of its lower side, of its upper side and of the box, how far they are below the horizon (sine), and
    ln of the distance at which a floor 1 m below the camera is seen there. boxes (B, 4), intrinsics (B, 4),
    size_px (B, 2), up_cam (B, 3)."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    middle = (low + high) / 2
    points = torch.stack((
        torch.stack((middle[:, 0], high[:, 1]), -1), torch.stack((middle[:, 0], low[:, 1]), -1), middle
    ), 1)  # fmt: skip
    rays = F.normalize(bearing_z1(points, intrinsics), dim=-1)
    down = -(rays @ up_cam[..., None])[..., 0]
    floor = -down.clamp(min=MIN_DOWN).log() * (up_cam.norm(dim=-1, keepdim=True) > 0.5)
    angle = ((high - low).clamp(min=1) / intrinsics[:, :2]).log()
    cut = cut_sides(boxes_xyxy, size_px).to(angle.dtype)
    return torch.cat((up_cam, rays[:, 2], angle, cut, down, floor), 1)


def cut_square(image_rgb: np.ndarray, centre, half: float, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the square around a centre (x, y) with half a side in pixels; grey beyond the
    picture."""
    shrink = min(1.0, size / (2 * half))
    if shrink < 0.75:  # smaller at once, else a bilinear read would skip pixels
        height, width = image_rgb.shape[:2]
        smaller = max(1, round(width * shrink)), max(1, round(height * shrink))
        image_rgb = cv2.resize(image_rgb, smaller, interpolation=cv2.INTER_AREA)
        scale = np.array([smaller[0] / width, smaller[1] / height])
    else:
        scale = np.ones(2)
    # output pixel (i, j) shows centre + half · ((i + 0.5) · 2 / size − 1)
    step = 2 * half / size * scale
    first = (np.asarray(centre, dtype=np.float64) + 0.5) * scale - 0.5 + step * (0.5 - size / 2)
    matrix = np.array([[step[0], 0, first[0]], [0, step[1], first[1]]])
    return cv2.warpAffine(
        image_rgb, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(114, 114, 114),
    )  # fmt: skip


def mirrored_place(place: torch.Tensor) -> torch.Tensor:
    """`place_of` (..., `PLACE`) in a mirror: x of up and ray turn round, left and right change places."""
    sign = place.new_ones(place.shape[-1])
    sign[0] = sign[3] = -1
    order = torch.arange(place.shape[-1], device=place.device)
    order[[8, 10]] = order[[10, 8]]
    return (place * sign)[..., order]


def mirrored_sides(sides: torch.Tensor) -> torch.Tensor:
    """Moves (..., 4) of the sides of a box in a mirror."""
    return sides[..., [2, 1, 0, 3]] * sides.new_tensor([-1.0, 1.0, -1.0, 1.0])
