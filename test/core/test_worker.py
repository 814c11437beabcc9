"""The inference thread: the newest job wins, a failure is reported and survived, stopping is quick."""

import threading
import time

import pytest

from sparc_ros.worker import LatestJobWorker, WorkerCounts

DEADLINE_S = 5.0


class Recorder:
    """A `process` that can be held, and both callbacks' records."""

    def __init__(self):
        self.done, self.failures = [], []
        self.started, self.go = threading.Event(), threading.Event()
        self.go.set()

    def process(self, job):
        self.started.set()
        assert self.go.wait(DEADLINE_S)
        if isinstance(job, Exception):
            raise job
        self.done.append(job)

    def fail(self, job, error):
        self.failures.append((job, error))

    def wait_for(self, condition):
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, (self.done, self.failures)
            time.sleep(0.002)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def worker(recorder):
    worker = LatestJobWorker(recorder.process, recorder.fail)
    yield worker
    recorder.go.set()
    assert worker.stop()


def test_the_newest_job_replaces_the_waiting_one(recorder, worker):
    recorder.go.clear()
    assert not worker.submit("first")
    assert recorder.started.wait(DEADLINE_S)  # it runs: nothing waits
    assert not worker.submit("second")
    assert worker.submit("third")
    assert worker.submit("fourth")
    recorder.go.set()
    recorder.wait_for(lambda: len(recorder.done) == 2)
    assert recorder.done == ["first", "fourth"]
    assert worker.counts == WorkerCounts(submitted=4, finished=2, dropped=2, failed=0)


def test_a_failure_is_reported_and_the_next_job_runs(recorder, worker):
    broken = ValueError("broken frame")
    worker.submit(broken)
    recorder.wait_for(lambda: recorder.failures)
    worker.submit("good")
    recorder.wait_for(lambda: recorder.done == ["good"])
    assert recorder.failures == [(broken, broken)]
    recorder.wait_for(lambda: worker.counts == WorkerCounts(submitted=2, finished=1, failed=1))


def test_stop_drops_what_waits_and_refuses_more(recorder):
    worker = LatestJobWorker(recorder.process, recorder.fail)
    recorder.go.clear()
    worker.submit("running")
    assert recorder.started.wait(DEADLINE_S)
    worker.submit("waiting")
    threading.Timer(0.1, recorder.go.set).start()
    assert worker.stop(DEADLINE_S)
    assert recorder.done == ["running"]
    assert worker.counts.dropped == 1
    with pytest.raises(RuntimeError, match="after stop"):
        worker.submit("late")


def test_stop_does_not_wait_for_a_job_that_hangs(recorder):
    worker = LatestJobWorker(recorder.process, recorder.fail)
    recorder.go.clear()
    worker.submit("hangs")
    assert recorder.started.wait(DEADLINE_S)
    start = time.monotonic()
    assert not worker.stop(0.2)
    assert time.monotonic() - start < 1.0
    recorder.go.set()
    assert worker.stop()


def test_none_is_no_job(worker):
    with pytest.raises(TypeError, match="job"):
        worker.submit(None)


def test_calls_run_in_the_thread_between_jobs(recorder, worker):
    recorder.go.clear()
    worker.submit("first")
    assert recorder.started.wait(DEADLINE_S)
    worker.submit("second")
    assert not worker.idle
    done = worker.call(lambda: (threading.current_thread().name, list(recorder.done)))
    failing = worker.call(lambda: [][1])
    recorder.go.set()
    assert done.result(DEADLINE_S) == ("sparc_inference", ["first"])
    with pytest.raises(IndexError):
        failing.result(DEADLINE_S)
    recorder.wait_for(lambda: worker.idle)
    assert recorder.done == ["first", "second"]


def test_calls_that_come_too_late_are_cancelled(recorder):
    worker = LatestJobWorker(recorder.process, recorder.fail)
    recorder.go.clear()
    worker.submit("running")
    assert recorder.started.wait(DEADLINE_S)
    waiting = worker.call(lambda: 1)
    threading.Timer(0.1, recorder.go.set).start()
    assert worker.stop(DEADLINE_S)
    assert waiting.cancelled() and worker.call(lambda: 1).cancelled()
