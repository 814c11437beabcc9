"""`pip install .` gives the whole of sparc_core: modules, weights and the command."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel of a copy of the checkout (a build leaves folders behind)."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(REPO / "sparc_core", folder / "sparc_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "package.xml", "LICENSE"):
        shutil.copy(REPO / name, folder)
    env = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--wheel-dir",
        "out",
        ".",
    ]
    subprocess.run(pip, cwd=folder, env=env, check=True, timeout=120)
    (path,) = (folder / "out").glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_module_and_weight_file_is_in_the_wheel(wheel):
    kept = [p for p in (REPO / "sparc_core").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    expected = {str(p.relative_to(REPO)) for p in kept if p.suffix == ".py" or p.parent.name == "weights"}
    assert expected - set(wheel.namelist()) == set()
    assert "sparc_core/types.py" in expected


def test_the_wheel_holds_no_ros_code_and_offers_the_command(wheel):
    assert not [name for name in wheel.namelist() if name.startswith("sparc_ros/")]
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "sparc = sparc_core.scripts.main:app" in wheel.read(entry_points).decode()
