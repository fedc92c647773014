#!/bin/sh
# Install what the test network needs, into this directory:
#   node_modules   the packages of package-lock.json (and node 22 where the machine's is older)
#   .venv          the Python packages of requirements.txt
#   didcomm/.venv-messaging and .venv-sicpa, the two DIDComm libraries, which cannot share one
# and what the programs of the client guide need, beside them:
#   ../../docs/examples/typescript/node_modules and ../../docs/examples/python/.venv
# Safe to run again, and safe to run twice at once. Talks on stderr.
set -eu
cd "$(dirname "$0")"

say() { printf 'test network: %s\n' "$*" >&2; }
need() { # need <command that must succeed> <what is missing> <hint>
  sh -c "$1" >/dev/null 2>&1 || { say "$2 is missing (hint: $3)"; exit 1; }
}
key() { cat "$@" setup.sh | cksum | tr ' ' '-'; }

machine=$(uname -sm)
node_key="$(key package.json package-lock.json) $machine node $(node -v 2>/dev/null || echo none)"
venv_key() { printf '%s %s %s' "$(key "$1")" "$machine" "$(python3 -V 2>/dev/null || echo none)"; }
node_stamp=node_modules/.setup-stamp
ts=../../docs/examples/typescript
python=../../docs/examples/python
ts_key="$(key "$ts/package.json" "$ts/package-lock.json") $machine"
ts_stamp=$ts/node_modules/.setup-stamp
fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
fresh_venv() { fresh "$1/.setup-stamp" "$(venv_key "$2")"; } # fresh_venv <directory> <list>

venv() { # venv <directory> <list> [option of pip]
  if fresh_venv "$1" "$2"; then return; fi
  say "installing python packages of $2 (half a minute)"
  rm -rf "$1"
  python3 -m venv "$1" >&2
  nice -n 10 "$1/bin/pip" install -q --disable-pip-version-check ${3:-} -r "$2" >&2
  printf '%s\n' "$(venv_key "$2")" >"$1/.setup-stamp"
}

if fresh "$node_stamp" "$node_key" && fresh_venv .venv requirements.txt &&
  fresh_venv didcomm/.venv-messaging didcomm/messaging.txt &&
  fresh_venv didcomm/.venv-sicpa didcomm/sicpa.txt &&
  fresh "$ts_stamp" "$ts_key" &&
  fresh_venv "$python/.venv" "$python/requirements.txt"; then exit 0; fi

# All of them are asked for before anything is touched: a compiler that turns
# out to be absent after a minute of downloads is the worse surprise.
need 'command -v node' 'node' 'install node 18 or newer; node 22 itself is brought along'
need 'command -v npm' 'npm' 'install npm'
need 'command -v python3' 'python3' 'install python 3.10 or newer'
need 'python3 -c "import venv, ensurepip"' 'the python venv module' 'on Debian: apt-get install python3-venv'
need 'command -v "${CXX:-c++}" || command -v g++' 'a C++ compiler' 'on Debian: apt-get install g++'
need 'command -v make' 'make' 'on Debian: apt-get install make'
need 'command -v flock' 'flock' 'on Debian: apt-get install util-linux'

# The second of two runs waits here and then finds the first one's stamps.
exec 9>.setup.lock
flock 9

if ! fresh "$node_stamp" "$node_key"; then
  say "installing npm packages (a minute or two)"
  # The PDS wants node >= 22. node_modules/node-linux-* is the real binary with
  # its headers, shipped as an ordinary package; 185 MB, so only where needed.
  omit=
  if [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 22 ]; then omit=--omit=optional; fi
  # Install scripts stay off: several want prebuilt binaries from elsewhere. The
  # one that matters is built from source below.
  nice -n 10 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error $omit >&2
  home=
  for dir in "$PWD"/node_modules/node-linux-*; do
    if [ -x "$dir/bin/node" ]; then home=$dir; fi
  done
  if [ -z "$home" ]; then home=$(dirname "$(dirname "$(node -p process.execPath)")"); fi
  PATH="$home/bin:$PATH"
  export PATH
  # Headers of the very node that will run it: a nodedir from the user's own
  # npm settings may belong to another version, and the result would not load.
  if [ -f "$home/include/node/node.h" ]; then
    npm_config_nodedir=$home
    export npm_config_nodedir
  fi
  say "compiling better-sqlite3 with node $(node -v) (two minutes or so)"
  if ! npm_config_build_from_source=better-sqlite3 \
    nice -n 10 npm rebuild better-sqlite3 --foreground-scripts >build.log 2>&1 ||
    ! node -e 'new (require("better-sqlite3"))(":memory:")' >>build.log 2>&1; then
    tail -20 build.log >&2
    say "better-sqlite3 did not compile (hint: see tests/network/build.log)"
    exit 1
  fi
  rm -f build.log
  # Objects and sources of the build are of no use any more (60 MB).
  rm -rf node_modules/better-sqlite3/build/Release/obj* node_modules/better-sqlite3/build/Release/.deps
  printf '%s\n' "$node_key" >"$node_stamp"
fi

if ! fresh "$ts_stamp" "$ts_key"; then
  say "installing npm packages of the TypeScript example"
  (cd "$ts" && nice -n 10 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
  printf '%s\n' "$ts_key" >"$ts_stamp"
fi

venv .venv requirements.txt
venv didcomm/.venv-messaging didcomm/messaging.txt
venv didcomm/.venv-sicpa didcomm/sicpa.txt --no-deps # why: see the list
venv "$python/.venv" "$python/requirements.txt"
say "ready"
