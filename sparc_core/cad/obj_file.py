"""Writing a CAD model as OBJ with materials, for RViz.

Not glTF: from 2025 on RViz turns glTF meshes by 90° on loading (y up to z up) and older versions do
not (ros2/rviz pull request 1482), so one marker would stand upright in one version and lie in the
other. OBJ files are taken as they are by all. RViz also ignores vertex colours: materials carry them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparc_core.cad.model import CadModel

MAX_MATERIALS = 64


def write_obj(model: CadModel, path: Path) -> None:
    """Write the unit-cube mesh to `path` (.obj) and its materials to the .mtl file beside it.

    Each colour becomes a material; with more than `MAX_MATERIALS` colours they are rounded first.
    """
    colors, material = _materials(model.face_colors)
    order = np.argsort(material, kind="stable")
    starts = np.searchsorted(material[order], np.arange(len(colors)))
    names = [f"color_{r:02x}{g:02x}{b:02x}" for r, g, b in colors]
    lines = [f"mtllib {path.with_suffix('.mtl').name}", *_rows("v %.6g %.6g %.6g", model.vertices)]
    faces = model.faces[order] + 1
    for name, first, last in zip(names, starts, [*starts[1:], len(faces)], strict=True):
        lines += [f"usemtl {name}", *_rows("f %d %d %d", faces[first:last])]
    materials = [
        f"newmtl {name}\nKa 1 1 1\nKd {r / 255:.4f} {g / 255:.4f} {b / 255:.4f}\nKs 0 0 0\nillum 1\n"
        for name, (r, g, b) in zip(names, colors, strict=True)
    ]
    # The mesh comes last: whoever finds it finds its materials too.
    _write(path.with_suffix(".mtl"), "\n".join(materials))
    _write(path, "\n".join(lines) + "\n")


def _materials(face_colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct colours (C, 3) and each face's index into them (F,), C ≤ MAX_MATERIALS."""
    bits = 0
    while True:
        half = (1 << bits) >> 1
        rounded = (face_colors >> bits << bits) + half
        colors, index = np.unique(rounded, axis=0, return_inverse=True)
        if len(colors) <= MAX_MATERIALS:
            return colors, index.reshape(-1)
        bits += 1


def _rows(template: str, values: np.ndarray) -> list[str]:
    return [template % tuple(row) for row in values.tolist()]


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="ascii")
    partial.replace(path)
