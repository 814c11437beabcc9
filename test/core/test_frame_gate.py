"""Which frames are aligned: rates, trigger mode, and requests for one frame."""

import numpy as np
import pytest

from sparc_core.types import AlignedObject
from sparc_ros.frame_gate import FrameGate
from sparc_ros.output_frame import in_output_frame


@pytest.fixture
def gate():
    return FrameGate()


def admitted(gate, rate_hz, max_rate_hz, seconds=10.0):
    times = np.arange(0, seconds, 1 / rate_hz)
    return sum(gate.admits(float(now_s), False, max_rate_hz) for now_s in times)


@pytest.mark.parametrize(
    ("rate_hz", "max_rate_hz", "expected"), [(30, 0, 300), (30, 20, 200), (30, 7, 70), (5, 20, 50)]
)
def test_the_rate_is_kept_also_where_it_does_not_divide_the_cameras(gate, rate_hz, max_rate_hz, expected):
    assert admitted(gate, rate_hz, max_rate_hz) == pytest.approx(expected, abs=2)


def test_a_pause_is_not_made_up_for(gate):
    admitted(gate, 30, 10, seconds=1.0)
    later = [gate.admits(100 + tick / 30, False, 10.0) for tick in range(30)]
    assert sum(later) <= 12


def test_trigger_mode_admits_one_frame_a_request(gate):
    outcomes = []
    assert not gate.admits(0.0, True, 0.0)
    gate.request(outcomes.append, 1.0)
    assert gate.admits(1.1, True, 0.0) and not gate.admits(1.2, True, 0.0)
    gate.finished(0.9, "an older frame")
    assert outcomes == []
    gate.finished(1.1, "the frame")
    gate.finished(1.2, "another frame")
    assert outcomes == ["the frame"]


def test_a_request_passes_the_rate_limit(gate):
    assert gate.admits(0.0, False, 0.1) and not gate.admits(1.0, False, 0.1)
    gate.request(lambda _: None, 1.5)
    assert gate.admits(2.0, False, 0.1)


def test_giving_up_answers_those_whose_frame_has_not_come(gate):
    outcomes = []
    gate.request(lambda outcome: outcomes.append(("first", outcome)), 1.0)
    assert gate.admits(1.5, True, 0.0)
    gate.request(lambda outcome: outcomes.append(("second", outcome)), 2.0)
    gate.give_up(1.9, "too late")
    assert outcomes == []  # the first is being worked on, the second is young
    gate.give_up(3.0, "too late")
    assert outcomes == [("second", "too late")]
    gate.give_up(3.0, "over", submitted=True)
    assert outcomes[1:] == [("first", "over")]


class Header:
    def __init__(self, stamp=7, frame_id="optical"):
        self.stamp, self.frame_id = stamp, frame_id


def test_objects_move_to_the_output_frame_and_keep_stamp_and_box():
    obj = AlignedObject(
        0,
        "chair",
        "chair_1",
        (1, 2, 3, 4),
        np.eye(3),
        np.array([1.0, 2.0, 3.0]),
        np.ones(3),
        0.5,
        "azimuth_0",
    )
    T = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], float)
    header, (moved,) = in_output_frame(Header(), [obj], T, "map")
    assert (header.stamp, header.frame_id, moved.box_xyxy) == (7, "map", obj.box_xyxy)
    np.testing.assert_allclose(moved.T_m, (8, 21, 33))
    np.testing.assert_allclose(moved.R, T[:3, :3])
    own = Header()
    assert in_output_frame(own, [obj], None, "") == (own, (obj,))
    with pytest.raises(ValueError, match="T_output_cam .*'map'"):
        in_output_frame(own, [obj], None, "map")
