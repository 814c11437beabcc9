"""Which category of ours a detector's class is."""

from __future__ import annotations

from collections.abc import Mapping

from sparc_core.cad.names import exact_category


def category_of(class_id: str, class_map: Mapping[str, str]) -> str | None:
    """Our category for a detector's class id, or None. `class_map` comes first, then names and other names.

    Case, underscores and surrounding blanks do not matter for names.
    """
    return class_map[class_id] if class_id in class_map else exact_category(class_id)
