"""What a trained model is: its configuration, and the safetensors file that holds it with its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from sparc_core.config import to_dict
from sparc_core.inputs.assemble import InputConfig
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.network.config import NetworkConfig
from sparc_core.refine.update import PARAMETRISATIONS
from sparc_core.weights_file import fill_network, read_weights, stored_config, write_weights

SCORES = ("pose", "start")


@dataclass(frozen=True)
class Calibration:
    """(slope, offset) of σ's logit for images with a sensor's depth, with predicted depth and without any,
    and in scale mode "fixed" with depth, as `sparc calibrate` finds them:
    σ = sigmoid(slope · logit + offset). The choice does not depend on it."""

    sensor: tuple[float, float] = (1.0, 0.0)
    predicted: tuple[float, float] = (1.0, 0.0)
    none: tuple[float, float] = (1.0, 0.0)
    sensor_fixed: tuple[float, float] = (1.0, 0.0)
    predicted_fixed: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self):
        for name in ("sensor", "predicted", "none", "sensor_fixed", "predicted_fixed"):
            if len(getattr(self, name)) != 2 or getattr(self, name)[0] <= 0:
                raise ValueError(
                    f"calibration {name} must be (slope above 0, offset), got {getattr(self, name)}"
                )

    def of(self, depth_source: str, scale_mode: str) -> tuple[float, float]:
        """The pair for a `PreparedImage`'s depth_source and a scale mode."""
        fixed = scale_mode == "fixed" and depth_source != "none"
        return getattr(self, f"{depth_source}_fixed" if fixed else depth_source)


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to run a network: its inputs and sizes, how its updates and its scores are read.

    score_of: what σ judges. "pose": whether the pose is right; every start is refined, then the best σ wins.
    "start" (SPARC 2022): whether the rotation is within 45° of the truth about the vertical; the starts are
    scored, only the best of them is refined, and a result keeps its detection's score.
    """

    inputs: InputConfig = field(default_factory=InputConfig)
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(45, 26))
    parametrisation: str = "object"
    n_mul: int = 5
    score_of: str = "pose"
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self):
        if self.parametrisation not in PARAMETRISATIONS:
            raise ValueError(
                f"parametrisation must be one of {PARAMETRISATIONS}, got {self.parametrisation!r}"
            )
        if self.score_of not in SCORES:
            raise ValueError(f"score_of must be one of {SCORES}, got {self.score_of!r}")
        if self.n_mul < 1:
            raise ValueError(f"n_mul must be at least 1, got {self.n_mul}")
        for name in ("token_channels", "context_channels"):
            expected, got = getattr(self.inputs, name), getattr(self.network, name)
            if expected != got:
                raise ValueError(
                    f"network {name} is {got}, but the {self.inputs.layout} layout has {expected}"
                )


def save_weights(path: Path, network_state: dict[str, torch.Tensor], config: ModelConfig) -> None:
    """Write a network's parameters with its `ModelConfig` in the file's metadata."""
    state = {name: value.float() for name, value in network_state.items()}
    write_weights(path, state, {"model_config": json.dumps(to_dict(config))})


def load_network(path: Path, device: str = "cpu", config: ModelConfig | None = None):
    """The network of a weights file in evaluation mode, and its config: (MultiSparcNet, ModelConfig).

    config: use this instead of the one in the file; where it has hints (`PixelHints`) and the weights were
    trained without, the network ignores them to begin with. Raises ValueError naming the file when it is not
    a safetensors file, carries no config, or its shapes do not fit the config.
    """
    state, metadata = read_weights(path)
    if config is None:
        config = stored_config(metadata, "model_config", ModelConfig, path, "sparc pretrain")
    elif config.inputs.hints:
        state = _with_hint_columns(state, config.inputs)
    network = MultiSparcNet(config.network)
    fill_network(network, state, path, "config")
    return network.to(device).eval().requires_grad_(False), config


def _with_hint_columns(state: dict[str, torch.Tensor], inputs: InputConfig) -> dict[str, torch.Tensor]:
    """Parameters of a network without hints, or with fewer, with columns of zeros for those it lacks,
    which come last; others as they are."""
    without, wider = replace(inputs, hints=False), {}
    for name, before, now in (
        ("embed_token.weight", without.token_channels, inputs.token_channels),
        ("embed_context.weight", without.context_channels, inputs.context_channels),
    ):
        if name in state and before <= state[name].shape[1] < now:
            wider[name] = F.pad(state[name], (0, now - state[name].shape[1]))
    return state | wider
