"""Checking a tree of ScanNet25k, Scan2CAD and ShapeNet, and turning it once into the fast layout.

`check_tree` lists everything that is missing before any work is done. `convert_cad` keeps a CAD file as
arrays. `convert_scene` writes one scene: images and depth at 480 × 360, cameras, and the rendered truth of
every frame; `scene.json` comes last, so a scene that has one is finished, and a run that was cut off goes on
with the next.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from sparc_core.datasets.poses import CadBox, rigid_inverse
from sparc_core.datasets.prepared import LAYOUT_VERSION, cad_path, frame_to_json
from sparc_core.datasets.scan2cad import Annotations, CadKey, compare_appearances, read_annotations
from sparc_core.datasets.scannet import (
    MM_PER_M,
    fit_camera,
    fit_depth,
    fit_image,
    list_scene,
    read_intrinsics,
    read_pose,
)
from sparc_core.datasets.shapenet import (
    CadFile,
    CadMesh,
    model_path,
    read_arrays,
    read_cad_file,
    write_arrays,
)
from sparc_core.datasets.truth import PosedMesh, frame_truth
from sparc_core.files.images import read_depth, read_image

FRAME_FOLDERS = ("", "tasks/scannet_frames_25k", "scannet_frames_25k")
BOX_TOLERANCE = 0.01  # of the diagonal: how far a CAD file's box may be from the annotated one
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Sources:
    """Where the data are: ScanNet25k's folder, Scan2CAD's folder, ShapeNetCore.v2, and a text file with one
    scene a line (None: every scene that has frames and annotations). depth: whether there are depth images.

    Raises ValueError naming a folder or file that is not there.
    """

    frames: Path
    scan2cad: Path
    shapenet: Path
    scenes: Path | None = None
    depth: bool = True

    def __post_init__(self):
        for name in ("frames", "scan2cad", "shapenet"):
            if not getattr(self, name).is_dir():
                raise ValueError(f"{name}: {getattr(self, name)} is not a folder")
        for path in (self.annotations, self.scenes):
            if path is not None and not path.is_file():
                raise ValueError(f"{path}: no such file")

    @property
    def annotations(self) -> Path:
        """Scan2CAD's file with the alignments."""
        return self.scan2cad / "full_annotations.json"

    @property
    def frame_root(self) -> Path:
        """The folder that holds the scenes, in ScanNet's zip below tasks/scannet_frames_25k."""
        for name in FRAME_FOLDERS:
            if any((self.frames / name).glob("scene*")):
                return self.frames / name
        raise ValueError(f"{self.frames}: expected scene folders in it or below tasks/scannet_frames_25k")


@dataclass(eq=False)
class Tree:
    """What a tree holds. scenes: those to convert, with their complete frames; cad: ShapeNet's files by key;
    metres_per_unit: the size of each category's files; missing: what is not there, by kind; notes: what is
    odd but can be worked with."""

    sources: Sources
    annotations: Annotations
    scenes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cad: dict[CadKey, Path] = field(default_factory=dict)
    metres_per_unit: dict[str, float] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)


def check_tree(sources: Sources) -> Tree:
    """Look for every file that will be needed.

    Raises ValueError or FileNotFoundError for files that are malformed or without which nothing can be said.
    """
    everything = read_annotations(sources.annotations)
    wanted = _wanted_scenes(sources, everything)
    tree = Tree(sources, everything.only(s for s in wanted if s in everything.scenes))
    tree.notes += everything.notes
    unlabelled = len(wanted) - len(tree.annotations.scenes)
    if unlabelled:
        tree.notes.append(f"{unlabelled} scenes of the list have no Scan2CAD annotation and are left out")
    _check_frames(tree)
    appearances = sources.scan2cad / "cad_appearances.json"
    if appearances.is_file():
        tree.notes += compare_appearances(appearances, tree.annotations)
    _check_cad(tree)
    tree.metres_per_unit = _metres_per_unit(everything, set(wanted))
    return tree


