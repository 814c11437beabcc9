"""ROCA's predictions for single frames: `per_frame_preds.json`, boxes and retrieved CAD models with poses.

They serve twice: boxes, categories and CAD models are what Multi-SPARC starts from, and the poses are ROCA's
own answer, to be scored beside ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparc_core.datasets.categories import SYNSETS, category_of_name, synset_of
from sparc_core.datasets.poses import CadPose
from sparc_core.files.fields import Fields, load_json

HALF_PIXEL = 0.5


@dataclass(frozen=True, eq=False)
class RocaPrediction:
    """One detection of a frame. box_xyxy in pixels of the 480 × 360 image, our convention (pixel centres at
    integers); cad: synset and id of the retrieved CAD model, None without one; pose: of the CAD file in the
    camera frame, None when the file gives none; segmentation: COCO's run-length mask, or None."""

    box_xyxy: tuple[float, float, float, float]
    category: str
    score: float
    cad: tuple[str, str] | None
    pose: CadPose | None
    segmentation: dict | None


def read_roca(path: str | Path) -> dict[tuple[str, str], tuple[RocaPrediction, ...]]:
    """Read `{"scene/color/000000.jpg": [{score, bbox, category, t, q, s, scene_cad_id}]}`.

    Keyed by scene and frame ("000000"). ROCA's boxes count from the image's corner; half a pixel is
    subtracted. Detections of categories other than the nine are left out. Raises FileNotFoundError, or
    ValueError naming file, frame, detection and field.
    """
    path = Path(path)
    found = {}
    for name, entries in load_json(path, dict, "ROCA predictions").items():
        parts = name.split("/")
        if len(parts) < 3 or parts[-2] != "color" or not isinstance(entries, list):
            raise ValueError(f'{path}: expected "scene/color/000000.jpg": [...], got {name!r}')
        where = f"{path}: {name}"
        read = [_prediction(Fields(e, f"{where}: detection {i}")) for i, e in enumerate(entries)]
        found[parts[-3], frame_name(parts[-1])] = tuple(p for p in read if p is not None)
    return found


def frame_name(file_name: str) -> str:
    """ "000100" of "000100.jpg", "100.jpg" and "000100"."""
    return file_name.split(".")[0].zfill(6)


def _prediction(fields: Fields) -> RocaPrediction | None:
    category = category_of_name(fields.text("category"))
    if category is None:
        return None
    box = fields.array("bbox", (4,)) - HALF_PIXEL
    segmentation = fields.get("segmentation", None)
    return RocaPrediction(
        tuple(float(v) for v in box), category, fields.number("score"), _cad(fields, category),
        _pose(fields), segmentation,
    )  # fmt: skip


def _cad(fields: Fields, category: str) -> tuple[str, str] | None:
    """`scene_cad_id` is [synset, id]; some files hold the id alone, or null where nothing was retrieved."""
    value = fields.get("scene_cad_id", None)
    if value is None:
        return None
    if isinstance(value, str):
        return SYNSETS[category], value
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str):
        return synset_of(value[0]), value[1]
    raise ValueError(f"{fields.where}: field 'scene_cad_id': expected [synset, id], got {value!r}")


def _pose(fields: Fields) -> CadPose | None:
    if any(fields.get(name, None) is None for name in "tqs"):
        return None
    vectors = [np.asarray(fields.array(name, (n,))) for name, n in (("t", 3), ("q", 4), ("s", 3))]
    try:
        return CadPose.from_quaternion(*vectors)
    except ValueError as error:
        raise ValueError(f"{fields.where}: {error}") from error
