"""Result CSVs of the Scan2CAD benchmark: written from our predictions, read from anybody's.

One file with a header (`id_scan,objectCategory,alignedModelId,tx,…,object_score`), as ROCA and SPARC publish
theirs, or a folder with `<scene>.csv` without header or scene column, as Scan2CAD's own evaluation takes
them. Poses are those of CAD files in scan coordinates.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sparc_core.datasets.categories import category_of_synset, synset_of
from sparc_core.datasets.poses import CadPose
from sparc_core.evaluation.scan2cad.predictions import ScenePrediction

COLUMNS = (
    "id_scan", "objectCategory", "alignedModelId", "tx", "ty", "tz", "qw", "qx", "qy", "qz", "sx", "sy", "sz",
    "object_score",
)  # fmt: skip
_NUMBERS = COLUMNS[3:13]


def write_csv(path: Path, predictions: Sequence[ScenePrediction]) -> None:
    """Write one CSV with a header; categories as 8 digits, numbers so that reading gives them back."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for p in predictions:
            numbers = (*p.pose.t, *p.pose.quaternion_wxyz, *p.pose.s, p.score)
            writer.writerow([p.scene, p.synset, p.cad_id, *(repr(float(v)) for v in numbers)])


def read_csv(path: Path) -> tuple[list[ScenePrediction], int]:
    """The predictions of a CSV or of a folder of them, and how many of other categories were left out.

    Columns may stand in any order and others beside them; categories may have lost their leading zero. Files
    without scores (Scan2CAD's) rank by the order of their lines. Raises FileNotFoundError, or ValueError
    naming file, line and field.
    """
    if path.is_dir():
        files = sorted(path.glob("*.csv"))
        if not files:
            raise ValueError(f"{path}: expected files named <scene>.csv in it, got none")
        read = [_read_scene_file(file) for file in files]
        return [p for part, _ in read for p in part], sum(left_out for _, left_out in read)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, got none named {missing}")
        rows = [_prediction(row, f"{path}: line {reader.line_num}") for row in reader]
    kept = [row for row in rows if row is not None]
    return kept, len(rows) - len(kept)


def _read_scene_file(path: Path) -> tuple[list[ScenePrediction], int]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if line]
    rows = []
    for number, line in enumerate(lines):
        where = f"{path}: line {number + 1}"
        if len(line) < 12:
            raise ValueError(f"{where}: expected category, model, 3 + 4 + 3 numbers, got {len(line)} fields")
        score = line[12] if len(line) > 12 else str(-number)
        named = dict(zip(COLUMNS, [path.stem, *line[:12], score], strict=True))
        rows.append(_prediction(named, where))
    kept = [row for row in rows if row is not None]
    return kept, len(rows) - len(kept)


def _prediction(row: dict[str, str], where: str) -> ScenePrediction | None:
    """The prediction of one line; None for a category that is not among the nine."""
    try:
        synset = synset_of(row["objectCategory"])
        t, q, s = (
            [_number(row, name) for name in _NUMBERS[first:last]] for first, last in ((0, 3), (3, 7), (7, 10))
        )
        pose, score = CadPose.from_quaternion(t, q, s), _number(row, "object_score")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    category = category_of_synset(synset)
    if category is None:
        return None
    return ScenePrediction(row["id_scan"], synset, row["alignedModelId"], category, pose, score)


def _number(row: dict[str, str], name: str) -> float:
    try:
        return float(row[name])
    except (TypeError, ValueError):
        raise ValueError(f"column {name}: expected a number, got {row[name]!r}") from None
