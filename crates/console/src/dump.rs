//! The parts of one crash: registers, code bytes, traces.
//!
//! Decides which line belongs to which part: a register line to the dump that is open, a program
//! counter inside a trace to an exception boundary, a `Code:` line to the dump above it or, in old
//! kernels, to the first one. May not know titles. Main item: [`fill_parts`].

use kolumbo_case::{
    Boundary, CrashReport, DetailKind, Frame, Gap, MachineState, Span, StackContext, Trace,
    TraceKind,
};

use crate::context::parse_context;
use crate::details;
use crate::frame::{parse_frame, parse_pc, stack_mark};
use crate::registers::{parse_code, parse_registers};
use crate::s390::{self, Section};
use crate::text::Text;

/// Frames that one trace keeps.
const MAX_FRAMES: usize = 512;
/// Traces that one crash keeps.
const MAX_TRACES: usize = 128;
/// Register dumps that one crash keeps.
const MAX_STATES: usize = 128;

/// Fills the parts of `report` from the lines with the given indices.
pub(crate) fn fill_parts(report: &mut CrashReport, text: &Text, lines: &[usize]) {
    let mut parts = Parts {
        report,
        text,
        open: Open::Nothing,
        trace: None,
        context: StackContext::Unknown,
        ended: false,
        cpu: None,
        blanks: 0,
        section: Section::None,
    };
    for &index in lines {
        parts.take(index);
    }
    parts.close_trace();
    let report = parts.report;
    // The dump at the fault is the first in kernel mode; user-mode registers only say who called.
    if let Some(at) = report.states.iter().position(|s| !s.user_mode) {
        report.states.swap(0, at);
    }
    if let Some(first) = report.states.first() {
        report.registers = first.registers.clone();
    }
    report.code_bytes = report.states.iter().find_map(|s| s.code.clone());
    if report.context.cpu.is_none() {
        report.context.cpu = report.states.first().and_then(|s| s.cpu);
    }
    details::fill(report, text, lines);
    name_syndrome(report);
}

/// arm64 says the values of two registers in words of its own: the syndrome (`ESR = `), and the
/// address of the fault (FAR) in the headline. See arch/arm64/mm/fault.c.
fn name_syndrome(report: &mut CrashReport) {
    let value = |name: &str| {
        let faults = report.details.iter().filter(|d| d.kind == DetailKind::Fault);
        let text = faults.filter_map(|d| d.values.get(name)).next()?;
        u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let found = [("esr", value("esr")), ("far", value("address"))];
    let Some(state) = report.states.first_mut().filter(|s| s.registers.get("pstate").is_some())
    else {
        return;
    };
    for (name, value) in found {
        if let Some(value) = value.filter(|_| state.registers.get(name).is_none()) {
            state.registers.insert(name, value);
        }
    }
    report.registers = state.registers.clone();
}

/// Which register dump takes the next register line.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Nothing,
    State,
    Boundary,
}

struct Parts<'a> {
    report: &'a mut CrashReport,
    text: &'a Text,
    open: Open,
    trace: Option<Trace>,
    context: StackContext,
    /// `---[ end trace`: what follows repeats what was said.
    ended: bool,
    cpu: Option<u32>,
    blanks: u32,
    section: Section,
}

