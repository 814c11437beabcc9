"""Writes test/data/room: one rendered RGB-D frame with its truth, for the tests of `sparc align`.

    ./run python test/data/make_room.py

The furniture is procedural, with seeds the shipped network has not seen; depth has sensor noise.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images

CAD_LIBRARY = "procedural:1000000-1000004"
SCENE = 0
FOLDER = Path(__file__).parent / "room"


def main() -> None:
    """Render the scene and write image, depth in millimetres, camera, detections and truth."""
    images = synthetic_images(CadLibrary.open(CAD_LIBRARY), SyntheticSetConfig(scenes=SCENE + 1))
    image = list(images)[SCENE]
    FOLDER.mkdir(exist_ok=True)
    cv2.imwrite(str(FOLDER / "rgb.png"), image.rgb[..., ::-1])
    cv2.imwrite(str(FOLDER / "depth.png"), np.round(image.depth_m * 1000).astype(np.uint16))
    camera = image.camera
    intrinsics = {
        name: getattr(camera, name) for name in ("width", "height", "fx", "fy", "cx", "cy", "up_cam")
    }
    _write("camera.json", intrinsics)
    _write("detections.json", [
        {"box_xyxy": [round(v, 1) for v in d.box_xyxy], "category": d.category, "model_id": d.model_id}
        for d in image.detections
    ])  # fmt: skip
    _write("truth.json", {
        "cad_library": CAD_LIBRARY,
        "objects": [
            {"R": image.truth.R[i].tolist(), "T_m": image.truth.T[i].tolist(),
             "S_m": image.truth.S[i].tolist(), "symmetry_order": int(image.symmetry_order[i]),
             "well_visible": bool(image.well_visible[i])}
            for i in range(len(image.detections))
        ],
    })  # fmt: skip


def _write(name: str, values) -> None:
    (FOLDER / name).write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
