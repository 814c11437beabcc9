"""ShapeNetCore.v2 folders: `synset/id/models/model_normalized.obj`, off-centre origins, unit diagonals.

The files have no true size. `metres_per_unit` brings them to a typical one; poses are converted with the box
of the file, so it changes nothing but the size a search starts from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparc_core.cad.cache import cached_model, default_cache_dir
from sparc_core.cad.library import CadLibrary, CadModel
from sparc_core.cad.mesh_file import read_mesh
from sparc_core.cad.model import build_model
from sparc_core.datasets.poses import CadBox


@dataclass(frozen=True, eq=False)
class CadFile:
    """One CAD file of a dataset: where it is, what is known of it, and the box of its own coordinates."""

    path: Path
    synset: str
    cad_id: str
    category: str
    symmetry: str
    box: CadBox
    metres_per_unit: float

    @property
    def key(self) -> tuple[str, str]:
        """Synset and id."""
        return self.synset, self.cad_id

    @property
    def model_id(self) -> str:
        """The id in a `CadLibrary`."""
        return f"{self.synset}_{self.cad_id}"


def model_path(root: Path, synset: str, cad_id: str) -> Path:
    """Where ShapeNet has a model."""
    return root / synset / cad_id / "models" / "model_normalized.obj"


def read_box(path: Path) -> CadBox:
    """The bounding box of a mesh file in its own coordinates, of the vertices that faces use.

    Raises ValueError naming the file for one that cannot be read.
    """
    vertices, faces, _ = read_cad_file(path)
    used = vertices[np.unique(faces)]
    low, high = used.min(0), used.max(0)
    return CadBox((low + high) / 2, np.maximum(high - low, 1e-6))


def read_cad_file(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 in the file's coordinates, faces (F, 3) and face colours (F, 3) uint8.

    Raises ValueError naming the file, whatever is wrong with it.
    """
    try:
        return read_mesh(path)
    # trimesh raises whatever its readers raise; the file must be named
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{path}: cannot be read as a mesh: {type(error).__name__}: {error}") from error


def load_library(files: Iterable[CadFile]) -> CadLibrary:
    """The files as CAD models with ids "synset_id", computed once and cached.

    Symmetries are those of the annotations. What cannot be read is in `skipped`.
    """
    models, skipped = [], []
    for file in files:
        try:
            models.append(_load(file))
        except ValueError as error:
            skipped.append((str(file.path), str(error)))
    return CadLibrary(models, skipped)


def _load(file: CadFile) -> CadModel:
    def build() -> CadModel:
        vertices, faces, colors = read_cad_file(file.path)
        return build_model(
            file.model_id, file.category, vertices * file.metres_per_unit, faces, colors, str(file.path),
            file.symmetry, orient=True,
        )  # fmt: skip

    stat = file.path.stat()
    identity = (
        file.path.resolve(), stat.st_size, stat.st_mtime_ns, file.model_id, file.category, file.symmetry,
        file.metres_per_unit,
    )  # fmt: skip
    return cached_model(default_cache_dir(), identity, file.model_id, file.category, str(file.path), build)
