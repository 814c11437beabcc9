"""Which inputs are silent, why sets do not come together, rates and throttled messages."""

import pytest

from sparc_ros.diagnostics import Throttle
from sparc_ros.input_monitor import InputMonitor, RateMeter

STALE_S = 5.0


@pytest.fixture
def monitor():
    inputs = {"image": ("/cam/image", "best_effort"), "depth": ("/cam/depth", "best_effort")}
    return InputMonitor(inputs, STALE_S, start_s=100.0)


def feed(monitor, first_s, last_s, depth_offset_s=0.0):
    """Both inputs at 10 Hz; stamps are the time, depth's shifted."""
    for tenth in range(int(first_s * 10), int(last_s * 10)):
        monitor.message("image", tenth / 10, tenth / 10)
        monitor.message("depth", tenth / 10 + depth_offset_s, tenth / 10)


def test_silence_from_the_start_is_told_once(monitor):
    assert monitor.news(104.9) == ((), ())
    silent, back = monitor.news(105.1)
    assert [(state.name, state.topic, state.qos) for state in silent] == [
        ("image", "/cam/image", "best_effort"),
        ("depth", "/cam/depth", "best_effort"),
    ]
    assert back == () and monitor.news(106.1) == ((), ())


def test_silence_is_told_again_after_messages_came(monitor):
    monitor.news(105.1)
    feed(monitor, 106, 107)
    silent, back = monitor.news(107.0)
    assert silent == () and [state.name for state in back] == ["image", "depth"]
    assert [len(states) for states in monitor.news(113.0)] == [2, 0]


def test_rates_and_ages(monitor):
    feed(monitor, 100, 110)
    state = monitor.states(110.0)[0]
    assert state.rate_hz == pytest.approx(10, abs=0.3)
    assert state.age_s == pytest.approx(0.1)
    assert monitor.states(130.0)[0].rate_hz == 0


def test_a_mismatch_names_the_topic_and_the_offset(monitor):
    feed(monitor, 100, 106, depth_offset_s=12.5)
    text = monitor.mismatch(106.0)
    assert "depth" in text and "/cam/depth" in text and "+12.500 s" in text and "sync_slop_s" in text


def test_no_mismatch_when_sets_come_or_an_input_is_silent(monitor):
    feed(monitor, 100, 106)
    monitor.complete_set(105.9)
    assert monitor.mismatch(106.0) is None
    assert monitor.mismatch(120.0) is None  # silent: that is another message


def test_rate_meter_in_its_first_second_does_not_exaggerate():
    meter = RateMeter()
    meter.tick(0.0)
    assert meter.rate_hz(0.001) == 1.0


def test_a_lasting_fault_is_told_once_and_again_after_a_quiet_period():
    throttle = Throttle(10.0)
    assert throttle.allows("a", 0.0) and throttle.allows("b", 1.0)
    assert not throttle.allows("a", 9.0) and not throttle.allows("a", 18.0)
    assert throttle.allows("b", 11.0) and not throttle.allows("a", 27.9)
    assert throttle.allows("a", 37.9)