def _wanted_scenes(sources: Sources, annotations: Annotations) -> list[str]:
    if sources.scenes is None:
        return [s for s in annotations.scenes if (sources.frame_root / s).is_dir()]
    names = [line.strip() for line in sources.scenes.read_text().splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{sources.scenes}: expected one scene a line, got none")
    return list(dict.fromkeys(names))


def _check_frames(tree: Tree) -> None:
    root = tree.sources.frame_root
    for scene in tree.annotations.scenes:
        if not (root / scene).is_dir():
            tree.missing["scenes"].append(f"{root / scene}: no such folder")
            continue
        listed = list_scene(root / scene, tree.sources.depth)
        tree.missing["frames"] += listed.problems
        if listed.frames and all("intrinsics" not in problem for problem in listed.problems):
            tree.scenes[scene] = listed.frames


def _check_cad(tree: Tree) -> None:
    for synset, cad_id in sorted({item.key for objs in tree.annotations.scenes.values() for item in objs}):
        path = model_path(tree.sources.shapenet, synset, cad_id)
        if path.is_file():
            tree.cad[synset, cad_id] = path
        else:
            tree.missing["CAD models"].append(f"{path}: no such file")


def convert_cad(source: Path, key: CadKey, out: Path) -> str | None:
    """Keep a CAD file as arrays, unless it is there already; what was wrong with it, or None."""
    path = cad_path(out, key)
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_arrays(read_cad_file(source), path)
    except ValueError as error:
        return str(error)
    return None


def collect_cad(tree: Tree, out: Path) -> dict[CadKey, CadFile]:
    """The CAD models that were converted; boxes that are not the annotated ones become notes of the tree."""
    found = {}
    for key, source in tree.cad.items():
        if not cad_path(out, key).exists():
            continue
        info, box = tree.annotations.cad[key], read_arrays(cad_path(out, key)).box
        if _differ(box, info.box):
            tree.notes.append(f"{source}: its box is not the annotated one; is it ShapeNetCore.v2?")
        metres = tree.metres_per_unit[info.category]
        found[key] = CadFile(cad_path(out, key), *key, info.category, info.symmetry, box, metres)
    return found


def _differ(box: CadBox, annotated: CadBox) -> bool:
    tolerance = BOX_TOLERANCE * np.linalg.norm(annotated.extents)
    gaps = np.abs(box.centre - annotated.centre).max(), np.abs(box.extents - annotated.extents).max()
    return max(gaps) > tolerance


def _metres_per_unit(annotations: Annotations, held_out: set[str]) -> dict[str, float]:
    """The size of a category's CAD files: the median factor of the annotations of the other scenes.

    The scenes to be measured on must not tell it. Where no other scene knows a category, it is the median
    of all categories there, and 1 when nothing else is annotated at all.
    """
    factors = defaultdict(list)
    for scene, objects in annotations.scenes.items():
        if scene not in held_out:
            for item in objects:
                factors[item.category].append(float(np.prod(item.pose.s)) ** (1 / 3))
    known = [value for values in factors.values() for value in values]
    default = float(np.median(known)) if known else 1.0
    categories = {info.category for info in annotations.cad.values()}
    return {c: float(np.median(factors[c])) if factors[c] else default for c in categories}


def claim_folder(tree: Tree, out: Path) -> None:
    """Write `dataset.json`. Raises ValueError when the folder holds data of other sources."""
    out.mkdir(parents=True, exist_ok=True)
    sources = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in vars(tree.sources).items()}
    header = {"version": LAYOUT_VERSION, "sources": sources, "scenes": sorted(tree.scenes)}
    path = out / "dataset.json"
    if path.exists():
        before = json.loads(path.read_text())
        changed = [k for k in ("version", "sources") if before.get(k) != header[k]]
        if changed:
            raise ValueError(
                f"{out} was prepared otherwise ({', '.join(changed)} differ): "
                "choose another folder or remove it"
            )
    write_json(path, header)


