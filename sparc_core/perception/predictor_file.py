"""Weights files of predictors: the kind of predictor and its configuration stand in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sparc_core.config import to_dict
from sparc_core.weights_file import fill_network, read_weights, stored_config, write_weights


def save_predictor(path: Path, state: dict[str, torch.Tensor], config, half: bool = False) -> None:
    """Write parameters with their configuration dataclass. half: matrices as 16-bit floats, which halves the
    file; statistics and biases stay as they are."""
    if half:
        state = {
            name: value.half() if value.is_floating_point() and value.ndim > 1 else value
            for name, value in state.items()
        }
    write_weights(path, state, {"config": json.dumps(to_dict(config)), "kind": type(config).__name__})


def load_predictor(path: Path, kind: type, build, device="cpu"):
    """The network `build(config)` with the weights of a file, in evaluation mode, and its config of a kind.

    Raises ValueError naming the file when it is missing, unreadable, of another kind of predictor, or does
    not fit its configuration.
    """
    state, metadata = read_weights(path)
    if metadata.get("kind") != kind.__name__:
        raise ValueError(f"weights {path}: expected those of a {kind.__name__}, got {metadata.get('kind')}")
    config = stored_config(metadata, "config", kind, path, "sparc train-perception")
    network = build(config)
    fill_network(network, state, path)
    return network.to(device).eval().requires_grad_(False), config
