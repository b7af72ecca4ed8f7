//! Bytes to the text that kernel people read: AT&T as objdump prints it, Intel on request.
//!
//! Decides only how an instruction looks. It knows no symbols: a callback names branch targets and RIP-relative addresses,
//! and without one they stay numbers. Main types: [`Printer`], [`Line`].

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction, IntelFormatter,
    Mnemonic, OpKind, Register,
};

/// How operands are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// `mov %rsp,%rbp`, the default of objdump and of every kernel mail.
    #[default]
    Att,
    /// `mov rbp,rsp`
    Intel,
}

/// One instruction, or one byte that starts none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Address of the first byte.
    pub ip: u64,
    /// Length in bytes, 1 to 15.
    pub len: usize,
    /// The text without address and bytes; `(bad)` when no instruction starts here.
    pub text: String,
    /// Whether an instruction was decoded.
    pub valid: bool,
}

enum Backend {
    Att(GasFormatter),
    Intel(IntelFormatter),
}

/// Writes instructions as text. Make one and use it for many instructions.
pub struct Printer<'a> {
    backend: Backend,
    symbol: Option<Box<dyn Fn(u64) -> Option<String> + 'a>>,
    buffer: String,
}

/// The text of the first instruction in `bytes`, AT&T syntax, branch targets as numbers. `None` when there is none.
#[must_use]
pub fn disassemble(bytes: &[u8], ip: u64) -> Option<String> {
    let instruction = crate::decode(bytes, ip)?;
    Some(Printer::new(Syntax::Att).instruction(&instruction))
}

impl<'a> Printer<'a> {
    /// A printer without symbols.
    #[must_use]
    pub fn new(syntax: Syntax) -> Self {
        let backend = match syntax {
            Syntax::Att => {
                let mut formatter = GasFormatter::new();
                plain_numbers(formatter.options_mut());
                Backend::Att(formatter)
            }
            Syntax::Intel => {
                let mut formatter = IntelFormatter::new();
                plain_numbers(formatter.options_mut());
                formatter.options_mut().set_hex_prefix("0x");
                formatter.options_mut().set_hex_suffix("");
                Backend::Intel(formatter)
            }
        };
        Self { backend, symbol: None, buffer: String::new() }
    }

    /// Names branch targets and RIP-relative addresses: the callback returns `name` or `name+0x1f`, without brackets.
    #[must_use]
    pub fn with_symbols(mut self, symbol: impl Fn(u64) -> Option<String> + 'a) -> Self {
        self.symbol = Some(Box::new(symbol));
        self
    }

    /// The text of one instruction, mnemonic padded to six columns, as objdump does.
    pub fn instruction(&mut self, instruction: &Instruction) -> String {
        self.buffer.clear();
        let buffer = &mut self.buffer;
        let mut mnemonic = String::new();
        match &mut self.backend {
            Backend::Att(formatter) => {
                let options = formatter.options_mut();
                options.set_show_zero_displacements(instruction.memory_displ_size() != 0);
                options.set_always_show_segment_register(instruction.is_string_instruction());
                options.set_always_show_scale(instruction.memory_index() != Register::None);
                formatter.format_mnemonic(instruction, &mut mnemonic);
                formatter.format_all_operands(instruction, buffer);
                as_objdump(instruction, &mut mnemonic, buffer);
            }
            Backend::Intel(formatter) => {
                formatter.format_mnemonic(instruction, &mut mnemonic);
                formatter.format_all_operands(instruction, buffer);
            }
        }
        if let Some(target) = branch_target(instruction) {
            buffer.clear();
            buffer.push_str(&format!("{target:x}"));
            if let Some(name) = self.symbol.as_ref().and_then(|symbol| symbol(target)) {
                buffer.push_str(&format!(" <{name}>"));
            }
        }
        let mut text = format!("{mnemonic:<6}");
        if !self.buffer.is_empty() {
            text.push(' ');
            text.push_str(&self.buffer);
        }
        let mut text = text.trim_end().to_owned();
        if instruction.is_ip_rel_memory_operand() {
            let address = instruction.ip_rel_memory_address();
            text.push_str(&format!("        # {address:x}"));
            if let Some(name) = self.symbol.as_ref().and_then(|symbol| symbol(address)) {
                text.push_str(&format!(" <{name}>"));
            }
        }
        text
    }

