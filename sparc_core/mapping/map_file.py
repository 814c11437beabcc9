"""MAP.json: the objects of a scene in the world frame."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from sparc_core.mapping.sighting import MapObject

MAP_VERSION = 1


def map_to_json(objects: Sequence[MapObject]) -> list[dict]:
    """Plain values of every object: x_world = R · diag(S_m) · x_cad + T_m. `frames`: where it was sighted."""
    return [
        {
            "category": o.category, "model_id": o.model_id, "symmetry": o.symmetry,
            "R": o.R.tolist(), "T_m": o.T_m.tolist(), "S_m": o.S_m.tolist(),
            "score": o.score, "frames": [s.frame for s in o.sightings], "agreeing": o.agreeing,
        }
        for o in objects
    ]  # fmt: skip


def write_map(
    path: Path, objects: Sequence[MapObject], frames: int, config: dict, ids: Sequence[int] | None = None
) -> None:
    """Write a MAP.json in one piece; config: the resolved options it was made with; ids: of the objects,
    where they have some (`id`)."""
    entries = map_to_json(objects)
    if ids is not None:
        entries = [{"id": int(i), **entry} for i, entry in zip(ids, entries, strict=True)]
    content = {"version": MAP_VERSION, "frames": frames, "objects": entries, "config": config}
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    os.replace(partial, path)
