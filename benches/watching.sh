#!/bin/sh
# The cost of watching: `kolumbo boot` against the bare QEMU command that `--dry-run` prints, on a
# healthy kernel. Prints the median ratio of PAIRS pairs (default 10), one after the other.
set -eu
cd "$(dirname "$0")/.."
kolumbo=target/release/kolumbo
pairs=${PAIRS:-10}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
kernel=$(echo "$(scripts/kernel.sh)"/boot/vmlinuz-*)

bare=$("$kolumbo" boot "$kernel" --dry-run 2>/dev/null)

# ms COMMAND...: wall time of a command in milliseconds.
ms() {
    begin=$(date +%s%N)
    "$@" >/dev/null 2>&1 </dev/null
    end=$(date +%s%N)
    echo $(((end - begin) / 1000000))
}

i=0
while [ $i -lt "$pairs" ]; do
    # Who goes first alternates, so that neither always finds the caches warmer.
    if [ $((i % 2)) = 0 ]; then
        a=$(ms sh -c "$bare")
        b=$(ms "$kolumbo" boot "$kernel" -q --out "$scratch/$i")
    else
        b=$(ms "$kolumbo" boot "$kernel" -q --out "$scratch/$i")
        a=$(ms sh -c "$bare")
    fi
    echo "$a $b"
    i=$((i + 1))
done | awk '{ print $2 / $1, $1, $2 }' | sort -n >"$scratch/ratios"

awk '{ r[NR] = $1; if ($2 > 0) { a[NR] = $2; b[NR] = $3 } }
    END { m = NR % 2 ? r[(NR + 1) / 2] : (r[NR / 2] + r[NR / 2 + 1]) / 2
          printf "watching          %.3f  (at most 1.05; from %.3f to %.3f)  kolumbo boot KERNEL -q  against  the QEMU command of --dry-run\n", m, r[1], r[NR] }' "$scratch/ratios"
