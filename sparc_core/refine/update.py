"""Pose updates: how the network's ten raw outputs move a pose, and the exact inverse.

Three parametrisations (Multi-SPARC section 3.3, its predecessor's, and ours):

- "object" (default): `T' = T + d·R·δ` with d the mean extent (root mean square of S): a shift is measured
  in object sizes along object axes. One size for all axes: with S ∘ δ a display, 5 cm thin, would need
  δ = 6 to move by 30 cm along its normal.
- "polar" (the paper): `T` as (d, φ, θ) with `d' = d·Δd` and angles additive. The poles lie on the
  camera's vertical axis, away from the viewing direction.
- "additive" (SPARC 2022): `T' = T + ΔT` and `S' = S + ΔS`, metres, `T` along the camera's axes. Extents can
  become negative; `keep_plausible` of the loop bounds them.

All share `R' = R·ΔR` (unit quaternion, identity at zero output), the first two `S' = S·ΔS`. Multiplicative
updates are `Δ = 2·sigmoid(x)`: 1 at x = 0, between 0 and 2, so that they can grow as well as shrink
(the paper's bare sigmoid cannot enlarge).
"""

from __future__ import annotations

import torch

from sparc_core.geometry.pose import Pose
from sparc_core.geometry.rotation import matrix_to_quaternion, quaternion_to_matrix
from sparc_core.types import SCALE_MODES

PARAMETRISATIONS = ("object", "polar", "additive")
_LIMIT = 1e-6  # keeps the inverse of the multiplicative update finite at its bounds


def apply_update(
    pose: Pose, raw_update: torch.Tensor, parametrisation: str, scale_mode: str | torch.Tensor = "free"
) -> Pose:
    """The updated pose. raw_update: (..., 10) as translation 3, scale 3, quaternion offset 4.

    scale_mode "uniform" multiplies all three extents by the geometric mean of the predicted factors (an
    additive update has such factors, too), "fixed" leaves them alone; an integer tensor (...) indexes
    SCALE_MODES object by object. Raises
    ValueError for an unknown parametrisation or scale mode.
    """
    _check(parametrisation, scale_mode)
    translation, scale, quaternion = raw_update.split((3, 3, 4), -1)
    identity = torch.zeros_like(quaternion)
    identity[..., 0] = 1
    R = pose.R @ quaternion_to_matrix(quaternion + identity)
    factor = 1 + scale / pose.S if parametrisation == "additive" else 2 * torch.sigmoid(scale)
    S = pose.S * _bound_factor(factor, scale_mode)
    if parametrisation == "additive":
        T = pose.T + translation
    elif parametrisation == "object":
        T = pose.T + (pose.R @ (pose.mean_extent * translation)[..., None])[..., 0]
    else:
        distance, azimuth, elevation = to_polar(pose.T)
        T = from_polar(
            distance * 2 * torch.sigmoid(translation[..., 0]),
            azimuth + translation[..., 1],
            elevation + translation[..., 2],
        )
    return Pose(R, T, S)


def update_between(start: Pose, end: Pose, parametrisation: str) -> torch.Tensor:
    """The (..., 10) raw update that takes `start` to `end`: the inverse of `apply_update`.

    Extents (and, in polar form, distance) can change by at most a factor of two in one update that is not
    additive; larger changes are clipped to just under it.
    """
    _check(parametrisation, "free")
    quaternion = matrix_to_quaternion(start.R.transpose(-1, -2) @ end.R)
    offset = quaternion - torch.tensor([1.0, 0, 0, 0], dtype=quaternion.dtype, device=quaternion.device)
    if parametrisation == "additive":
        return torch.cat((end.T - start.T, end.S - start.S, offset), -1)
    scale = _inverse_factor(end.S / start.S)
    if parametrisation == "object":
        shift = (start.R.transpose(-1, -2) @ (end.T - start.T)[..., None])[..., 0]
        translation = shift / start.mean_extent
    else:
        d0, azimuth0, elevation0 = to_polar(start.T)
        d1, azimuth1, elevation1 = to_polar(end.T)
        turn = azimuth1 - azimuth0
        turn = torch.atan2(turn.sin(), turn.cos())
        translation = torch.stack((_inverse_factor(d1 / d0), turn, elevation1 - elevation0), -1)
    return torch.cat((translation, scale, offset), -1)


def to_polar(T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(..., 3) -> distance, azimuth (from +z towards +x) and elevation (towards +y), radians."""
    horizontal = (T[..., 0].square() + T[..., 2].square()).clamp(min=1e-12).sqrt()
    distance = (horizontal.square() + T[..., 1].square()).sqrt()
    return distance, torch.atan2(T[..., 0], T[..., 2]), torch.atan2(T[..., 1], horizontal)


def from_polar(distance: torch.Tensor, azimuth: torch.Tensor, elevation: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_polar`."""
    horizontal = distance * elevation.cos()
    return torch.stack(
        (horizontal * azimuth.sin(), distance * elevation.sin(), horizontal * azimuth.cos()), -1
    )


def _bound_factor(factor: torch.Tensor, scale_mode: str | torch.Tensor) -> torch.Tensor:
    """(..., 3) scale factors as the mode allows them: free, one for all axes, or 1."""
    # without the clamp a factor that underflows to 0 gives NaN gradients, whatever the mode
    uniform = factor.clamp(min=1e-12).log().mean(-1, keepdim=True).exp().expand_as(factor)
    choices = torch.stack((factor, uniform, torch.ones_like(factor)))
    if isinstance(scale_mode, str):
        return choices[SCALE_MODES.index(scale_mode)]
    index = scale_mode[None, ..., None].expand(1, *factor.shape)
    return choices.gather(0, index)[0]


def _inverse_factor(factor: torch.Tensor) -> torch.Tensor:
    return torch.logit((factor / 2).clamp(_LIMIT, 1 - _LIMIT))


def _check(parametrisation: str, scale_mode: str | torch.Tensor) -> None:
    if parametrisation not in PARAMETRISATIONS:
        raise ValueError(f"parametrisation must be one of {PARAMETRISATIONS}, got {parametrisation!r}")
    if isinstance(scale_mode, str) and scale_mode not in SCALE_MODES:
        raise ValueError(f"scale_mode must be one of {SCALE_MODES}, got {scale_mode!r}")
