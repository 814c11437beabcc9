"""./run: what it says when something is missing, and the decisions that its functions take."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
OWN_VARIABLES = ("SPARC_PYTHON", "SPARC_ROS_RUNTIME", "SPARC_ROS_SEARCH", "SPARC_PACKAGED_ENVIRONMENT")
ROS_VARIABLES = ("AMENT_PREFIX_PATH", "ROS_DISTRO", "PYTHONPATH", "LD_LIBRARY_PATH", "CC", "CXX")


@pytest.fixture
def run(tmp_path):
    """Calls ./run, or a bash text that has sourced it, with an empty SPARC_HOME and without any ROS 2."""

    def call(*arguments: str, script: str | None = None, **variables: str) -> subprocess.CompletedProcess:
        env = {k: v for k, v in os.environ.items() if k not in OWN_VARIABLES + ROS_VARIABLES}
        env |= {"SPARC_HOME": str(tmp_path / "home"), "SPARC_ROS_SEARCH": str(tmp_path / "ros")} | variables
        command = [str(REPO / "run"), *arguments]
        if script is not None:
            command = ["bash", "-c", f'source "{REPO}/run"\n{script}']
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    return call


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_help_names_every_command_and_variable(run):
    result = run("help")
    assert result.returncode == 0
    commands = ("demo", "test", "sparc", "ros2", "python", "shell", "setup")
    for word in (*commands, "SPARC_HOME", "SPARC_PYTHON", "SPARC_ROS_RUNTIME", "NVIDIA"):
        assert word in result.stdout


def test_unknown_command_is_an_error(run):
    result = run("fly")
    assert result.returncode == 1
    assert "unknown command 'fly'" in result.stderr


def test_a_python_that_does_not_run_is_named(run, tmp_path):
    result = run("setup", SPARC_PYTHON="/nonexistent", SPARC_ROS_RUNTIME="none")
    assert result.returncode == 1
    assert "SPARC_PYTHON=/nonexistent is not a working Python 3.12" in result.stderr
    assert not list((tmp_path / "home").glob("env-*"))


def test_a_wrong_python_version_is_refused(run, tmp_path):
    old = write_program(tmp_path / "python3.12", "#!/bin/sh\nexit 3\n")
    result = run(script="find_python", SPARC_PYTHON=str(old))
    assert result.returncode == 1
    assert str(old) in result.stderr


def test_a_shim_that_fails_is_passed_over(run, tmp_path):
    shim = write_program(tmp_path / "shim", "#!/bin/sh\necho 'version is not set' >&2\nexit 127\n")
    good = write_program(tmp_path / "good", "#!/bin/sh\necho /the/real/python\n")
    result = run(script=f"list_pythons() {{ echo {shim}; echo {good}; }}\nfind_python; echo $PYTHON")
    assert (result.returncode, result.stdout) == (0, "/the/real/python\n")


def test_no_python_at_all_says_how_to_get_one(run):
    result = run(script="list_pythons() { :; }\nfind_python")
    assert result.returncode == 1
    assert "no Python 3.12 was found" in result.stderr
    assert "uv python install 3.12" in result.stderr


def test_a_python_without_venv_says_which_package(run, tmp_path):
    bare = write_program(tmp_path / "bare", "#!/bin/sh\nexit 4\n")
    result = run(script=f"list_pythons() {{ echo {bare}; }}\nfind_python")
    assert result.returncode == 1
    assert "python3.12-venv" in result.stderr


@pytest.mark.parametrize("command", ["demo", "ros2"])
def test_commands_that_need_ros_say_so_when_it_is_switched_off(run, command):
    result = run(command, SPARC_ROS_RUNTIME="none")
    assert result.returncode == 1
    assert f"./run {command} needs a ROS 2" in result.stderr


def test_an_unknown_runtime_is_refused(run):
    result = run("setup", SPARC_ROS_RUNTIME="docker")
    assert result.returncode == 1
    assert "must be auto, system, isaac or none, got 'docker'" in result.stderr


def test_without_network_it_says_so(run, tmp_path):
    script = f"pip_install {sys.prefix} {tmp_path}/log everything sparc-does-not-exist==1.0"
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    result = run(script=script, **closed)
    assert result.returncode == 1
    assert "no network: pip could not reach its package index" in result.stderr


def test_a_missing_compiler_is_named(run):
    result = run(script="require_compilers", CC="/nonexistent/cc")
    assert result.returncode == 1
    assert "no C and C++ compiler was found (/nonexistent/cc" in result.stderr


def test_a_full_disk_is_noticed_before_the_download(run):
    result = run(script="mkdir -p $SPARC_HOME; need_disk 100000000")
    assert result.returncode == 1
    assert "set-up needs 100000000 GB" in result.stderr


def test_an_old_glibc_gets_no_packaged_ros(run):
    result = run(script="getconf() { echo glibc 2.31; }\nrequire_packaged_ros_platform")
    assert result.returncode == 1
    assert "glibc 2.35 or newer" in result.stderr
    assert "SPARC_ROS_RUNTIME=none" in result.stderr


class TestChoiceOfRos:
    SHOW = 'choose_ros; echo "$ROS_KIND ${ROS_PREFIX:-}"'

    def test_an_installed_one_comes_before_the_packaged_one(self, run, tmp_path):
        for distro in ("kilted", "jazzy", "humble"):
            write_program(tmp_path / "ros" / distro / "setup.bash", "")
        assert run(script=self.SHOW).stdout == f"system {tmp_path}/ros/jazzy\n"

    def test_a_sourced_one_comes_first(self, run, tmp_path):
        write_program(tmp_path / "ros" / "jazzy" / "setup.bash", "")
        (tmp_path / "mine" / "share" / "rclpy").mkdir(parents=True)
        path = f"/overlay:{tmp_path}/mine:/another"
        result = run(script=self.SHOW, AMENT_PREFIX_PATH=path, ROS_DISTRO="kilted")
        assert result.stdout == f"system {tmp_path}/mine\n"

    def test_none_at_all_takes_the_packaged_one(self, run):
        assert run(script=self.SHOW).stdout == "packaged \n"

    def test_one_that_is_too_old_is_ignored_aloud(self, run, tmp_path):
        write_program(tmp_path / "ros" / "humble" / "setup.bash", "")
        result = run(script=self.SHOW)
        assert result.stdout == "packaged \n"
        assert "ignoring" in result.stderr and "humble" in result.stderr

    def test_a_sourced_one_that_is_too_old_is_an_error(self, run):
        result = run(script=self.SHOW, AMENT_PREFIX_PATH="/opt/ros/humble", ROS_DISTRO="humble")
        assert result.returncode == 1
        assert "the sourced ROS 2 is humble" in result.stderr

    def test_the_system_one_can_be_demanded(self, run):
        result = run(script=self.SHOW, SPARC_ROS_RUNTIME="system")
        assert result.returncode == 1
        assert "no ROS 2 is sourced" in result.stderr

    def test_our_own_shell_does_not_pass_for_a_sourced_one(self, run):
        own = {"AMENT_PREFIX_PATH": "/x", "ROS_DISTRO": "jazzy", "SPARC_PACKAGED_ENVIRONMENT": "1"}
        assert run(script=self.SHOW, **own).stdout == "packaged \n"

    def test_missing_packages_are_named_as_apt_packages(self, run, tmp_path):
        (tmp_path / "here" / "share" / "rclpy").mkdir(parents=True)
        script = "choose_ros; require_ros_packages"
        result = run(script=script, AMENT_PREFIX_PATH=str(tmp_path / "here"), ROS_DISTRO="jazzy")
        assert result.returncode == 1
        assert "ros-jazzy-vision-msgs" in result.stderr
        assert "ros-jazzy-rclpy" not in result.stderr


def test_the_build_is_renewed_when_files_come_or_messages_change(run, tmp_path):
    copy = tmp_path / "repo"
    for folder in ("launch", "config", "rviz", "sparc_core", "sparc_ros", "msg", "srv"):
        (copy / folder).mkdir(parents=True)
    for name in ("msg/A.msg", "srv/B.srv", "CMakeLists.txt", "package.xml", "sparc_core/a.py"):
        (copy / name).write_text("1")

    def keys() -> list[str]:
        return run(script=f'REPO="{copy}"; messages_key; files_key').stdout.split()

    first = keys()
    (copy / "sparc_core/a.py").write_text("edited: needs no build")
    assert keys() == first
    (copy / "sparc_core/b.py").write_text("new")
    second = keys()
    assert second[0] == first[0] and second[1] != first[1]
    (copy / "msg/A.msg").write_text("2")
    assert keys()[0] != first[0]


def test_demo_arguments_take_both_forms(run):
    arguments = "headless:=true --frames 8 --timeout-s=3-4 a:=b-c --rgbd --rgb"
    script = f'launch_arguments {arguments}; echo "${{LAUNCH_ARGUMENTS[@]}}"'
    assert (
        run(script=script).stdout == "headless:=true frames:=8 timeout_s:=3-4 a:=b-c rgbd:=true rgbd:=false\n"
    )
    assert "'x'" in run(script="launch_arguments x").stderr


def test_a_second_set_up_waits_for_the_first(run, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    holder = subprocess.Popen(["flock", str(home / ".lock"), "sleep", "1"])
    time.sleep(0.3)
    result = run(script="take_lock; echo mine; release_lock")
    holder.wait(timeout=10)
    assert result.stdout == "mine\n"
    assert "another run is setting up" in result.stderr
