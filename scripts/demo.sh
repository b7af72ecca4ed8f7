#!/bin/sh
# Boots a real kernel twice, healthy and sick, and shows both verdicts.
set -eu
cd "$(dirname "$0")/.."
kolumbo=target/release/kolumbo
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

package=$(scripts/kernel.sh package)
make -s -C tests/guests OUT="$scratch/sick" >/dev/null

# run EXPECTED NAME ARGUMENTS...: boots, and fails unless the exit code is the expected one.
run() {
    expected=$1 name=$2
    shift 2
    printf '\n$ kolumbo boot %s' "$(basename "$package")"
    for word; do case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done
    printf '\n'
    code=0
    "$kolumbo" boot "$package" --out "$scratch/$name" "$@" >"$scratch/$name.log" 2>&1 || code=$?
    # The console is long; the report behind it is the point.
    grep -c '' "$scratch/$name/console.log" | sed 's/^/  (console: /; s/$/ lines)/'
    "$kolumbo" show --no-console "$scratch/$name"
    echo "  exit code $code"
    if [ "$code" != "$expected" ]; then
        echo "the demo expected exit code $expected; the log:" >&2
        cat "$scratch/$name.log" >&2
        exit 1
    fi
}

echo "A healthy boot of Debian's cloud kernel, with kolumbo's own userspace:"
run 0 healthy --smp 2 --memory 512m
echo
echo "The same kernel with a module that takes two spinlocks in the wrong order:"
run 14 sick --smp 2 --memory 512m --module "$scratch/sick/sick.ko how=abba"
