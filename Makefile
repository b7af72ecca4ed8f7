# Everything a newcomer needs: `make demo` and `make test`. On Debian both install what is missing
# with apt; elsewhere they say which package is missing.

TEST_PACKAGES = qemu-system-x86 busybox-static linux-headers-cloud-amd64 gcc make binutils \
	xz-utils zstd bzip2 lz4 lzop cpio slurmctld slurmd slurm-client munge \
	chromium python3-venv git clang-14 lld-14 llvm-14 llvm-14-tools clang-19 lld-19 llvm-19 \
	gcc-12 flex bison bc libelf-dev
BENCH_PACKAGES = $(TEST_PACKAGES) grep

all: build

build: toolchain
	cargo build --release -p kolumbo

toolchain:
	@scripts/cargo.sh

demo: toolchain
	@scripts/need.sh qemu-system-x86 linux-headers-cloud-amd64 gcc make
	cargo build --release -p kolumbo
	@scripts/demo.sh

# The fast form of every test; the long runs are in `make soak`.
test: toolchain
	@scripts/need.sh $(TEST_PACKAGES)
	@scripts/kernel.sh debug >/dev/null
	@scripts/kernel.sh other >/dev/null
	@scripts/kernel.sh scripts >/dev/null
	cargo test --workspace

lint: toolchain
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; \
	else echo "cargo-deny is not installed: licences and bans were not checked"; fi

# Hours, not minutes: every sick guest, 200 healthy boots, 200 runs side by side.
soak: toolchain
	@scripts/need.sh $(TEST_PACKAGES)
	@scripts/kernel.sh debug >/dev/null
	@scripts/kernel.sh other >/dev/null
	@scripts/kernel.sh scripts >/dev/null
	KOLUMBO_GUESTS=all KOLUMBO_SOAK=1 cargo test --release -p kolumbo -p kolumbo-vmlinux -p kolumbo-detective \
		-p kolumbo-contracts -- --nocapture --test-threads 1

# One ratio a line, with the command it was measured against.
bench: toolchain
	@scripts/need.sh $(BENCH_PACKAGES)
	@scripts/kernel.sh debug >/dev/null
	cargo build --release --workspace --examples --bins
	@benches/run.sh

man: toolchain
	cargo run -q --release -p kolumbo -- manual target/man

.PHONY: all build toolchain demo test lint soak bench man
