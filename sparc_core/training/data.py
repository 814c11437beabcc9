"""Training batches on the fly: scenes, what a noisy camera sees of them, and the true poses."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.profiler import record_function

from sparc_core.cad.library import CadLibrary
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.inputs.assemble import InputConfig
from sparc_core.inputs.select import select_box_pixels
from sparc_core.perception.samples import Frame, PixelSamples
from sparc_core.refine.loop import CadSurface
from sparc_core.synth.corrupt import NoiseConfig, draw_noise
from sparc_core.synth.observe import SceneObserver, detect, take_slots
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.scenes import SceneConfig, SceneSampler
from sparc_core.types import CATEGORIES, SCALE_MODES


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


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B images with N objects each. truth (B, N); symmetry_order, category (B, N); surface: the CAD
    models to align; box_samples: the τ = 0 pixels, read once an image as at run time; scale_low_m,
    scale_high_m (B, N, 3) the category's range."""

    frame: Frame
    source: SceneObserver
    surface: CadSurface
    truth: Pose
    symmetry_order: torch.Tensor
    category: torch.Tensor
    box_samples: PixelSamples
    scale_low_m: torch.Tensor
    scale_high_m: torch.Tensor

    @property
    def scale_mode(self) -> torch.Tensor:
        """(B, N) index into SCALE_MODES: "fixed" where the extents are known, else "free"."""
        known = self.surface.extents_known
        return torch.where(known, SCALE_MODES.index("fixed"), SCALE_MODES.index("free"))


class SyntheticData:
    """Draws training batches from one CAD library on one device."""

    def __init__(self, library: CadLibrary, config: DataConfig, inputs: InputConfig, device: str = "cpu"):
        self.config, self.inputs = config, inputs
        self.cad = CadTensors.from_library(library, device)
        self.caster = RayCaster(library, device)
        self.sampler = SceneSampler(self.cad, config.scenes)
        self.members = self._members()
        self.scale_low_m, self.median_m, self.scale_high_m = (x.to(device) for x in self._extents_ranges())

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
        model = self._similar(rendered, category, generator)
        truth = take_slots(scene.pose, found.slot)
        expected, known = self._expected_extents(model, category, truth.S, generator)
        box_pixels = select_box_pixels(source.frame, self.inputs.n_bbox, generator)
        with record_function("box pixels"):
            box_samples = source.sample(box_pixels)
        return TrainingBatch(
            source.frame, source, CadSurface(self.cad.surface, model, expected, known),
            truth, self.cad.symmetry_order[rendered], category,
            box_samples,
            self.scale_low_m[category], self.scale_high_m[category],
        )  # fmt: skip

    def _similar(self, model, category, generator):
        """Swap a share of the models for another one of the category."""
        table, counts = self.members
        pick = torch.rand(model.shape, generator=generator, device=model.device)
        other = table[category, (pick * counts[category]).long()]
        swap = torch.rand(model.shape, generator=generator, device=model.device) < self.config.similar_model
        return torch.where(swap, other, model)

    def _expected_extents(self, model, category, true_m, generator):
        """The model's own extents, for some objects only the category's median, for others the true ones;
        and (B, N) whether they are the true ones."""
        draw = torch.rand((*model.shape, 1), generator=generator, device=model.device)
        unknown, known = draw < self.config.unknown_extents, draw > 1 - self.config.known_extents
        expected = torch.where(unknown, self.median_m[category], self.cad.extents_m[model])
        return torch.where(known, true_m, expected), known[..., 0]

    def _members(self):
        members = [(self.cad.category == c).nonzero()[:, 0] for c in range(len(CATEGORIES))]
        table = torch.nn.utils.rnn.pad_sequence(members, batch_first=True)
        return table, torch.tensor([len(m) for m in members], device=table.device)

    def _extents_ranges(self):
        low, median, high = (torch.full((len(CATEGORIES), 3), value) for value in (0.3, 0.6, 1.0))
        for c in range(len(CATEGORIES)):
            extents = self.cad.extents_m[self.cad.category == c].cpu()
            if len(extents):
                low[c], median[c], high[c] = extents.amin(0), extents.median(0).values, extents.amax(0)
        return low, median, high
