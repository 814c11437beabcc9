"""Which recorded frame is trained on when, and reading them ahead."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np


class FrameOrder:
    """Every epoch all frames, shuffled anew; `processes` processes share an epoch, this one being `rank`."""

    def __init__(self, frames: int, seed: int, rank: int = 0, processes: int = 1):
        self.frames, self.seed, self.rank, self.processes = frames, seed, rank, processes
        self._epochs: dict[int, np.ndarray] = {}

    def frame(self, image: int) -> int:
        """The number of the frame that is this process' image number `image`."""
        epoch, place = divmod(image * self.processes + self.rank, self.frames)
        if epoch not in self._epochs:
            if len(self._epochs) > 2:
                self._epochs.clear()
            self._epochs[epoch] = np.random.default_rng((self.seed, epoch)).permutation(self.frames)
        return int(self._epochs[epoch][place])


class FramesAhead:
    """Frames in an order, the next ones read by threads while the last ones are trained on."""

    def __init__(self, load: Callable[[int], object], order: FrameOrder, threads: int):
        self._load, self._order = load, order
        self._pool = ThreadPoolExecutor(threads, "frames")
        self._image = 0
        self._ahead: dict[int, Future] = {}

    def seek(self, images: int) -> None:
        """Go on behind so many images."""
        if images != self._image:
            for future in self._ahead.values():
                future.cancel()
            self._ahead.clear()
        self._image = images

    def take(self, images: int) -> tuple[list[int], list]:
        """The numbers of the next frames and what `load` makes of them; as many more are read ahead.

        Raises what `load` raises.
        """
        now, later = self._image, self._image + images
        for image in range(now, later + images):
            if image not in self._ahead:
                self._ahead[image] = self._pool.submit(self._load, self._order.frame(image))
        self._image = later
        loaded = [self._ahead.pop(image).result() for image in range(now, later)]
        return [self._order.frame(image) for image in range(now, later)], loaded
