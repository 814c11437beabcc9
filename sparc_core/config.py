"""Configuration dataclasses to and from plain values and YAML."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml


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
        if (
            isinstance(value, dict)
            and default is not dataclasses.MISSING
            and dataclasses.is_dataclass(default())
        ):
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
