//! The tables of real kernels, held against the code that they point at: each kind of entry can only
//! point at certain instructions, so a wrong layout shows at once.
#![allow(clippy::disallowed_methods)]

mod debian;

use kolumbo_vmlinux::tables::orc::{OrcKind, OrcTable};
use kolumbo_vmlinux::tables::sites::{SiteList, sites};
use kolumbo_vmlinux::tables::{
    Table, alternatives, bugs, ex_table, jump_labels, paravirt, static_calls,
};
use kolumbo_vmlinux::{Elf, Image, SymbolTable, module};

/// Runs `check` on every vmlinux that is on this machine.
fn each_vmlinux(check: impl Fn(&str, &Image<'_>)) {
    let mut seen = 0;
    for (release, kernel) in debian::find() {
        let Some(vmlinux) = kernel.vmlinux else { continue };
        let file = std::fs::File::open(&vmlinux).unwrap();
        // SAFETY: nobody writes to the file of an unpacked package while the test runs.
        let bytes = unsafe { memmap2::Mmap::map(&file).unwrap() };
        let elf = Elf::parse(&bytes).unwrap();
        let symbols = SymbolTable::from_elf(&elf, |_| true);
        check(&release, &Image::of_vmlinux(&elf, symbols));
        seen += 1;
    }
    if seen == 0 {
        debian::skip("Debian's vmlinux with symbols");
    }
}

/// Every entry satisfies `fits`, there are at least `least`, and nothing is missing.
fn assert_all<T: std::fmt::Debug>(
    release: &str,
    name: &str,
    table: &Table<T>,
    least: usize,
    fits: impl Fn(&T) -> bool,
) {
    assert_eq!(table.gaps, [], "{release} {name}");
    assert!(table.entries.len() >= least, "{release} {name}: {}", table.entries.len());
    let odd: Vec<_> = table.entries.iter().filter(|e| !fits(e)).collect();
    let shown = odd.get(..odd.len().min(5)).unwrap_or_default();
    assert!(
        odd.is_empty(),
        "{release} {name}: {} of {} are odd: {shown:x?}",
        odd.len(),
        table.entries.len()
    );
}

/// Target of the direct call, jump or conditional jump at `address`.
fn branch_target(image: &Image<'_>, address: u64) -> Option<u64> {
    let code = image.bytes_at(address, 6).or_else(|| image.bytes_at(address, 5))?;
    // A prefix that pads the instruction may stand in front.
    let (skip, length) = match code {
        [0x2e | 0x66, 0xe8 | 0xe9, ..] => (2, 6),
        [0xe8 | 0xe9, ..] => (1, 5),
        [0x0f, 0x80..=0x8f, ..] => (2, 6),
        _ => return None,
    };
    let offset = i32::from_le_bytes(image.bytes_at(address + skip, 4)?.try_into().ok()?);
    Some((address + length).wrapping_add_signed(i64::from(offset)))
}

fn names_at(image: &Image<'_>, address: Option<u64>) -> Vec<String> {
    address.map_or_else(Vec::new, |a| image.symbols().at(a).map(|s| s.name.to_string()).collect())
}

fn starts_with(image: &Image<'_>, address: u64, any: &[&[u8]]) -> bool {
    image.bytes_from(address).is_some_and(|code| any.iter().any(|a| code.starts_with(a)))
}

#[test]
fn thunk_and_return_sites_branch_to_thunks() {
    each_vmlinux(|release, image| {
        assert_all(release, "retpoline", &sites(image, SiteList::Retpoline), 1000, |&site| {
            names_at(image, branch_target(image, site))
                .iter()
                .any(|n| n.starts_with("__x86_indirect_"))
        });
        assert_all(release, "return", &sites(image, SiteList::Return), 10_000, |&site| {
            names_at(image, branch_target(image, site)).iter().any(|n| n == "__x86_return_thunk")
        });
        assert_all(release, "call", &sites(image, SiteList::Call), 0, |&site| {
            branch_target(image, site).is_some()
        });
    });
}

#[test]
fn trace_hooks_locks_and_seals_stand_on_their_instructions() {
    each_vmlinux(|release, image| {
        assert_all(release, "mcount", &sites(image, SiteList::Mcount), 10_000, |&site| {
            names_at(image, branch_target(image, site)).iter().any(|n| n == "__fentry__")
        });
        assert_all(release, "smp_locks", &sites(image, SiteList::SmpLock), 1000, |&site| {
            // Where the operand is 16 bits wide, its prefix stands in front of `lock`.
            starts_with(image, site, &[&[0xf0], &[0x66, 0xf0]])
        });
        assert_all(release, "endbr", &sites(image, SiteList::EndbrSeal), 0, |&site| {
            starts_with(image, site, &[&[0xf3, 0x0f, 0x1e, 0xfa]])
        });
    });
}

#[test]
fn static_calls_go_through_the_trampoline_of_their_key() {
    each_vmlinux(|release, image| {
        let table = static_calls::static_call_sites(image);
        assert_all(release, "static calls", &table, 500, |site| {
            let keys = names_at(image, Some(site.key));
            let Some(name) = keys.iter().find_map(|k| k.strip_prefix("__SCK__")) else {
                return false;
            };
            let target = names_at(image, branch_target(image, site.instruction));
            let opcode = image.bytes_at(site.instruction, 1);
            target.iter().any(|t| t.strip_prefix("__SCT__") == Some(name))
                // A tail call is a jump, conditional in newer kernels; so is a jump to one.
                && (site.tail || opcode != Some(&[0xe9]))
        });
    });
}

#[test]
fn jump_labels_and_bugs_stand_on_their_instructions() {
    each_vmlinux(|release, image| {
        assert_all(release, "jump labels", &jump_labels::jump_labels(image), 1000, |label| {
            let nops: [&[u8]; 4] = [&[0x0f, 0x1f, 0x44, 0, 0], &[0x66, 0x90], &[0xe9], &[0xeb]];
            starts_with(image, label.instruction, &nops) && label.key % 8 == 0
        });
        assert_all(release, "bugs", &bugs::bugs(image), 1000, |bug| {
            let source =
                bug.file.is_some_and(|f| [".c", ".h", ".S"].iter().any(|e| f.ends_with(e)));
            // Warnings with a text (BUGFLAG_ARGS) point at where their arguments are set up.
            let trap =
                starts_with(image, bug.instruction, &[&[0x0f, 0x0b]]) || bug.flags & 0x10 != 0;
            trap && source && bug.line > 0
        });
    });
}

#[test]
fn alternatives_and_paravirt_sites_are_sound() {
    each_vmlinux(|release, image| {
        assert_all(release, "alternatives", &alternatives::alternatives(image), 500, |a| {
            let place = image.section_of(a.replacement).map(|s| s.name);
            a.replacement_length == 0 || place == Some(".altinstr_replacement")
        });
        assert_all(release, "paravirt", &paravirt::paravirt_sites(image), 0, |site| {
            // An indirect call through memory, or what objtool made of the return of an interrupt.
            site.length >= 1 && site.length <= 16 && image.is_code(site.instruction)
        });
        assert_all(release, "ex_table", &ex_table::ex_table(image), 300, |e| {
            image.is_code(e.fixup)
                && match e.action {
                    ex_table::Fixup::Type { kind, .. } => kind < 32,
                    ex_table::Fixup::Handler(handler) => {
                        names_at(image, Some(handler)).iter().any(|n| n.starts_with("ex_handler_"))
                    }
                }
        });
    });
}

#[test]
fn orc_describes_the_first_instructions_of_functions() {
    each_vmlinux(|release, image| {
        let orc = OrcTable::find(image).unwrap().unwrap();
        let mut ordinary = 0;
        let hooks = sites(image, SiteList::Mcount).entries;
        for &hook in &hooks {
            // Where ftrace is called, nothing is on the stack yet but the return address.
            let entry = orc.lookup(hook).unwrap();
            ordinary += usize::from(
                entry.kind == OrcKind::Call
                    && entry.sp_offset == 8
                    && entry.sp_register == kolumbo_vmlinux::tables::orc::OrcRegister::Sp,
            );
        }
        assert!(ordinary * 1000 >= hooks.len() * 999, "{release}: {ordinary} of {}", hooks.len());
        let shares = orc.iter().filter(|e| e.kind == OrcKind::Call).count();
        assert!(shares * 10 > orc.len() * 7, "{release}: {shares} calls of {}", orc.len());
    });
}

#[test]
fn a_linked_module_calls_what_it_says() {
    let mut seen = 0;
    for (_, kernel) in debian::find() {
        let Some(modules) = kernel.modules else { continue };
        let mut files = Vec::new();
        collect(&modules, &mut files);
        for path in files.iter().take(40) {
            let file = std::fs::read(path).unwrap();
            let bytes = module::unpack(&file).unwrap();
            let elf = Elf::parse(&bytes).unwrap();
            let image = module::link(&elf, module::DEFAULT_BASE, |_| None);
            assert_eq!(image.gaps(), [], "{}", path.display());
            for site in sites(&image, SiteList::Mcount).entries {
                assert_eq!(names_at(&image, branch_target(&image, site)), ["__fentry__"]);
            }
            for bug in &bugs::bugs(&image) {
                assert!(bug.file.is_some(), "{} {bug:x?}", path.display());
            }
            seen += 1;
        }
    }
    if seen == 0 {
        debian::skip("a folder with Debian's modules");
    }
}

fn collect(dir: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.to_string_lossy().contains(".ko") {
            files.push(path);
        }
    }
}
