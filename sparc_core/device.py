"""Devices by name: what a user may ask for, and what of it is there."""

from __future__ import annotations

import re

_NAMES = re.compile(r"auto|cpu|cuda(:\d+)?")


def check_device(name: str) -> str:
    """The name, if it is one. Raises ValueError for anything but auto, cpu, cuda and cuda:N."""
    if not _NAMES.fullmatch(name):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    return name


def find_device(name: str) -> str:
    """The device that a name stands for: "cpu", "cuda" or "cuda:N". "auto" is the GPU where there is one.

    Raises ValueError for a name that is none and for a GPU that PyTorch does not find.
    """
    import torch  # the command line checks names before it loads anything

    check_device(name)
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if usable else "cpu"
    if name != "cpu" and int(name.partition(":")[2] or 0) >= usable:
        found = f"{usable} of them" if usable else "no usable CUDA device"
        raise ValueError(f"device is {name!r}, but PyTorch finds {found} here")
    return name
