"""A CAD library as tensors on one device, indexed by model number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.symmetry import SYMMETRY_ORDERS
from sparc_core.types import CATEGORIES, SYMMETRIES


@dataclass(frozen=True, eq=False)
class CadPoints:
    """Surface points of CAD models: points, normals (..., P, 3) in unit-cube coordinates."""

    points: torch.Tensor
    normals: torch.Tensor

    def __getitem__(self, index) -> CadPoints:
        return CadPoints(self.points[index], self.normals[index])


@dataclass(frozen=True, eq=False)
class CadTensors:
    """points, normals (M, P, 3) in unit-cube coordinates; colors (M, P, 3) in [0, 1]; extents_m (M, 3);
    symmetry_order (M,) int64, how many turns about the CAD y axis leave the model unchanged; category (M,)
    index into CATEGORIES."""

    points: torch.Tensor
    normals: torch.Tensor
    colors: torch.Tensor
    extents_m: torch.Tensor
    symmetry_order: torch.Tensor
    category: torch.Tensor

    @property
    def surface(self) -> CadPoints:
        """The samples of all models, (M, P)."""
        return CadPoints(self.points, self.normals)

    @classmethod
    def from_library(cls, library: CadLibrary, device="cpu") -> CadTensors:
        """Stack the library's samples. Raises ValueError for an empty library."""
        models = library.models
        if not models:
            raise ValueError("the CAD library holds no models")
        assert all(model.symmetry in SYMMETRIES for model in models)
        return cls(
            torch.from_numpy(np.stack([model.points for model in models])).to(device),
            torch.from_numpy(np.stack([model.normals for model in models])).to(device),
            torch.from_numpy(np.stack([model.colors for model in models])).to(device).float() / 255,
            torch.from_numpy(np.stack([model.extents_m for model in models])).float().to(device),
            torch.tensor([SYMMETRY_ORDERS[model.symmetry] for model in models], device=device),
            torch.tensor(
                [
                    CATEGORIES.index(model.category) if model.category in CATEGORIES else -1
                    for model in models
                ],
                device=device,
            ),
        )
