#!/bin/sh
# CPU that kolumbo spends while a live guest floods its console, against the CPU that QEMU spends on
# the same flood, from the first line of the flood to the end of the run. Prints one ratio.
# Usage: benches/flood.sh [SECONDS]
set -eu
cd "$(dirname "$0")/.."
kolumbo=target/release/kolumbo
seconds=${1:-30}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
kernel=${KOLUMBO_TEST_KERNEL:-$(echo "$(scripts/kernel.sh)"/boot/vmlinuz-*)}

# Ticks of a process with all its threads, user and system (proc(5), fields 14 and 15).
ticks() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '{ print $12 + $13 }'; }

"$kolumbo" boot "$kernel" --no-kvm -q --timeout "$((seconds + 60))s" --out "$scratch/case" \
    --exec /bin/busybox sh -c 'exec /kolumbo/exec/busybox yes "flood of the console, line after line after line" > /dev/console' \
    >/dev/null 2>&1 </dev/null &
ours=$!
until grep -qs 'flood of the console' "$scratch/case/console.log"; do
    kill -0 "$ours" 2>/dev/null || { echo "the guest ended before it flooded its console" >&2; exit 1; }
    sleep 0.2
done
qemu=$(pgrep -P "$ours" -f qemu | head -n 1)
k0=$(ticks "$ours") q0=$(ticks "$qemu") b0=$(stat -c %s "$scratch/case/console.log")
k1=$k0 q1=$q0 b1=$b0 n=0
while [ "$n" -lt "$((seconds * 5))" ]; do
    sleep 0.2
    k=$(ticks "$ours") q=$(ticks "$qemu")
    { [ -n "$k" ] && [ -n "$q" ]; } || break
    k1=$k q1=$q b1=$(stat -c %s "$scratch/case/console.log")
    n=$((n + 1))
done
kill "$ours" 2>/dev/null || true
wait "$ours" 2>/dev/null || true
echo "$((k1 - k0)) $((q1 - q0)) $((b1 - b0))" | awk '{
    if ($2 == 0) { print "flood             too short to measure"; exit 1 }
    printf "flood             %.3f  (below 1)  CPU of kolumbo boot (%d ticks)  against  CPU of its QEMU (%d ticks) over %d bytes of console\n", $1 / $2, $1, $2, $3 }'
