"""Reading a folder of CAD meshes: names, categories, units, axes, and a cache of what was computed.

A folder may hold an `index.json` (`{"models": [{"id", "category", "file", "units", "up", "front",
"symmetry"}, …]}`, all but `file` optional); without one, every mesh file below it is a model, its
category taken from the folder above it or the start of its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from sparc_core.cad.library import CadLibrary, CadModel, build_model
from sparc_core.types import CATEGORIES, SYMMETRIES

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "inch": 0.0254, "ft": 0.3048}
OTHER = "other"
ALIASES = {
    "bookcase": "bookshelf", "shelf": "bookshelf", "trashbin": "bin", "trash_bin": "bin", "trash_can": "bin",
    "trashcan": "bin", "couch": "sofa", "monitor": "display", "tv": "display", "screen": "display",
    "desk": "table", "dining_table": "table", "wardrobe": "cabinet", "nightstand": "cabinet",
    "cupboard": "cabinet", "armchair": "chair", "stool": "chair", "bathtub": "bathtub", "tub": "bathtub",
}  # fmt: skip
_AXES = {"X": (1, 0, 0), "Y": (0, 1, 0), "Z": (0, 0, 1)}
_CACHE_VERSION = 2
_ARRAYS = ("extents_m", "vertices", "faces", "face_colors", "points", "normals")


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


def load_folder(
    folder: Path, *, default_category: str | None = None, cache_dir: Path | None = None, include_other: bool = False
) -> CadLibrary:
    """The `CadLibrary` of a folder.

    default_category: for models whose name gives none. include_other: keep models of category "other"
    (clutter for training scenes). Computed samples are cached under cache_dir (default: the project's
    cache folder), keyed by file, size, time and options. Raises ValueError when the folder does not
    exist or no model could be loaded; a broken file is skipped and named in `skipped`.
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
            models.append(_load_entry(entry, cache))
        # trimesh raises whatever its format readers raise (KeyError, struct.error, json errors, …); a
        # broken file must be named and skipped, not end the load.
        except Exception as error:  # noqa: BLE001
            skipped.append((str(entry.path), f"{type(error).__name__}: {error}"))
    if not models:
        reasons = "; ".join(f"{Path(p).name}: {reason}" for p, reason in skipped[:3]) or "it holds no mesh files"
        raise ValueError(f"CAD library {folder}: no model could be loaded ({reasons})")
    return CadLibrary(models, skipped)


