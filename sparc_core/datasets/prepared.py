"""The fast layout that `sparc prepare scannet25k` writes, and its reader.

dataset.json                 version, sources, scenes
annotations.json             Scan2CAD's, of these scenes, in its own format
cad.json                     the CAD models: category, symmetry, box, size
cad/<synset>_<id>.npz        their meshes
scenes/<scene>/scene.json    frames: camera, pose, what should be found in them
scenes/<scene>/color, depth  images of 480 × 360 pixels; depth in uint16 millimetres
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from sparc_core.datasets.poses import CadBox
from sparc_core.datasets.scan2cad import Annotations, CadKey, read_annotations
from sparc_core.datasets.scannet import MM_PER_M
from sparc_core.datasets.shapenet import CadFile
from sparc_core.datasets.truth import FrameObject
from sparc_core.files.cameras import camera_from_json, camera_to_json
from sparc_core.files.fields import Fields, load_json
from sparc_core.files.images import read_depth, read_image
from sparc_core.types import Camera

LAYOUT_VERSION = 1


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """One frame: its camera, T_scan_cam (4, 4), and the annotated objects in view."""

    scene: str
    name: str
    camera: Camera
    T_scan_cam: np.ndarray
    objects: tuple[FrameObject, ...]


class PreparedScannet:
    """A prepared tree. Raises FileNotFoundError or ValueError for a folder that is none."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        header = Fields(load_json(self.folder / "dataset.json", dict, "a prepared dataset"), str(folder))
        if header.integer("version") != LAYOUT_VERSION:
            raise ValueError(
                f"{folder}: layout {header.integer('version')}, this version reads {LAYOUT_VERSION}: "
                "run `sparc prepare` again into a new folder"
            )
        self.sources: dict = header.get("sources")
        self.scenes: tuple[str, ...] = tuple(header.items("scenes"))
        self.has_depth = bool(self.sources.get("depth"))
        entries = load_json(self.folder / "cad.json", dict, "the CAD models of a prepared dataset")
        self.cad: dict[CadKey, CadFile] = {
            file.key: file for file in (self._cad_file(entry) for entry in entries.values())
        }
        self.annotations: Annotations = read_annotations(self.folder / "annotations.json")
        missing = [s for s in self.scenes if not self._scene_file(s).exists()]
        if missing:
            raise ValueError(
                f"{folder}: {len(missing)} of {len(self.scenes)} scenes are not converted yet, "
                f"e.g. {missing[0]}: run `sparc prepare` again, it goes on where it stopped"
            )

    def frames(self, scene: str) -> list[PreparedFrame]:
        """The frames of a scene, in order."""
        content = load_json(self._scene_file(scene), dict, "a prepared scene")
        return [_frame_from_json(scene, entry) for entry in content["frames"]]

    def image(self, frame: PreparedFrame) -> np.ndarray:
        """(360, 480, 3) uint8 RGB."""
        return read_image(self.folder / "scenes" / frame.scene / "color" / f"{frame.name}.jpg")

    def depth_m(self, frame: PreparedFrame) -> np.ndarray:
        """(360, 480) float32 metres of the sensor, 0 where unknown. Raises ValueError without depth."""
        if not self.has_depth:
            raise ValueError(f"{self.folder} was prepared without depth images")
        return read_depth(self.folder / "scenes" / frame.scene / "depth" / f"{frame.name}.png", MM_PER_M)

    def _cad_file(self, entry: dict) -> CadFile:
        key = entry["synset"], entry["cad_id"]
        box = CadBox(np.array(entry["centre"]), np.array(entry["extents"]))
        return CadFile(
            cad_path(self.folder, key),
            *key,
            entry["category"],
            entry["symmetry"],
            box,
            entry["metres_per_unit"],
        )

    def _scene_file(self, scene: str) -> Path:
        return self.folder / "scenes" / scene / "scene.json"


def cad_path(folder: Path, key: CadKey) -> Path:
    """Where a CAD model's arrays are."""
    return folder / "cad" / f"{key[0]}_{key[1]}.npz"


def frame_to_json(name: str, camera: Camera, T_scan_cam: np.ndarray, objects: Sequence[FrameObject]) -> dict:
    """A frame as `PreparedScannet.frames` reads it; masks as COCO's run lengths."""
    return {
        "name": name,
        "camera": camera_to_json(camera),
        "T_scan_cam": T_scan_cam.tolist(),
        "objects": [
            {
                "index": item.index, "box_xyxy": [float(v) for v in item.box_xyxy],
                "visible_share": item.visible_share, "mask": encode_mask(item.mask),
                "mask_box_xyxy": item.mask_box_xyxy and [float(v) for v in item.mask_box_xyxy],
            }
            for item in objects
        ],
    }  # fmt: skip


def encode_mask(mask: np.ndarray) -> dict:
    """(H, W) bool as COCO's run lengths, with text in place of bytes."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_mask(encoded: dict) -> np.ndarray:
    """The (H, W) bool mask of `encode_mask` or of ROCA's `segmentation`."""
    return coco_mask.decode(encoded).astype(bool)


def _frame_from_json(scene: str, entry: dict) -> PreparedFrame:
    objects = tuple(
        FrameObject(
            item["index"], tuple(item["box_xyxy"]), item["visible_share"], decode_mask(item["mask"]),
            item["mask_box_xyxy"] and tuple(item["mask_box_xyxy"]),
        )
        for item in entry["objects"]
    )  # fmt: skip
    camera = camera_from_json(entry["camera"], f"{scene}/{entry['name']}")
    return PreparedFrame(scene, entry["name"], camera, np.array(entry["T_scan_cam"]), objects)
