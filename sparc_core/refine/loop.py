"""The refinement loop: assemble, predict, update, again; then a pass that only scores."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch.profiler import record_function

from sparc_core.cad.tensors import CadPoints
from sparc_core.geometry.camera import project
from sparc_core.geometry.pose import Pose
from sparc_core.inputs.assemble import InputConfig, Tokens, assemble_tokens
from sparc_core.inputs.select import select_cad_points
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.perception.samples import CadSamples, Frame, PixelSamples, PixelSource
from sparc_core.refine.update import apply_update

EXTENT_LIMITS_M = (0.01, 10.0)
DISTANCE_LIMITS_M = (0.1, 30.0)


@dataclass(eq=False)
class StageClock:
    """Adds up milliseconds per stage; CUDA work is waited for so that the numbers mean something."""

    device: torch.device
    total_ms: dict[str, float] = field(default_factory=dict)

    def measure(self, stage: str, function, *args):
        """Run `function(*args)`, add its duration to `stage`, return its result."""
        begin = time.perf_counter()
        result = function(*args)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.total_ms[stage] = self.total_ms.get(stage, 0.0) + (time.perf_counter() - begin) * 1e3
        return result


@dataclass(frozen=True, eq=False)
class CadSurface:
    """samples (M, P) of the library's models; which model each object has, model (B, N); expected_m
    (B, N, 3): extents in metres the objects are believed to have, extents_known
    (B, N) bool: whether these are their true ones."""

    samples: CadPoints
    model: torch.Tensor
    expected_m: torch.Tensor
    extents_known: torch.Tensor


def observe_tokens(
    config: InputConfig,
    frame: Frame,
    source: PixelSource,
    surface: CadSurface,
    pose: Pose,
    box_samples: PixelSamples,
    generator: torch.Generator,
) -> Tokens:
    """Sample CAD points, reproject them in `pose`, read the image there and assemble the tokens."""
    points = select_cad_points(surface.samples, surface.model, config.n_cad, generator)
    uv, in_front = project(pose.transform(points.points), frame.intrinsics)
    cover = surface.samples[:, : config.n_surface][surface.model]
    cad = CadSamples(points, cover, surface.expected_m, surface.extents_known)
    with record_function("read pixels"):
        reprojected = source.sample(uv)
    with record_function("tokens"):
        return assemble_tokens(config, frame, pose, box_samples, reprojected, in_front, cad)


def keep_plausible(pose: Pose) -> Pose:
    """Bound extents and distance, so that one bad update cannot leave the numbers' safe range."""
    distance = pose.T.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    T = pose.T * (distance.clamp(*DISTANCE_LIMITS_M) / distance)
    return Pose(pose.R, T, pose.S.clamp(*EXTENT_LIMITS_M))


@torch.no_grad()
def refine(
    network: MultiSparcNet,
    config: InputConfig,
    frame: Frame,
    source: PixelSource,
    surface: CadSurface,
    start: Pose,
    box_samples: PixelSamples,
    generator: torch.Generator,
    *,
    parametrisation: str = "object",
    scale_mode: str | torch.Tensor = "free",
    refinements: int = 3,
    clock: StageClock | None = None,
) -> Pose:
    """Refine a (B, N) batch of start poses, all at once.

    Starts, candidates, blocks of objects and images are all rows of the one batch B.
    """
    clock = clock or StageClock(start.T.device)
    pose = start
    for _ in range(refinements):
        output = _predict(network, config, frame, source, surface, pose, box_samples, generator, clock)
        updated = clock.measure("update", apply_update, pose, output.raw_update, parametrisation, scale_mode)
        pose = keep_plausible(updated)
    return pose


@torch.no_grad()
def score(
    network: MultiSparcNet,
    config: InputConfig,
    frame: Frame,
    source: PixelSource,
    surface: CadSurface,
    pose: Pose,
    box_samples: PixelSamples,
    generator: torch.Generator,
    clock: StageClock | None = None,
) -> torch.Tensor:
    """(B, N) logits of σ for a batch of poses, from one look: the given pixels and new CAD points."""
    clock = clock or StageClock(pose.T.device)
    output = _predict(network, config, frame, source, surface, pose, box_samples, generator, clock)
    return output.score_logit


def _predict(network, config, frame, source, surface, pose, box_samples, generator, clock):
    tokens = clock.measure(
        "assemble", observe_tokens, config, frame, source, surface, pose, box_samples, generator
    )
    with record_function("forward"):
        return clock.measure(
            "network", network, tokens.features, tokens.context, tokens.valid, frame.object_valid
        )
