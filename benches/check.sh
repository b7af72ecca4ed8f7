#!/bin/sh
# Prints how `kolumbo check` compares with objdump -d on the same image, and how both grow from kernel to kernel: wall time of
# both (the middle of three runs, in turn), their ratio, peak memory, functions and instructions.
# Usage: benches/check.sh KOLUMBO VMLINUX...
set -eu
kolumbo=${1:?name the program, for example target/release/kolumbo}
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# timed OUT SAID COMMAND...: appends wall, user, system seconds and kilobytes to OUT; the command writes to SAID.
timed() {
    out=$1
    said=$2
    shift 2
    command time -a -o "$out" -f '%e %U %S %M' "$@" > "$said" || [ "$?" = 1 ]
}
middle() { sort -g "$1" | awk -v column="$2" '{ rows[NR] = $0 } END { split(rows[int((NR + 1) / 2)], row, " "); print row[column] }'; }

printf '%-28s %6s %8s %8s %6s %9s %10s %13s\n' image MiB check objdump ratio 'peak MiB' functions instructions
for image in "$@"; do
    : > "$folder/check"
    : > "$folder/objdump"
    cat "$image" > /dev/null
    for _ in 1 2 3; do
        timed "$folder/check" "$folder/report" "$kolumbo" check --json "$image"
        timed "$folder/objdump" /dev/null objdump -d "$image"
    done
    total() { sed -n "s/^ *\"$1\": \([0-9]*\),*/\1/p" "$folder/report" | head -n 1; }
    check=$(middle "$folder/check" 1)
    objdump=$(middle "$folder/objdump" 1)
    printf '%-28s %6s %8s %8s %6s %9s %10s %13s\n' "$(basename "$image")" \
        "$(($(stat -Lc %s "$image") / 1048576))" "$check" "$objdump" \
        "$(awk -v a="$check" -v b="$objdump" 'BEGIN { printf "%.2f", a / b }')" \
        "$(($(middle "$folder/check" 4) / 1024))" "$(total functions)" "$(total instructions)"
done
