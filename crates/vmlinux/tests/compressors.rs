//! Every compressor that a kernel may be built with (init/Kconfig, `KERNEL_GZIP` and so on), by the
//! program that the kernel's build runs (scripts/Makefile.lib).
#![allow(clippy::disallowed_methods)]

mod debian;
mod synthetic;

use std::io::Write;
use std::process::{Command, Stdio};

use kolumbo_vmlinux::{Kernel, module};
use synthetic::{BASE, bzimage, elf};

/// Program and arguments; `sized` when the build appends the length, which gzip has by itself.
const COMPRESSORS: [(&str, &[&str], bool); 7] = [
    ("gzip", &["-n", "-f", "-9"], false),
    ("bzip2", &["-9"], true),
    ("lzma", &["-9"], true),
    ("xz", &["--check=crc32", "--x86", "--lzma2=dict=32MiB"], true),
    ("lzop", &["-9"], true),
    ("lz4", &["-l", "-9", "-", "-"], true),
    ("zstd", &["-19", "-"], true),
];

/// Machine code, for the x86 filter of xz.
fn vmlinux(length: usize) -> Vec<u8> {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let code: Vec<u8> = program.iter().copied().cycle().take(length).collect();
    elf(BASE, &code)
}

fn run(program: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    let spawned = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.ok()?;
    let mut stdin = child.stdin.take()?;
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().ok()?;
    writer.join().ok()?.ok()?;
    output.status.success().then_some(output.stdout)
}

#[test]
fn every_compressor_is_unpacked() {
    let (short, long) = (vmlinux(1 << 20), vmlinux(9 << 20));
    for (program, args, sized) in COMPRESSORS {
        // A block of lz4 holds 8 MiB.
        let vmlinux = if program == "lz4" { &long } else { &short };
        let Some(mut payload) = run(program, args, vmlinux) else {
            debian::skip(&format!("the program {program}"));
            continue;
        };
        if sized {
            payload.extend_from_slice(&(vmlinux.len() as u32).to_le_bytes());
        }
        let image = bzimage(&payload);
        let kernel = Kernel::open(&image).unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(kernel.vmlinux() == *vmlinux, "{program}");
        // A byte in the middle that is wrong must not go unnoticed where there is a checksum.
        if matches!(program, "gzip" | "bzip2" | "xz" | "zstd") {
            let mut damaged = image.clone();
            let middle = 5 * 512 + payload.len() / 2;
            damaged[middle] ^= 0x55;
            let error = Kernel::open(&damaged).map(|_| ()).expect_err(program).to_string();
            assert!(error.starts_with(&format!("cannot unpack the {program} payload")), "{error}");
        }
        // A payload that promises another length is damaged.
        let mut other = image;
        let length_at = 5 * 512 + payload.len() - 4;
        other[length_at] ^= 1;
        assert!(Kernel::open(&other).is_err(), "{program}");
    }
}

#[test]
fn compressed_modules_are_unpacked() {
    let module = elf(BASE, b"no module, but ELF");
    for (program, args) in
        [("xz", &["--check=crc32", "--lzma2=dict=1MiB"][..]), ("zstd", &["-"]), ("gzip", &["-n"])]
    {
        let Some(packed) = run(program, args, &module) else {
            debian::skip(&format!("the program {program}"));
            continue;
        };
        assert_eq!(*module::unpack(&packed).unwrap(), *module, "{program}");
    }
    assert_eq!(*module::unpack(&module).unwrap(), *module);
}