def default_cache_dir() -> Path:
    """Where computed CAD samples are kept: $SPARC_HOME/cad, by default below ~/.cache/sparc_ros."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SPARC_HOME") or Path(cache) / "sparc_ros") / "cad"


def canonical_category(name: str) -> str | None:
    """The category a name stands for ("Office Chair 3" -> "chair"), or None."""
    words = name.lower().replace("-", "_").replace(" ", "_")
    known = {**{c: c for c in CATEGORIES}, **ALIASES}
    if words in known:
        return known[words]
    parts = words.split("_")
    for part in (*parts, "_".join(parts[:2])):
        for form in (part, part.rstrip("s"), part.rstrip("0123456789")):
            if form in known:
                return known[form]
    return None


def _list_entries(folder: Path, default_category: str | None):
    index = folder / "index.json"
    if index.exists():
        return _index_entries(folder, index, default_category)
    entries, skipped = [], []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in MESH_SUFFIXES):
        relative = path.relative_to(folder)
        names = (path.stem, *reversed(relative.parts[:-1]), folder.name)
        category = next((c for c in map(canonical_category, names) if c), default_category)
        if category is None:
            skipped.append((str(path), "no category in its name or folder, and no default category given"))
            continue
        model_id = "_".join((*relative.parts[:-1], path.stem)) if path.stem != "model" else "_".join(relative.parts[:-1])
        entries.append(_Entry(path, model_id or path.stem, category))
    return entries, skipped


def _index_entries(folder: Path, index: Path, default_category: str | None):
    try:
        listed = json.loads(index.read_text())["models"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{index}: expected {{"models": [...]}}: {error}') from error
    entries, skipped = [], []
    for number, item in enumerate(listed):
        name = item.get("file")
        if not name:
            skipped.append((f"{index}#{number}", "entry has no 'file'"))
            continue
        path = folder / name
        category = item.get("category") or default_category or ""
        category = category if category == OTHER else canonical_category(category)
        reason = _entry_problem(path, category, item)
        if reason:
            skipped.append((str(path), reason))
            continue
        entries.append(_Entry(
            path, item.get("id") or Path(name).with_suffix("").as_posix().replace("/", "_"), category,
            item.get("units") or "m", item.get("up") or "+Y", item.get("front"), item.get("symmetry"),
        ))  # fmt: skip
    return entries, skipped


def _entry_problem(path: Path, category: str | None, item: dict) -> str | None:
    if not path.is_file():
        return "file does not exist"
    if category is None:
        return f"unknown category {item.get('category')!r}"
    if (item.get("units") or "m") not in UNITS_M:
        return f"unknown units {item['units']!r}; known are {sorted(UNITS_M)}"
    if item.get("symmetry") not in (None, *SYMMETRIES):
        return f"unknown symmetry {item['symmetry']!r}; known are {SYMMETRIES}"
    return None


def _load_entry(entry: _Entry, cache: Path) -> CadModel:
    stat = entry.path.stat()
    identity = repr((_CACHE_VERSION, str(entry.path.resolve()), stat.st_size, stat.st_mtime_ns, entry))
    cached = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.npz"
    if cached.exists():
        try:
            with np.load(cached) as stored:
                arrays = {name: stored[name] for name in _ARRAYS}
                symmetry = str(stored["symmetry"])
            return CadModel(entry.model_id, entry.category, symmetry=symmetry, source=str(entry.path), **arrays)
        except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError):
            cached.unlink()  # a write was cut short; compute it again
    model = _read_mesh(entry)
    cache.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial, symmetry=model.symmetry, **{name: getattr(model, name) for name in _ARRAYS})
    partial.replace(cached)
    return model


def _read_mesh(entry: _Entry) -> CadModel:
    loaded = trimesh.load(entry.path, process=False)
    parts = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
    parts = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not parts:
        raise ValueError("the file holds no triangles")
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float64)
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)])
    colors = np.concatenate([_face_colors(part) for part in parts])
    vertices = vertices @ axes_rotation(entry.up, entry.front).T * UNITS_M[entry.units]
    return build_model(
        entry.model_id, entry.category, vertices, faces, colors, str(entry.path), entry.symmetry
    )


def axes_rotation(up: str, front: str | None) -> np.ndarray:
    """(3, 3) rotation that brings a file's `up` axis to +y and its `front` to +z ("+Z", "-X", "y", …).

    Without a front, +z for files with y up; for others the remaining axis that keeps the turn small.
    Raises ValueError for axes that are unknown or not at right angles.
    """
    up_vector = _axis(up)
    if front is None:
        front = "+Z" if abs(up_vector[2]) == 0 else "-Y"
    front_vector = _axis(front)
    if abs(up_vector @ front_vector) > 0:
        raise ValueError(f"up {up!r} and front {front!r} must be at right angles")
    return np.stack([np.cross(up_vector, front_vector), up_vector, front_vector])


def _axis(name: str) -> np.ndarray:
    letters = name.upper().lstrip("+-")
    if letters not in _AXES:
        raise ValueError(f"axis must be one of ±X, ±Y, ±Z, got {name!r}")
    return np.array(_AXES[letters], dtype=np.float64) * (-1 if name.startswith("-") else 1)


def _face_colors(part: trimesh.Trimesh) -> np.ndarray:
    """(F, 3) uint8: face colours, or the texture at the faces' centres, or the material's colour."""
    visual = part.visual
    if isinstance(visual, trimesh.visual.TextureVisuals):
        material = visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if image is not None and visual.uv is not None:
            pixels = np.asarray(image.convert("RGB"))
            uv = visual.uv[part.faces].mean(1) % 1.0
            rows = ((1 - uv[:, 1]) * (pixels.shape[0] - 1)).astype(int)
            return pixels[rows, (uv[:, 0] * (pixels.shape[1] - 1)).astype(int)]
        color = np.asarray(material.main_color)[:3]
        return np.tile(color.astype(np.uint8), (len(part.faces), 1))
    return np.asarray(visual.face_colors)[:, :3].astype(np.uint8)
