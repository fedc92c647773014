#!/usr/bin/env bash
# The demo, after setup.sh: demo.sh [--once] [--binary FILE]. See demo.mjs.
#
# In a terminal it gets a process group of its own: Ctrl-C then ends the demo, which is how it is
# meant to end, and not the `make` that started it, which would call that a failure.
here=$(cd "$(dirname "$0")" && pwd)
read -r stat 2>/dev/null </proc/$$/stat
# Fields behind the program's name: state, parent, process group, session, terminal, its foreground group.
read -r _ _ group _ _ foreground _ <<<"${stat##*) }"
if [ -t 0 ] && [ -n "$group" ] && [ "$group" = "$foreground" ]; then
  set -m
  "$here/node.sh" demo.mjs "$@"
else
  exec "$here/node.sh" demo.mjs "$@"
fi
