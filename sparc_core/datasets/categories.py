"""The nine categories as the datasets name them: ShapeNet's synsets, and names such as bookcase."""

from __future__ import annotations

from sparc_core.cad.names import exact_category
from sparc_core.types import CATEGORIES

SYNSETS = {
    "bathtub": "02808440",
    "bed": "02818832",
    "bin": "02747177",
    "bookshelf": "02871439",
    "cabinet": "02933112",
    "chair": "03001627",
    "display": "03211117",
    "sofa": "04256520",
    "table": "04379243",
}
_BY_SYNSET = {synset: category for category, synset in SYNSETS.items()}
assert set(SYNSETS) == set(CATEGORIES)


def synset_of(text: str | int) -> str:
    """The 8-digit synset of "02747177", "2747177" or 2747177 (spreadsheets drop the zero).

    Raises ValueError for what is no number.
    """
    digits = str(text).strip()
    if not digits.isdigit() or len(digits) > 8:
        raise ValueError(f"category: expected an 8-digit ShapeNet synset, got {text!r}")
    return digits.zfill(8)


def category_of_synset(synset: str) -> str | None:
    """The category of an 8-digit synset, None for one that is not among the nine."""
    return _BY_SYNSET.get(synset)


def category_of_name(name: str) -> str | None:
    """The category that a dataset's name stands for ("bookcase", "trashbin"), None for others."""
    return exact_category(name)
