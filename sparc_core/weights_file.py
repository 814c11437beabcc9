"""Weights files: safetensors with a configuration in the metadata, and what can be wrong with one.

Both the aligner's network and the predictors are kept in such files; every error names the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from sparc_core.config import from_dict

NAMED_MISFITS = 4  # in an error; of more only the number


def write_weights(path: Path, state: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write parameters and metadata, making the folder. A file that was there stays whole until the new one
    is."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, partial, metadata)
    partial.replace(path)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Parameters and metadata of a safetensors file. Raises ValueError when it is missing or something
    else."""
    path = _existing(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}
    except (SafetensorError, struct.error, OSError) as error:
        raise ValueError(f"weights {path}: not a readable safetensors file: {error}") from error


def read_foreign_weights(path: Path) -> dict[str, torch.Tensor]:
    """The parameters of a .pth or .safetensors file of others. Raises ValueError when it is missing,
    unreadable or holds something else."""
    path = _existing(path)
    if path.suffix == ".safetensors":
        return read_weights(path)[0]
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling raises for other files depends on their bytes
        raise ValueError(f"weights {path}: not readable: {error}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"weights {path}: expected parameters by name, got a {type(found).__name__}")
    return dict(found)


def stored_config(metadata: Mapping[str, str], name: str, kind: type, path: Path, command: str):
    """The configuration of a kind that the metadata holds as JSON under a name. Raises ValueError naming the
    file when there is none, or one that is not of this kind; command: what writes files that have one."""
    if name not in metadata:
        raise ValueError(f"weights {path}: holds no {name}; it was not written by {command}")
    try:
        values = json.loads(metadata[name])
    except json.JSONDecodeError as error:
        raise ValueError(f"weights {path}: {name} is not JSON: {error}") from error
    try:
        return from_dict(kind, values, name)
    except ValueError as error:
        raise ValueError(f"weights {path}: {error}") from error


def fill_network(
    network: nn.Module, state: Mapping[str, torch.Tensor], path: Path, whose: str = "network"
) -> None:
    """Give a network the parameters read from a file. Raises ValueError naming those that are missing,
    unknown or of another shape; whose: what the names and shapes are expected by."""
    problems = _misfits(network.state_dict(), state)
    if problems:
        more = f" and {len(problems) - NAMED_MISFITS} more" if len(problems) > NAMED_MISFITS else ""
        named = "; ".join(problems[:NAMED_MISFITS])
        raise ValueError(f"weights {path}: do not fit the {whose}: {named}{more}")
    network.load_state_dict(state)


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights {path}: no such file")
    return path


def _misfits(expected: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(got))]
    problems += [f"{name} is unknown" for name in sorted(set(got) - set(expected))]
    problems += [
        f"{name} is {tuple(got[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(got))
        if expected[name].shape != got[name].shape
    ]
    return problems
