# shellcheck shell=bash disable=SC2034,SC2153
# The Python environments under SPARC_HOME. Sourced by ./run.
#
#   env-<key>/         torch and everything else; holds the packaged ROS 2 as well where that is used
#   ros-build-<key>/   colcon, and for the packaged ROS 2 its headers and generators
#
# A file .complete is written last, so that an interrupted set-up is begun anew.

REQUIREMENTS=$REPO/requirements

# Nothing of the caller's Python or ROS 2 may leak into pip: with ROS 2's library path every program
# would load ROS 2's OpenSSL.
clean_env() {
  env -u PYTHONPATH -u PYTHONHOME -u LD_LIBRARY_PATH -u VIRTUAL_ENV PYTHONNOUSERSITE=1 "$@"
}

# pip_install ENV LOG WHAT ARGUMENT...: ends with one plain sentence when pip fails.
pip_install() {
  local env=$1 log=$2 what=$3
  shift 3
  logged "$log" "$what" clean_env "$env/bin/python" -m pip install --disable-pip-version-check --no-input \
    -c "$REQUIREMENTS/constraints.txt" "$@" && return 0
  ! grep -q 'Operation cancelled by user' "$log" || die "interrupted; the same command begins this step anew"
  if grep -q 'No space left on device' "$log"; then
    die "the disk of $SPARC_HOME is full: free some space or set SPARC_HOME to another disk. Log: $log"
  fi
  # Every pinned version exists: where pip sees none at all, it saw no index.
  if grep -qiE 'connection broken|failed to establish|name resolution|network is unreachable|from versions: none' "$log"; then
    die "no network: pip could not reach its package index, and set-up downloads packages once." \
      "Connect this machine (or set PIP_INDEX_URL to your mirror) and run the same command again. Log: $log"
  fi
  tail -n 5 "$log" | cut -c1-300 >&2
  die "pip could not install $what; the log is $log"
}

# make_venv PYTHON FOLDER LOG ARGUMENT...
make_venv() {
  local python=$1 folder=$2 log=$3
  shift 3
  rm -rf "$folder"
  logged "$log" "making $folder" clean_env "$python" -m venv "$@" "$folder" ||
    die "$python could not make an environment in $folder; the log is $log"
}

# With a ROS 2 of the system the environment uses that one's Python and sees its packages.
venv_flags() {
  [ "$ROS_KIND" = system ] && echo --system-site-packages || true
}

# Sets ENV (which may not exist yet): one folder for a set of versions and a Python.
name_env() {
  local kind=plain version=$PYTHON_VERSION
  if [ "$ROS_KIND" = system ]; then kind="system $ROS_PREFIX" version=$SYSTEM_PYTHON_VERSION; fi
  ENV_KEY=$(hash_of "$REQUIREMENTS/core.txt" "$REQUIREMENTS/test.txt" "$REQUIREMENTS/constraints.txt" \
    <<<"$kind $version ${SPARC_PYTHON:-}")
  ENV=$SPARC_HOME/env-$ENV_KEY
}

# The interpreter is a link, which ends nowhere once the Python behind it is uninstalled.
is_complete() { [ -e "$1/.complete" ] && [ -x "$1/bin/python" ]; }

ensure_env() {
  is_complete "$ENV" && return 0
  take_lock
  if ! is_complete "$ENV"; then
    choose_base_python
    need_disk 8
    local log=$SPARC_HOME/setup-$ENV_KEY.log started=$SECONDS
    : >"$log"
    say "setting up Python $("$PYTHON" -c 'import platform; print(platform.python_version())') with PyTorch in $ENV"
    say "  (once; about 3 GB to download and 6 GB on disk, 2 to 10 minutes; log: $log)"
    # shellcheck disable=SC2046
    make_venv "$PYTHON" "$ENV" "$log" $(venv_flags)
    pip_install "$ENV" "$log" "PyTorch and the other requirements" \
      -r "$REQUIREMENTS/core.txt" -r "$REQUIREMENTS/test.txt"
    touch "$ENV/.complete"
    say "  done in $((SECONDS - started)) s"
    mention_older_environments
  fi
  release_lock
}

# Nothing is deleted by itself: another checkout may use it.
mention_older_environments() {
  local folder
  for folder in "$SPARC_HOME"/env-*; do
    [ "$folder" = "$ENV" ] ||
      say "  this checkout no longer uses $folder ($(du -sh "$folder" | cut -f1)): delete it unless another one does"
  done
}

choose_base_python() {
  if [ "$ROS_KIND" = system ]; then PYTHON=$SYSTEM_PYTHON; else find_python; fi
}

# The packaged ROS 2 goes into ENV: rclpy and torch share a process.
ensure_packaged_ros() {
  local key marker
  key=$(hash_of "$REQUIREMENTS/ros-runtime.txt" </dev/null)
  marker=$ENV/.ros-$key
  PACKAGED_ROS=$ENV/lib/python$PYTHON_VERSION/site-packages/isaacsim/exts/isaacsim.ros2.core/jazzy
  [ -e "$marker" ] && return 0
  take_lock
  if [ ! -e "$marker" ]; then
    require_packaged_ros_platform
    need_disk 2
    local log=$SPARC_HOME/setup-ros-$key.log started=$SECONDS
    : >"$log"
    announce_packaged_ros "$log"
    pip_install "$ENV" "$log" "the packaged ROS 2" --no-deps -r "$REQUIREMENTS/ros-runtime.txt"
    # A second ROS 2 for another Python, 246 MB, which nothing here can load.
    rm -rf "${PACKAGED_ROS%/jazzy}/humble"
    [ -d "$PACKAGED_ROS/rclpy/rclpy" ] || die "the installed wheel holds no ROS 2 in $PACKAGED_ROS; the log is $log"
    touch "$marker"
    say "  done in $((SECONDS - started)) s"
  fi
  release_lock
}

require_packaged_ros_platform() {
  local glibc
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}')
  if [ "$(uname -sm)" != "Linux x86_64" ] || [ -z "$glibc" ] ||
    [ "$(printf '2.35\n%s\n' "$glibc" | sort -V | head -n 1)" != 2.35 ]; then
    die "no ROS 2 was found, and the packaged one exists only for x86-64 Linux with glibc 2.35 or newer" \
      "(this is $(uname -sm), glibc ${glibc:-none}): install ROS 2 Jazzy, or set SPARC_ROS_RUNTIME=none to use sparc_core alone"
  fi
}

announce_packaged_ros() {
  say "no ROS 2 is sourced and none is under /opt/ros, so a packaged ROS 2 Jazzy is installed into $ENV:"
  say "  isaacsim-ros2 from PyPI (133 MB to download, 500 MB on disk). The wheel as a whole is under the"
  say "  NVIDIA Omniverse License Agreement, which you accept by using it; the ROS 2 parts in it are"
  say "  under Apache-2.0 and BSD licences. To do without it: install or source a ROS 2 (Jazzy, Kilted or"
  say "  Lyrical), or set SPARC_ROS_RUNTIME=none to use sparc_core alone. Log: $1"
}
