#!/bin/sh
# Start the test network; see README.md or the head of network.mjs for arguments.
exec "$(dirname "$0")/node.sh" network.mjs "$@"
