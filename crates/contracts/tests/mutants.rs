//! Bugs planted into a real kernel image by patching its bytes: each must be found, and the untouched image must be clean.
//!
//! A long test, part of the soak (`KOLUMBO_SOAK=1`): it checks the whole image once for each bug. The image is named by
//! `KOLUMBO_VMLINUX` (an uncompressed vmlinux with symbols). Every mutation is derived from the instructions that stand in the image.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;

use kolumbo_contracts::{Image, Input, Options, check};
use kolumbo_dataflow::iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kolumbo_vmlinux::Elf;

/// One planted bug.
struct Mutant {
    kind: &'static str,
    symbol: String,
    /// Address and new bytes.
    patches: Vec<(u64, Vec<u8>)>,
}

fn file_offset(elf: &Elf<'_>, address: u64) -> Option<usize> {
    let section = elf
        .sections()
        .iter()
        .find(|section| section.is_loaded() && section.address != 0 && section.contains(address))?;
    let data = section.data?;
    let base = data.as_ptr() as usize - elf.bytes().as_ptr() as usize;
    Some(base + (address - section.address) as usize)
}

/// The instructions of a symbol from its address up to its size, or up to `most` bytes.
fn instructions(elf: &Elf<'_>, address: u64, size: u64, most: usize) -> Vec<Instruction> {
    let length = if size == 0 { most } else { most.min(size as usize) };
    let Some(bytes) = elf.bytes_at(address, length) else { return Vec::new() };
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(instruction) =
        bytes.get(at..).and_then(|rest| kolumbo_dataflow::decode(rest, address + at as u64))
    {
        at += instruction.len();
        found.push(instruction);
    }
    found
}

/// `push`/`pop` of another register with the same length; `None` when there is none.
fn other_pop(instruction: &Instruction, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let last = bytes.last_mut()?;
    let old = *last & 7;
    // Any register of the same bank but the stack pointer.
    let new =
        (0..8).map(|step| (old + 1 + step) & 7).find(|number| *number != 4 && *number != old)?;
    *last = *last & !7 | new;
    (instruction.mnemonic() == Mnemonic::Pop).then_some(bytes)
}

/// The mutants that the image offers.
fn mutants(elf: &Elf<'_>) -> Vec<Mutant> {
    let mut planted = Vec::new();
    let symbols: BTreeMap<String, (u64, u64)> = elf
        .symbols()
        .filter(|symbol| symbol.section != 0 && symbol.kind != 1)
        .filter_map(|symbol| {
            Some((std::str::from_utf8(symbol.name).ok()?.to_owned(), (symbol.value, symbol.size)))
        })
        .collect();
    let bytes_of = |instruction: &Instruction| {
        elf.bytes_at(instruction.ip(), instruction.len()).unwrap_or_default().to_vec()
    };
    for name in ["srso_safe_ret", "srso_alias_safe_ret"] {
        if let Some((address, size)) = symbols.get(name)
            && let Some(lea) = instructions(elf, *address, *size, 8).first()
            && lea.mnemonic() == Mnemonic::Lea
        {
            // lea 8(%rsp),%rsp; ret  ->  add $8,%rsp; ret
            planted.push(Mutant {
                kind: "flags in a return thunk",
                symbol: name.into(),
                patches: vec![(*address, vec![0x48, 0x83, 0xc4, 0x08, 0xc3, 0xcc])],
            });
            planted.push(Mutant {
                kind: "flags in a return thunk",
                symbol: name.into(),
                patches: vec![(*address, vec![0x48, 0x83, 0xec, 0xf8, 0xc3, 0xcc])],
            });
        }
    }
    let is_thunk =
        |name: &str| name.starts_with("__raw_callee_save_") || name.starts_with("preempt_schedule");
    for (name, (address, size)) in
        symbols.iter().filter(|(name, _)| is_thunk(name) && name.as_str() != "preempt_schedule")
    {
        if name.starts_with("preempt_schedule") && !name.ends_with("_thunk") {
            continue;
        }
        let pops: Vec<Instruction> = instructions(elf, *address, *size, 64)
            .into_iter()
            .filter(|instruction| instruction.mnemonic() == Mnemonic::Pop)
            .collect();
        if let [first, second, ..] = pops.as_slice() {
            let (a, b) = (bytes_of(first), bytes_of(second));
            if a.len() == b.len() && first.next_ip() == second.ip() {
                planted.push(Mutant {
                    kind: "two pops swapped in a thunk",
                    symbol: name.clone(),
                    patches: vec![(first.ip(), b.clone()), (second.ip(), a.clone())],
                });
            }
            if let Some(other) = other_pop(first, &a) {
                planted.push(Mutant {
                    kind: "a pop into another register in a thunk",
                    symbol: name.clone(),
                    patches: vec![(first.ip(), other)],
                });
            }
        }
    }
    // A scratch register swapped: the 64-bit immediate goes into RDX instead of RBX, and is compared there.
    for name in ["__put_user_1", "__put_user_2", "__put_user_4", "__put_user_8"] {
        let Some((address, size)) = symbols.get(name) else { continue };
        let code = instructions(elf, *address, *size, 16);
        if let [load, compare, ..] = code.as_slice()
            && load.mnemonic() == Mnemonic::Mov
            && load.op0_kind() == OpKind::Register
            && load.op0_register() == Register::RBX
            && compare.mnemonic() == Mnemonic::Cmp
        {
            for (number, register) in [(2_u8, "rdx"), (6, "rsi"), (7, "rdi")] {
                let mut first = bytes_of(load);
                first[1] = first[1] & !7 | number;
                let mut second = bytes_of(compare);
                let modrm = second.len() - 1;
                second[modrm] = second[modrm] & !0x38 | number << 3;
                planted.push(Mutant {
                    kind: "another scratch register in put_user",
                    symbol: format!("{name} ({register})"),
                    patches: vec![(load.ip(), first), (compare.ip(), second)],
                });
            }
        }
    }
    for name in ["__sw_hweight64", "__sw_hweight32"] {
        let Some((address, size)) = symbols.get(name) else { continue };
        for instruction in instructions(elf, *address, *size, 256) {
            if matches!(instruction.mnemonic(), Mnemonic::Pop) {
                planted.push(Mutant {
                    kind: "a pop dropped in hweight",
                    symbol: name.into(),
                    patches: vec![(instruction.ip(), vec![0x58])],
                });
            }
        }
        let code = instructions(elf, *address, *size, 256);
        if let Some(copy) = code.iter().find(|instruction| {
            instruction.mnemonic() == Mnemonic::Mov
                && instruction.op0_kind() == OpKind::Register
                && instruction.op1_kind() == OpKind::Register
        }) {
            let mut bytes = bytes_of(copy);
            let modrm = bytes.len() - 1;
            bytes[modrm] = bytes[modrm] & !7 | 1;
            planted.push(Mutant {
                kind: "another destination in hweight",
                symbol: name.into(),
                patches: vec![(copy.ip(), bytes)],
            });
        }
    }
    // Functions that end in a jump to the return thunk: the last instruction before it destroys a register.
    for (name, register) in [
        ("native_save_fl", 0xc9_u8),
        ("native_save_fl", 0xd2),
        ("_paravirt_ident_64", 0xc9),
        ("_paravirt_ident_64", 0xd2),
        ("_paravirt_ident_64", 0xf6),
        ("pv_native_irq_disable", 0xc9),
        ("pv_native_irq_enable", 0xd2),
        ("__fentry__", 0xc9),
        ("__fentry__", 0xd2),
        ("__fentry__", 0xf6),
        ("__fentry__", 0xff),
        ("__x86_return_thunk", 0xc9),
        ("__x86_return_thunk", 0xd2),
        ("clear_page_orig", 0xd2),
        ("clear_page_orig", 0xf6),
        ("clear_page_erms", 0xd2),
        ("clear_page_rep", 0xf6),
    ] {
        let Some((address, size)) = symbols.get(name) else { continue };
        let code = instructions(elf, *address, *size, 96);
        // xor %reg,%reg; ret fits over the five bytes of a jump, or over a return with two bytes of padding behind it.
        let Some(exit) = code
            .iter()
            .find(|instruction| matches!(instruction.mnemonic(), Mnemonic::Jmp | Mnemonic::Ret))
        else {
            continue;
        };
        let room = exit.len() >= 3
            || elf.bytes_at(exit.next_ip(), 2).is_some_and(|padding| {
                padding.iter().all(|byte| matches!(byte, 0xcc | 0x90 | 0x66 | 0x0f))
            });
        if room {
            planted.push(Mutant {
                kind: "a register cleared before the return",
                symbol: name.into(),
                patches: vec![(exit.ip(), vec![0x31, register, 0xc3])],
            });
        }
    }
    planted
}

