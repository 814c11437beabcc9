"""What /diagnostics says: inputs, inference and the CAD library, once a second.

`FrameLog` collects in the worker thread and is read by the node's timer; `diagnostic_array` turns
what is known into a message.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from sparc_ros.frame import FrameResult, FrameWarning
from sparc_ros.input_monitor import InputMonitor, RateMeter
from sparc_ros.worker import WorkerCounts

LATENCY_WINDOW = 100


@dataclass(frozen=True)
class InferenceState:
    """What the log knows at one moment. `failing`: the newest frame failed with `last_error`."""

    rate_hz: float
    objects: int
    tracks: int
    latency_ms: dict[str, tuple[float, float]]
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

    def result(self, result: FrameResult, timing_ms: dict[str, float], now_s: float) -> None:
        """A frame was published."""
        with self._lock:
            self._rate.tick(now_s)
            for stage, value in timing_ms.items():
                self._timings.setdefault(stage, deque(maxlen=LATENCY_WINDOW)).append(value)
            self._warnings = result.warnings
            self._counts = (len(result.objects), len(result.update.tracks))
            self._failing = False
            self._last_result_s = now_s

    def error(self, text: str, now_s: float) -> None:
        """A frame failed."""
        with self._lock:
            self._failing = True
            self._error = (text, now_s)

    def state(self, now_s: float) -> InferenceState:
        """Everything as it is now; latencies as (mean, largest) of the last frames."""
        with self._lock:
            latency_ms = {
                stage: (sum(values) / len(values), max(values)) for stage, values in self._timings.items()
            }
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


class Throttle:
    """Lets a message through when the same key was not let through in the last `period_s`.

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
            recent = {k: told_s for k, told_s in self._last_s.items() if now_s - told_s < self._period_s}
            self._last_s = {key: now_s} | recent
            return key not in recent


def diagnostic_array(
    stamp,
    node_name: str,
    monitor: InputMonitor,
    inference: InferenceState,
    counts: WorkerCounts,
    library,
    backends: dict[str, str],
    now_s: float,
):
    """diagnostic_msgs/DiagnosticArray with one status each for inputs, inference and CAD library."""
    from diagnostic_msgs.msg import DiagnosticArray

    array = DiagnosticArray()
    array.header.stamp = stamp
    array.status = [
        _status(f"{node_name}: inputs", *_inputs(monitor, now_s)),
        _status(f"{node_name}: inference", *_inference(inference, counts, backends)),
        _status(f"{node_name}: cad library", *_library(library)),
    ]
    return array


def _status(name: str, level: str, message: str, values: dict[str, str]):
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

    levels = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=levels[level], name=name, message=message, hardware_id="sparc_ros", values=pairs
    )


def _inputs(monitor: InputMonitor, now_s: float):
    states = monitor.states(now_s)
    values = {}
    for state in states:
        age = "never" if state.age_s is None else f"{state.age_s:.2f} s ago"
        values[state.name] = f"{state.topic}: {state.rate_hz:.1f} Hz, last {age} ({state.qos})"
    silent = [f"{state.name} on {state.topic} ({state.qos})" for state in states if state.silent]
    if silent:
        return "warn", f"no messages: {'; '.join(silent)}", values
    mismatch = monitor.mismatch(now_s)
    if mismatch:
        return "error", mismatch, values
    return "ok", "all inputs arrive", values


def _inference(state: InferenceState, counts: WorkerCounts, backends: dict[str, str]):
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
    for stage, (mean, largest) in state.latency_ms.items():
        values[f"{stage} ms"] = f"mean {mean:.1f}, max {largest:.1f}"
    values |= backends
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
