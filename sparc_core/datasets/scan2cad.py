"""Scan2CAD's annotations: which CAD files stand where in a scan.

`full_annotations.json` in, `Annotations` out: poses of CAD files in ScanNet's scan coordinates, for the nine
categories. `cad_appearances.json` is the same counted; it is only compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparc_core.datasets.categories import category_of_synset, synset_of
from sparc_core.datasets.poses import SHEAR_TOLERANCE, CadBox, CadPose, decompose
from sparc_core.files.fields import Fields, load_json

SYMMETRY_NAMES = {
    "__SYM_NONE": "none",
    "__SYM_ROTATE_UP_2": "c2",
    "__SYM_ROTATE_UP_4": "c4",
    "__SYM_ROTATE_UP_INF": "cinf",
}

CadKey = tuple[str, str]  # synset and id of a CAD model


@dataclass(frozen=True, eq=False)
class AnnotatedObject:
    """One CAD model aligned by a person. pose: of the CAD file in the scan; box: of the CAD file."""

    synset: str
    cad_id: str
    category: str
    symmetry: str
    pose: CadPose
    box: CadBox

    @property
    def key(self) -> CadKey:
        """Synset and id of the CAD model."""
        return self.synset, self.cad_id


@dataclass(frozen=True, eq=False)
class CadInfo:
    """What the annotations say of one CAD model."""

    category: str
    symmetry: str
    box: CadBox


@dataclass(frozen=True, eq=False)
class Annotations:
    """Objects of each scene, in the file's order; scenes without an object of the nine categories are there.

    cad: every CAD model that occurs anywhere in the file, also in scenes that were left out. notes: what was
    odd but could be read.
    """

    scenes: dict[str, tuple[AnnotatedObject, ...]]
    cad: dict[CadKey, CadInfo]
    notes: tuple[str, ...] = ()

    def only(self, scenes: Iterable[str]) -> Annotations:
        """The annotations of these scenes. Raises ValueError naming one that is not annotated."""
        wanted = list(scenes)
        missing = [scene for scene in wanted if scene not in self.scenes]
        if missing:
            raise ValueError(
                f"{len(missing)} scenes have no Scan2CAD annotation, e.g. {', '.join(missing[:3])}"
            )
        return Annotations({scene: self.scenes[scene] for scene in wanted}, self.cad, self.notes)

    def counts(self) -> Counter[str]:
        """How many objects there are of each category."""
        return Counter(item.category for objects in self.scenes.values() for item in objects)


def read_annotations(path: str | Path) -> Annotations:
    """Read a `full_annotations.json`.

    model in scan = inv(M(scene.trs)) · M(model.trs). Objects of other than the nine categories are left out.
    Raises FileNotFoundError, or ValueError naming file, scene, object and field.
    """
    path = Path(path)
    scenes, cad, notes = {}, {}, []
    for index, entry in enumerate(load_json(path, list, "Scan2CAD annotations")):
        fields = Fields(entry, f"{path}: entry {index}")
        scene = fields.text("id_scan")
        if scene in scenes:
            raise ValueError(f"{path}: scene {scene} occurs twice")
        to_scan = np.linalg.inv(_trs(fields, f"{path}: {scene}").matrix)
        objects = []
        for number, model in enumerate(fields.items("aligned_models")):
            item = _object(Fields(model, f"{path}: {scene}: model {number}"), to_scan, notes)
            if item is not None:
                objects.append(item)
                cad[item.key] = CadInfo(item.category, item.symmetry, item.box)
        scenes[scene] = tuple(objects)
    return Annotations(scenes, cad, tuple(notes))


def _object(fields: Fields, to_scan: np.ndarray, notes: list[str]) -> AnnotatedObject | None:
    """The object in scan coordinates; None for a category that is not among the nine."""
    synset = synset_of(fields.text("catid_cad"))
    category = category_of_synset(synset)
    if category is None:
        return None
    symmetry = fields.text("sym", choices=tuple(SYMMETRY_NAMES))
    half, centre = fields.array("bbox", (3,)), fields.array("center", (3,))
    if (half < 0).any() or not half.any():
        raise ValueError(f"{fields.where}: field 'bbox': expected half extents, got {half.tolist()}")
    try:
        pose, error = decompose(to_scan @ _trs(fields, fields.where).matrix)
    except ValueError as problem:
        raise ValueError(f"{fields.where}: {problem}") from problem
    if error > SHEAR_TOLERANCE:
        notes.append(f"{fields.where}: the pose is no rotation with three scales; the nearest one is taken")
    # a flat model has an extent of zero, which nothing can be divided by
    box = CadBox(centre, np.maximum(2 * half, 1e-6))
    return AnnotatedObject(synset, fields.text("id_cad"), category, SYMMETRY_NAMES[symmetry], pose, box)


def _trs(fields: Fields, where: str) -> CadPose:
    trs = Fields(fields.get("trs"), f"{where}: trs")
    t, q, s = (trs.array(name, (n,)) for name, n in (("translation", 3), ("rotation", 4), ("scale", 3)))
    try:
        return CadPose.from_quaternion(t, q, s)
    except ValueError as error:
        raise ValueError(f"{where}: trs: {error}") from error


def compare_appearances(path: str | Path, annotations: Annotations) -> list[str]:
    """How a `cad_appearances.json` differs from the annotations, one line a scene; none when it agrees.

    Only the nine categories are compared, and only scenes of the annotations. Raises as
    `read_annotations`.
    """
    listed = load_json(Path(path), dict, "Scan2CAD appearances")
    problems = []
    for scene, objects in annotations.scenes.items():
        counted = Counter(f"{item.synset}_{item.cad_id}" for item in objects)
        entry = listed.get(scene, {})
        if not isinstance(entry, dict):
            raise ValueError(f'{path}: {scene}: expected {{"catid_cadid": count}}, got {entry!r}')
        stated = {name: n for name, n in entry.items() if category_of_synset(name.split("_")[0])}
        if dict(counted) != stated:
            problems.append(
                f"{path}: {scene}: {sum(stated.values())} objects are counted, "
                f"{sum(counted.values())} are annotated, or of other CAD models"
            )
    return problems
