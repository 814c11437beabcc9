"""Benchmarks shared out among processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator

_runner = None  # of this worker process


def process_count(jobs: int, parts: int) -> int:
    """How many processes work on so many parts; jobs 0: one a core."""
    return min(jobs or os.cpu_count() or 1, parts)


def run_parts(load: Callable, arguments: tuple, parts: int, jobs: int, what: str = "aligning") -> Iterator:
    """What `load(*arguments).run(number)` gives for the numbers below `parts`, in their order, with a
    progress bar. `load`, a function or class of a module, is called once in each of the `jobs` processes."""
    from rich.progress import track

    with multiprocessing.get_context("spawn").Pool(jobs, _start, (load, arguments)) as pool:
        yield from track(pool.imap(_run, range(parts)), total=parts, description=what)


def _start(load: Callable, arguments: tuple) -> None:
    global _runner
    import torch

    torch.set_num_threads(1)
    _runner = load(*arguments)


def _run(number: int):
    return _runner.run(number)
