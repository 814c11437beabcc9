"""DETS.json: boxes, categories, optional masks and CAD models in, `Detection` tuples out."""

from __future__ import annotations

from pathlib import Path

from sparc_core.files.fields import Fields, load_json
from sparc_core.files.images import read_mask
from sparc_core.types import Detection

_KNOWN = ("box_xyxy", "category", "score", "model_id", "mask", "track_id")


def read_detections(path: str | Path) -> tuple[Detection, ...]:
    """Read a DETS.json: a list of `{"box_xyxy", "category", "score", "model_id", "mask", "track_id"}`.

    Only box (four pixels x0, y0, x1, y1) and category are required. `mask` names an image relative to
    the DETS file. The format is checked here; whether a box lies in the image and a category exists is for
    the aligner, which skips such a detection with a reason. Raises FileNotFoundError, or ValueError
    naming file, index and field.
    """
    path = Path(path)
    return detections_from_json(load_json(path, list, "detections"), str(path), path.parent)


def detections_from_json(entries: list, where: str, folder: Path) -> tuple[Detection, ...]:
    """The same for parsed JSON; `where` starts every error, masks are relative to `folder`."""
    return tuple(_detection(entry, where, folder, index) for index, entry in enumerate(entries))


def _detection(entry, where: str, folder: Path, index: int) -> Detection:
    fields = Fields(entry, f"{where}: detection {index}")
    fields.refuse_unknown(_KNOWN)
    mask = fields.text("mask", default=None)
    return Detection(
        box_xyxy=tuple(float(value) for value in fields.array("box_xyxy", (4,))),
        category=fields.text("category"),
        score=fields.number("score", 1.0, expected="a number from 0 to 1", accept=lambda v: 0 <= v <= 1),
        model_id=fields.text("model_id", default=None),
        mask=None if mask is None else _mask(folder / mask, fields.where),
        track_id=fields.integer("track_id", default=None),
    )


def _mask(path: Path, where: str):
    try:
        return read_mask(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: field 'mask': {error}") from error
