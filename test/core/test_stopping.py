"""A process ends within two seconds of Ctrl-C, with status 0, whatever its main thread is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUSY = {
    # One step of the interpreter that lasts long and lets go of its lock, as a forward pass does.
    "in one long step": (
        "import hashlib\ndef main():\n    print('go', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 200_000_000)\n"
    ),
    "asleep": "import time\ndef main():\n    print('go', flush=True); time.sleep(60)\n",
    "importing": "import time\nprint('go', flush=True)\ntime.sleep(60)\n",
    "refusing": (
        "import time\ndef main():\n    print('go', flush=True)\n    while True:\n"
        "        try:\n            time.sleep(60)\n        except KeyboardInterrupt:\n            pass\n"
    ),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", BUSY)
def test_it_ends_in_time(tmp_path, what, number):
    (tmp_path / "busy.py").write_text(BUSY[what])
    code = "import sys\nfrom sparc_ros.stopping import start\nsys.exit(start('busy'))"
    env = os.environ | {"PYTHONPATH": f"{REPO}:{tmp_path}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "go\n"
    time.sleep(0.2)
    start_s = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=10) == 0
    assert time.monotonic() - start_s <= 2.0


def test_the_status_of_a_program_that_ends_by_itself_is_its_own(tmp_path):
    (tmp_path / "done.py").write_text("def main():\n    return 3\n")
    code = "import sys\nfrom sparc_ros.stopping import start\nsys.exit(start('done'))"
    env = os.environ | {"PYTHONPATH": f"{REPO}:{tmp_path}"}
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=30).returncode == 3