impl Parts<'_> {
    fn take(&mut self, index: usize) {
        let span = self.text.span(index, index + 1);
        let line = self.text.lines[index].text.trim();
        if line.is_empty() {
            self.blanks += 1;
            return;
        }
        if line.starts_with("---[ end ") {
            self.close_trace();
            self.ended = true;
            return;
        }
        if let Some(cpu) = line.strip_prefix("NMI backtrace for cpu ") {
            self.close_trace();
            self.cpu = cpu.split(' ').next().and_then(|n| n.parse().ok());
            self.ended = false;
            return;
        }
        if line.starts_with("Code:") {
            self.code(line, span);
            return;
        }
        if let Some(kind) = trace_heading(line) {
            self.start_trace(kind, line, span);
            // Old kernels go on behind the heading.
            if !line.ends_with(':') {
                self.frame(line, span);
            }
            return;
        }
        if self.of_s390(line, span) {
            return;
        }
        if let Some((place, user)) = parse_pc(line) {
            if !self.ended {
                self.program_counter(place, user, line, span);
            }
            return;
        }
        if parse_context(line, &mut self.report.context) {
            self.report.context.span.get_or_insert(span);
            self.open = if self.open == Open::Boundary { Open::Boundary } else { Open::Nothing };
            return;
        }
        if stack_mark(line).is_some() || parse_frame(line).is_some() {
            self.frame(line, span);
            return;
        }
        self.registers(line, span);
    }

    /// A line of the dump that only s390 has.
    fn of_s390(&mut self, line: &str, span: Span) -> bool {
        let mut section = self.section;
        let Some(state) = self.state() else { return false };
        let bytes = state.code.as_ref().map_or(0, |c| c.bytes.len());
        let took = section.take(line, &mut state.registers, &mut state.code);
        if took {
            state.span.end = span.end;
            if let Some(code) = state.code.as_mut().filter(|c| c.bytes.len() > bytes) {
                code.span = if bytes == 0 { span } else { Span { end: span.end, ..code.span } };
            }
        }
        self.section = section;
        took
    }

    fn start_trace(&mut self, kind: TraceKind, line: &str, span: Span) {
        self.close_trace();
        self.context = StackContext::Unknown;
        if self.report.traces.len() < MAX_TRACES {
            let label = line.split(" [<").next().unwrap_or(line).to_owned();
            self.trace = Some(Trace { kind, label, span, ..Default::default() });
        }
    }

    fn close_trace(&mut self) {
        self.open = Open::Nothing;
        let Some(trace) = self.trace.take() else { return };
        if trace.frames.is_empty() && trace.boundaries.is_empty() {
            let what = format!("no frame follows '{}'", trace.label);
            self.report.gaps.push(Gap { what, span: Some(trace.span) });
        }
        self.report.traces.push(trace);
    }

    fn frame(&mut self, line: &str, span: Span) {
        if let Some(end) = stack_mark(line) {
            self.enter(&line[..end]);
        }
        let Some(parsed) = parse_frame(line) else {
            if let Some(trace) = &mut self.trace {
                trace.span.end = span.end;
            }
            return;
        };
        self.open = Open::Nothing;
        if self.trace.is_none() {
            // KMSAN and KCSAN print their stack without a heading.
            if self.report.traces.len() >= MAX_TRACES || self.ended {
                return;
            }
            self.trace = Some(Trace { span, ..Default::default() });
        }
        let context = self.context;
        if let Some(trace) = &mut self.trace {
            trace.span.end = span.end;
            if trace.frames.len() < MAX_FRAMES {
                let frame = Frame {
                    place: parsed.place,
                    reliable: parsed.reliable,
                    inlined: parsed.inlined,
                    context,
                    span,
                };
                trace.frames.push(frame);
            }
        }
    }

    /// `<IRQ>` enters a stack, `</IRQ>` and `<EOI>` leave it.
    fn enter(&mut self, mark: &str) {
        let leaves = mark.contains('/') || mark.contains("EOI") || mark.contains("EOE");
        let name = mark.trim_matches(['<', '>', '/']);
        self.context = match name {
            _ if leaves => StackContext::Unknown,
            "IRQ" => StackContext::Irq,
            "SOFTIRQ" => StackContext::SoftIrq,
            "NMI" => StackContext::Nmi,
            "TASK" => StackContext::Task,
            _ => StackContext::Exception,
        };
    }

    fn program_counter(
        &mut self,
        place: kolumbo_case::CodePlace,
        user: bool,
        line: &str,
        span: Span,
    ) {
        let in_trace = self.trace.as_ref().is_some_and(|t| !t.frames.is_empty());
        // The last line of old oopses repeats both: "RIP: fn+0x1/0x2 RSP: ffff...". arm and powerpc
        // say the counter twice, as a symbol and as a register.
        let repeats = line.contains(" RSP: ") && !self.report.states.is_empty();
        if repeats {
            return;
        }
        let mut state = MachineState {
            cpu: self.cpu,
            user_mode: user,
            pc: Some(place),
            span,
            ..Default::default()
        };
        selector(line, &mut state);
        s390::program_status(line, &mut state.registers);
        if in_trace {
            if let Some(trace) = &mut self.trace
                && trace.boundaries.len() < MAX_STATES
            {
                trace.span.end = span.end;
                let after_frames = trace.frames.len();
                trace.boundaries.push(Boundary { after_frames, state });
                self.open = Open::Boundary;
            }
            return;
        }
        if self.open == Open::State
            && let Some(last) = self.report.states.last_mut()
            && (last.pc.is_none()
                || last.pc.as_ref().is_some_and(|p| p.function.is_none())
                || line.starts_with("pc")
                || line.starts_with("epc"))
        {
            last.pc = match (last.pc.take(), state.pc) {
                (Some(old), Some(new)) if new.function.is_none() => {
                    Some(kolumbo_case::CodePlace { address: new.address, ..old })
                }
                (_, new) => new,
            };
            parse_registers(line, &mut last.registers);
            last.span.end = span.end;
            return;
        }
        if self.report.states.len() < MAX_STATES {
            parse_registers(line, &mut state.registers);
            self.report.states.push(state);
            self.open = Open::State;
        }
    }

    fn state(&mut self) -> Option<&mut MachineState> {
        match self.open {
            Open::Nothing => None,
            Open::State => self.report.states.last_mut(),
            Open::Boundary => self.trace.as_mut()?.boundaries.last_mut().map(|b| &mut b.state),
        }
    }

    fn code(&mut self, line: &str, span: Span) {
        let Some(code) = parse_code(line, span) else {
            self.report
                .gaps
                .push(Gap { what: "the 'Code:' line holds no bytes".into(), span: Some(span) });
            return;
        };
        if self.ended && self.report.states.first().is_some_and(|s| s.code.is_some()) {
            return;
        }
        if self.state().is_some_and(|s| s.code.is_none()) {
            if let Some(state) = self.state() {
                state.code = Some(code);
                state.span.end = span.end;
            }
            return;
        }
        // Old kernels print the bytes behind the trace; they belong to the dump before it.
        let states = &mut self.report.states;
        if states.is_empty() {
            states.push(MachineState { code: Some(code), span, ..Default::default() });
        } else if let Some(state) = states.iter_mut().find(|s| s.code.is_none() && !s.user_mode) {
            state.code = Some(code);
        }
    }

    fn registers(&mut self, line: &str, span: Span) {
        if self.ended {
            return;
        }
        let mut found = kolumbo_case::Registers::default();
        if parse_registers(line, &mut found) == 0 {
            return;
        }
        // arm and arm64 print "pstate:" and "sp :" before or behind the counter; a lone "sp" in
        // prose is no dump, so a dump may only be opened by two registers or by a telling one.
        if self.open == Open::Nothing {
            let telling = line.starts_with("pstate:")
                || line.starts_with("RSP:")
                || line.starts_with("EAX:")
                || line.starts_with("NIP:")
                || line.starts_with("epc");
            if !telling || self.report.states.len() >= MAX_STATES {
                return;
            }
            self.report.states.push(MachineState { cpu: self.cpu, span, ..Default::default() });
            self.open = Open::State;
        }
        if let Some(state) = self.state() {
            for (name, value) in found.0 {
                state.registers.insert(&name, value);
            }
            state.span.end = span.end;
            if state.registers.get("cs").is_some_and(|cs| cs & 3 == 3) {
                state.user_mode = true;
            }
        }
    }
}

