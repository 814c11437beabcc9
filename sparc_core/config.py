"""Configuration dataclasses to and from plain values and YAML."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml


def to_dict(config) -> dict:
    """A (nested) config dataclass as plain dicts, for YAML and JSON."""
    return dataclasses.asdict(config)


def from_dict(kind, values: dict, where: str = "config"):
    """Build a (nested) config dataclass; keys that are not named keep their default.

    Raises ValueError for unknown keys and for values of another type than the default's, naming them.
    """
    return _updated(kind(), values, where)


def load_yaml(path: Path) -> dict:
    """A YAML mapping from a file. Raises ValueError naming the file when it is something else."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of options, got {type(values).__name__}")
    return values


def _updated(default, values: dict, where: str):
    """`default` with some fields replaced, in nested configs too."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected a mapping of options, got {values!r}")
    known = [f.name for f in dataclasses.fields(default)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
    changes = {}
    for name, value in values.items():
        current = getattr(default, name)
        if dataclasses.is_dataclass(current):
            changes[name] = _updated(current, value, f"{where}.{name}")
        else:
            changes[name] = _converted(current, value, f"{where}.{name}")
    return dataclasses.replace(default, **changes)


def _converted(current, value, where: str):
    """`value` as the type of `current`: integers may stand for floats, lists for tuples."""
    if isinstance(current, tuple) and isinstance(value, (list, tuple)):
        return tuple(tuple(v) if isinstance(v, list) else v for v in value)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(current):
        hint = " (YAML reads 1e-3 as text; write 1.0e-3)" if isinstance(value, str) else ""
        raise ValueError(f"{where}: expected {type(current).__name__}, got {value!r}{hint}")
    return value
