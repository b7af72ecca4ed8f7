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

# The kernels of the case are built in minutes; what is in the cache is shown at once.
builds=${XDG_CACHE_HOME:-$HOME/.cache}/kolumbo/builds
built=0
for file in "$builds"/*/build.json; do
    grep -qs '"arch/x86/kernel/paravirt.c"' "$file" && grep -q '"state": *"done"' "$file" && built=$((built + 1))
done
echo
if [ "$built" -ge 3 ]; then
    echo "A bug of the paravirt calls, from its console and its vmlinux to the proof in the running guest:"
    printf '\n$ kolumbo case run native-save-fl\n'
    "$kolumbo" case run native-save-fl --out "$scratch/native-save-fl"
else
    echo "There is more: 'kolumbo case run native-save-fl' builds three kernels from Debian's source (some ten minutes,"
    echo "once), boots them, and proves who destroys RCX. It needs clang-14, lld-14, llvm-14, gcc-12, flex, bison, bc and libelf-dev."
fi
