"""Training batches on the fly: scenes, what a noisy camera sees of them, and the true poses."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.profiler import record_function

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.inputs.assemble import InputConfig
from sparc_core.inputs.select import select_box_pixels
from sparc_core.refine.loop import CadSurface
from sparc_core.synth.corrupt import NoiseConfig, draw_noise
from sparc_core.synth.observe import SceneObserver, detect, take_slots
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.scenes import SceneConfig, SceneSampler
from sparc_core.training.batch import TrainingBatch
from sparc_core.training.model_draws import ModelDraws
from sparc_core.types import CATEGORIES


@dataclass(frozen=True)
class DataConfig:
    """scenes: what is drawn. noise: how it is observed. detections: N, objects looked at per image.
    min_visible: share of an object's points that must be seen for it to count as detected.
    similar_model: share of objects whose CAD model is another one of the category than the rendered
    one, with the alignment of the boxes as truth, because retrieval is never perfect. unknown_extents:
    share of objects of which only the category's median extents are expected; known_extents: share of
    objects whose true extents are given and stay (scale mode "fixed" at run time)."""

    scenes: SceneConfig = field(default_factory=lambda: SceneConfig(objects=6, clutter=2))
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    detections: int = 4
    min_visible: float = 0.15
    similar_model: float = 0.2
    unknown_extents: float = 0.15
    known_extents: float = 0.15

    def __post_init__(self):
        if not 1 <= self.detections <= self.scenes.objects:
            raise ValueError(
                f"data detections must be between 1 and scenes.objects ({self.scenes.objects}), "
                f"got {self.detections}"
            )


class SyntheticData:
    """Draws training batches from one CAD library on one device."""

    def __init__(self, library: CadLibrary, config: DataConfig, inputs: InputConfig, device: str = "cpu"):
        self.config, self.inputs = config, inputs
        self.cad = CadTensors.from_library(library, device)
        self.caster = RayCaster(library, device)
        self.sampler = SceneSampler(self.cad, config.scenes)
        self.draws = ModelDraws(self.cad, config.similar_model, config.unknown_extents, config.known_extents)

    def batch(self, images: int, generator: torch.Generator) -> TrainingBatch:
        """`images` fresh images; the generator lives on the device."""
        scene = self.sampler.sample(images, generator)
        config = self.config
        with record_function("what is visible"):
            found = detect(
                self.caster, self.cad, scene, config.detections, generator, min_visible=config.min_visible
            )
        category = self.cad.category[scene.model]
        noise = draw_noise(
            self.config.noise,
            images,
            scene.model.shape[1],
            generator,
            category == CATEGORIES.index("display"),
        )
        source = SceneObserver(self.caster, scene, found, noise, self.config.noise, generator)
        rows = torch.arange(images, device=found.slot.device)[:, None]
        rendered, category = scene.model[rows, found.slot], category[rows, found.slot]
        model = self.draws.similar(rendered, category, generator)
        truth = take_slots(scene.pose, found.slot)
        expected, known = self.draws.expected_extents(model, category, truth.S, generator)
        box_pixels = select_box_pixels(source.frame, self.inputs.n_bbox, generator)
        with record_function("box pixels"):
            box_samples = source.sample(box_pixels)
        return TrainingBatch(
            source.frame, source, CadSurface(self.cad.surface, model, expected, known),
            truth, self.cad.symmetry_order[rendered], category,
            box_samples,
            self.draws.scale_low_m[category], self.draws.scale_high_m[category],
        )  # fmt: skip

    def seek(self, images: int) -> None:
        """Nothing to do: every batch is drawn from the generator alone."""
