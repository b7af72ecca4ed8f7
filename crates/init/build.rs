//! Compiles `guest/main.rs` into a static freestanding program for the guest.
//!
//! Cargo has no stable way to build a second target for a dependency, so the compiler is called
//! directly. The program needs no library: `core` alone, its own `_start` and its own syscalls.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=guest");
    println!("cargo::rerun-if-changed=src/words.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");

    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("kolumbo-init");
    let rustc = env::var_os("RUSTC").expect("cargo sets it");

    let mut command = Command::new(&rustc);
    command
        .arg(folder.join("guest/main.rs"))
        .args(["--crate-name", "kolumbo_init_guest", "--edition", "2024"])
        .args(["--crate-type", "bin"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .arg("-o")
        .arg(&out)
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "lto=fat"])
        .args(["-C", "codegen-units=1", "-C", "relocation-model=static"])
        .args(["-C", "strip=symbols", "-C", "link-dead-code=no"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib"])
        .args(["-C", "link-arg=-static", "-C", "link-arg=-no-pie"])
        .args(["-C", "link-arg=-Wl,--build-id=none,--gc-sections,-z,noexecstack"])
        // Panic locations must not carry the path of the machine that built the program.
        .arg(format!("--remap-path-prefix={}=init", folder.display()));
    let result = command
        .output()
        .unwrap_or_else(|e| panic!("running {} to compile the guest's init: {e}", rustc.display()));
    let messages = String::from_utf8_lossy(&result.stderr);
    assert!(
        result.status.success(),
        "compiling the guest's init failed; it needs the target x86_64-unknown-linux-gnu \
         (rustup target add x86_64-unknown-linux-gnu) and a C compiler as its linker:\n{messages}"
    );
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
}
