"""A long run of the align node at 30 Hz, with faults: memory, what it says, and how soon it works again.

    ./run python benchmarks/ros_soak.py --minutes 30 --out benchmarks/results/ros_soak

The faults of `ros_faults.py` come in turn, twice, with good input in between. After each the node must have
told it in its log once and in /diagnostics, and answer again within two seconds of good input; Ctrl-C at the
end must end it with status 0 within two seconds. What a kind of fault needs when it comes first, it has after
the first half of the run: memory is flat when the second half grows by less than 2 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from faulty_node import NO_NETWORK
from ros_camera import BenchCamera, NodeProcess, Picture
from ros_faults import FAULTS, Scene, write_cad_folder

from sparc_core.evaluation.machine import describe_machine

HERE = Path(__file__).parent
START_TIMEOUT_S = 180.0
RECOVERY_S = 2.0
END_S = 2.0
FLAT = 0.02
ONCE = "GPU error"
PAUSE_S = 12.0  # longer than the node keeps quiet about a fault that it has told


class Soak:
    """The run: publishes, samples the memory once a second, makes faults."""

    def __init__(self, folder: Path, rate_hz: float, network: bool):
        self.rate_hz, self.samples, self.faults = rate_hz, [], []
        cad_folder = folder / "cad"
        write_cad_folder(cad_folder, seed=0)
        self.camera = BenchCamera(Picture.render(), objects=5, compressed=True)
        parameters = {
            "cad_library": str(cad_folder),
            "image_transport": "compressed",
            "mesh_folder": str(folder / "meshes"),
        }
        program = (str(HERE / "faulty_node.py"), *(() if network else (NO_NETWORK,)))
        self.node = NodeProcess(parameters, folder / "log.txt", program)
        self._sampled_s = 0.0
        self.scene = Scene(self.camera, self.node, cad_folder, self.during)

    def during(self, seconds: float) -> None:
        """Publish for some seconds."""
        self.camera.run(seconds, self.rate_hz, self._sample)

    def _sample(self) -> bool:
        now_s = time.monotonic()
        if now_s >= self._sampled_s + 1.0:
            self._sampled_s = now_s
            self.samples.append((now_s, self.node.memory_mb(), len(self.camera.ages_s)))
        return False

    def wait_for_first_answer(self) -> None:
        """Until the node is ready."""
        if not self.camera.run(START_TIMEOUT_S, self.rate_hz, lambda: bool(self.camera.ages_s)):
            raise RuntimeError(f"no answer; the node's log:\n{self.node.log_path.read_text()[-3000:]}")

    def make(self, name: str) -> dict:
        """One fault, and what came of it."""
        camera, log = self.camera, self.node.log_path
        said_before, seen = len(log.read_text()), []
        self.scene.problems = []
        watch = _Watch(camera, seen)
        in_log, in_diagnostics = FAULTS[name](self.scene)
        watch.close()
        camera.edit = lambda frame: frame
        recovery_s = self._recover()
        told = log.read_text()[said_before:].count(in_log) if in_log else None
        problems = list(self.scene.problems)
        if recovery_s is None or recovery_s > RECOVERY_S:
            problems.append(f"works again after {recovery_s} s")
        if told is not None and told != 1:
            problems.append(f"{in_log!r} is {told} times in the log")
        if in_diagnostics and not any(in_diagnostics in text for text in seen):
            problems.append(f"{in_diagnostics!r} was not in /diagnostics")
        result = {"fault": name, "works again after s": recovery_s, "log lines": told, "problems": problems}
        self.faults.append(result)
        return result

    def _recover(self) -> float | None:
        """Seconds of good input until the first answer to it."""
        start_s, stamp_s = time.monotonic(), len(self.camera.ages_s)

        def answered() -> bool:
            # An answer to an image from before the start is older than the start.
            return any(got_s - age_s >= start_s for got_s, age_s in self.camera.ages_s[stamp_s:])

        if not self.camera.run(30.0, self.rate_hz, answered):
            return None
        return round(time.monotonic() - start_s, 2)


class _Watch:
    """Keeps every diagnostic message while it is open."""

    def __init__(self, camera: BenchCamera, seen: list[str]):
        self._camera = camera
        self._subscription = camera.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: seen.extend(s.message for s in m.status), 10
        )

    def close(self) -> None:
        """Stop watching."""
        self._camera.destroy_subscription(self._subscription)


def main() -> int:
    """0 when nothing stopped the node."""
    arguments = _arguments()
    rclpy.init()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), arguments.rate, not arguments.no_network)
        try:
            soak.wait_for_first_answer()
            _run(soak, arguments)
        finally:
            status, end_s = soak.node.end()
    report = _report(soak, status, end_s) | {"network": not arguments.no_network}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "ros_soak.json").write_text(json.dumps(report, indent=1) + "\n")
    _plot(report, arguments.out / "ros_soak.png")
    print(json.dumps({key: value for key, value in report.items() if key != "memory"}, indent=1))
    rclpy.try_shutdown()
    return int(bool(report["problems"]))


def _run(soak: Soak, arguments) -> None:
    """The faults evenly over the time, all of them in each half; good input in between."""
    names = [name for name in FAULTS if not arguments.only or name in arguments.only]
    # a node that has left its GPU stays on the CPU
    names += [name for name in names if name != ONCE]
    start_s, seconds = time.monotonic(), 60 * arguments.minutes
    for number, name in enumerate(names):
        due_s = start_s + seconds * (number + 1) / (len(names) + 2)
        soak.during(max(PAUSE_S, due_s - time.monotonic()))
        print(soak.make(name), flush=True)
    soak.during(max(PAUSE_S, start_s + seconds - time.monotonic()))


def _report(soak: Soak, status: int, end_s: float) -> dict:
    times, memory, answers = (np.array(column) for column in zip(*soak.samples, strict=True))
    half = memory[len(memory) // 2 :]
    quarter = max(len(half) // 4, 1)
    growth = float(np.median(half[-quarter:]) / np.median(half[:quarter]) - 1)
    problems = [f"{fault['fault']}: {text}" for fault in soak.faults for text in fault["problems"]]
    if growth > FLAT:
        problems.append(f"memory grew by {100 * growth:.1f} % in the second half")
    if status != 0 or end_s > END_S:
        problems.append(f"Ctrl-C: status {status} after {end_s:.1f} s")
    return {
        "machine": describe_machine(),
        "minutes": round((times[-1] - times[0]) / 60, 1),
        "images sent": soak.camera.sent,
        "answers": int(answers[-1]),
        "growth of memory in the second half %": round(100 * growth, 2),
        "largest memory MB": round(float(memory.max())),
        "ended with status": status,
        "ended after s": round(end_s, 2),
        "faults": soak.faults,
        "problems": problems,
        "memory": [[round(t - times[0], 1), round(m, 1)] for t, m in zip(times, memory, strict=True)],
    }


def _plot(report: dict, path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    times_s, memory_mb = np.array(report["memory"]).T
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(times_s / 60, memory_mb)
    axes.set(xlabel="minutes", ylabel="memory of the node (MB)", ylim=(0, None))
    figure.savefig(path, dpi=120)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--no-network", action="store_true", help="answers are empty: only the node is run")
    parser.add_argument("--only", nargs="*", choices=list(FAULTS), help="only these faults")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
