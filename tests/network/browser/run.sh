#!/bin/sh
# Start the browser: run.sh; see pages.mjs for what it reads and prints.
# Installs its packages first where they are missing. Safe to run twice at once.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
key="$(cat "$here/package.json" "$here/package-lock.json" | cksum | tr ' ' '-') $(uname -sm)"
stamp=$here/node_modules/.setup-stamp
fresh() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; }
if ! fresh; then
  exec 9>"$here/.setup.lock"
  flock 9
  if ! fresh; then
    (cd "$here" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    printf '%s\n' "$key" >"$stamp"
  fi
  exec 9>&-
fi
exec "$here/../node.sh" browser/pages.mjs "$@"
