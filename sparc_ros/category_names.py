"""Names of furniture in other people's data sets and detectors, and which category of ours each is."""

from __future__ import annotations

from collections.abc import Mapping

from sparc_core.types import CATEGORIES

# Names other data sets and detectors use (COCO, Objects365, ScanNet, ShapeNet) for our categories.
CATEGORY_ALIASES = {
    "bath": "bathtub",
    "tub": "bathtub",
    "trash can": "bin",
    "trash bin": "bin",
    "trashbin": "bin",
    "garbage bin": "bin",
    "garbage can": "bin",
    "waste container": "bin",
    "wastebasket": "bin",
    "recycling bin": "bin",
    "bookcase": "bookshelf",
    "shelf": "bookshelf",
    "book shelf": "bookshelf",
    "cupboard": "cabinet",
    "dresser": "cabinet",
    "nightstand": "cabinet",
    "wardrobe": "cabinet",
    "filing cabinet": "cabinet",
    "file cabinet": "cabinet",
    "office chair": "chair",
    "armchair": "chair",
    "monitor": "display",
    "computer monitor": "display",
    "tv": "display",
    "tvmonitor": "display",
    "tv monitor": "display",
    "television": "display",
    "couch": "sofa",
    "loveseat": "sofa",
    "dining table": "table",
    "diningtable": "table",
    "coffee table": "table",
    "desk": "table",
}


def category_of(class_id: str, class_map: Mapping[str, str]) -> str | None:
    """Our category for a detector's class id, or None. `class_map` comes first, then names and aliases.

    Case, underscores and surrounding blanks do not matter for names.
    """
    if class_id in class_map:
        return class_map[class_id]
    name = class_id.strip().lower().replace("_", " ")
    return name if name in CATEGORIES else CATEGORY_ALIASES.get(name)
