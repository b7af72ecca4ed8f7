#!/bin/sh
# Every ratio that is asked for, one a line, with the command it was measured against.
set -eu
cd "$(dirname "$0")"
for bench in *.sh; do
    [ "$bench" = run.sh ] || "./$bench"
done
