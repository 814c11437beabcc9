"""From names of files, folders and detectors' classes to the nine categories."""

from __future__ import annotations

import re

from sparc_core.types import CATEGORIES

#: Other names of the categories, singular, as files, COCO, Objects365 and ScanNet have them; ShapeNet's
#: category numbers are names as well.
ALIASES = {
    "tub": "bathtub", "bath": "bathtub", "02808440": "bathtub",
    "bunk_bed": "bed", "bunkbed": "bed", "sofa_bed": "sofa", "daybed": "bed", "02818832": "bed",
    "trashbin": "bin", "trash_bin": "bin", "trashcan": "bin", "trash_can": "bin", "waste_bin": "bin",
    "wastebasket": "bin", "garbage_bin": "bin", "garbage_can": "bin", "dustbin": "bin",
    "recycling_bin": "bin", "waste_container": "bin", "02747177": "bin",
    "bookcase": "bookshelf", "book_case": "bookshelf", "book_shelf": "bookshelf", "shelf": "bookshelf",
    "shelve": "bookshelf", "bookshelve": "bookshelf", "02871439": "bookshelf",
    "cupboard": "cabinet", "wardrobe": "cabinet", "nightstand": "cabinet", "night_stand": "cabinet",
    "bedside_table": "cabinet", "dresser": "cabinet", "sideboard": "cabinet", "tv_stand": "cabinet",
    "filing_cabinet": "cabinet", "file_cabinet": "cabinet",
    "chest_of_drawers": "cabinet", "drawer": "cabinet", "02933112": "cabinet",
    "armchair": "chair", "stool": "chair", "office_chair": "chair", "desk_chair": "chair",
    "03001627": "chair",
    "monitor": "display", "computer_monitor": "display", "tvmonitor": "display", "tv_monitor": "display",
    "tv": "display", "television": "display", "screen": "display",
    "03211117": "display",
    "couch": "sofa", "loveseat": "sofa", "04256520": "sofa",
    "desk": "table", "coffee_table": "table", "dining_table": "table", "diningtable": "table",
    "side_table": "table", "04379243": "table",
}  # fmt: skip
_KNOWN = {**{category: category for category in CATEGORIES}, **ALIASES}
_LONGEST = max(name.count("_") for name in _KNOWN) + 1


def exact_category(name: str) -> str | None:
    """The category whose name or other name this is ("Monitors" -> "display"), or None."""
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return _KNOWN.get(word) or _KNOWN.get(word.removesuffix("s"))


def canonical_category(name: str) -> str | None:
    """The category that occurs in a name ("Office Chair 3" -> "chair"), or None.

    Longer names win ("tv_stand" over "tv"), then the last one ("sofa_table": a table).
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    words = [word if word.isdigit() else word.rstrip("0123456789") for word in words]
    for length in range(min(_LONGEST, len(words)), 0, -1):
        for start in range(len(words) - length, -1, -1):
            found = exact_category("_".join(words[start : start + length]))
            if found:
                return found
    return None
