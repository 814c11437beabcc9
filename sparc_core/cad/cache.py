"""Computed CAD models kept on disk: sampling and symmetry cost far more than reading them back."""

from __future__ import annotations

import functools
import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparc_core.cad.model import CadModel

_ARRAYS = ("extents_m", "vertices", "faces", "face_colors", "points", "normals", "colors")


def default_cache_dir() -> Path:
    """Where computed CAD samples are kept: $SPARC_HOME/cad, by default below ~/.cache/sparc_ros."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SPARC_HOME") or Path(cache) / "sparc_ros") / "cad"


def cached_model(
    cache: Path, identity: tuple, model_id: str, category: str, source: str, build: Callable[[], CadModel]
) -> CadModel:
    """The model of an identity from the cache folder, or built and put there.

    identity: everything the model's content depends on besides this package's code, which is part of
    the key by itself.
    """
    key = hashlib.sha256(repr((_code_digest(), identity)).encode()).hexdigest()[:24]
    cached = cache / f"{key}.npz"
    if cached.exists():
        try:
            with np.load(cached) as stored:
                arrays = {name: stored[name] for name in _ARRAYS}
                return CadModel(model_id, category, symmetry=str(stored["symmetry"]), source=source, **arrays)
        except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError):
            cached.unlink(missing_ok=True)  # a write was cut short; compute it again
    model = build()
    cache.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial, symmetry=model.symmetry, **{name: getattr(model, name) for name in _ARRAYS})
    partial.replace(cached)
    return model


@functools.cache
def _code_digest() -> str:
    """A hash of this package's source files: changed code computes everything anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
