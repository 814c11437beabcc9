"""Which complete sets of inputs are aligned: all, at most so many a second, or those asked for.

Times are passed in, so nothing here needs ROS or a clock. Safe between threads: frames arrive in the
executor and are finished in the inference thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False)
class _Request:
    answer: Callable
    asked_s: float
    submitted: bool = False


class FrameGate:
    """Lets frames through by the parameters `trigger_mode` and `max_rate_hz`, and answers requests for one.

    A request is answered once, with the outcome of a frame that was complete after it was made.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._requests: list[_Request] = []
        self._next_s = float("-inf")

    def request(self, answer: Callable, now_s: float) -> None:
        """Ask for one frame; `answer(outcome)` is called when it is done."""
        with self._lock:
            self._requests.append(_Request(answer, now_s))

    def admits(self, now_s: float, trigger_mode: bool, max_rate_hz: float) -> bool:
        """Whether the frame that is complete now is to be aligned."""
        with self._lock:
            asked = [request for request in self._requests if not request.submitted]
            for request in asked:
                request.submitted = True
            if asked or (not trigger_mode and (max_rate_hz <= 0 or now_s >= self._next_s)):
                if max_rate_hz > 0:
                    # Counted from when it was due: rates that do not divide the camera's are kept as well.
                    period_s = 1 / max_rate_hz
                    self._next_s = max(self._next_s + period_s, now_s + period_s / 2)
                return True
            return False

    def finished(self, arrived_s: float, outcome) -> None:
        """The frame that was complete at `arrived_s` is done: answer those who asked before."""
        with self._lock:
            answered = [request for request in self._requests if request.asked_s <= arrived_s]
            self._requests = [request for request in self._requests if request.asked_s > arrived_s]
        for request in answered:
            request.answer(outcome)

    def give_up(self, asked_before_s: float, outcome, submitted: bool = False) -> None:
        """Answer requests made before a time whose frame has not come, or with `submitted` all of them."""

        def is_over(request: _Request) -> bool:
            return request.asked_s < asked_before_s and (submitted or not request.submitted)

        with self._lock:
            over = [request for request in self._requests if is_over(request)]
            self._requests = [request for request in self._requests if not is_over(request)]
        for request in over:
            request.answer(outcome)
