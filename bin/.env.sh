# Prepares the checkout's own virtual environment; sourced by the scripts beside it. Usage: prepare_environment [EXTRA]
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${P2PDIST_VENV:-$root/.venv}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
  done
  echo "p2pdist needs Python 3.11 or newer on the PATH (or in \$PYTHON)." >&2
  return 1
}

# Installs once per content of pyproject.toml; a lock keeps two first uses from racing.
prepare_environment() {
  local extra=${1:-} want stamp python
  want="$(cksum <"$root/pyproject.toml") $extra"
  stamp="$venv/.p2pdist-ready${extra:+-$extra}"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && return
  python=$(find_python) || return 1
  mkdir -p "$venv"
  (
    flock 9
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0
    echo "Preparing $venv (first use; about a minute) ..." >&2
    if [ ! -x "$venv/bin/python" ]; then
      "$python" -m venv "$venv" || { echo "Could not make a virtual environment: on Debian, apt-get install python3-venv." >&2; exit 1; }
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root${extra:+[$extra]}" || exit 1
    echo "$want" >"$stamp"
  ) 9>"$venv/.lock"
}
