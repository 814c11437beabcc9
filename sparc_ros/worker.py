"""One inference thread in which the newest frame replaces the one that waits.

Knows nothing about ROS or images: it is given a function and jobs. The node's callbacks only hand a
frame over and return, so the executor never waits for the network.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
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

    What `call` is given runs in the same thread, between two jobs.

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
        self._calls: deque[tuple[Future, Callable]] = deque()
        self._stopping, self._busy = False, False
        self._counts = WorkerCounts()
        # A daemon, so that a forward pass that outlives `stop` cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def counts(self) -> WorkerCounts:
        """The counts so far."""
        with self._condition:
            return self._counts

    @property
    def idle(self) -> bool:
        """Whether nothing is done and nothing waits."""
        with self._condition:
            return not (self._busy or self._calls or self._waiting is not None)

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

    def call[Result](self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function()` in the thread before the next job; cancelled when the thread is stopped before."""
        future: Future[Result] = Future()
        with self._condition:
            if self._stopping:
                future.cancel()
                return future
            self._calls.append((future, function))
            self._condition.notify()
        return future

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End the thread after the running job; what waits is dropped. True when the thread has ended."""
        with self._condition:
            self._stopping = True
            if self._waiting is not None:
                self._waiting = None
                self._count(dropped=1)
            dropped = list(self._calls)
            self._calls.clear()
            self._condition.notify()
        for future, _ in dropped:
            future.cancel()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                while self._waiting is None and not self._calls and not self._stopping:
                    self._condition.wait()
                if self._stopping:
                    return
                self._busy = True
                call = self._calls.popleft() if self._calls else None
                if call is None:
                    job, self._waiting = self._waiting, None
            if call is None:
                self._run_job(job)
            else:
                _run_call(*call)

    def _run_job(self, job: Job) -> None:
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


def _run_call(future: Future, function: Callable) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:  # it belongs to whoever asked
        future.set_exception(error)
