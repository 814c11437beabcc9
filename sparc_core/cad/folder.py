"""Reading a folder of CAD meshes: which files, their names and categories, and a cache of the results.

A folder may hold an `index.json` (`{"models": [{"id", "category", "file", "units", "up", "front",
"symmetry"}, …]}`, all but `file` optional); without one, every mesh file below it is a model in metres
with y up, its category taken from the folders above it or from its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sparc_core.cad.cache import cached_model, default_cache_dir
from sparc_core.cad.mesh_file import UNITS_M, axes_rotation, read_mesh
from sparc_core.cad.model import CadModel, build_model
from sparc_core.cad.names import canonical_category, exact_category
from sparc_core.types import SYMMETRIES

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
COMPANION_SUFFIXES = (".bin", ".mtl", ".png", ".jpg", ".jpeg")
OTHER = "other"
_PLAIN_NAMES = ("model", "mesh", "scene", "model_normalized")

Skipped = list[tuple[str, str]]


@dataclass(frozen=True)
class _Entry:
    """One model to load: where it is and how its file is to be read."""

    path: Path
    model_id: str
    category: str
    units: str = "m"
    up: str = "+Y"
    front: str | None = None
    symmetry: str | None = None


def read_folder(
    folder: Path,
    *,
    default_category: str | None = None,
    cache_dir: Path | None = None,
    include_other: bool = False,
    sampling: str = "visible",
) -> tuple[list[CadModel], Skipped]:
    """All models of a folder, and what was skipped as (path, reason) pairs.

    default_category: for models whose name gives none. include_other: keep models that an index puts
    into category "other" (clutter for training scenes). Results are cached under cache_dir (default:
    the project's cache folder), keyed by file, size, time and options. Raises ValueError when the folder
    does not exist, the index is malformed, or no model could be loaded.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"CAD library {folder}: not a folder")
    entries, skipped = _list_entries(folder, default_category)
    cache = Path(cache_dir) if cache_dir else default_cache_dir()
    models: list[CadModel] = []
    for entry in entries:
        if entry.category == OTHER and not include_other:
            continue
        try:
            models.append(_load_entry(entry, cache, sampling))
        # trimesh raises whatever its format readers raise (KeyError, struct.error, json errors, …); a
        # broken file must be named and skipped, not end the load.
        except Exception as error:  # noqa: BLE001
            skipped.append((str(entry.path), f"{type(error).__name__}: {error}"))
    if not models:
        reasons = (
            "; ".join(f"{Path(p).name}: {reason}" for p, reason in skipped[:3]) or "it holds no mesh files"
        )
        raise ValueError(f"CAD library {folder}: no model could be loaded ({reasons})")
    return models, skipped


def _list_entries(folder: Path, default_category: str | None) -> tuple[list[_Entry], Skipped]:
    index = folder / "index.json"
    if index.exists():
        return _index_entries(folder, index, default_category)
    entries, skipped = [], []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in MESH_SUFFIXES):
        relative = path.relative_to(folder)
        category = _category_of(folder, relative) or default_category
        if category is None:
            skipped.append((str(path), "no category in its name or folders, and no default category given"))
            continue
        entries.append(_Entry(path, _model_id(relative), category))
    return entries, skipped


def _category_of(folder: Path, relative: Path) -> str | None:
    """A folder that is named like a category decides; then any name in which one occurs."""
    above = [*reversed(relative.parts[:-1]), folder.name]
    exact = next(filter(None, map(exact_category, above)), None)
    return exact or next(filter(None, map(canonical_category, (relative.stem, *above))), None)


def _model_id(relative: Path) -> str:
    """The path below the library's folder joined by "_", without a file name that says nothing."""
    names = [*relative.parts[:-1], relative.stem]
    if len(names) > 1 and names[-1].lower() in _PLAIN_NAMES:
        names.pop()
    return "_".join(names)


def _index_entries(folder: Path, index: Path, default_category: str | None) -> tuple[list[_Entry], Skipped]:
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["models"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{index}: expected {{"models": [...]}}: {error}') from error
    if not isinstance(listed, list):
        raise ValueError(f'{index}: "models" must be a list, got {type(listed).__name__}')
    entries, skipped = [], []
    for number, item in enumerate(listed):
        name = item.get("file") if isinstance(item, dict) else None
        if not name:
            skipped.append((f"{index}#{number}", "entry has no 'file'"))
            continue
        path = folder / name
        category = str(item.get("category") or default_category or "")
        category = category if category == OTHER else canonical_category(category)
        reason = _entry_problem(path, category, item)
        if reason:
            skipped.append((str(path), reason))
            continue
        entries.append(_Entry(
            path, str(item.get("id") or _model_id(Path(name))), category, item.get("units") or "m",
            item.get("up") or "+Y", item.get("front"), item.get("symmetry"),
        ))  # fmt: skip
    return entries, skipped


def _entry_problem(path: Path, category: str | None, item: dict) -> str | None:
    """Why an index entry cannot be read, or None."""
    if not path.is_file():
        return "file does not exist"
    if category is None:
        return f"unknown category {item.get('category')!r}"
    if (item.get("units") or "m") not in UNITS_M:
        return f"unknown units {item['units']!r}; known are {sorted(UNITS_M)}"
    if item.get("symmetry") not in (None, *SYMMETRIES):
        return f"unknown symmetry {item['symmetry']!r}; known are {SYMMETRIES}"
    try:
        axes_rotation(str(item.get("up") or "+Y"), item.get("front"))
    except ValueError as error:
        return str(error)
    return None


def _load_entry(entry: _Entry, cache: Path, sampling: str) -> CadModel:
    """The model from the cache, or read, computed and cached."""

    def build() -> CadModel:
        mesh = read_mesh(entry.path, entry.units, entry.up, entry.front)
        return build_model(
            entry.model_id, entry.category, *mesh, str(entry.path), entry.symmetry, sampling=sampling,
            orient=True,
        )  # fmt: skip

    identity = (entry.path.resolve(), _fingerprint(entry.path), entry, sampling)
    return cached_model(cache, identity, entry.model_id, entry.category, str(entry.path), build)


def _fingerprint(path: Path) -> tuple:
    """Size and time of a file and of the buffers and textures beside it that it may refer to."""
    files = [path]
    if path.suffix.lower() in (".gltf", ".obj"):
        files += sorted(p for p in path.parent.iterdir() if p.suffix.lower() in COMPANION_SUFFIXES)
    return tuple((file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files)
