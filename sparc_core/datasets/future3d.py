"""3D-FUTURE as CAD models for pre-training: `model_info.json` and one folder a model.

`<model_id>/raw_model.obj` has its true size in metres, y up, front +z; `normalized_model.obj` has not and is
not read. Out: entries of an `index.json` that `sparc pretrain --folder` reads.
"""

from __future__ import annotations

from pathlib import Path

from sparc_core.files.fields import Fields, load_json

MESH_NAME = "raw_model.obj"
INFO_NAME = "model_info.json"

# 3D-FUTURE's categories, lower case. Lamps and what resembles none of the nine become clutter.
CATEGORIES = {
    "king-size bed": "bed", "bunk bed": "bed", "bed frame": "bed", "single bed": "bed", "kids bed": "bed",
    "double bed": "bed", "couch bed": "sofa",
    "bookcase / jewelry armoire": "bookshelf", "shelf": "bookshelf",
    "children cabinet": "cabinet", "nightstand": "cabinet", "wardrobe": "cabinet",
    "sideboard / side cabinet / console": "cabinet", "sideboard / side cabinet / console table": "cabinet",
    "wine cabinet": "cabinet", "tv stand": "cabinet", "drawer chest / corner cabinet": "cabinet",
    "shoe cabinet": "cabinet",
    "dining chair": "chair", "lounge chair / cafe chair / office chair": "chair",
    "lounge chair / book-chair / computer chair": "chair", "dressing chair": "chair",
    "classic chinese chair": "chair", "barstool": "chair", "folding chair": "chair", "armchair": "chair",
    "footstool / sofastool / bed end stool / stool": "chair",
    "three-seat / multi-seat sofa": "sofa", "three-seat / multi-person sofa": "sofa", "two-seat sofa": "sofa",
    "loveseat sofa": "sofa", "l-shaped sofa": "sofa", "u-shaped sofa": "sofa", "lazy sofa": "sofa",
    "chaise longue sofa": "sofa",
    "coffee table": "table", "corner/side table": "table", "round end table": "table",
    "dressing table": "table", "dining table": "table", "desk": "table", "tea table": "table",
}  # fmt: skip
_BY_SUPER_CATEGORY = {"bed": "bed", "chair": "chair", "pier/stool": "chair", "sofa": "sofa", "table": "table"}


def category_of(category: str | None, super_category: str | None) -> str:
    """One of the nine categories, or "other". The super-category decides where there is no category."""
    if category:
        return CATEGORIES.get(category.strip().lower(), "other")
    return _BY_SUPER_CATEGORY.get((super_category or "").strip().lower(), "other")


def read_index(folder: Path) -> tuple[list[dict], list[str]]:
    """Entries of an `index.json` for a 3D-FUTURE folder, and which models have no mesh.

    Raises FileNotFoundError, or ValueError naming file, entry and field.
    """
    entries, missing = [], []
    info = folder / INFO_NAME
    for number, item in enumerate(load_json(info, list, "3D-FUTURE's models")):
        fields = Fields(item, f"{info}: entry {number}")
        model_id = fields.text("model_id")
        mesh = folder / model_id / MESH_NAME
        if not mesh.is_file():
            missing.append(f"{mesh}: no such file")
            continue
        category = category_of(fields.text("category", None), fields.text("super-category", None))
        entries.append({
            "id": f"future3d_{model_id}", "category": category, "file": str(mesh.resolve()),
            "units": "m", "up": "+Y", "front": "+Z",
        })  # fmt: skip
    if not entries:
        raise ValueError(f"{folder}: none of the models of {INFO_NAME} has a {MESH_NAME}")
    return entries, missing
