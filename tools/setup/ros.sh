# shellcheck shell=bash disable=SC2034,SC2153
# Chooses the ROS 2 and sets its environment. Sourced by ./run.
#
# ROS_KIND  none | packaged | system
# system:   ROS_PREFIX, ROS_SETUP (empty when it is already sourced), SYSTEM_PYTHON, SYSTEM_PYTHON_VERSION

SUPPORTED_DISTROS="jazzy kilted lyrical rolling"
NEEDED_PACKAGES="rclpy launch_ros ros2launch vision_msgs visualization_msgs diagnostic_msgs tf2_ros_py message_filters
  rosidl_default_generators ament_cmake"

# A shell opened by ./run carries the packaged ROS 2, which must not pass for one of the system's.
forget_own_environment() {
  [ -n "${SPARC_PACKAGED_ENVIRONMENT:-}" ] || return 0
  unset AMENT_PREFIX_PATH ROS_DISTRO PYTHONPATH LD_LIBRARY_PATH SPARC_PACKAGED_ENVIRONMENT
  [ -z "${SPARC_CALLER_LD_LIBRARY_PATH:-}" ] || export LD_LIBRARY_PATH=$SPARC_CALLER_LD_LIBRARY_PATH
}

choose_ros() {
  forget_own_environment
  case "${SPARC_ROS_RUNTIME:-auto}" in
    none) ROS_KIND=none ;;
    isaac) ROS_KIND=packaged ;;
    system)
      find_system_ros || die "SPARC_ROS_RUNTIME=system, but no ROS 2 is sourced and none of" \
        "${SUPPORTED_DISTROS// /, } is under ${SPARC_ROS_SEARCH:-/opt/ros}"
      ROS_KIND=system
      ;;
    auto) if find_system_ros; then ROS_KIND=system; else ROS_KIND=packaged; fi ;;
    *) die "SPARC_ROS_RUNTIME must be auto, system, isaac or none, got '$SPARC_ROS_RUNTIME'" ;;
  esac
}

find_system_ros() {
  local root=${SPARC_ROS_SEARCH:-/opt/ros} distro
  if [ -n "${AMENT_PREFIX_PATH:-}" ] && [ -n "${ROS_DISTRO:-}" ]; then
    [[ " $SUPPORTED_DISTROS " == *" $ROS_DISTRO "* ]] ||
      die "the sourced ROS 2 is $ROS_DISTRO, and sparc_ros needs one of ${SUPPORTED_DISTROS// /, }:" \
        "use a shell without it, or set SPARC_ROS_RUNTIME=isaac or none"
    ROS_SETUP=''
    ROS_PREFIX=$(prefix_of rclpy) || die "the sourced ROS 2 holds no rclpy: sudo apt install ros-$ROS_DISTRO-rclpy"
    return 0
  fi
  for distro in $SUPPORTED_DISTROS; do
    if [ -e "$root/$distro/setup.bash" ]; then
      ROS_SETUP=$root/$distro/setup.bash ROS_PREFIX=$root/$distro
      return 0
    fi
  done
  for distro in "$root"/*/setup.bash; do
    [ -e "$distro" ] && say "ignoring ${distro%/setup.bash}: sparc_ros needs one of ${SUPPORTED_DISTROS// /, }"
  done
  return 1
}

source_system_ros() {
  [ -n "$ROS_SETUP" ] || return 0
  set +u
  # shellcheck disable=SC1090
  source "$ROS_SETUP"
  set -u
}

# rclpy is compiled for one Python: the environment must be made from that one.
find_system_python() {
  local candidate candidates=("${SPARC_PYTHON:-}")
  [ -n "${SPARC_PYTHON:-}" ] || candidates=("$(type -P python3 || true)" /usr/bin/python3)
  for candidate in "${candidates[@]}"; do
    if (source_system_ros; "$candidate" -c 'import rclpy') >/dev/null 2>&1; then
      SYSTEM_PYTHON=$("$candidate" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')
      SYSTEM_PYTHON_VERSION=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
      return 0
    fi
  done
  die "found the ROS 2 in $ROS_PREFIX, but no Python that can import its rclpy: install ros-*-rclpy," \
    "set SPARC_PYTHON to the Python it was built for, or set SPARC_ROS_RUNTIME=isaac or none"
}

require_ros_packages() {
  local missing
  missing=$(
    source_system_ros
    for package in $NEEDED_PACKAGES; do
      prefix_of "$package" >/dev/null || echo -n " ros-$ROS_DISTRO-${package//_/-}"
    done
  )
  [ -z "$missing" ] || die "the ROS 2 in $ROS_PREFIX lacks packages: sudo apt install$missing"
}

# Prints the first prefix that holds a package.
prefix_of() {
  local prefix IFS=:
  for prefix in $AMENT_PREFIX_PATH; do
    if [ -e "$prefix/share/$1" ]; then
      echo "$prefix"
      return 0
    fi
  done
  return 1
}

# Sets the environment of ROS 2 processes in this shell; nothing may be installed from it afterwards.
enter_ros() {
  local inner=$WORKSPACE/install/sparc_ros
  if [ "$ROS_KIND" = packaged ]; then
    export AMENT_PREFIX_PATH=$inner:$PACKAGED_ROS
    # The caller's own entries stay, last: containers find their GPU driver by them.
    export SPARC_CALLER_LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH=$PACKAGED_ROS/lib:$inner/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export PYTHONPATH=$REPO:$inner/lib/python$PYTHON_VERSION/site-packages:$PACKAGED_ROS/rclpy:$WORKSPACE/ros2cli
    export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3 SPARC_PACKAGED_ENVIRONMENT=1
    export RMW_IMPLEMENTATION=${RMW_IMPLEMENTATION:-rmw_cyclonedds_cpp}
  else
    source_system_ros
    set +u
    # shellcheck disable=SC1091
    source "$WORKSPACE/install/local_setup.bash"
    set -u
    export PYTHONPATH=$REPO:${PYTHONPATH:-}
    prefer_cyclone_dds
  fi
  export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
  export PATH=$WORKSPACE/bin:$ENV/bin:$PATH
  export PYTHONNOUSERSITE=1
}

# Fast DDS as it comes loses most large best-effort images; Cyclone DDS is an optional package of a ROS 2.
prefer_cyclone_dds() {
  [ -z "${RMW_IMPLEMENTATION:-}" ] || return 0
  if prefix_of rmw_cyclonedds_cpp >/dev/null; then
    export RMW_IMPLEMENTATION=rmw_cyclonedds_cpp
    return 0
  fi
  say "note: Cyclone DDS is not installed, and the default middleware may lose large images;" \
    "sudo apt install ros-${ROS_DISTRO}-rmw-cyclonedds-cpp"
}

enter_core() {
  export PYTHONPATH=$REPO PYTHONNOUSERSITE=1
  export PATH=$ENV/bin:$PATH
}
