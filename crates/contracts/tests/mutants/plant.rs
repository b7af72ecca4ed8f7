//! Bugs to plant: every one is derived from the instructions that stand in the image, none from a list of addresses.
//!
//! A bug makes a function destroy a register or flags that a stated contract, the C calling convention or the callers of the
//! healthy image say it keeps. Main items: [`Mutant`], [`mutants`].

use kolumbo_case::contract::Report;
use kolumbo_contracts::program::{CALLEE_SAVED, Function};
use kolumbo_contracts::{Declared, Program};
use kolumbo_dataflow::iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kolumbo_dataflow::{ARITHMETIC_FLAGS, Ending, Evidence, Parts, decode, effects, evidence};

/// One planted bug.
pub(crate) struct Mutant {
    /// The kind, for the table.
    pub(crate) kind: &'static str,
    /// The function that breaks its contract.
    pub(crate) symbol: String,
    /// Its address.
    pub(crate) address: u64,
    /// What it destroys now.
    pub(crate) lost: Parts,
    /// Addresses and new bytes.
    pub(crate) patches: Vec<(u64, Vec<u8>)>,
    /// Whether everybody is affected, so that no other bug can be told from it.
    pub(crate) everywhere: bool,
    /// Whether it lies beyond what is inferred (docs/contracts.md): assembly takes the register as an argument, no caller had
    /// put a value there on purpose, or the stack of the function was not understood.
    pub(crate) beyond: bool,
}

/// Where a bug is planted.
struct Bed<'p> {
    program: &'p Program<'p, 'p>,
    function: &'p Function,
    symbol: String,
}

/// Every bug that the image offers.
pub(crate) fn mutants(program: &Program<'_, '_>, healthy: &Report) -> Vec<Mutant> {
    let declared = Declared::builtin();
    let mut planted = Vec::new();
    let mut saved_swaps = 0;
    for function in &program.functions {
        let Some(symbol) = program.image.name_at(function.entry).map(str::to_owned) else {
            continue;
        };
        let bed = Bed { program, function, symbol };
        let contract = program
            .image
            .symbols_at(function.entry)
            .iter()
            .find_map(|symbol| declared.of(symbol.name));
        match contract {
            Some(contract) => {
                let flags = Parts { flags: ARITHMETIC_FLAGS, ..Parts::EMPTY };
                if contract.preserves.contains(flags) {
                    bed.flags_in_a_return(&mut planted);
                }
                if contract.jumps_on {
                    bed.cleared_before_the_jump(&mut planted);
                    continue;
                }
                let kept = contract.preserves - CALLEE_SAVED;
                bed.pops(kept, &mut planted);
                bed.another_scratch_register(kept, &mut planted);
                // RCX, RDX, RSI and R8; RBX where nothing else is promised, as by the copies to and from user space.
                let promised =
                    if kept.generals().next().is_some() { kept } else { contract.preserves };
                let some = |register: &usize| [1, 2, 3, 6, 8].contains(register);
                for register in promised.generals().filter(some) {
                    bed.cleared_before_the_return(
                        "a register cleared before the return of a function with a stated contract",
                        register,
                        &mut planted,
                    );
                }
            }
            // Every so many functions that save two registers or more.
            None if saved_swaps < SAVED_SWAPS && function.entry % 64 == 0 => {
                let before = planted.len();
                bed.saved_registers_swapped(&mut planted);
                saved_swaps += planted.len() - before;
            }
            None => {}
        }
    }
    // What the callers of the healthy image rely on, whoever wrote the callee.
    for row in &healthy.inferred {
        let Some(function) =
            program.image.address_of(&row.callee).and_then(|address| program.function(address))
        else {
            continue;
        };
        if declared.of(&row.callee).is_some() {
            continue;
        }
        let Some((name, _)) = row.registers.iter().max_by_key(|(_, sites)| *sites) else {
            continue;
        };
        let Some(register) = Parts::by_name(name).and_then(|parts| parts.generals().next()) else {
            continue;
        };
        let before = planted.len();
        Bed { program, function, symbol: row.callee.clone() }.cleared_before_the_return(
            "a register cleared on which callers were seen to rely",
            register,
            &mut planted,
        );
        let taken = function.summary.needs.intersects(Parts::general(register));
        for mutant in &mut planted[before..] {
            mutant.beyond |= taken || !is_meant_to_last(program, function.entry, register);
        }
    }
    planted
}

