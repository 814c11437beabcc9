"""The CAD models that look most like a detected object, new ones included: nothing is trained anew for
them."""

from __future__ import annotations

from pathlib import Path

import torch

from sparc_core.cad.tensors import CadTensors
from sparc_core.inputs.select import select_box_pixels
from sparc_core.perception.observe import ImageSource
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.prepare import PreparedImage
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.retrieval.network import RetrievalConfig, RetrievalNet, cad_tokens
from sparc_core.retrieval.region import region_tokens
from sparc_core.types import CATEGORIES

CHUNK = 256  # CAD models embedded at once


class Retriever:
    """A network with the vectors of one CAD library, computed once."""

    def __init__(self, network: RetrievalNet, cad: CadTensors):
        self.network, self.category = network.eval(), cad.category
        self.vectors = embed_cad_models(network, cad)

    @classmethod
    def load(cls, weights: Path, cad: CadTensors) -> Retriever:
        """From a file of `sparc train-perception retrieval`, on the CAD models' device. Raises ValueError
        naming the file."""
        return cls(load_predictor(weights, RetrievalConfig, RetrievalNet, cad.points.device)[0], cad)

    def rank(
        self,
        prepared: PreparedImage,
        categories: list[str],
        count: int,
        seed: int = 0,
        beside: torch.Tensor | None = None,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For every kept detection the positions of its `count` most similar CAD models, the best first, and
        their similarities. categories: of the kept detections; one that is none of the nine gets no
        models. beside: (D, M) what else speaks for the models, added to their similarities."""
        device = self.vectors.device
        detection = torch.arange(len(prepared.kept), device=device)[None]
        frame = prepared.frame(detection)
        generator = torch.Generator(device).manual_seed(seed)
        pixels = select_box_pixels(frame, self.network.config.n_pixels, generator)
        samples = ImageSource(prepared.channels, detection).sample(pixels)
        known = torch.tensor([name in CATEGORIES for name in categories])
        numbers = [CATEGORIES.index(name) if name in CATEGORIES else 0 for name in categories]
        found = self.similarities(frame, samples, torch.tensor([numbers], device=device))[0]
        if beside is not None:
            found = found + beside
        ranked = []
        for row, is_known in zip(found, known.tolist(), strict=True):
            best = row.topk(min(count, len(row)))
            keep = torch.isfinite(best.values) & is_known
            ranked.append((best.indices[keep], best.values[keep]))
        return ranked

    def ranking(self, prepared: PreparedImage, categories: list[str], count: int) -> list[list[int]]:
        """`rank` without the similarities."""
        return [models.tolist() for models, _ in self.rank(prepared, categories, count)]

    @torch.no_grad()
    def similarities(self, frame: Frame, samples: PixelSamples, category: torch.Tensor) -> torch.Tensor:
        """(B, N, M) scalar products of the objects' vectors with those of all CAD models; −inf for models of
        other categories. samples (B, N, K): pixels of the boxes; category (B, N): index into CATEGORIES."""
        tokens, context, valid = (x.flatten(0, 1) for x in region_tokens(frame, samples, category))
        found = self.network.region(tokens, context, valid) @ self.vectors.T
        found = found.unflatten(0, category.shape)
        return torch.where(self.category == category[..., None], found, -torch.inf)


@torch.no_grad()
def embed_cad_models(network: RetrievalNet, cad: CadTensors) -> torch.Tensor:
    """(M, E) vectors of all models."""
    few = slice(0, network.config.n_points)
    vectors = []
    for part in torch.arange(len(cad.category), device=cad.category.device).split(CHUNK):
        tokens = cad_tokens(
            cad.points[part, few], cad.normals[part, few], cad.colors[part, few], cad.extents_m[part],
            cad.category[part],
        )  # fmt: skip
        vectors.append(network.cad(*tokens))
    return torch.cat(vectors)