#[test]
fn every_planted_bug_is_found() {
    if std::env::var("KOLUMBO_SOAK").as_deref() != Ok("1") {
        println!("skipped: a long test, runs with KOLUMBO_SOAK=1");
        return;
    }
    let Some(path) = std::env::var_os("KOLUMBO_VMLINUX") else {
        panic!("KOLUMBO_VMLINUX names no image");
    };
    let file = std::fs::File::open(&path).expect("the image can be opened");
    // SAFETY: a private copy-on-write mapping; nothing else writes to the image during the test.
    let mut map =
        unsafe { memmap2::MmapOptions::new().map_copy(&file).expect("the image can be mapped") };
    let (planted, offsets) = {
        let elf = Elf::parse(&map).expect("the image is an ELF file");
        let planted = mutants(&elf);
        let offsets: Vec<Vec<Option<usize>>> = planted
            .iter()
            .map(|mutant| {
                mutant.patches.iter().map(|(address, _)| file_offset(&elf, *address)).collect()
            })
            .collect();
        (planted, offsets)
    };
    let name = path.to_string_lossy().into_owned();
    let findings = |bytes: &[u8]| {
        let image = Image::new(&[Input { name: &name, bytes }]).expect("the image can be checked");
        check(&image, &Options::default()).findings
    };
    let healthy = findings(&map);
    assert!(
        healthy.is_empty(),
        "alarms on the untouched image: {:?}",
        healthy.iter().map(|finding| &finding.culprit).collect::<Vec<_>>()
    );
    let mut by_kind: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut missed = Vec::new();
    for (mutant, offsets) in planted.iter().zip(&offsets) {
        let mut saved = Vec::new();
        for ((_, bytes), offset) in mutant.patches.iter().zip(offsets) {
            let offset = offset.expect("the patched code is in the file");
            saved.push((offset, map[offset..offset + bytes.len()].to_vec()));
            map[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        let found = findings(&map);
        for (offset, bytes) in saved.into_iter().rev() {
            map[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        let count = by_kind.entry(mutant.kind).or_default();
        count.1 += 1;
        if found.is_empty() {
            missed.push(format!("{}: {}", mutant.kind, mutant.symbol));
        } else {
            count.0 += 1;
        }
    }
    for (kind, (found, planted)) in &by_kind {
        println!("{kind}: {found} of {planted}");
    }
    println!("in all: {} of {}", planted.len() - missed.len(), planted.len());
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
