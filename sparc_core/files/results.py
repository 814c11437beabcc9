"""RESULT.json: an `AlignmentResult` out, and back in. The format is a contract: it only grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from sparc_core.files.cameras import camera_from_json, camera_to_json
from sparc_core.files.fields import Fields, load_json
from sparc_core.types import AlignedObject, AlignmentResult, SkippedDetection

RESULT_VERSION = 1


def write_result(
    path: str | Path,
    result: AlignmentResult,
    *,
    config: dict | None = None,
    perception: dict[str, str] | None = None,
) -> None:
    """Write a RESULT.json in one piece (a reader never sees half a file).

    `config` is the aligner's resolved configuration, kept beside what it gave; `perception` says which
    predictors saw what. Raises ValueError naming
    object and field for a wrong shape, a value that is not finite, or a `config` JSON cannot hold.
    """
    path = Path(path)
    content = result_to_json(result)
    if config is not None:
        content["config"] = config
    if perception is not None:
        content["perception"] = perception
    try:
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: config: expected plain finite JSON values ({error})") from error
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


def result_to_json(result: AlignmentResult) -> dict:
    """The content of a RESULT.json. Raises ValueError as `write_result`."""
    return {
        "version": RESULT_VERSION,
        "camera": camera_to_json(result.camera),
        "objects": [_object_to_json(index, item) for index, item in enumerate(result.objects)],
        "skipped": [{"detection": int(s.detection), "reason": s.reason} for s in result.skipped],
        "timing_ms": {name: _finite(ms, (), f"timing_ms {name!r}") for name, ms in result.timing_ms.items()},
    }


def read_result(path: str | Path) -> AlignmentResult:
    """Read a RESULT.json of this or a later version (unknown fields are ignored).

    Raises FileNotFoundError, or ValueError naming file and field.
    """
    return result_from_json(load_json(Path(path), dict, "a result"), str(path))


def result_from_json(content: dict, where: str) -> AlignmentResult:
    """The same for parsed JSON; `where` starts every error."""
    fields = Fields(content, where)
    timing = Fields(fields.get("timing_ms"), f"{where}: timing_ms")
    # The first results had no "skipped".
    entries = fields.items("skipped") if "skipped" in fields.content else []
    skipped = [Fields(item, f"{where}: skipped {i}") for i, item in enumerate(entries)]
    return AlignmentResult(
        camera=camera_from_json(fields.get("camera"), f"{where}: camera"),
        objects=tuple(
            _object_from_json(Fields(item, f"{where}: object {i}"))
            for i, item in enumerate(fields.items("objects"))
        ),
        skipped=tuple(SkippedDetection(item.integer("detection"), item.text("reason")) for item in skipped),
        timing_ms={name: timing.number(name) for name in timing.content},
    )


def _object_to_json(index: int, item: AlignedObject) -> dict:
    where = f"object {index} ({item.category}): "
    return {
        "detection": int(item.detection),
        "category": item.category,
        "model_id": item.model_id,
        "box_xyxy": _finite(item.box_xyxy, (4,), where + "box_xyxy"),
        "R": _finite(item.R, (3, 3), where + "R"),
        "T_m": _finite(item.T_m, (3,), where + "T_m"),
        "S_m": _finite(item.S_m, (3,), where + "S_m"),
        "score": _finite(item.score, (), where + "score"),
        "start": item.start,
    }


def _object_from_json(fields: Fields) -> AlignedObject:
    return AlignedObject(
        detection=fields.integer("detection"),
        category=fields.text("category"),
        model_id=fields.text("model_id"),
        box_xyxy=tuple(float(value) for value in fields.array("box_xyxy", (4,))),
        R=fields.array("R", (3, 3)),
        T_m=fields.array("T_m", (3,)),
        S_m=fields.array("S_m", (3,)),
        score=fields.number("score"),
        start=fields.text("start"),
    )


def _finite(values, shape: tuple[int, ...], where: str):
    """The values as (lists of) Python floats; ValueError when the shape differs or one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{where}: expected shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: expected finite numbers, got {array.tolist()}")
    return array.tolist()
