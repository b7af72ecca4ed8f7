//! The program for the guest: small, static, free of warnings, and formatted.

use std::process::Command;

use kolumbo_init::INIT_ELF;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

#[test]
fn it_is_a_small_static_x86_64_executable() {
    assert!(INIT_ELF.len() < 100 * 1024, "{} bytes", INIT_ELF.len());
    let header = elf::FileHeader64::<Endianness>::parse(INIT_ELF).unwrap();
    let endian = header.endian().unwrap();
    assert_eq!(header.e_machine(endian), elf::EM_X86_64);
    assert_eq!(
        header.e_type(endian),
        elf::ET_EXEC,
        "a position-independent program needs relocating"
    );
    let segments = header.program_headers(endian, INIT_ELF).unwrap();
    assert!(!segments.is_empty());
    for segment in segments {
        let kind = segment.p_type(endian);
        assert!(kind != elf::PT_INTERP && kind != elf::PT_DYNAMIC, "it wants a dynamic linker");
        let both = elf::PF_W | elf::PF_X;
        assert_ne!(segment.p_flags(endian) & both, both, "a segment is writable and executable");
    }
}

#[test]
fn it_names_no_folder_of_the_machine_that_built_it() {
    let folder = env!("CARGO_MANIFEST_DIR").as_bytes();
    assert!(!INIT_ELF.windows(folder.len()).any(|w| w == folder));
}

#[test]
fn its_source_compiles_without_a_warning() {
    let out = tempfile::tempdir().unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let result = Command::new(rustc)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/guest/main.rs"))
        .args(["--edition", "2024", "--crate-type", "bin", "--emit", "metadata"])
        .args(["--target", "x86_64-unknown-linux-gnu", "-C", "panic=abort", "-D", "warnings"])
        .arg("--out-dir")
        .arg(out.path())
        .output()
        .unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
}

#[test]
fn outside_a_guest_it_ends_at_once_and_touches_nothing() {
    // Anything but PID 1 must leave: this program powers the machine off.
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("init");
    std::fs::write(&path, INIT_ELF).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let result = Command::new(&path).output().unwrap();
    assert_eq!(result.status.code(), Some(64));
    assert!(result.stdout.is_empty() && result.stderr.is_empty());
}

#[test]
fn its_source_is_formatted() {
    // `cargo fmt` does not know the guest's sources: no target of a package names them.
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/main.rs");
    let result = Command::new("rustfmt").args(["--check", "--edition", "2024", source]).output();
    match result {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        Err(e) => {
            assert!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "rustfmt: {e}")
        }
    }
}