/// Whether some caller had put a value into the register before its call, and not left there what an instruction writes besides.
fn is_meant_to_last(program: &Program<'_, '_>, callee: u64, register: usize) -> bool {
    program.functions.iter().any(|function| {
        function.demands.sites.iter().any(|site| {
            program.targets_of(&site.callee).contains(&callee)
                && site.relies.of_general(register) & 1 != 0
                && evidence(&function.body, program, site.block, register) != Evidence::Leftover
        })
    })
}

/// How many C functions get two saved registers swapped.
const SAVED_SWAPS: usize = 12;

impl Bed<'_> {
    fn bytes(&self, instruction: &Instruction) -> Vec<u8> {
        self.program.image.bytes_at(instruction.ip())[..instruction.len()].to_vec()
    }

    fn plant(&self, kind: &'static str, lost: Parts, patches: Vec<(u64, Vec<u8>)>) -> Mutant {
        let everywhere = self.symbol.contains("return_thunk") || self.symbol.ends_with("safe_ret");
        Mutant {
            kind,
            symbol: self.symbol.clone(),
            address: self.function.entry,
            lost,
            patches,
            everywhere,
            beyond: !self.function.summary.certain,
        }
    }

    /// `lea 8(%rsp),%rsp` becomes an addition or a subtraction, which change the flags.
    fn flags_in_a_return(&self, planted: &mut Vec<Mutant>) {
        let lea =
            self.function.body.instructions.iter().find(|instruction| {
                instruction.mnemonic() == Mnemonic::Lea && instruction.len() == 5
            });
        let Some(lea) = lea else { return };
        let after = &self.program.image.bytes_at(lea.next_ip())[..1];
        if after == [0xc3] {
            let flags = Parts { flags: ARITHMETIC_FLAGS, ..Parts::EMPTY };
            for bytes in
                [[0x48, 0x83, 0xc4, 0x08, 0xc3, 0xcc], [0x48, 0x83, 0xec, 0xf8, 0xc3, 0xcc]]
            {
                planted.push(self.plant(
                    "flags changed in a return thunk",
                    flags,
                    vec![(lea.ip(), bytes.to_vec())],
                ));
            }
        }
    }

    /// Two pops exchanged, and a pop into another register.
    fn pops(&self, kept: Parts, planted: &mut Vec<Mutant>) {
        let pops: Vec<&Instruction> = self
            .function
            .body
            .instructions
            .iter()
            .filter(|instruction| instruction.mnemonic() == Mnemonic::Pop)
            .filter(|pop| Parts::of(pop.op0_register()).intersects(kept))
            .collect();
        if let Some([first, second]) = pops
            .windows(2)
            .filter_map(|pair| <[&Instruction; 2]>::try_from(pair).ok())
            .find(|[first, second]| first.len() == second.len() && first.next_ip() == second.ip())
        {
            let lost = Parts::of(first.op0_register()) | Parts::of(second.op0_register());
            planted.push(self.plant(
                "two pops swapped in a thunk",
                lost,
                vec![(first.ip(), self.bytes(second)), (second.ip(), self.bytes(first))],
            ));
        }
        if let Some(pop) = pops.first() {
            // Into RBX or R11, which leaves the register as it is now.
            let mut bytes = self.bytes(pop);
            let last = bytes.len() - 1;
            bytes[last] = bytes[last] & !7 | 3;
            if bytes != self.bytes(pop) {
                planted.push(self.plant(
                    "a pop into another register in a thunk",
                    Parts::of(pop.op0_register()),
                    vec![(pop.ip(), bytes)],
                ));
            }
        }
    }

    /// The destination of one instruction becomes a register that must be kept.
    fn another_scratch_register(&self, kept: Parts, planted: &mut Vec<Mutant>) {
        let body = &self.function.body;
        // What is saved by the function may be scratched in it.
        let saves = |i: &Instruction| {
            matches!(i.mnemonic(), Mnemonic::Pop | Mnemonic::Push)
                || i.op_count() > 0
                    && i.op0_kind() == OpKind::Memory
                    && i.memory_base() == Register::RSP
        };
        if body.instructions.iter().any(saves) {
            return;
        }
        let mut seen = Parts::EMPTY;
        for instruction in body.instructions.iter().filter(|instruction| {
            instruction.op_count() > 0
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().is_gpr()
        }) {
            let old = self.bytes(instruction);
            for position in 0..old.len().min(4) {
                for (shift, number) in [0, 3].into_iter().flat_map(|s| (0..8).map(move |n| (s, n)))
                {
                    let mut bytes = old.clone();
                    bytes[position] = bytes[position] & !(7 << shift) | number << shift;
                    let Some(new) = decode(&bytes, instruction.ip()) else { continue };
                    let now = effects(&new).writes & kept;
                    if new.len() == old.len()
                        && new.mnemonic() == instruction.mnemonic()
                        && new.op0_kind() == OpKind::Register
                        && now.of_general(new.op0_register().full_register().number()) == 0b1111
                        && !seen.intersects(now)
                    {
                        seen |= now;
                        planted.push(self.plant(
                            "another register for a scratch register",
                            Parts { flags: 0, ..now },
                            vec![(instruction.ip(), bytes)],
                        ));
                    }
                }
            }
        }
    }

    /// `xor %r,%r; ret` over a return.
    fn cleared_before_the_return(
        &self,
        kind: &'static str,
        register: usize,
        planted: &mut Vec<Mutant>,
    ) {
        let body = &self.function.body;
        let clear = clearing(register);
        for block in &body.blocks {
            let Some(exit) = body.last_of(block) else { continue };
            if !matches!(block.ending, Ending::Returns(_)) || block.range.is_empty() {
                continue;
            }
            let behind = self.program.image.bytes_at(exit.next_ip());
            // A jump is long enough, and behind a return there must be padding.
            let padding = behind.iter().take_while(|byte| matches!(byte, 0xcc | 0x90)).count();
            if exit.len() + padding > clear.len() {
                planted.push(self.plant(kind, Parts::general(register), vec![(exit.ip(), clear)]));
                return;
            }
        }
    }

    /// A register cleared by the thunk that stands for a jump through a register.
    fn cleared_before_the_jump(&self, planted: &mut Vec<Mutant>) {
        let exit = self.function.body.instructions.last().filter(|exit| exit.len() == 5);
        if let Some(exit) = exit {
            planted.push(self.plant(
                "a register cleared in an indirect thunk",
                Parts::general(2),
                vec![(exit.ip(), clearing(2))],
            ));
        }
    }

    /// Two pops of saved registers exchanged in a C function.
    fn saved_registers_swapped(&self, planted: &mut Vec<Mutant>) {
        let pops: Vec<&Instruction> = self
            .function
            .body
            .instructions
            .iter()
            .filter(|instruction| instruction.mnemonic() == Mnemonic::Pop)
            .collect();
        // All the ways out, or a later one would hide nothing but confuse the reader.
        if let [first, second] = pops[..]
            && first.len() == 1
            && second.len() == 1
            && first.next_ip() == second.ip()
        {
            let lost = Parts::of(first.op0_register()) | Parts::of(second.op0_register());
            planted.push(self.plant(
                "two saved registers swapped in a C function",
                lost,
                vec![(first.ip(), self.bytes(second)), (second.ip(), self.bytes(first))],
            ));
        }
    }
}

/// `xor %r,%r; ret`, in four bytes at most.
fn clearing(register: usize) -> Vec<u8> {
    let low = register as u8 & 7;
    let modrm = 0xc0 | low << 3 | low;
    if register < 8 { vec![0x31, modrm, 0xc3] } else { vec![0x45, 0x31, modrm, 0xc3] }
}
