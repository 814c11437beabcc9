# shellcheck shell=bash disable=SC2034,SC2153
# Finds a Python 3.12. Sourced by ./run.

PYTHON_VERSION=3.12

# A candidate must run (pyenv's shims exist for versions that are not active), have the right version
# and be able to make an environment. Prints the interpreter behind it, which outlives a venv on PATH.
probe_python() {
  PYTHONHOME='' LD_LIBRARY_PATH='' "$1" -I -c '
import sys
wanted = tuple(int(part) for part in sys.argv[1].split("."))
if sys.version_info[:2] != wanted:
    sys.exit(3)
try:
    import ensurepip, venv
except ImportError:
    sys.exit(4)
print(getattr(sys, "_base_executable", sys.executable))
' "$PYTHON_VERSION" 2>/dev/null
}

list_pythons() {
  type -aP "python$PYTHON_VERSION" python3 python || true
  local pattern
  for pattern in \
    "${PYENV_ROOT:-$HOME/.pyenv}/versions/$PYTHON_VERSION*/bin/python" \
    "$HOME/.pyenv/versions/$PYTHON_VERSION*/bin/python" \
    "/usr/bin/python$PYTHON_VERSION" "/usr/local/bin/python$PYTHON_VERSION" \
    "/opt/*/bin/python$PYTHON_VERSION" "$HOME/.local/bin/python$PYTHON_VERSION" \
    "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}/cpython-$PYTHON_VERSION*/bin/python$PYTHON_VERSION" \
    "$HOME/.local/share/mise/installs/python/$PYTHON_VERSION*/bin/python" \
    "$HOME/*conda*/bin/python$PYTHON_VERSION" "$HOME/*conda*/envs/*/bin/python$PYTHON_VERSION"; do
    compgen -G "$pattern" || true
  done
}

# Sets PYTHON or ends with a sentence that says what is missing.
find_python() {
  local candidate status without_venv=''
  if [ -n "${SPARC_PYTHON:-}" ]; then
    PYTHON=$(probe_python "$SPARC_PYTHON") && return 0
    die "SPARC_PYTHON=$SPARC_PYTHON is not a working Python $PYTHON_VERSION with the venv module:" \
      "set it to one that is, or unset it to let ./run search"
  fi
  while read -r candidate; do
    status=0
    PYTHON=$(probe_python "$candidate") || status=$?
    [ "$status" = 0 ] && return 0
    [ "$status" = 4 ] && without_venv=$candidate
  done < <(list_pythons)
  [ -z "$without_venv" ] ||
    die "$without_venv has no venv module: install it (Debian, Ubuntu: sudo apt install python$PYTHON_VERSION-venv)"
  die "no Python $PYTHON_VERSION was found (the packaged ROS 2 and the pinned wheels need this version):" \
    "install it with 'sudo apt install python$PYTHON_VERSION python$PYTHON_VERSION-venv'," \
    "'uv python install $PYTHON_VERSION' or 'pyenv install $PYTHON_VERSION'," \
    "or set SPARC_PYTHON=/path/to/python$PYTHON_VERSION"
}
