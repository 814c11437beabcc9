"""A library of CAD models: meshes in the unit cube with surface samples, extents and symmetry.

Comes in: a folder of meshes that trimesh reads (`folder.py` says how files are found and named), or
procedural seeds. Goes out: immutable `CadModel`s. Broken meshes are skipped and named.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from sparc_core.cad import procedural
from sparc_core.cad.sampling import normals_to_unit_cube, sample_surface
from sparc_core.cad.symmetry import estimate_symmetry
from sparc_core.types import CATEGORIES

POINTS = 2048
SYMMETRY_POINTS = 16384
MIN_EXTENT_M = 1e-3
DEFAULT_PROCEDURAL_SEEDS = range(0, 12)


@dataclass(frozen=True, eq=False)
class CadModel:
    """One CAD model: y up, front +z, centred on its bounding box, scaled to the unit cube.

    extents_m (3,) float32 true size; symmetry about y; vertices (V, 3) float32 and faces (F, 3) int32
    in the unit cube; face_colors (F, 3) uint8; points, normals (P, 3) float32: uniform over the surface
    at true extents, in random order, unit-cube coordinates, so that a camera normal is
    ∝ R · diag(1/S) · normal. source: the file, or "procedural:<category>:<seed>".
    """

    model_id: str
    category: str
    extents_m: np.ndarray
    symmetry: str
    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    source: str


def build_model(
    model_id: str,
    category: str,
    vertices_m: np.ndarray,
    faces: np.ndarray,
    face_colors: np.ndarray,
    source: str,
    symmetry: str | None = None,
) -> CadModel:
    """A `CadModel` from a mesh in metres that is already y up with front +z.

    Symmetry is estimated from the geometry when it is not given. Raises ValueError for a mesh without
    faces or area, or with vertices that are not finite.
    """
    if len(faces) == 0 or len(vertices_m) == 0:
        raise ValueError("the mesh has no faces")
    used = np.unique(faces)
    if not np.isfinite(vertices_m[used]).all():
        raise ValueError("the mesh has vertices that are not finite")
    low, high = vertices_m[used].min(0), vertices_m[used].max(0)
    extents = np.maximum(high - low, MIN_EXTENT_M)
    centred = vertices_m - (low + high) / 2
    # seeded by the name: the same model always has the same samples
    rng = np.random.default_rng(np.frombuffer(model_id.encode().ljust(4, b"_"), dtype=np.uint8))
    points, normals, _ = sample_surface(centred, faces, POINTS, rng)
    if symmetry is None:
        symmetry = estimate_symmetry(sample_surface(centred, faces, SYMMETRY_POINTS, rng)[0])
    return CadModel(
        model_id,
        category,
        extents.astype(np.float32),
        symmetry,
        (centred / extents).astype(np.float32),
        np.ascontiguousarray(faces, dtype=np.int32),
        np.ascontiguousarray(face_colors, dtype=np.uint8),
        (points / extents).astype(np.float32),
        normals_to_unit_cube(normals, extents).astype(np.float32),
        source,
    )


class CadLibrary:
    """An ordered, immutable collection of CAD models with unique ids.

    `skipped` names what could not be loaded: (path, reason) pairs.
    """

    def __init__(self, models, skipped=()):
        self.models: tuple[CadModel, ...] = tuple(models)
        self.skipped: tuple[tuple[str, str], ...] = tuple(skipped)
        self._index: dict[str, int] = {}
        for position, model in enumerate(self.models):
            if model.model_id in self._index:
                first = self.models[self._index[model.model_id]]
                raise ValueError(f"CAD model id {model.model_id!r} occurs twice: {first.source}, {model.source}")
            self._index[model.model_id] = position

    @classmethod
    def open(cls, spec: str | Path) -> CadLibrary:
        """A folder of meshes, "procedural", or "procedural:FIRST-LAST" (seeds, inclusive).

        Raises ValueError for anything else.
        """
        text = str(spec)
        if text == "procedural":
            return cls.procedural(DEFAULT_PROCEDURAL_SEEDS)
        if text.startswith("procedural:"):
            match = re.fullmatch(r"procedural:(\d+)-(\d+)", text)
            if not match or int(match[1]) > int(match[2]):
                raise ValueError(f"CAD library {text!r}: expected procedural:FIRST-LAST, e.g. procedural:0-19")
            return cls.procedural(range(int(match[1]), int(match[2]) + 1))
        return cls.from_folder(Path(text))

    @classmethod
    def from_folder(cls, path, *, default_category=None, cache_dir=None, include_other=False) -> CadLibrary:
        """Every mesh below a folder; see `sparc_core.cad.folder.load_folder`."""
        from sparc_core.cad.folder import load_folder

        return load_folder(
            Path(path), default_category=default_category, cache_dir=cache_dir, include_other=include_other
        )

    @classmethod
    def procedural(cls, seeds, categories=CATEGORIES) -> CadLibrary:
        """One generated model per seed and category, with ids "<category>_<seed:07d>"."""
        models = []
        for category in categories:
            for seed in seeds:
                made = procedural.generate(category, seed)
                models.append(
                    build_model(
                        f"{category}_{seed:07d}", category, made.vertices, made.faces, made.face_colors,
                        f"procedural:{category}:{seed}", made.symmetry,
                    )
                )  # fmt: skip
        return cls(models)

    def __len__(self) -> int:
        return len(self.models)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that have at least one model, sorted."""
        return tuple(sorted({model.category for model in self.models}))

    def index_of(self, model_id: str) -> int:
        """Position of a model. Raises ValueError naming similar ids when there is none."""
        if model_id not in self._index:
            near = difflib.get_close_matches(model_id, self._index, n=3)
            hint = f"; similar: {', '.join(near)}" if near else ""
            raise ValueError(f"CAD model id {model_id!r} is not in the library of {len(self)} models{hint}")
        return self._index[model_id]

    def indices_of_category(self, category: str) -> np.ndarray:
        """Positions of a category's models, in library order."""
        return np.array([i for i, model in enumerate(self.models) if model.category == category], dtype=np.int64)

    def median_extents_m(self, category: str) -> np.ndarray:
        """(3,) median extents in metres. Raises ValueError for a category without models."""
        return np.median(self._extents_of(category), axis=0)

    def extents_range_m(self, category: str) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest extents (3,) each. Raises ValueError for a category without models."""
        extents = self._extents_of(category)
        return extents.min(0), extents.max(0)

    def merged(self, other: CadLibrary) -> CadLibrary:
        """Both libraries' models; raises ValueError when they share an id."""
        return CadLibrary(self.models + other.models, self.skipped + other.skipped)

    def subset(self, indices) -> CadLibrary:
        """The models at these positions, in that order."""
        return CadLibrary([self.models[int(i)] for i in indices], self.skipped)

    def export_meshes(self, folder: Path) -> dict[str, Path]:
        """Write every model's unit-cube mesh as a coloured GLB; returns the file of each model id.

        Existing files are kept: a model id always stands for the same mesh in one folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for model in self.models:
            path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', model.model_id)}.glb"
            if not path.exists():
                mesh = trimesh.Trimesh(model.vertices, model.faces, face_colors=model.face_colors, process=False)
                partial = path.with_suffix(".partial")
                partial.write_bytes(mesh.export(file_type="glb"))
                partial.replace(path)
            files[model.model_id] = path
        return files

    def _extents_of(self, category: str) -> np.ndarray:
        extents = [model.extents_m for model in self.models if model.category == category]
        if not extents:
            raise ValueError(f"the CAD library has no model of category {category!r}; it has {self.categories}")
        return np.stack(extents)
