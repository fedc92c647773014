#!/bin/sh
# Asks the judges of datasets (judge.py) about a folder: judge.sh DIR
# Installs what they need first, the packages of requirements.txt into .venv, where that is not done
# yet; without an argument nothing else is done. Safe to run twice at once. Talks on stderr.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
key="$(cat "$here/requirements.txt" "$here/judge.sh" | cksum | tr ' ' '-') $(uname -sm) $(python3 -V)"
stamp=$here/.venv/.setup-stamp
fresh() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; }

if ! fresh; then
  # The second of two runs waits here and then finds the first one's stamp.
  exec 9>"$here/.setup.lock"
  flock 9
  if ! fresh; then
    printf 'test network: installing python packages of dataset/requirements.txt (a minute)\n' >&2
    rm -rf "$here/.venv"
    python3 -m venv "$here/.venv" >&2
    nice -n 10 "$here/.venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" >&2
    printf '%s\n' "$key" >"$stamp"
  fi
  exec 9>&-
fi
if [ $# -gt 0 ]; then exec "$here/.venv/bin/python" "$here/judge.py" "$@"; fi
