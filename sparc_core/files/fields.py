"""Checked access to the fields of a parsed JSON file, with errors that name file and field."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

_REQUIRED = object()


def load_json(path: Path, kind: type, what: str):
    """Parse a JSON file whose top level is a `kind` (dict or list).

    Raises FileNotFoundError for a missing file, ValueError for anything else than such JSON.
    """
    require_file(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: expected {what} as JSON, got text with an error in line {error.lineno} ({error.msg})"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected {what} as JSON, got a file that is not UTF-8 text") from error
    if not isinstance(content, kind):
        expected = {dict: "an object {…}", list: "a list […]"}[kind]
        raise ValueError(f"{path}: expected {what} as {expected}, got {describe(content)}")
    return content


def require_file(path: Path) -> None:
    """Raise FileNotFoundError or ValueError naming a path that is not a readable file."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected a file, got a folder")


class Fields:
    """The fields of one JSON object; `where` (a file, perhaps with an index) starts every error."""

    def __init__(self, content: dict, where: str):
        if not isinstance(content, dict):
            raise ValueError(f"{where}: expected an object {{…}}, got {describe(content)}")
        self.content = content
        self.where = where

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        """Raise ValueError when a key is not among the `known` ones."""
        unknown = sorted(set(self.content) - set(known))
        if unknown:
            raise ValueError(f"{self.where}: expected only the fields {', '.join(known)}, got {unknown}")

    def get(self, name: str, default=_REQUIRED):
        """The raw value; a null counts as absent. Raises ValueError when required and absent."""
        value = self.content.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ValueError(f"{self.where}: field {name!r} is missing (found: {sorted(self.content)})")
        return default

    def number(self, name: str, default=_REQUIRED, expected: str = "a finite number", accept=None) -> float:
        """A finite float; `accept` may narrow it further, `expected` then says how."""
        value = self.get(name, default)
        if value is default:
            return value
        if not is_number(value) or (accept is not None and not accept(value)):
            raise self._unexpected(name, expected, value)
        return float(value)

    def integer(self, name: str, default=_REQUIRED, expected: str = "an integer", accept=None) -> int:
        """An int (640.0 counts as one)."""
        value = self.get(name, default)
        if value is default:
            return value
        whole = is_number(value) and float(value).is_integer()
        if not whole or (accept is not None and not accept(value)):
            raise self._unexpected(name, expected, value)
        return int(value)

    def text(self, name: str, default=_REQUIRED, choices: tuple[str, ...] | None = None) -> str:
        """A non-empty string, one of `choices` when given."""
        value = self.get(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or not value or (choices is not None and value not in choices):
            raise self._unexpected(name, f"one of {list(choices)}" if choices else "a non-empty text", value)
        return value

    def array(self, name: str, shape: tuple[int, ...] | None, default=_REQUIRED) -> np.ndarray:
        """A float64 array of finite numbers of this shape; shape None means any flat list."""
        value = self.get(name, default)
        if value is default:
            return value
        size = "a list of" if shape is None else "×".join(map(str, shape))
        leaves = _leaves(value)
        if isinstance(value, list) and all(is_number(leaf) for leaf in leaves):
            try:
                array = np.asarray(value, dtype=np.float64)
            except ValueError:  # ragged nesting: reported below like any other wrong shape
                array = None
            if array is not None and (array.shape == shape or (shape is None and array.ndim == 1)):
                return array
        raise self._unexpected(name, f"{size} finite numbers", value)

    def items(self, name: str) -> list:
        """A list of anything."""
        value = self.get(name)
        if not isinstance(value, list):
            raise self._unexpected(name, "a list", value)
        return value

    def _unexpected(self, name: str, expected: str, value) -> ValueError:
        return ValueError(f"{self.where}: field {name!r}: expected {expected}, got {describe(value)}")


def is_number(value) -> bool:
    """True for a finite JSON number; true and false are no numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def describe(value) -> str:
    """A value as it may appear in an error: short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _leaves(value) -> list:
    if not isinstance(value, list):
        return [value]
    return [leaf for item in value for leaf in _leaves(item)]
