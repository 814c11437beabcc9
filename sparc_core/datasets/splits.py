"""Lists of scenes, such as `scannetv2_train.txt`: which scenes of a prepared tree are trained on."""

from __future__ import annotations

from pathlib import Path

from sparc_core.datasets.prepared import PreparedScannet


def read_scene_list(path: Path) -> list[str]:
    """The scenes of a text file, one a line, each once. Raises FileNotFoundError, or ValueError for none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path}: expected one scene a line, got none")
    return list(dict.fromkeys(names))


def split_scenes(
    dataset: PreparedScannet, train: Path | None, validation: Path, keep_going: bool = False
) -> tuple[list[str], list[str], list[str]]:
    """Scenes to train on (train None: all that are not validated on), scenes to validate on, and those of
    the lists that are not prepared.

    Raises ValueError for scenes that are not prepared unless keep_going, for a list of which nothing is
    left, and for a room on both sides: scene0000_00 and scene0000_01 are scans of one room.
    """
    lists = {path: read_scene_list(path) for path in (train, validation) if path is not None}
    unknown = []
    for path, names in lists.items():
        missing = [name for name in names if name not in dataset.scenes]
        if missing and not keep_going:
            raise ValueError(
                f"{path}: {len(missing)} of its {len(names)} scenes are not in {dataset.folder}, e.g. "
                f"{missing[0]} (--keep-going leaves them out)"
            )
        unknown += missing
        lists[path] = [name for name in names if name in dataset.scenes]
        if not lists[path]:
            raise ValueError(f"{path}: none of its scenes is in {dataset.folder}")
    rooms = {_room(name) for name in lists[validation]}
    if train is None:
        trained = [name for name in dataset.scenes if _room(name) not in rooms]
    else:
        trained = lists[train]
    both = sorted(name for name in trained if _room(name) in rooms)
    if both:
        raise ValueError(f"{train}: {both[0]} is a room of {validation} as well")
    return trained, lists[validation], unknown


def _room(scene: str) -> str:
    return scene.split("_")[0]
