# shellcheck shell=bash disable=SC2034,SC2153
# Builds the ROS 2 package with colcon, outside the checkout. Sourced by ./run.
#
# Python, launch files and settings are symlinked into the install folder, so that edits need no build;
# new or removed files and changed messages do.

name_workspace() {
  local place
  place=$(hash_of <<<"$REPO $ROS_KIND ${ROS_PREFIX:-} $ENV" | cut -c1-8)
  WORKSPACE=$SPARC_HOME/workspaces/$(basename "$REPO")-$place
}

# Changes with everything that the generated code depends on.
messages_key() {
  hash_of "$REPO"/msg/*.msg "$REPO"/srv/*.srv "$REPO/CMakeLists.txt" "$REPO/package.xml" \
    "$REQUIREMENTS/ros-build.txt" "$REQUIREMENTS/build-tools.txt" </dev/null
}

# Changes when a file that is installed comes, goes or is renamed.
files_key() {
  (cd "$REPO" && find launch config rviz sparc_core sparc_ros -name __pycache__ -prune -o -type f -print |
    LC_ALL=C sort | hash_of)
}

ensure_workspace() {
  local messages files
  name_workspace
  messages=$(messages_key) files=$(files_key)
  [ "$(cat "$WORKSPACE/.built" 2>/dev/null)" = "$messages $files" ] && return 0
  ensure_build_env
  take_lock
  if [ "$(cat "$WORKSPACE/.built" 2>/dev/null)" != "$messages $files" ]; then
    [ "$(cut -d' ' -f1 "$WORKSPACE/.built" 2>/dev/null)" = "$messages" ] ||
      rm -rf "$WORKSPACE/build" "$WORKSPACE/install"
    rm -f "$WORKSPACE/.built"
    build_workspace
    echo "$messages $files" >"$WORKSPACE/.built"
  fi
  release_lock
}

build_workspace() {
  local log=$WORKSPACE/build.log started=$SECONDS
  mkdir -p "$WORKSPACE"
  : >"$log"
  say "building the messages in $WORKSPACE"
  # A removed source file leaves a link to nothing behind.
  [ ! -d "$WORKSPACE/install" ] || find "$WORKSPACE/install" -xtype l -delete
  logged "$log" "building" run_colcon || {
    grep -E 'rror' "$log" | head -n 10 >&2
    die "the build failed; the log is $log"
  }
  write_commands
  say "  done in $((SECONDS - started)) s"
}

run_colcon() {
  local colcon=(
    "$BUILD_ENV/bin/colcon" --log-base "$WORKSPACE/log" build --paths "$REPO" --symlink-install
    --build-base "$WORKSPACE/build" --install-base "$WORKSPACE/install" --event-handlers console_direct+
    --cmake-args -G Ninja "-DCMAKE_MAKE_PROGRAM=$BUILD_ENV/bin/ninja"
    "-DPython3_EXECUTABLE=$BUILD_ENV/bin/python" -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release
  )
  if [ "$ROS_KIND" = packaged ]; then
    env -i HOME="$HOME" TMPDIR="${TMPDIR:-/tmp}" LANG="${LANG:-C.UTF-8}" PATH="$BUILD_ENV/bin:/usr/bin:/bin" \
      AMENT_PREFIX_PATH="$BUILD_ENV" CMAKE_PREFIX_PATH="$BUILD_ENV" ${CC:+CC="$CC"} ${CXX:+CXX="$CXX"} \
      "${colcon[@]}"
  else
    (source_system_ros && PATH=$BUILD_ENV/bin:$PATH PYTHONNOUSERSITE=1 "${colcon[@]}")
  fi
}

# Commands on the PATH of ROS 2 processes, and `ros2 launch` where the packaged ROS 2 lacks it.
write_commands() {
  local bin=$WORKSPACE/bin
  rm -rf "$bin" "$WORKSPACE/ros2cli"
  mkdir -p "$bin"
  printf '#!/bin/sh\nexec "%s/bin/python" -m sparc_core.scripts.main "$@"\n' "$ENV" >"$bin/sparc"
  if [ "$ROS_KIND" = packaged ]; then
    cat >"$bin/ros2" <<EOF
#!/bin/sh
exec "$ENV/bin/python" -c "import sys; sys.argv[0] = 'ros2'; from ros2cli.cli import main; sys.exit(main())" "\$@"
EOF
    local info=$WORKSPACE/ros2cli/sparc_launch_verb-1.0.dist-info
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: sparc-launch-verb\nVersion: 1.0\n' >"$info/METADATA"
    printf '[ros2cli.command]\nlaunch = sparc_ros.launch_verb:LaunchCommand\n' >"$info/entry_points.txt"
  fi
  chmod +x "$bin"/*
}

ensure_build_env() {
  local key requirements=ros-build.txt
  [ "$ROS_KIND" = packaged ] || requirements=build-tools.txt
  key=$(hash_of "$REQUIREMENTS/$requirements" "$REQUIREMENTS/build-tools.txt" "$REQUIREMENTS/constraints.txt" \
    <<<"$ROS_KIND ${ROS_PREFIX:-} ${SPARC_PYTHON:-}")
  BUILD_ENV=$SPARC_HOME/ros-build-$key
  require_compilers
  is_complete "$BUILD_ENV" && return 0
  take_lock
  if ! is_complete "$BUILD_ENV"; then
    choose_base_python
    need_disk 2
    local log=$SPARC_HOME/setup-build-$key.log started=$SECONDS
    : >"$log"
    say "setting up the tools that build the messages in $BUILD_ENV"
    say "  (once; under Apache-2.0, BSD and MIT licences; about 400 MB, 1 minute; log: $log)"
    # shellcheck disable=SC2046
    make_venv "$PYTHON" "$BUILD_ENV" "$log" $(venv_flags)
    pip_install "$BUILD_ENV" "$log" "the build tools" -r "$REQUIREMENTS/$requirements"
    [ "$ROS_KIND" = system ] || repair_build_paths
    touch "$BUILD_ENV/.complete"
    say "  done in $((SECONDS - started)) s"
  fi
  release_lock
}

# The wheels' CMake files name the include folders of the machine that built the wheels.
repair_build_paths() {
  local theirs=/opt/python/cp312-cp312 python_include numpy_include
  python_include=$("$BUILD_ENV/bin/python" -I -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  numpy_include=$("$BUILD_ENV/bin/python" -I -c 'import numpy; print(numpy.get_include())')
  { grep -rl --include='*.cmake' "$theirs" "$BUILD_ENV/share" || true; } | while read -r file; do
    sed -i -e "s#$theirs/lib/python3.12/site-packages/numpy/_core/include#$numpy_include#g" \
      -e "s#$theirs/include/python3.12#$python_include#g" "$file"
  done
  [ -e "$python_include/Python.h" ] ||
    die "Python's C headers are missing ($python_include/Python.h): sudo apt install python$PYTHON_VERSION-dev"
}

require_compilers() {
  command -v "${CC:-gcc}" >/dev/null && command -v "${CXX:-g++}" >/dev/null && return 0
  die "no C and C++ compiler was found (${CC:-gcc}, ${CXX:-g++}), and the ROS 2 messages must be compiled:" \
    "install them (Debian, Ubuntu: sudo apt install gcc g++), or set SPARC_ROS_RUNTIME=none to use sparc_core alone"
}
