"""Nine-degree-of-freedom poses, batched in torch: x_cam = R · diag(S) · x_cad + T."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, eq=False)
class Pose:
    """A batch of object poses in the camera frame.

    R: (..., 3, 3) object to camera rotation. T: (..., 3) position of the CAD bounding-box centre in
    metres. S: (..., 3) full extents in metres along the CAD axes (CAD points live in the unit cube).
    """

    R: torch.Tensor
    T: torch.Tensor
    S: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """The batch shape."""
        return self.T.shape[:-1]

    @property
    def mean_extent(self) -> torch.Tensor:
        """(..., 1) root mean square of the three extents, in metres: the object's size."""
        return self.S.square().mean(-1, keepdim=True).sqrt()

    def transform(self, points_cad: torch.Tensor) -> torch.Tensor:
        """(..., K, 3) unit-cube points -> (..., K, 3) camera points in metres."""
        return (points_cad * self.S[..., None, :]) @ self.R.transpose(-1, -2) + self.T[..., None, :]

    def to_object(self, points_cam: torch.Tensor) -> torch.Tensor:
        """(..., K, 3) camera points -> unit-cube coordinates q = Rᵀ(x_cam − T)/S."""
        return ((points_cam - self.T[..., None, :]) @ self.R) / self.S[..., None, :]

    def transform_normals(self, normals_cad: torch.Tensor) -> torch.Tensor:
        """(..., K, 3) unit-cube normals -> (..., K, 3) unit camera normals, ∝ R · diag(1/S) · n."""
        return F.normalize((normals_cad / self.S[..., None, :]) @ self.R.transpose(-1, -2), dim=-1)

    def normals_in_object_axes(self, normals_cad: torch.Tensor) -> torch.Tensor:
        """(..., K, 3) unit-cube normals -> unit normals of the scaled object, in object axes."""
        return F.normalize(normals_cad / self.S[..., None, :], dim=-1)

    def rotate_normals_to_object(self, normals_cam: torch.Tensor) -> torch.Tensor:
        """(..., K, 3) camera normals -> the same directions along the object's axes."""
        return normals_cam @ self.R

    def map(self, function) -> Pose:
        """The pose with `function` applied to R, T and S (indexing, expanding, moving)."""
        return Pose(function(self.R), function(self.T), function(self.S))

    def detach(self) -> Pose:
        """The same pose cut from the autograd graph."""
        return self.map(torch.Tensor.detach)


def where(condition: torch.Tensor, a: Pose, b: Pose) -> Pose:
    """Poses of `a` where the (...) bool `condition` holds, else of `b`."""
    return Pose(
        torch.where(condition[..., None, None], a.R, b.R),
        torch.where(condition[..., None], a.T, b.T),
        torch.where(condition[..., None], a.S, b.S),
    )


def concatenate(poses: list[Pose], dim: int = 0) -> Pose:
    """Concatenate poses along a batch dimension."""
    return Pose(*(torch.cat([getattr(p, name) for p in poses], dim) for name in ("R", "T", "S")))
