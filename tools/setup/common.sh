# shellcheck shell=bash disable=SC2034,SC2153
# Messages, logged commands and the lock. Sourced by ./run.

say() { printf 'sparc_ros: %s\n' "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# logged LOG WHAT COMMAND...: run COMMAND with its output in LOG and a sign of life every 30 s.
HEARTBEAT=''
trap '[ -z "$HEARTBEAT" ] || kill "$HEARTBEAT" 2>/dev/null || true' EXIT

logged() {
  local log=$1 what=$2 status=0
  shift 2
  printf '\n$ %s\n' "$*" >>"$log"
  beat "$what" &
  HEARTBEAT=$!
  "$@" >>"$log" 2>&1 </dev/null || status=$?
  kill "$HEARTBEAT" 2>/dev/null || true
  wait "$HEARTBEAT" 2>/dev/null || true
  HEARTBEAT=''
  return "$status"
}

# Waits by reading from a pipe that nothing is written to: a sleeping child would outlive an interrupted run.
beat() {
  local silence started=$SECONDS
  exec {silence}<> <(:)
  while :; do
    read -r -t 30 -u "$silence" || true
    kill -0 $$ 2>/dev/null || exit 0
    say "  $1: $((SECONDS - started)) s so far ..."
  done
}

# Two runs must not build the same folder. The lock is let go before anything long-lived starts, since
# a background process of ROS 2 would inherit the descriptor and hold it.
take_lock() {
  command -v flock >/dev/null || die "the program flock is missing: install your distribution's util-linux package"
  mkdir -p "$SPARC_HOME" || die "cannot write to $SPARC_HOME: set SPARC_HOME to a folder of your own"
  exec {LOCK_FD}>"$SPARC_HOME/.lock" || die "cannot write to $SPARC_HOME: set SPARC_HOME to a folder of your own"
  if ! flock --nonblock "$LOCK_FD"; then
    say "another run is setting up in $SPARC_HOME; waiting for it ..."
    flock "$LOCK_FD"
  fi
}

release_lock() {
  exec {LOCK_FD}>&-
}

# hash_of FILE...: 12 characters that change with the content of any file; further lines come from stdin.
hash_of() {
  { cat -- "$@"; cat; } | sha256sum | cut -c1-12
}

need_disk() {
  local needed_gb=$1 free_kb
  free_kb=$(df -Pk "$SPARC_HOME" | awk 'NR == 2 {print $4}')
  [ "$free_kb" -ge $((needed_gb * 1024 * 1024)) ] ||
    die "$SPARC_HOME has $((free_kb / 1024 / 1024)) GB free and set-up needs $needed_gb GB:" \
      "free some space or point SPARC_HOME at another disk"
}
