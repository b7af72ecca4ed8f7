#!/bin/sh
# Fails with advice where there is no Rust toolchain that is new enough.
set -eu
want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
found=$(cargo --version 2>/dev/null | awk '{print $2}' || true)
oldest=$(printf '%s\n%s\n' "$want" "${found:-0}" | sort -V | head -n 1)
if [ "$oldest" != "$want" ]; then
    echo "kolumbo needs Rust $want or newer; ${found:+this is $found, }get it with rustup" >&2
    echo "(Debian 13 and newer: apt-get install rustup && rustup default stable)" >&2
    exit 1
fi
