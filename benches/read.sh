#!/bin/sh
# Prints how kolumbo's reader compares with grep on the same text, one ratio a line with the
# command measured against. Usage: benches/read.sh READER [MiB]
# READER is `kolumbo read --json` or the example `read` of crates/console, built with --release.
set -eu
reader=${1:?name the reader, for example 'target/release/examples/read'}
mib=${2:-1024}
folder=$(mktemp -d "${TMPDIR:-/dev/shm}/kolumbo-bench.XXXXXX")
trap 'rm -rf "$folder"' EXIT

cat > "$folder/headers" <<'HEADERS'
BUG:
WARNING:
INFO:
Unable to handle kernel
general protection fault
Kernel panic
kernel BUG
Kernel BUG
unreferenced object
unregister_netdevice: waiting for
PANIC: double fault
UBSAN:
Internal error:
Unhandled fault:
Alignment trap:
divide error:
invalid opcode:
int3: 
stack segment: 
double fault: 
Oops: 
Booting the kernel
self-detected stall on CPU
HEADERS

awk 'BEGIN { srand(1); for (i = 0; i < 20000; i++) {
    t = i * 0.0007
    printf "[%12.6f] pci 0000:00:%02x.0: [8086:%04x] type 00 class 0x%06x\n", t, i % 32, rand() * 65535, rand() * 99999
    printf "[%12.6f] EXT4-fs (vda%d): mounted filesystem %08x with ordered data mode\n", t, i % 4, rand() * 2147483647
    printf "[%12.6f] systemd[1]: Started unit-%d.service - something that runs.\n", t, i
    printf "[%12.6f] audit: type=1400 audit(%d.%d:%d): apparmor=\"STATUS\"\n", t, i, i % 1000, i } }' > "$folder/block"
block=$(wc -c < "$folder/block")
count=$((mib * 1048576 / block + 1))
while [ "$count" -gt 0 ]; do cat "$folder/block"; count=$((count - 1)); done > "$folder/healthy"
cat "$folder/healthy" > /dev/null

# CPU seconds (user and system) of a command, the best of three.
cpu() {
    best=
    for _ in 1 2 3; do
        now=$( { TIMEFORMAT='%U %S'; LC_ALL=C bash -c "TIMEFORMAT='%U %S'; time $1 > /dev/null" || true; } 2>&1 | awk 'END { print $1 + $2 }')
        best=$(printf '%s\n%s\n' "${best:-$now}" "$now" | sort -g | head -n 1)
    done
    echo "$best"
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

ours=$(cpu "$reader $folder/healthy")
grep_time=$(cpu "grep -acF -f $folder/headers $folder/healthy")
echo "$(ratio "$ours" "$grep_time") read $mib MiB of healthy text ($ours s) / grep -acF -f HEADERS ($grep_time s)"

head -c 104857600 /dev/zero | tr '\0' 'x' > "$folder/line"
head -c 104857600 "$folder/healthy" > "$folder/plain"
plain=$(cpu "$reader $folder/plain")
echo "$(ratio "$(cpu "$reader $folder/line")" "$plain") read one line of 100 MB / read 100 MB of healthy text ($plain s)"
head -c 1000000 /dev/zero | tr '\0' '>' > "$folder/quoted"
head -c 1000000 "$folder/healthy" > "$folder/small"
echo "$(ratio "$(cpu "$reader $folder/quoted")" "$(cpu "$reader $folder/small")") read a million '>' / read 1 MB of healthy text"
