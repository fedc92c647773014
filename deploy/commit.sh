#!/bin/sh
# Prints which source this is: the commit and its day for `atcomm --version`, or with `epoch` the
# second of the commit, which all dates in artefacts are set to (SOURCE_DATE_EPOCH). In a checkout
# git knows, in an archive that git made the file beside this one. Elsewhere nothing is printed.
set -eu
cd "$(dirname "$0")/.."

# Inside another repository git would tell that one's commit.
if [ -z "$(git rev-parse --show-cdup 2>/dev/null || echo none)" ]; then
  name=$(git describe --always --dirty --abbrev=12 --exclude='*')
  second=$(git log -1 --format=%ct)
else
  read -r name second <deploy/source-commit
  case $name in *Format*) exit 0 ;; esac
  name=$(printf %.12s "$name")
fi
case ${1-} in
  epoch) echo "$second" ;;
  *) echo "$name $(date -u -d "@$second" +%F)" ;;
esac
