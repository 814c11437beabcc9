"""What a measurement was made on: machine, library versions and commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

import torch


def describe_machine(device: torch.device | str = "cpu") -> dict:
    """CPU, cores, threads, GPU (None on the CPU), PyTorch version, commit (None outside git) and date."""
    device = torch.device(device)
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        cpu = next((line.split(":", 1)[1].strip() for line in lines), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git on this machine
        return None
    return found.stdout.strip() or None
