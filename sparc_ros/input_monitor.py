"""Watches the inputs: what came when, what is silent, and why no complete set of inputs comes together.

Times are passed in, so nothing here needs ROS or a clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RATE_WINDOW_S = 5.0


class RateMeter:
    """Events in the last seconds."""

    def __init__(self, window_s: float = RATE_WINDOW_S):
        self._window_s = window_s
        self._times: deque[float] = deque(maxlen=2000)
        self._first_s: float | None = None

    def tick(self, now_s: float) -> None:
        """Count one event."""
        self._times.append(now_s)
        if self._first_s is None:
            self._first_s = now_s

    def rate_hz(self, now_s: float) -> float:
        """Events a second over the window, or since the first event while that is shorter."""
        if self._first_s is None:
            return 0.0
        span_s = min(self._window_s, max(now_s - self._first_s, 1.0))
        return sum(time_s > now_s - span_s for time_s in self._times) / span_s


@dataclass(frozen=True)
class InputState:
    """One input at one moment. age_s and stamp_s are None before the first message."""

    name: str
    topic: str
    qos: str
    rate_hz: float
    age_s: float | None
    stamp_s: float | None
    silent: bool


class InputMonitor:
    """Keeps the arrival times of each input and of complete sets.

    inputs: name -> (topic, QoS in words). An input is silent when nothing came for `stale_s`, counted
    from `start_s` at first.
    """

    def __init__(self, inputs: dict[str, tuple[str, str]], stale_s: float, start_s: float):
        self._inputs = inputs
        self._stale_s = stale_s
        self._meters = {name: RateMeter() for name in inputs}
        self._counts = dict.fromkeys(inputs, 0)
        self._last_arrival_s: dict[str, float] = {}
        self._last_stamp_s: dict[str, float] = {}
        self._start_s = start_s
        self._last_set_s = start_s
        self._told_silent: set[str] = set()

    @property
    def topics(self) -> tuple[str, ...]:
        """The inputs' topics."""
        return tuple(topic for topic, _ in self._inputs.values())

    def count(self, topic: str) -> int:
        """Messages that arrived on a topic so far."""
        return sum(self._counts[name] for name, (own, _) in self._inputs.items() if own == topic)

    def message(self, name: str, stamp_s: float, now_s: float) -> None:
        """A message arrived on an input."""
        self._meters[name].tick(now_s)
        self._counts[name] += 1
        self._last_arrival_s[name] = now_s
        self._last_stamp_s[name] = stamp_s

    def complete_set(self, now_s: float) -> None:
        """One message of every input fitted together."""
        self._last_set_s = now_s

    def states(self, now_s: float) -> tuple[InputState, ...]:
        """Every input as it is now."""
        states = []
        for name, (topic, qos) in self._inputs.items():
            last_s = self._last_arrival_s.get(name)
            since_s = now_s - (self._start_s if last_s is None else last_s)
            states.append(
                InputState(
                    name=name,
                    topic=topic,
                    qos=qos,
                    rate_hz=self._meters[name].rate_hz(now_s),
                    age_s=None if last_s is None else now_s - last_s,
                    stamp_s=self._last_stamp_s.get(name),
                    silent=since_s > self._stale_s,
                )
            )
        return tuple(states)

    def news(self, now_s: float) -> tuple[tuple[InputState, ...], tuple[InputState, ...]]:
        """(inputs that fell silent, inputs that came back) since the last call: each is told once."""
        states = self.states(now_s)
        fallen = tuple(state for state in states if state.silent and state.name not in self._told_silent)
        back = tuple(state for state in states if not state.silent and state.name in self._told_silent)
        self._told_silent = {state.name for state in states if state.silent}
        return fallen, back

    def mismatch(self, now_s: float) -> str | None:
        """Why no set is complete although every input is alive; None when all is well.

        Names the input whose newest stamp is furthest from the image's.
        """
        states = self.states(now_s)
        if now_s - self._last_set_s <= self._stale_s or any(s.silent or s.stamp_s is None for s in states):
            return None
        image, others = states[0], states[1:]
        if not others:
            return None
        worst = max(others, key=lambda state: abs(state.stamp_s - image.stamp_s))
        offset_s = worst.stamp_s - image.stamp_s
        return (
            f"no inputs with matching stamps for {now_s - self._last_set_s:.0f} s: the newest {worst.name} "
            f"on {worst.topic} is {offset_s:+.3f} s from the newest image on {image.topic} "
            "(see sync, sync_slop_s and sync_queue_size)"
        )
