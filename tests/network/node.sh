#!/bin/sh
# Run a script of this directory: node.sh network.mjs [arguments]
# with the node that setup.sh installed, or the machine's own.
here=$(cd "$(dirname "$0")" && pwd)
script=$1
shift
for dir in "$here"/node_modules/node-linux-*/bin; do
  [ -x "$dir/node" ] && exec "$dir/node" "$here/$script" "$@"
done
exec node "$here/$script" "$@"
