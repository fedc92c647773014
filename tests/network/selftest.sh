#!/bin/sh
# Try every control operation of the network in both DID document shapes.
exec "$(dirname "$0")/node.sh" selftest/main.mjs "$@"
