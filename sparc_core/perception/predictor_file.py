"""Weights files of predictors: safetensors with the configuration in the metadata."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sparc_core.config import from_dict, to_dict


def save_predictor(path: Path, state: dict[str, torch.Tensor], config, half: bool = False) -> None:
    """Write parameters with their configuration dataclass. half: matrices as 16-bit floats, which halves the
    file; statistics and biases stay as they are."""
    tensors = {}
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        tensors[name] = value.half() if half and value.is_floating_point() and value.ndim > 1 else value
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    metadata = {"config": json.dumps(to_dict(config)), "kind": type(config).__name__}
    save_file(tensors, partial, metadata=metadata)
    partial.replace(path)


def load_predictor(path: Path, kind: type, build, device="cpu"):
    """The network `build(config)` with the weights of a file, in evaluation mode, and its config of a kind.

    Raises ValueError naming the file when it is missing, unreadable, of another kind of predictor, or does
    not fit its configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights {path}: no such file")
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            metadata = stored.metadata() or {}
            state = {name: stored.get_tensor(name).float() if stored.get_tensor(name).is_floating_point()
                     else stored.get_tensor(name) for name in stored.keys()}  # fmt: skip
    except (SafetensorError, struct.error, OSError) as error:
        raise ValueError(f"weights {path}: not a readable safetensors file: {error}") from error
    if metadata.get("kind") != kind.__name__:
        raise ValueError(f"weights {path}: expected those of a {kind.__name__}, got {metadata.get('kind')}")
    try:
        values = json.loads(metadata["config"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"weights {path}: holds no readable config: {error}") from error
    config = from_dict(kind, values, f"weights {path}")
    network = build(config)
    _fill(network, state, path)
    return network.to(device).eval().requires_grad_(False), config


def load_state(network: nn.Module, path: Path) -> None:
    """Fill a network from a .pth or .safetensors file. Raises ValueError naming the file."""
    _fill(network, read_state(path), Path(path))


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The parameters of a .pth or .safetensors file. Raises ValueError naming the file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling raises for other files depends on their bytes
        raise ValueError(f"weights {path}: not readable: {error}") from error


def _fill(network: nn.Module, state: dict, path: Path) -> None:
    expected = network.state_dict()
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(state))]
    problems += [f"{name} is unknown" for name in sorted(set(state) - set(expected))]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(state))
        if state[name].shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(f"weights {path}: do not fit the network: {'; '.join(problems[:4])}{more}")
    network.load_state_dict(state)
