"""Which CAD model an object is to be aligned with in training, and what is believed of its size."""

from __future__ import annotations

import torch

from sparc_core.cad.tensors import CadTensors
from sparc_core.types import CATEGORIES


class ModelDraws:
    """Draws CAD models and expected extents, because neither retrieval nor sizes are ever perfect.

    similar_model: share of objects whose CAD model is exchanged for another one of the category.
    unknown_extents: share of which only the category's median extents are expected; known_extents: share
    whose true extents are given.
    """

    def __init__(self, cad: CadTensors, similar_model: float, unknown_extents: float, known_extents: float):
        self.cad, self.similar_model = cad, similar_model
        self.unknown_extents, self.known_extents = unknown_extents, known_extents
        members = [(cad.category == c).nonzero()[:, 0] for c in range(len(CATEGORIES))]
        self.members = torch.nn.utils.rnn.pad_sequence(members, batch_first=True)
        self.counts = torch.tensor([len(m) for m in members], device=self.members.device)
        extents = [cad.extents_m[m] for m in members]
        self.scale_low_m, self.median_m, self.scale_high_m = category_ranges(extents)

    def similar(self, model, category, generator) -> torch.Tensor:
        """(B, N) models with a share of them swapped for another one of the category."""
        pick = torch.rand(model.shape, generator=generator, device=model.device)
        other = self.members[category, (pick * self.counts[category]).long()]
        swap = torch.rand(model.shape, generator=generator, device=model.device) < self.similar_model
        return torch.where(swap, other, model)

    def expected_extents(self, model, category, true_m, generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, 3) the model's own extents, for some objects only the category's median, for others the
        true ones; and (B, N) whether they are the true ones."""
        draw = torch.rand((*model.shape, 1), generator=generator, device=model.device)
        unknown, known = draw < self.unknown_extents, draw > 1 - self.known_extents
        expected = torch.where(unknown, self.median_m[category], self.cad.extents_m[model])
        return torch.where(known, true_m, expected), known[..., 0]


def category_ranges(extents: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(C, 3) smallest, median and largest of each category's (M, 3) extents; 0.3, 0.6 and 1 m of none."""
    device = extents[0].device
    low, median, high = (torch.full((len(extents), 3), v, device=device) for v in (0.3, 0.6, 1.0))
    for c, own in enumerate(extents):
        if len(own):
            low[c], median[c], high[c] = own.amin(0), own.median(0).values, own.amax(0)
    return low, median, high
