"""ShapeNetCore.v2 folders: `synset/id/models/model_normalized.obj`, off-centre origins, unit diagonals.

Every file is read once and kept as arrays in the file's own coordinates, because poses of Scan2CAD and ROCA
belong to these. The files have no true size: `metres_per_unit` brings them to a typical one, which changes
nothing but the size that a search starts from.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparc_core.cad.cache import cached_model, default_cache_dir
from sparc_core.cad.library import CadLibrary, CadModel
from sparc_core.cad.mesh_file import read_mesh
from sparc_core.cad.model import build_model
from sparc_core.datasets.poses import CadBox

MIN_EXTENT = 1e-6  # of a flat model, which nothing could be divided by


@dataclass(frozen=True, eq=False)
class CadMesh:
    """vertices (V, 3) float64 in the coordinates of the CAD file, faces (F, 3), face_colors (F, 3) uint8."""

    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray

    @property
    def box(self) -> CadBox:
        """The box around the vertices that faces use."""
        used = self.vertices[np.unique(self.faces)]
        low, high = used.min(0), used.max(0)
        return CadBox((low + high) / 2, np.maximum(high - low, MIN_EXTENT))


@dataclass(frozen=True, eq=False)
class CadFile:
    """One CAD model: its arrays (`write_mesh`), what is known of it, and the box of its own coordinates."""

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


def read_cad_file(path: Path) -> CadMesh:
    """The mesh of a CAD file. Raises ValueError naming the file, whatever is wrong with it."""
    try:
        return CadMesh(*read_mesh(path))
    # trimesh raises whatever its readers raise; the file must be named
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{path}: cannot be read as a mesh: {type(error).__name__}: {error}") from error


def write_arrays(mesh: CadMesh, path: Path) -> None:
    """Keep a mesh as .npz, written in one piece."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part.npz")
    np.savez(partial, vertices=mesh.vertices, faces=mesh.faces, face_colors=mesh.face_colors)
    os.replace(partial, path)


def read_arrays(path: Path) -> CadMesh:
    """The mesh of `write_arrays`. Raises FileNotFoundError, or ValueError naming the file."""
    try:
        with np.load(path) as stored:
            return CadMesh(stored["vertices"], stored["faces"], stored["face_colors"])
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected arrays of a CAD model ({error}); remove it") from error


def load_library(files: Iterable[CadFile]) -> CadLibrary:
    """CAD models with ids "synset_id" in the symmetry of the annotations, sampled once and cached.

    What cannot be used is in `skipped`.
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
        mesh = read_arrays(file.path)
        return build_model(
            file.model_id, file.category, mesh.vertices * file.metres_per_unit, mesh.faces, mesh.face_colors,
            str(file.path), file.symmetry, orient=True,
        )  # fmt: skip

    stat = file.path.stat()
    identity = (
        file.path.resolve(), stat.st_size, stat.st_mtime_ns, file.model_id, file.category, file.symmetry,
        file.metres_per_unit,
    )  # fmt: skip
    return cached_model(default_cache_dir(), identity, file.model_id, file.category, str(file.path), build)
