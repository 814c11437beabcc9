"""Latency over ROS 2: a 640x480 camera at 30 Hz, the align node in a process of its own.

    ./run python benchmarks/ros_latency.py --out benchmarks/results/ros_latency

For 1, 5 and 10 objects, RGB-D, CAD models named: answers a second, images dropped for newer ones, age of an
answer when it is received (from the image's stamp), processor time, and the stages as the node measures them.
`--search NAME:=VALUE` and `--video NAME:=VALUE` are the parameters of the two kinds of rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from ros_camera import LIBRARY, BenchCamera, NodeProcess, Picture

from sparc_core.evaluation.machine import describe_machine

COUNTS = (1, 5, 10)
WARM_UP_S = 10.0
START_TIMEOUT_S = 180.0
COLUMNS = ("mode", "objects", "in Hz", "out Hz", "dropped %", "age p50 ms", "age p95 ms", "CPU %")


def main() -> None:
    """Measure, print a table, write JSON and table."""
    arguments = _arguments()
    rclpy.init()
    picture = Picture.render()
    modes = {"search": arguments.search, "video": arguments.video}
    rows = []
    for mode, settings in modes.items():
        for objects in arguments.objects:
            row = {"mode": mode, "objects": objects, **_measure(picture, objects, settings, arguments)}
            rows.append(row)
            print({name: row[name] for name in COLUMNS}, flush=True)
    rclpy.try_shutdown()
    report = {"machine": describe_machine(), "seconds": arguments.seconds, "modes": modes, "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "ros_latency.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / "ros_latency.md").write_text(_table(rows))
    print(_table(rows))


def _measure(picture: Picture, objects: int, settings: list[str], arguments) -> dict:
    camera = BenchCamera(picture, objects)
    with tempfile.TemporaryDirectory() as folder:
        parameters = {"cad_library": LIBRARY, "mesh_folder": folder, "device": arguments.device}
        parameters |= dict(word.split(":=", 1) for word in settings)
        node = NodeProcess(parameters, Path(folder) / "log.txt")
        try:
            if not camera.run(START_TIMEOUT_S, arguments.rate, lambda: bool(camera.ages_s)):
                raise RuntimeError(f"no answer; the node's log:\n{node.log_path.read_text()[-2000:]}")
            camera.run(WARM_UP_S, arguments.rate)
            return _window(camera, node, arguments)
        finally:
            node.end()
            camera.destroy_node()


def _window(camera: BenchCamera, node: NodeProcess, arguments) -> dict:
    start_s, cpu_s, sent = time.monotonic(), node.cpu_s(), camera.sent
    camera.run(arguments.seconds, arguments.rate)
    seconds = time.monotonic() - start_s
    ages_ms = [1e3 * age_s for received_s, age_s in camera.ages_s if received_s >= start_s]
    sent = camera.sent - sent
    if not ages_ms:
        raise RuntimeError(
            f"no answer in {seconds:.0f} s; the node's log:\n{node.log_path.read_text()[-2000:]}"
        )
    return {
        "in Hz": round(sent / seconds, 1),
        "out Hz": round(len(ages_ms) / seconds, 1),
        "dropped %": round(100 * (1 - len(ages_ms) / sent), 1),
        "age p50 ms": round(float(np.percentile(ages_ms, 50)), 1),
        "age p95 ms": round(float(np.percentile(ages_ms, 95)), 1),
        "CPU %": round(100 * (node.cpu_s() - cpu_s) / seconds),
        "stages": {
            name.removesuffix(" ms"): value
            for name, value in camera.statuses["inference"][2].items()
            if name.endswith(" ms")
        },
    }


def _table(rows: list[dict]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(str(row[name]) for name in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each row, after a warm-up")
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--objects", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--search", nargs="*", default=["video_mode:=false"], metavar="NAME:=VALUE")
    parser.add_argument("--video", nargs="*", default=["video_mode:=true"], metavar="NAME:=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
