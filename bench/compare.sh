#!/bin/bash
# bench/compare.sh BASE CHANGE MODEL... [-- OPTIONS OF quern bench]: is CHANGE (a built quern tool, or a build folder with one) faster or slower than BASE?
# Both run in turn, in fresh processes, ROUNDS times (7), SECONDS each (0.5); a difference counts when it exceeds three
# standard errors of this very comparison and one percent. Exit code 1 where something became slower.
set -e
here=$(cd "$(dirname "$0")" && pwd)
tool() { if [ -d "$1" ]; then echo "$1/quern"; else echo "$1"; fi; }
[ $# -ge 3 ] || { sed -n 2,4p "$0" | cut -c3- >&2; exit 64; }
base=$(tool "$1") change=$(tool "$2")
shift 2
exec python3 "$here/compare.py" --rounds "${ROUNDS:-7}" --seconds "${SECONDS_EACH:-0.5}" "$base" "$change" "$@"