    /// Every instruction of `bytes`, which start at address `ip`. A byte that starts no instruction is a line of its own, and
    /// decoding goes on behind it.
    pub fn listing(&mut self, bytes: &[u8], ip: u64) -> Vec<Line> {
        let mut decoder = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut lines = Vec::new();
        while decoder.can_decode() {
            let position = decoder.position();
            decoder.decode_out(&mut instruction);
            let at = ip.wrapping_add(position as u64);
            if instruction.is_invalid() {
                lines.push(Line { ip: at, len: 1, text: "(bad)".to_owned(), valid: false });
                if decoder.set_position(position + 1).is_err() {
                    break;
                }
                decoder.set_ip(at.wrapping_add(1));
            } else {
                lines.push(Line {
                    ip: at,
                    len: instruction.len(),
                    text: self.instruction(&instruction),
                    valid: true,
                });
            }
        }
        lines
    }
}

/// The address a direct near branch or call goes to.
#[must_use]
pub fn branch_target(instruction: &Instruction) -> Option<u64> {
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch
        | FlowControl::ConditionalBranch
        | FlowControl::Call
        | FlowControl::XbeginXabortXend => (instruction.op_count() > 0
            && matches!(
                instruction.op0_kind(),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
            ))
        .then(|| instruction.near_branch_target()),
        _ => None,
    }
}

/// Where GNU as accepts several spellings, the one that objdump prints.
fn as_objdump(instruction: &Instruction, mnemonic: &mut String, operands: &mut String) {
    let plain = match instruction.mnemonic() {
        Mnemonic::Call => "callq",
        Mnemonic::Jmp => "jmpq",
        Mnemonic::Push => "pushq",
        Mnemonic::Pop => "popq",
        Mnemonic::Ret => "retq",
        _ => "",
    };
    if !plain.is_empty() && mnemonic.ends_with(plain) {
        mnemonic.pop();
    }
    for (ours, theirs) in [("repe ", "repz "), ("repne ", "repnz ")] {
        if let Some(rest) = mnemonic.strip_prefix(ours) {
            *mnemonic = format!("{theirs}{rest}");
        }
    }
    match instruction.mnemonic() {
        // The forms with an implied count of 1 have an opcode of their own.
        Mnemonic::Rol
        | Mnemonic::Ror
        | Mnemonic::Rcl
        | Mnemonic::Rcr
        | Mnemonic::Shl
        | Mnemonic::Shr
        | Mnemonic::Sar
            if implied_count(instruction) =>
        {
            if let Some(rest) = operands.strip_prefix("$0x1,") {
                *operands = rest.to_owned();
            }
        }
        Mnemonic::Imul
            if instruction.op_count() == 3 && instruction.op1_kind() == OpKind::Register =>
        {
            if operands.matches('%').count() == 1
                && let Some(at) = operands.find('%')
            {
                let register = operands[at..].to_owned();
                operands.push(',');
                operands.push_str(&register);
            }
        }
        // Padding: prefixes that change nothing stand in front, each spelled out.
        Mnemonic::Nop | Mnemonic::Call | Mnemonic::Jmp
            if instruction.segment_prefix() == Register::CS =>
        {
            const LONGEST_WITH_ONE_PREFIX: usize = 10;
            if let Some(at) = operands.find("%cs:") {
                operands.replace_range(at..at + 4, "");
            }
            let data16 = if instruction.mnemonic() == Mnemonic::Nop {
                instruction.len().saturating_sub(LONGEST_WITH_ONE_PREFIX)
            } else {
                0
            };
            *mnemonic = format!("{}cs {mnemonic}", "data16 ".repeat(data16));
        }
        Mnemonic::In
        | Mnemonic::Insb
        | Mnemonic::Insw
        | Mnemonic::Insd
        | Mnemonic::Out
        | Mnemonic::Outsb
        | Mnemonic::Outsw
        | Mnemonic::Outsd => *operands = operands.replace("%dx", "(%dx)"),
        _ => {}
    }
}

fn implied_count(instruction: &Instruction) -> bool {
    use iced_x86::Code::*;
    matches!(
        instruction.code(),
        Rol_rm8_1
            | Rol_rm16_1
            | Rol_rm32_1
            | Rol_rm64_1
            | Ror_rm8_1
            | Ror_rm16_1
            | Ror_rm32_1
            | Ror_rm64_1
            | Rcl_rm8_1
            | Rcl_rm16_1
            | Rcl_rm32_1
            | Rcl_rm64_1
            | Rcr_rm8_1
            | Rcr_rm16_1
            | Rcr_rm32_1
            | Rcr_rm64_1
            | Shl_rm8_1
            | Shl_rm16_1
            | Shl_rm32_1
            | Shl_rm64_1
            | Shr_rm8_1
            | Shr_rm16_1
            | Shr_rm32_1
            | Shr_rm64_1
            | Sar_rm8_1
            | Sar_rm16_1
            | Sar_rm32_1
            | Sar_rm64_1
    )
}

