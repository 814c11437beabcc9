"""Frames, samples and CAD points with random values, as token assembly reads them."""

import dataclasses
import itertools

import torch
from builders import random_poses

from sparc_core.cad.tensors import CadPoints
from sparc_core.inputs.assemble import (
    InputConfig,
    assemble_tokens,
)
from sparc_core.perception.samples import CadSamples, Frame, PixelSamples
from sparc_core.types import HINT_CHANNELS

BOXES, CAD, SURFACE = 6, 5, 9
INTRINSICS = torch.tensor([[500.0, 480.0, 320.0, 240.0]])


def unit(tensor):
    return torch.nn.functional.normalize(tensor, dim=-1)


def frame_for(objects, **changes):
    frame = Frame(
        INTRINSICS, torch.tensor([[640.0, 480.0]]), torch.tensor([[[100.0, 80.0, 300.0, 280.0]] * objects]),
        torch.ones(1, objects, dtype=torch.bool), torch.tensor([[0.0, -0.8, -0.6]]), torch.tensor([True]),
    )  # fmt: skip
    return dataclasses.replace(frame, **changes)


def samples_at(uv, depth, normal, gen):
    """Samples with depth, normal and mask everywhere and random colours."""
    yes = torch.ones(depth.shape, dtype=torch.bool)
    rgb = torch.rand(*depth.shape, 3, generator=gen)
    mask = (depth > depth.median()).float()
    hints = torch.rand(*depth.shape, HINT_CHANNELS, generator=gen) - 0.5
    return PixelSamples(uv, rgb, normal, depth, mask, yes, yes, yes, yes, hints)


def random_inputs(objects=2, seed=0):
    """Everything `assemble_tokens` reads, with random values."""
    gen = torch.Generator().manual_seed(seed)

    def samples(count):
        uv = torch.rand(1, objects, count, 2, generator=gen) * torch.tensor([640.0, 480.0])
        depth = 1 + 3 * torch.rand(1, objects, count, generator=gen)
        return samples_at(uv, depth, unit(torch.randn(1, objects, count, 3, generator=gen)), gen)

    def points(count):
        shape = (1, objects, count, 3)
        return CadPoints(torch.rand(shape, generator=gen) - 0.5, unit(torch.randn(shape, generator=gen)))

    cad = CadSamples(
        points(CAD),
        points(SURFACE),
        0.5 + torch.rand(1, objects, 3, generator=gen),
        torch.zeros(1, objects, dtype=torch.bool),
    )
    pose = random_poses(1, objects, seed=seed, dtype=torch.float32)
    in_front = torch.ones(1, objects, CAD, dtype=torch.bool)
    return frame_for(objects), pose, samples(BOXES), samples(CAD), in_front, cad


def assemble(layout, inputs):
    return assemble_tokens(InputConfig(layout, BOXES, CAD), *inputs)


def cube_samples(expected_m, known=False):
    """The corners of the unit cube as the surface of one object."""
    corners = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=3)))[None, None]
    expected = torch.tensor([[expected_m]])
    surface = CadPoints(corners, unit(corners))
    return CadSamples(surface, surface, expected, torch.tensor([[known]]))