/// The code segment that stands before the counter on x86.
fn selector(line: &str, state: &mut MachineState) {
    let Some(rest) = line.strip_prefix("RIP:").or(line.strip_prefix("EIP:")) else { return };
    let rest = rest.trim_start();
    let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    if digits == 4
        && rest[digits..].starts_with(':')
        && let Ok(cs) = u64::from_str_radix(&rest[..4], 16)
    {
        state.registers.insert("cs", cs);
    }
}

/// The kind of trace that `line` opens.
fn trace_heading(line: &str) -> Option<TraceKind> {
    if line.starts_with("Call Trace")
        || line.starts_with("Call trace")
        || line.starts_with("Backtrace:")
        || line.starts_with("backtrace")
    {
        return Some(TraceKind::Call);
    }
    let ends = line.ends_with(':') && line.len() < 160;
    if line.starts_with("Allocated by task")
        || line == "Allocated:"
        || ends && line.contains("allocated by task")
    {
        return Some(TraceKind::Allocated);
    }
    if line.starts_with("Freed by task")
        || line == "Freed:"
        || ends && line.contains("freed by task")
    {
        return Some(TraceKind::Freed);
    }
    if ends && (line.starts_with("Uninit was") || line.starts_with("Local variable")) {
        return Some(TraceKind::Origin);
    }
    if ends
        && (line.starts_with("-> #")
            || line.contains("irq-safe at")
            || line.contains("IRQ-safe at")
            || line.contains("irq-unsafe at")
            || line.contains("state was registered at"))
    {
        return Some(TraceKind::Lock);
    }
    let race = ["read to ", "write to ", "read-write to "].iter().any(|t| line.starts_with(t))
        || line.starts_with("race at unknown origin");
    if race && ends {
        return Some(TraceKind::Race);
    }
    (ends
        && (line.starts_with("Last potentially related work")
            || line.starts_with("Last Breaking-Event-Address")
            || line.starts_with("Second to last")))
    .then_some(TraceKind::Other)
}
