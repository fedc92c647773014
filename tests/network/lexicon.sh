#!/bin/sh
# Start the lexicon validator: lexicon.sh DIR
exec "$(dirname "$0")/node.sh" lexicon.mjs "$@"
