"""One inference thread in which the newest frame replaces the one that waits.

Knows nothing about ROS or images: it is given a function and jobs. The node's callbacks only hand a
frame over and return, so the executor never waits for the network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerCounts:
    """How many jobs were submitted, finished, replaced while waiting, and failed."""

    submitted: int = 0
    finished: int = 0
    dropped: int = 0
    failed: int = 0


class LatestJobWorker[Job]:
    """Runs `process(job)` in one thread; at most one job waits, and a newer one takes its place.

    `on_failure(job, error)` is called in the same thread when `process` raises; the worker goes on
    with the next job. Neither function may block for ever.
    """

    def __init__(
        self,
        process: Callable[[Job], None],
        on_failure: Callable[[Job, Exception], None],
        name: str = "sparc_inference",
    ):
        self._process = process
        self._on_failure = on_failure
        self._condition = threading.Condition()
        self._waiting: Job | None = None
        self._stopping = False
        self._counts = WorkerCounts()
        # A daemon, so that a forward pass that outlives `stop` cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def counts(self) -> WorkerCounts:
        """The counts so far."""
        with self._condition:
            return self._counts

    def submit(self, job: Job) -> bool:
        """Hand over a job; returns True when it replaced one that was still waiting.

        Raises RuntimeError after `stop`.
        """
        if job is None:
            raise TypeError("job must not be None")
        with self._condition:
            if self._stopping:
                raise RuntimeError("submit was called after stop")
            replaced = self._waiting is not None
            self._waiting = job
            self._count(submitted=1, dropped=int(replaced))
            self._condition.notify()
            return replaced

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End the thread after the running job; the waiting one is dropped. True when it has ended."""
        with self._condition:
            self._stopping = True
            if self._waiting is not None:
                self._waiting = None
                self._count(dropped=1)
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._waiting is None and not self._stopping:
                    self._condition.wait()
                if self._stopping:
                    return
                job, self._waiting = self._waiting, None
            try:
                self._process(job)
            except Exception as error:  # the one place where a frame's failure ends: reported, not fatal
                with self._condition:
                    self._count(failed=1)
                self._on_failure(job, error)
            else:
                with self._condition:
                    self._count(finished=1)

    def _count(self, submitted: int = 0, finished: int = 0, dropped: int = 0, failed: int = 0) -> None:
        now = self._counts
        self._counts = WorkerCounts(
            now.submitted + submitted, now.finished + finished, now.dropped + dropped, now.failed + failed
        )
