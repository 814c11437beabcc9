"""Ends a process in time when it is told to (Ctrl-C, SIGTERM), whatever its main thread is doing.

Imports nothing heavy: a program calls `end_in_time` before anything else, so that even a Ctrl-C in the middle
of the imports ends it cleanly.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
import time
from typing import NoReturn

# Of the 2 s that a user waits at most; what remains is for a machine that is busy.
GRACE_S = 1.5


@functools.cache
def end_in_time(grace_s: float = GRACE_S) -> None:
    """From now on SIGINT and SIGTERM raise KeyboardInterrupt, and end the process `grace_s` later, status 0.

    Python handles a signal only between two steps of the main thread, and a forward pass or the loading of a
    library can be one step of many seconds. The byte that the signal leaves in the pipe is read at once.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_wait_for_signal, args=(read, grace_s), daemon=True, name="sparc_end").start()


def _wait_for_signal(read: int, grace_s: float) -> None:
    os.read(read, 1)
    time.sleep(grace_s)
    leave(0)  # whoever gets here could not end by itself


def leave(status: int | str | None) -> NoReturn:
    """End the process at once, when nothing is left to save; a text is an error, as for sys.exit.

    The interpreter's own end takes PyTorch and Warp apart: seconds on a busy machine, in which no thread can
    hurry it.
    """
    if isinstance(status, str):
        sys.stderr.write(status + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(status, str) else status or 0)


def start(module: str) -> NoReturn:
    """Run main() of a module and end with its status; with 0 when it is told to end before it runs."""
    end_in_time()
    try:
        status = importlib.import_module(module).main()
    except KeyboardInterrupt:
        status = 0
    leave(status)
