"""What /diagnostics says: the node's state, inputs, inference and the CAD library, once a second.

`FrameLog` collects in the worker thread and is read by the node's timer; the functions turn what is known
into a status each.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sparc_ros.frame import FrameResult, FrameWarning
from sparc_ros.input_monitor import InputMonitor, InputState, RateMeter
from sparc_ros.worker import WorkerCounts

LATENCY_WINDOW = 100


@dataclass(frozen=True)
class InferenceState:
    """What the log knows at one moment. `failing`: the newest frame failed with `last_error`.

    latency_ms: (median, 95th percentile, largest) of the last frames, by stage.
    """

    rate_hz: float
    objects: int
    tracks: int
    latency_ms: dict[str, tuple[float, float, float]]
    warnings: tuple[FrameWarning, ...]
    failing: bool
    last_error: str | None
    last_error_age_s: float | None
    last_result_age_s: float | None


class FrameLog:
    """Remembers the last frames' latencies, warnings and errors. Safe between threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._rate = RateMeter()
        self._timings: dict[str, deque[float]] = {}
        self._warnings: tuple[FrameWarning, ...] = ()
        self._counts = (0, 0)
        self._failing = False
        self._error: tuple[str, float] | None = None
        self._last_result_s: float | None = None

    def result(self, result: FrameResult, timing_ms: dict[str, float], now_s: float) -> bool:
        """A frame was published; returns whether the one before had failed."""
        with self._lock:
            recovered = self._failing
            self._rate.tick(now_s)
            for stage, value in timing_ms.items():
                self._timings.setdefault(stage, deque(maxlen=LATENCY_WINDOW)).append(value)
            self._warnings = result.warnings
            self._counts = (len(result.objects), len(result.update.tracks))
            self._failing = False
            self._last_result_s = now_s
            return recovered

    def error(self, text: str, now_s: float) -> None:
        """A frame failed."""
        with self._lock:
            self._failing = True
            self._error = (text, now_s)

    def state(self, now_s: float) -> InferenceState:
        """Everything as it is now."""
        with self._lock:
            latency_ms = {stage: _spread(values) for stage, values in self._timings.items()}
            return InferenceState(
                rate_hz=self._rate.rate_hz(now_s),
                objects=self._counts[0],
                tracks=self._counts[1],
                latency_ms=latency_ms,
                warnings=self._warnings,
                failing=self._failing,
                last_error=self._error[0] if self._error else None,
                last_error_age_s=now_s - self._error[1] if self._error else None,
                last_result_age_s=None if self._last_result_s is None else now_s - self._last_result_s,
            )


def _spread(values: deque[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(0.5 * last)], ordered[round(0.95 * last)], ordered[last]


class Throttle:
    """Lets a message through when its key did not come in the last `period_s`: what lasts is told once.

    Safe between threads.
    """

    def __init__(self, period_s: float):
        self._period_s = period_s
        self._last_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def allows(self, key: str, now_s: float) -> bool:
        """Whether to say it now."""
        with self._lock:
            # Forget what may be said again anyway, so that ever-new texts do not pile up.
            recent = {k: came_s for k, came_s in self._last_s.items() if now_s - came_s < self._period_s}
            self._last_s = recent | {key: now_s}
            return key not in recent


def node_status(name: str, state: str, problem: str | None):
    """Status of the lifecycle; problem: why the last transition failed, or what the user should know."""
    level = "ok" if problem is None else "warn" if state == "active" else "error"
    return _status(f"{name}: node", level, f"{state}: {problem}" if problem else state, {"state": state})


def inputs_status(
    name: str, monitor: InputMonitor | None, why_silent: Callable[[InputState], str], now_s: float
):
    """Status of the inputs; monitor: None while the node is not active."""
    if monitor is None:
        return _status(f"{name}: inputs", "ok", "not subscribed: the node is not active", {})
    return _status(f"{name}: inputs", *_inputs(monitor, why_silent, now_s))


def inference_status(name: str, state: InferenceState, counts: WorkerCounts, more: dict[str, str]):
    """Status of the inference; more: further key-value pairs."""
    return _status(f"{name}: inference", *_inference(state, counts, more))


def library_status(name: str, library):
    """Status of the CAD library."""
    return _status(f"{name}: cad library", *_library(library))


def _status(name: str, level: str, message: str, values: dict[str, str]):
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

    levels = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=levels[level], name=name, message=message, hardware_id="sparc_ros", values=pairs
    )


def _inputs(monitor: InputMonitor, why_silent: Callable[[InputState], str], now_s: float):
    states = monitor.states(now_s)
    values = {}
    for state in states:
        age = "never" if state.age_s is None else f"{state.age_s:.2f} s ago"
        values[state.name] = f"{state.topic}: {state.rate_hz:.1f} Hz, last {age} ({state.qos})"
    silent = [
        f"{state.name} on {state.topic} ({state.qos}; {why_silent(state)})"
        for state in states
        if state.silent
    ]
    if silent:
        return "warn", f"no messages: {'; '.join(silent)}", values
    mismatch = monitor.mismatch(now_s)
    if mismatch:
        return "error", mismatch, values
    return "ok", "all inputs arrive", values


def _inference(state: InferenceState, counts: WorkerCounts, more: dict[str, str]):
    values = {
        "rate_hz": f"{state.rate_hz:.2f}",
        "objects": str(state.objects),
        "tracks": str(state.tracks),
        "frames received": str(counts.submitted),
        "frames done": str(counts.finished),
        "frames dropped for newer ones": str(counts.dropped),
        "frames failed": str(counts.failed),
        "last result": "never" if state.last_result_age_s is None else f"{state.last_result_age_s:.2f} s ago",
        "last error": state.last_error or "none",
    }
    if state.last_error_age_s is not None:
        values["last error age"] = f"{state.last_error_age_s:.2f} s"
    for stage, (median, late, largest) in state.latency_ms.items():
        values[f"{stage} ms"] = f"p50 {median:.1f}, p95 {late:.1f}, max {largest:.1f}"
    values |= more
    if state.failing:
        return "error", state.last_error, values
    if state.warnings:
        return "warn", "; ".join(warning.text for warning in state.warnings), values
    if state.last_result_age_s is None:
        return "ok", "waiting for the first complete set of inputs", values
    return "ok", f"{state.objects} objects at {state.rate_hz:.1f} Hz", values


def _library(library):
    values = {"models": str(len(library.models)), "categories": ", ".join(library.categories)}
    for path, reason in library.skipped[:20]:
        values[f"skipped {path}"] = reason
    if library.skipped:
        names = ", ".join(str(path) for path, _ in library.skipped[:3])
        return "warn", f"{len(library.skipped)} meshes could not be read and were skipped: {names}", values
    return "ok", f"{len(library.models)} models", values
