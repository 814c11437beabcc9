"""Write the table of the align node's parameters into README.md, from the list in sparc_ros/parameters.py.

./run python tools/parameter_table.py
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from sparc_core.types import CATEGORIES
from sparc_ros.parameters import NodeParameters

README = Path(__file__).resolve().parents[1] / "README.md"
HEAD = "| Parameter | Type | Default | Allowed | Description |\n|---|---|---|---|---|\n"
TYPES = {bool: "bool", int: "int", float: "double", str: "string", tuple: "string[]"}


def main() -> None:
    """Replace the table in the README."""
    README.write_text(with_table(README.read_text()))


def with_table(text: str) -> str:
    """A text in whose parameter table every row is up to date. Raises ValueError without the table's head."""
    start = text.find(HEAD)
    if start < 0:
        raise ValueError(f"{README}: has no table of parameters (expected its head {HEAD.splitlines()[0]!r})")
    end = text.find("\n\n", start)
    return text[:start] + HEAD + parameter_rows() + text[end:]


def parameter_rows() -> str:
    """One row a parameter, in the order of the list; ↻ marks those that can change while the node runs."""
    return "\n".join(_row(item) for item in dataclasses.fields(NodeParameters))


def _row(item: dataclasses.Field) -> str:
    rules = item.metadata
    mark = "" if rules["read_only"] else " ↻"
    cells = (f"`{item.name}`{mark}", TYPES[type(item.default)], _default(item.default), _allowed(rules),
             re.sub(r"<", r"\\<", rules["description"]))  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _default(value) -> str:
    if value == tuple(CATEGORIES):
        return "all nine"
    if isinstance(value, tuple):
        return ", ".join(f"`{entry}`" for entry in value if entry) or "none"
    if value == "":
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _allowed(rules) -> str:
    if rules["choices"]:
        return ", ".join(f"`{choice}`" for choice in rules["choices"])
    return f"{rules['minimum']:g} to {rules['maximum']:g}" if rules["minimum"] is not None else ""


if __name__ == "__main__":
    main()
