"""The resolved configuration of a training run: saved with every checkpoint, and what a model is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sparc_core.inputs.assemble import InputConfig
from sparc_core.network.config import NetworkConfig
from sparc_core.refine.update import PARAMETRISATIONS


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to run a network: its inputs, its sizes and how its updates are read."""

    inputs: InputConfig = field(default_factory=InputConfig)
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(31, 18))
    parametrisation: str = "object"
    n_mul: int = 5

    def __post_init__(self):
        if self.parametrisation not in PARAMETRISATIONS:
            raise ValueError(f"parametrisation must be one of {PARAMETRISATIONS}, got {self.parametrisation!r}")
        if self.n_mul < 1:
            raise ValueError(f"n_mul must be at least 1, got {self.n_mul}")
        for name in ("token_channels", "context_channels"):
            expected, got = getattr(self.inputs, name), getattr(self.network, name)
            if expected != got:
                raise ValueError(f"network {name} is {got}, but the {self.inputs.layout} layout has {expected}")


def to_dict(config) -> dict:
    """A (nested) config dataclass as plain dicts, for YAML and JSON."""
    return dataclasses.asdict(config)


def from_dict(kind, values: dict, where: str = "config"):
    """Build a (nested) config dataclass. Raises ValueError for unknown keys, naming them."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"{where}: unknown keys {unknown}; known are {sorted(fields)}")
    arguments = {}
    for name, value in values.items():
        default = fields[name].default_factory
        if isinstance(value, dict) and default is not dataclasses.MISSING and dataclasses.is_dataclass(default()):
            value = from_dict(type(default()), value, f"{where}.{name}")
        elif isinstance(value, list):
            value = tuple(value)
        arguments[name] = value
    return kind(**arguments)


def load_yaml(path: Path) -> dict:
    """A YAML mapping from a file. Raises ValueError naming the file when it is something else."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of options, got {type(values).__name__}")
    return values