fn plain_numbers(options: &mut iced_x86::FormatterOptions) {
    options.set_small_hex_numbers_in_decimal(false);
    options.set_uppercase_hex(false);
    options.set_signed_immediate_operands(false);
    options.set_signed_memory_displacements(true);
    options.set_add_leading_zero_to_hex_numbers(false);
    options.set_rip_relative_addresses(true);
    options.set_branch_leading_zeros(false);
    options.set_displacement_leading_zeros(false);
    options.set_gas_space_after_memory_operand_comma(false);
    options.set_space_after_operand_separator(false);
    options.set_show_branch_size(false);
    options.set_use_pseudo_ops(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(disassemble(bytes, 0xffff_ffff_8100_0000).as_deref(), Some(expected));
    }

    #[test]
    fn prints_what_objdump_prints() {
        check(
            &[0xf7, 0x04, 0x25, 0x00, 0xc3, 0x5f, 0xff, 0x00, 0x10, 0x00, 0x00],
            "testl  $0x1000,0xffffffffff5fc300",
        );
        check(&[0x75, 0xf1], "jne    ffffffff80fffff3");
        check(&[0x48, 0x8d, 0x64, 0x24, 0x08], "lea    0x8(%rsp),%rsp");
        check(&[0x48, 0x83, 0xc4, 0x08], "add    $0x8,%rsp");
        check(&[0x48, 0xd1, 0xea], "shr    %rdx");
        check(&[0x48, 0xc1, 0xea, 0x01], "shr    $0x1,%rdx");
        check(&[0x4d, 0x69, 0xe4, 0xc0, 0x08, 0x00, 0x00], "imul   $0x8c0,%r12,%r12");
        check(&[0x0f, 0x1f, 0x44, 0x00, 0x00], "nopl   0x0(%rax,%rax,1)");
        check(
            &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            "data16 cs nopw 0x0(%rax,%rax,1)",
        );
        check(&[0xf3, 0x48, 0xa5], "rep movsq %ds:(%rsi),%es:(%rdi)");
        check(&[0xee], "out    %al,(%dx)");
        check(&[0xf3, 0x6c], "rep insb (%dx),%es:(%rdi)");
        check(&[0xc3], "ret");
        check(&[0xff, 0x14, 0x25, 0x10, 0x08, 0x62, 0xaa], "call   *0xffffffffaa620810");
        check(&[0x65, 0x48, 0x03, 0x0c, 0x25, 0xd8, 0xa1, 0, 0], "add    %gs:0xa1d8,%rcx");
    }

    #[test]
    fn symbols_name_targets_and_data() {
        let mut printer = Printer::new(Syntax::Att)
            .with_symbols(|address| Some(format!("s+{:#x}", address & 0xff)));
        let call = crate::decode(&[0xe8, 0x0b, 0, 0, 0], 0x1000).expect("a call");
        assert_eq!(printer.instruction(&call), "call   1010 <s+0x10>");
        let load = crate::decode(&[0x48, 0x8b, 0x05, 0x10, 0, 0, 0], 0x1000).expect("a load");
        assert_eq!(printer.instruction(&load), "mov    0x10(%rip),%rax        # 1017 <s+0x17>");
    }

    #[test]
    fn intel_on_request() {
        let load = crate::decode(&[0x48, 0x8b, 0x45, 0xf8], 0).expect("a load");
        assert_eq!(Printer::new(Syntax::Intel).instruction(&load), "mov    rax,[rbp-0x8]");
    }

    #[test]
    fn a_byte_that_is_no_instruction_is_a_line_of_its_own() {
        let lines = Printer::new(Syntax::Att).listing(&[0x06, 0x90, 0x48], 0x10);
        let seen: Vec<_> =
            lines.iter().map(|line| (line.ip, line.len, line.text.as_str(), line.valid)).collect();
        assert_eq!(
            seen,
            [(0x10, 1, "(bad)", false), (0x11, 1, "nop", true), (0x12, 1, "(bad)", false)]
        );
    }
}