def write_common(tree: Tree, cad: dict[CadKey, CadFile], out: Path) -> None:
    """`cad.json` and `annotations.json`: what the scenes have in common."""
    entries = {
        file.model_id: {
            "synset": file.synset, "cad_id": file.cad_id,
            "category": file.category, "symmetry": file.symmetry, "centre": file.box.centre.tolist(),
            "extents": file.box.extents.tolist(), "metres_per_unit": file.metres_per_unit,
        }
        for file in cad.values()
    }  # fmt: skip
    kept = [e for e in json.loads(tree.sources.annotations.read_text()) if e["id_scan"] in tree.scenes]
    write_json(out / "cad.json", entries)
    write_json(out / "annotations.json", kept)


def convert_scene(tree: Tree, scene: str, out: Path) -> int:
    """Write one scene; returns the number of frames, or 0 when it was there already."""
    folder = out / "scenes" / scene
    if (folder / "scene.json").exists():
        return 0
    for name in ("color", *(["depth"] if tree.sources.depth else [])):
        (folder / name).mkdir(parents=True, exist_ok=True)
    meshes = _scene_meshes(tree, scene, out)
    frames, skipped = [], []
    for name in tree.scenes[scene]:
        source = tree.sources.frame_root / scene
        T_scan_cam = read_pose(source / "pose" / f"{name}.txt")
        if T_scan_cam is None:
            skipped.append([name, "ScanNet has no pose for it"])
            continue
        camera, depth_m = _convert_frame(source, name, folder, tree.sources.depth)
        T_cam_scan = rigid_inverse(T_scan_cam)
        posed = [
            None if mesh is None else PosedMesh(mesh, item.pose.moved(T_cam_scan))
            for mesh, item in zip(meshes, tree.annotations.scenes[scene], strict=True)
        ]
        frames.append(frame_to_json(name, camera, T_scan_cam, frame_truth(posed, camera, depth_m)))
    write_json(folder / "scene.json", {"scene": scene, "frames": frames, "skipped": skipped})
    return len(frames)


def _scene_meshes(tree: Tree, scene: str, out: Path) -> list[CadMesh | None]:
    """The mesh of every annotated object, None where the CAD file is missing."""
    paths = {item.key: cad_path(out, item.key) for item in tree.annotations.scenes[scene]}
    read = {key: read_arrays(path) for key, path in paths.items() if path.exists()}
    return [read.get(item.key) for item in tree.annotations.scenes[scene]]


def _convert_frame(source: Path, name: str, folder: Path, with_depth: bool):
    """Write image and depth of a frame at 480 × 360; returns its camera and depth in metres or None."""
    image = read_image(source / "color" / f"{name}.jpg")
    height, width = image.shape[:2]
    camera = fit_camera(read_intrinsics(source / "intrinsics_color.txt", width, height))
    bgr = cv2.cvtColor(fit_image(image), cv2.COLOR_RGB2BGR)
    _write_image(folder / "color" / f"{name}.jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not with_depth:
        return camera, None
    depth_m = read_depth(source / "depth" / f"{name}.png", MM_PER_M)
    depth_camera = read_intrinsics(source / "intrinsics_depth.txt", depth_m.shape[1], depth_m.shape[0])
    depth_m = fit_depth(depth_m, depth_camera, camera)
    _write_image(folder / "depth" / f"{name}.png", np.rint(depth_m * MM_PER_M).astype(np.uint16), [])
    return camera, depth_m


def _write_image(path: Path, pixels: np.ndarray, options: list[int]) -> None:
    if not cv2.imwrite(str(path), pixels, options):
        raise OSError(f"{path}: could not be written")


def write_json(path: Path, content) -> None:
    """Write a JSON file in one piece: a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)


def unfinished(scenes: Iterable[str], out: Path) -> list[str]:
    """The scenes that a run has still to convert."""
    return [scene for scene in scenes if not (out / "scenes" / scene / "scene.json").exists()]
