"""Contact sheets of the benchmarks with pictures, as files."""

from __future__ import annotations

from pathlib import Path

import cv2


def write_contact_sheet(objects: list[dict], pictures, library, path: Path) -> bool:
    """Best, median and worst cases of a method's records into an image file; False when there is none to
    show. pictures: the `PicturedRooms` that the records are of."""
    from sparc_core.evaluation.contact_sheet import choose_cases, draw_contact_sheet

    cases = choose_cases(objects)
    if not any(cases.values()):
        return False

    def picture_of(number: int):
        taken = pictures.take(number)
        return taken.picture.rgb, taken.room.camera

    cv2.imwrite(str(path), draw_contact_sheet(cases, picture_of, library)[..., ::-1])
    return True
