#!/bin/sh
# Cells per minute of `kolumbo matrix` against a shell loop over the bare QEMU commands with xargs, at
# the same parallelism: on a healthy table, and on one in which a third of the cells hangs for ever,
# where the loop has `timeout 3m`. Usage: benches/matrix.sh [CELLS] [LIMIT]. LIMIT is the loop's time limit
# in seconds (default 180); a smaller one only makes the second ratio smaller.
set -eu
cd "$(dirname "$0")/.."
kolumbo=$PWD/target/release/kolumbo
cells=${1:-12}
limit=${2:-180}
jobs=$(nproc)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
kernel=$(echo "$(scripts/kernel.sh)"/boot/vmlinuz-*)
make -s -C tests/guests OUT="$scratch/sick" >/dev/null
module="$scratch/sick/sick.ko"

# seconds COMMAND...: wall time of a command, which may fail.
seconds() {
    begin=$(date +%s%N)
    "$@" >/dev/null 2>&1 </dev/null || true
    end=$(date +%s%N)
    echo $(((end - begin) / 1000000)) | awk '{ print $1 / 1000 }'
}

# module_of KIND NUMBER: the module of a cell; every third one of a sick table hangs, others have none.
module_of() {
    if [ "$1" = third ] && [ $(($2 % 3)) = 0 ]; then echo "$module how=spin-irqs-off"; fi
}

# commands KIND FILE: the QEMU commands that kolumbo would run, one a line.
commands() {
    i=1
    while [ $i -le "$cells" ]; do
        sick=$(module_of "$1" $i)
        "$kolumbo" boot "$kernel" -m 256m ${sick:+--module "$sick"} --dry-run 2>/dev/null
        i=$((i + 1))
    done >"$2"
}

loop() {
    tr '\n' '\0' <"$1" | xargs -0 -P "$jobs" -I CMD timeout "$limit" sh -c "exec CMD"
}

ours() {
    values=
    i=1
    while [ $i -le "$cells" ]; do
        values="$values${values:+,}$i:$(module_of "$1" $i)"
        i=$((i + 1))
    done
    "$kolumbo" matrix -k "$kernel" -m 256m -j "$jobs" --axis "module=$values" --out "$2" -q
}

for kind in healthy third; do
    commands $kind "$scratch/$kind"
    mine=$(seconds ours $kind "$scratch/out-$kind")
    theirs=$(seconds loop "$scratch/$kind")
    case $kind in
    healthy) name='matrix            ' aim='at least 0.95' against='xargs -P over the bare QEMU commands' ;;
    third) name='matrix, third hung' aim='at least 10  ' against="the same with timeout ${limit}s" ;;
    esac
    awk -v t="$theirs" -v m="$mine" -v n="$cells" -v name="$name" -v aim="$aim" -v a="$against" 'BEGIN {
        printf "%s %.3f  (%s; %.1f and %.1f cells a minute)  kolumbo matrix -j  against  %s\n", name, t / m, aim, n * 60 / m, n * 60 / t, a }'
done
