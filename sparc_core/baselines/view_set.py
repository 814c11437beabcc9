"""The canonical views of a library's CAD models: from the rotation bins of their category."""

from __future__ import annotations

import torch

from sparc_core.baselines.mask2cad import Mask2CadNet
from sparc_core.baselines.views import ViewRenderer
from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.rotation import quaternion_to_matrix
from sparc_core.types import CATEGORIES

CHUNK = 512  # views embedded at once


class ViewSet:
    """Views of all models, taken when they are first asked for and kept in memory.

    Models of categories that the network has no bins of have no views.
    """

    def __init__(self, library: CadLibrary, network: Mask2CadNet):
        self.library, self.renderer = library, ViewRenderer(library)
        self.size_px, self.bins = network.config.view_px, network.config.bins
        self.category = torch.tensor(
            [CATEGORIES.index(m.category) if m.category in CATEGORIES else -1 for m in library.models]
        )
        bins, has_bin = network.bins.detach().cpu(), network.has_bin.cpu()
        # views that there are not are those of the first bin once more
        self._turns = quaternion_to_matrix(torch.where(has_bin[..., None], bins, bins[:, :1]))
        self.viewable = (self.category >= 0) & has_bin.any(1)[self.category.clamp(min=0)]
        self._views = torch.zeros(len(library), self.bins, self.size_px, self.size_px, dtype=torch.uint8)
        self._taken = torch.zeros(len(library), dtype=torch.bool)

    def canonical(self, model: torch.Tensor) -> torch.Tensor:
        """(D, K, P, P) uint8 views of models (D,). Raises ValueError for a model without views."""
        hidden = model[~self.viewable[model]]
        if len(hidden):
            name = self.library.models[int(hidden[0])]
            raise ValueError(
                f"Mask2CAD has no views of {name.model_id!r}: none of {name.category} in training"
            )
        missing = model[~self._taken[model]].unique()
        if len(missing):
            turns = self._turns[self.category[missing]].flatten(0, 1)
            taken = self.renderer.render(missing.repeat_interleave(self.bins), turns, self.size_px)
            self._views[missing] = taken.unflatten(0, (-1, self.bins))
            self._taken[missing] = True
        return self._views[model]

    @torch.no_grad()
    def embed(self, network: Mask2CadNet) -> torch.Tensor:
        """(M, K, E) vectors of all views, on the network's device; 0 for models without."""
        device = network.bins.device
        vectors = torch.zeros(len(self.library), self.bins, network.config.embedding, device=device)
        for part in self.viewable.nonzero()[:, 0].split(max(1, CHUNK // self.bins)):
            views = self.canonical(part).flatten(0, 1).to(device)
            vectors[part.to(device)] = network.views(views).unflatten(0, (-1, self.bins))
        return vectors
