"""A library of CAD models: meshes in the unit cube with surface samples, extents and symmetry.

Comes in: a folder of meshes that trimesh reads (`folder.py` says how files are found and named), or
procedural seeds. Goes out: immutable `CadModel`s. Broken meshes are skipped and named.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sparc_core.cad import procedural
from sparc_core.cad.cache import cached_model, default_cache_dir
from sparc_core.cad.folder import read_folder
from sparc_core.cad.model import CadModel, build_model
from sparc_core.cad.obj_file import write_obj
from sparc_core.types import CATEGORIES

DEFAULT_PROCEDURAL_SEEDS = range(0, 12)

__all__ = ["CadLibrary", "CadModel", "build_model"]


class CadLibrary:
    """An ordered, immutable collection of CAD models with unique ids.

    `skipped` names what could not be loaded: (path, reason) pairs.
    """

    def __init__(self, models: Iterable[CadModel], skipped: Iterable[tuple[str, str]] = ()):
        self.models: tuple[CadModel, ...] = tuple(models)
        self.skipped: tuple[tuple[str, str], ...] = tuple(skipped)
        self._index: dict[str, int] = {}
        for position, model in enumerate(self.models):
            if model.model_id in self._index:
                first = self.models[self._index[model.model_id]]
                raise ValueError(
                    f"CAD model id {model.model_id!r} occurs twice: {first.source}, {model.source}"
                )
            self._index[model.model_id] = position

    @classmethod
    def open(cls, spec: str | Path, *, sampling: str = "visible") -> CadLibrary:
        """A folder of meshes, "procedural", or "procedural:FIRST-LAST" (seeds, inclusive).

        sampling: see `build_model`. Raises ValueError for anything else.
        """
        text = str(spec)
        if text == "procedural":
            return cls.procedural(DEFAULT_PROCEDURAL_SEEDS, sampling=sampling)
        if text.startswith("procedural:"):
            match = re.fullmatch(r"procedural:(\d+)-(\d+)", text)
            if not match or int(match[1]) > int(match[2]):
                raise ValueError(
                    f"CAD library {text!r}: expected procedural:FIRST-LAST, e.g. procedural:0-19"
                )
            return cls.procedural(range(int(match[1]), int(match[2]) + 1), sampling=sampling)
        return cls.from_folder(Path(text), sampling=sampling)

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        default_category: str | None = None,
        cache_dir: str | Path | None = None,
        include_other: bool = False,
        sampling: str = "visible",
    ) -> CadLibrary:
        """Every mesh below a folder; see `sparc_core.cad.folder.read_folder`."""
        return cls(*read_folder(
            Path(path), default_category=default_category, cache_dir=cache_dir,
            include_other=include_other, sampling=sampling,
        ))  # fmt: skip

    @classmethod
    def procedural(
        cls, seeds: Iterable[int], categories: Sequence[str] = CATEGORIES, *, sampling: str = "visible"
    ) -> CadLibrary:
        """One generated model per seed and category, with ids "<category>_<seed:07d>"."""
        seeds = list(seeds)  # used once a category
        return cls(_procedural_model(category, seed, sampling) for category in categories for seed in seeds)

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
        return np.array(
            [i for i, model in enumerate(self.models) if model.category == category], dtype=np.int64
        )

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

    def export_meshes(self, folder: str | Path) -> dict[str, Path]:
        """Write every model's unit-cube mesh as OBJ with materials; returns the file of each model id.

        A file's name holds a digest of its mesh, so files that exist are kept and never out of date.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for model in self.models:
            digest = hashlib.sha256()
            for values in (model.vertices, model.faces, model.face_colors):
                digest.update(np.ascontiguousarray(values))
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", model.model_id)
            path = folder / f"{name}-{digest.hexdigest()[:10]}.obj"
            if not path.exists():
                write_obj(model, path)
            files[model.model_id] = path
        return files

    def _extents_of(self, category: str) -> np.ndarray:
        extents = [model.extents_m for model in self.models if model.category == category]
        if not extents:
            raise ValueError(
                f"the CAD library has no model of category {category!r}; it has {self.categories}"
            )
        return np.stack(extents)


def _procedural_model(category: str, seed: int, sampling: str) -> CadModel:
    model_id, source = f"{category}_{seed:07d}", f"procedural:{category}:{seed}"

    def build() -> CadModel:
        made = procedural.generate(category, seed)
        return build_model(
            model_id, category, made.vertices, made.faces, made.face_colors, source, made.symmetry,
            sampling=sampling,
        )  # fmt: skip

    return cached_model(default_cache_dir(), (category, seed, sampling), model_id, category, source, build)
