#!/bin/sh
# Every ratio that is asked for, one a line, with the command it was measured against.
set -eu
cd "$(dirname "$0")/.."
debug=$(scripts/kernel.sh debug)
vmlinux=$(ls "$debug"/usr/lib/debug/boot/vmlinux-* "$debug"/usr/lib/debug/lib/modules/*/vmlinux 2>/dev/null | head -n 1)
benches/watching.sh
benches/read.sh target/release/examples/read
benches/flood.sh
benches/trace.sh target/release/kolumbo "$vmlinux" "$(scripts/kernel.sh scripts)/scripts/decode_stacktrace.sh"
benches/matrix.sh
benches/stack.sh target/release/kolumbo
# More kernels, where they lie beside the first one, show how the check grows.
benches/check.sh target/release/kolumbo "$vmlinux" $(ls "${XDG_CACHE_HOME:-$HOME/.cache}"/kolumbo/images/*/usr/lib/debug/boot/vmlinux-* 2>/dev/null)
