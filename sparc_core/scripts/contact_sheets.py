"""Contact sheets of the benchmarks with pictures, as files."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import cv2

KEPT_PICTURES = 256  # about 1 MB each


def picture_source(pictures) -> Callable:
    """(image, camera) of a room's number, taken once: the same cases are hard for many methods. pictures:
    `PicturedRooms`."""

    @functools.lru_cache(KEPT_PICTURES)
    def picture_of(number: int):
        taken = pictures.take(number)
        return taken.picture.rgb, taken.room.camera

    return picture_of


def file_stem(name: str) -> str:
    """The name of a track or method as part of a file's name."""
    return re.sub(r"[^\w.()+-]+", "_", name)


def write_contact_sheet(objects: list[dict], picture_of: Callable, library, path: Path) -> bool:
    """Best, median and worst cases of a method's records into an image file; False when there is none to
    show. picture_of: of the rooms that the records are of."""
    from sparc_core.evaluation.contact_sheet import choose_cases, draw_contact_sheet

    cases = choose_cases(objects)
    if not any(cases.values()):
        return False
    cv2.imwrite(str(path), draw_contact_sheet(cases, picture_of, library)[..., ::-1])
    return True
