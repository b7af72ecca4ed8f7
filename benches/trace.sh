#!/bin/sh
# A trace of 30 frames against a vmlinux with DWARF: `kolumbo explain` (which keeps no cache) against the
# kernel's scripts/decode_stacktrace.sh and against one call of addr2line; one ratio a line with the
# command measured against. Usage: benches/trace.sh KOLUMBO VMLINUX [DECODE_STACKTRACE]
set -eu
kolumbo=${1:?name the program, for example target/release/kolumbo}
vmlinux=${2:?name a vmlinux with debug information}
decode=${3:-}
folder=$(mktemp -d "${TMPDIR:-/tmp}/kolumbo-bench.XXXXXX")
trap 'rm -rf "$folder"' EXIT

# Functions whose names stand once, spread over the text; the kernel prints the distance to the next
# symbol as the size.
nm -n "$vmlinux" | awk '$2 ~ /[tT]/' > "$folder/text"
awk 'NR == FNR { count[$3]++; next }
     last != "" && $1 != at { print last, at, $1; last = "" }
     count[$3] == 1 && $3 ~ /^[a-z_0-9]+$/ { last = $3; at = $1 }' "$folder/text" "$folder/text" |
    while read -r name from to; do
        # Not every shell counts to 2^64.
        size=$((0x${to#ffffffff} - 0x${from#ffffffff}))
        if [ "$size" -gt 64 ] && [ "$size" -lt 4096 ]; then
            echo "$name $from $(printf '%x' "$size")"
        fi
    done > "$folder/functions"
# An image of another release than the log's would not be used.
release=$(grep -a -m 1 -o 'Linux version [0-9][^ ]*' "$vmlinux" | head -n 1 | cut -d ' ' -f 3)
step=$(($(wc -l < "$folder/functions") / 31))
awk -v step="$step" 'NR % step == 0 && n++ < 31' "$folder/functions" > "$folder/frames"
{
    echo 'BUG: unable to handle page fault for address: ffffc90000e08018'
    echo 'Oops: 0000 [#1] PREEMPT SMP'
    echo "CPU: 0 PID: 1 Comm: init Not tainted $release #1"
    awk 'NR == 1 { print "RIP: 0010:" $1 "+0x21/0x" $3 }' "$folder/frames"
    echo 'RSP: 0018:ffffc900000f3e18 EFLAGS: 00010246'
    echo 'RAX: 0000000000000000 RBX: ffffc90000e08000 RCX: 0000000000000000'
    echo 'Call Trace:'
    echo ' <TASK>'
    awk 'NR > 1 { print " " $1 "+0x21/0x" $3 }' "$folder/frames"
    echo ' </TASK>'
    echo '---[ end trace 0000000000000000 ]---'
} > "$folder/log"

# Wall seconds of a command, the best of as many runs as the second argument says.
wall() {
    best=
    for _ in $(seq "$2"); do
        now=$( { LC_ALL=C bash -c "TIMEFORMAT=%R; time { $1; } > $folder/out 2> $folder/err"; } 2>&1 | tail -n 1)
        best=$(printf '%s\n%s\n' "${best:-$now}" "$now" | sort -g | head -n 1)
    done
    echo "$best"
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }

cat "$vmlinux" > /dev/null
explain="$kolumbo explain $folder/log --vmlinux $vmlinux"
ours=$(wall "$explain" 3)
frames=$(grep -cE '^        .*\.[chS]:[0-9]+\)?$' "$folder/out" || true)
[ "$frames" -ge 30 ] || { echo "explain named $frames source lines only" >&2; exit 1; }
address=$(awk 'NR == 2 { print "0x" $2 }' "$folder/frames")
theirs=$(wall "addr2line -ifC -e $vmlinux $address" 1)
echo "$(ratio "$ours" "$theirs") explain 30 frames ($ours s, $frames lines of source) / addr2line -ifC -e VMLINUX, one address ($theirs s)"
if [ -n "$decode" ]; then
    theirs=$(wall "bash $decode $vmlinux auto < $folder/log" 1)
    known=$(grep -cE '\([^ ]+:[0-9]+' "$folder/out" || true)
    echo "$(ratio "$ours" "$theirs") explain 30 frames ($ours s) / scripts/decode_stacktrace.sh VMLINUX auto ($theirs s, $known frames)"
fi
# Private memory, without the mapped file: RLIMIT_DATA ends whoever takes more.
for mb in 50 100 150 200 250 300; do
    if bash -c "ulimit -d $((mb * 1024)); $explain" > "$folder/out" 2>&1 && grep -q 'call trace' "$folder/out"; then
        echo "$(ratio "$mb" 300) explain 30 frames within $mb MB of memory beyond the mapped file / 300 MB"
        exit
    fi
done
echo 'explain 30 frames needs more than 300 MB of memory beyond the mapped file' >&2
exit 1
