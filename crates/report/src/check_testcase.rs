//! A finding as a test for a compiler's or an assembler's test suite: a small file with a RUN line for FileCheck, which fails on
//! the culprit's pattern and passes once that is mended.
//!
//! What the stack protector put there becomes a C function of the same form; everything else becomes the culprit's own code.
//! Main function: [`testcase`].

use std::fmt::Write;

use kolumbo_case::contract::{ContractSource, Finding};

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testcase {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// The test for a finding; `None` when the culprit's code is too long for one.
#[must_use]
pub fn testcase(finding: &Finding) -> Option<Testcase> {
    let symbol = finding.culprit.split('+').next().unwrap_or(&finding.culprit);
    let name: String = symbol
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
        .collect();
    let pattern = pattern(&finding.instruction.instruction)?;
    let by_stack_protector =
        finding.put_there_by.as_deref().is_some_and(|what| what.starts_with("stack protector"));
    if by_stack_protector {
        return Some(Testcase { text: in_c(finding, &name), name: format!("{name}.c") });
    }
    if finding.listing.is_empty() {
        return None;
    }
    Some(Testcase { text: in_assembly(finding, &name, &pattern), name: format!("{name}.s") })
}

/// The contract in the words of a comment.
fn contract(finding: &Finding) -> String {
    let stated = match &finding.contract {
        ContractSource::Inferred { sites, of } => format!("{sites} of {of} callers rely on it"),
        ContractSource::Declared { name, source, .. } => format!("{name}, {source}"),
    };
    format!("{} must keep {}: {stated}", finding.culprit, finding.destroys.join(" "))
}

/// `mov{{[bwlq]?}} {{.*}}%rcx`: an instruction by its mnemonic and its destination, in any disassembler's spelling.
fn pattern(instruction: &str) -> Option<String> {
    let mut words = instruction.split_whitespace();
    let mnemonic = words.next()?;
    let stem = mnemonic.strip_suffix(['b', 'w', 'l', 'q']).filter(|stem| stem.len() > 2);
    let stem = stem.unwrap_or(mnemonic);
    let operands = words.collect::<Vec<_>>().join(" ");
    let destination = operands.rsplit([',', ' ']).next().unwrap_or_default().to_owned();
    if destination.is_empty() {
        return Some(format!("{mnemonic}{{{{$}}}}"));
    }
    destination
        .starts_with('%')
        .then(|| format!("{{{{[[:space:]]{stem}[bwlq]?[[:space:]].*{destination}$}}}}"))
}

/// The form of the function in which clang's stack protector was seen to load the canary into RCX: a local in memory, no frame.
fn in_c(finding: &Finding, name: &str) -> String {
    let registers: Vec<&str> = finding
        .destroys
        .iter()
        .map(String::as_str)
        .filter(|register| register.starts_with('r') || register.starts_with('e'))
        .collect();
    let mut text = format!(
        "// RUN: clang -target x86_64-linux-gnu -O2 -fomit-frame-pointer -fstack-protector-strong -S -o - %s | FileCheck %s\n\
         //\n// {}.\n// Found in {} at {}.\n// Mended when the result needs no place in memory: \"=r\" in place of \"=rm\".\n\n",
        contract(finding),
        finding.instruction.instruction,
        finding.instruction.symbol,
    );
    let _ = writeln!(text, "// CHECK-LABEL: {name}:");
    for register in registers {
        let tail = register.trim_start_matches(['r', 'e']);
        let _ = writeln!(text, "// CHECK-NOT: {{{{, %[re]{tail}$}}}}");
    }
    let _ = write!(
        text,
        "// CHECK: ret\n\nunsigned long {name}(void)\n{{\n\tunsigned long flags;\n\n\
         \tasm volatile(\"pushf ; pop %0\" : \"=rm\" (flags) : : \"memory\");\n\treturn flags;\n}}\n"
    );
    text
}

/// The culprit's own code. Branches lead to a label behind it.
fn in_assembly(finding: &Finding, name: &str, pattern: &str) -> String {
    let mut text = format!(
        "# RUN: clang -target x86_64-linux-gnu -c -o %t.o %s && llvm-objdump -d --no-show-raw-insn %t.o | FileCheck %s\n\
         #\n# {}.\n# Destroyed by `{}` at {}.\n\n# CHECK-LABEL: <{name}>:\n# CHECK-NOT: {pattern}\n# CHECK: <{name}_end>:\n\n\
         \t.text\n\t.globl {name}, {name}_end\n{name}:\n",
        contract(finding),
        finding.instruction.instruction,
        finding.instruction.symbol,
    );
    for instruction in &finding.listing {
        let mut words = instruction.splitn(2, char::is_whitespace);
        let mnemonic = words.next().unwrap_or_default();
        let branches = mnemonic.starts_with('j') || mnemonic.starts_with("call");
        if branches && !instruction.contains('*') {
            let _ = writeln!(text, "\t{mnemonic}\t{name}_end");
        } else {
            let _ = writeln!(text, "\t{instruction}");
        }
    }
    let _ = write!(text, "{name}_end:\n\tint3\n");
    text
}
