"""Folders of images and video files: frame after frame, with the files that belong to each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sparc_core.files.detections import detections_from_json, read_detections
from sparc_core.files.fields import Fields, describe, require_file
from sparc_core.files.images import read_image
from sparc_core.types import Detection

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
DEPTH_SUFFIXES = (".png", ".npy", ".exr", ".tif", ".tiff")
SAME_S = 0.02  # files of one frame whose names are stamps may differ by this


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One image of a sequence: its name (of the file, without the ending; of a video's frames the number as
    six digits), its time, and (H, W, 3) uint8 RGB."""

    name: str
    stamp_s: float
    image_rgb: np.ndarray


def is_sequence(path: Path) -> bool:
    """Whether a path is a folder, or named like a video, and not a single image."""
    return path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES


class ImageSequence:
    """The images of a folder in the order of their names, or of a video file.

    fps: images in a second, where neither the video nor the images' names tell (names that are numbers with a
    decimal point are stamps in seconds, as in TUM's dataset). every: only each n-th. `len` is the number of
    images, 0 when the video does not know. Raises FileNotFoundError or ValueError naming what was wrong.
    """

    def __init__(self, path: str | Path, fps: float | None = None, every: int = 1):
        self.path, self.fps, self.every = Path(path), fps, every
        if every < 1:
            raise ValueError(f"every: expected 1 or more, got {every}")
        if fps is not None and not fps > 0:
            raise ValueError(f"fps: expected a positive number, got {fps}")
        if self.path.is_dir():
            self._files = sorted(p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not self._files:
                raise ValueError(f"{path}: expected a folder with images, got none in it")
            self._count = len(self._files)
        else:
            require_file(self.path)
            self._files = None
            capture = self._open()
            self._count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            capture.release()

    def __len__(self) -> int:
        return -(-self._count // self.every)

    def __iter__(self) -> Iterator[VideoFrame]:
        return self._of_video() if self._files is None else self._of_folder()

    def _of_folder(self) -> Iterator[VideoFrame]:
        stamps = [stamp_of_name(file.stem) for file in self._files]
        if any(stamp is None for stamp in stamps):
            stamps = [i / (self.fps or 30.0) for i in range(len(self._files))]
        for file, stamp_s in list(zip(self._files, stamps, strict=True))[:: self.every]:
            yield VideoFrame(file.stem, stamp_s, read_image(file))

    def _of_video(self) -> Iterator[VideoFrame]:
        capture = self._open()
        fps = self.fps or capture.get(cv2.CAP_PROP_FPS) or 30.0
        number, stamp_s = 0, 0.0
        try:
            while True:
                there, image_bgr = capture.read()
                if not there:
                    break
                if number > 0:
                    told_s = 0.0 if self.fps else capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                    # Some containers have no times: then the frames are evenly spaced.
                    stamp_s = told_s if told_s > stamp_s else stamp_s + 1 / fps
                if number % self.every == 0:
                    yield VideoFrame(f"{number:06d}", stamp_s, cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB))
                number += 1
        finally:
            capture.release()
        if number == 0:
            raise ValueError(f"{self.path}: expected a video, got a file without a readable frame")

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        # The intrinsics belong to the pixels as they are stored.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        if not capture.isOpened():
            raise ValueError(
                f"{self.path}: expected a folder of images or a video, got a file OpenCV cannot open"
            )
        return capture


def stamp_of_name(stem: str) -> float | None:
    """The seconds in a file name like 1305031102.175304; None for other names."""
    whole, point, part = stem.partition(".")
    return float(stem) if point and whole.isdigit() and part.isdigit() else None


class FrameFiles:
    """The files of a folder that belong to the frames of a sequence: those with the frame's name, or, where
    names are stamps, with the nearest one within 20 ms. Raises ValueError naming a folder without such
    files."""

    def __init__(self, folder: str | Path, suffixes: tuple[str, ...], what: str):
        self.folder, self.what = Path(folder), what
        if not self.folder.is_dir():
            raise ValueError(f"{folder}: expected a folder of {what}, one file a frame")
        files = sorted(p for p in self.folder.iterdir() if p.suffix.lower() in suffixes)
        if not files:
            raise ValueError(f"{folder}: expected {what} ({', '.join(suffixes)}), got none in it")
        self._by_name = {file.stem: file for file in files}
        stamped = [(stamp, file) for file in files if (stamp := stamp_of_name(file.stem)) is not None]
        self._stamps_s = np.array([stamp for stamp, _ in stamped])
        self._stamped = [file for _, file in stamped]

    def of(self, frame: VideoFrame) -> Path:
        """The file of a frame; ValueError naming folder and frame when there is none."""
        if frame.name in self._by_name:
            return self._by_name[frame.name]
        if len(self._stamps_s):
            nearest = int(np.abs(self._stamps_s - frame.stamp_s).argmin())
            if abs(self._stamps_s[nearest] - frame.stamp_s) <= SAME_S:
                return self._stamped[nearest]
        raise ValueError(f"{self.folder}: expected {self.what} for frame {frame.name}, got none")


class SequenceDetections:
    """Detections of every frame: a folder of DETS.json files, one a frame, or a .jsonl file of lines
    {"frame": NAME, "detections": [as in DETS.json]}, in which a frame that is missing has none.

    Raises FileNotFoundError, or ValueError naming file, line and field.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lines: dict[str, tuple[Detection, ...]] | None = None
        self._files: FrameFiles | None = None
        if self.path.is_dir():
            self._files = FrameFiles(self.path, (".json",), "detections")
        elif self.path.suffix.lower() == ".jsonl":
            self._lines = _read_lines(self.path)
        else:
            require_file(self.path)
            raise ValueError(
                f"{path}: expected a folder with one DETS.json a frame, or a .jsonl file with a line a frame"
            )

    def of(self, frame: VideoFrame) -> tuple[Detection, ...]:
        """The detections of a frame."""
        if self._files is not None:
            return read_detections(self._files.of(frame))
        return self._lines.get(frame.name, ())


def _read_lines(path: Path) -> dict[str, tuple[Detection, ...]]:
    require_file(path)
    found: dict[str, tuple[Detection, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: expected JSON, got text with an error ({error.msg})") from error
        if not isinstance(content, dict):
            raise ValueError(f"{where}: expected an object {{…}}, got {describe(content)}")
        fields = Fields(content, where)
        fields.refuse_unknown(("frame", "detections"))
        name = fields.text("frame")
        if name in found:
            raise ValueError(f"{where}: frame {name!r} was in an earlier line already")
        found[name] = detections_from_json(fields.items("detections"), where, path.parent)
    return found
