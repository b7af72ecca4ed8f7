//! What was read from a log or a mail, as plain text of 78 columns.
//!
//! Decides what stands where: the title first, then who was running, the registers, the code, the
//! stacks, and what could not be read. The main function is [`report`].

use kolumbo_case::{BootFacts, CrashReport, Frame, MachineState, ReadResult, StackContext, Trace};

use crate::wrap::Page;

/// How much to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shown {
    /// The first crash in full, the titles of the others.
    #[default]
    Overview,
    /// Only the first crash.
    First,
    /// Every crash in full.
    All,
}

/// The whole text.
pub fn report(result: &ReadResult, shown: Shown) -> String {
    let mut page = Page::default();
    let crashes = &result.reports;
    if crashes.is_empty() {
        page.line("no crash was found");
    }
    for (n, crash) in crashes.iter().enumerate() {
        let full = shown == Shown::All || n == 0;
        if n > 0 && shown == Shown::First {
            break;
        }
        page.gap();
        title(&mut page, crash);
        if full {
            body(&mut page, crash);
        }
    }
    if shown != Shown::First {
        for boot in &result.boots {
            page.gap();
            facts(&mut page, boot);
        }
        for listing in &result.listings {
            page.gap();
            let name = listing.function.as_deref().unwrap_or("a function without a name");
            let count = listing.instructions.len();
            page.line(&format!(
                "listing  {name}, {count} instructions, bytes {}-{}",
                listing.span.start, listing.span.end
            ));
        }
    }
    for gap in &result.gaps {
        page.gap();
        page.wrapped("gap  ", &gap.what);
    }
    page.finish()
}

fn title(page: &mut Page, crash: &CrashReport) {
    page.wrapped("", &crash.title);
    let mut words = vec![crash.crash_type.clone()];
    if crash.panicked {
        words.push("panicked".into());
    }
    if let Some(why) = &crash.corrupted_reason {
        words.push(format!("damaged: {why}"));
    }
    if let Some(time) = &crash.time {
        words.push(format!("at {time}"));
    }
    if crash.quote_depth > 0 {
        words.push(format!("quoted {} deep", crash.quote_depth));
    }
    words.push(format!("bytes {}-{}", crash.span.start, crash.span.end));
    page.wrapped("  ", &words.join(", "));
}

fn body(page: &mut Page, crash: &CrashReport) {
    let c = &crash.context;
    let mut who = Vec::new();
    if let Some(cpu) = c.cpu {
        who.push(format!("CPU {cpu}"));
    }
    if let Some(pid) = c.pid {
        who.push(format!("PID {pid} ({})", c.comm.as_deref().unwrap_or("?")));
    }
    if let Some(release) = &c.release {
        who.push(
            format!("kernel {release} {}", c.build.as_deref().unwrap_or("")).trim_end().to_owned(),
        );
    }
    match c.tainted {
        Some(true) => who.push(format!("tainted {}", c.taint)),
        Some(false) => who.push("not tainted".into()),
        None => {}
    }
    for (name, text) in [
        ("  who       ", Some(who.join(", "))),
        ("  machine   ", c.hardware.clone()),
        ("  workqueue ", c.workqueue.clone()),
        ("  file      ", crash.guilty_file.clone()),
    ] {
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            page.wrapped(name, &text);
        }
    }
    for meaning in c.taint_meaning.iter().filter(|m| !m.starts_with('G')) {
        page.wrapped("  taint     ", meaning);
    }
    for state in &crash.states {
        machine(page, state, "  ");
    }
    for trace in &crash.traces {
        stack(page, trace);
    }
    for detail in &crash.details {
        if let Some(first) = detail.lines.first() {
            page.wrapped("  said      ", first);
        }
    }
    for gap in &crash.gaps {
        page.wrapped("  gap       ", &gap.what);
    }
}

fn machine(page: &mut Page, state: &MachineState, indent: &str) {
    if let Some(pc) = &state.pc {
        let mode = if state.user_mode { " (user mode)" } else { "" };
        page.wrapped(&format!("{indent}at        "), &format!("{}{mode}", place(pc)));
    }
    for four in state.registers.0.chunks(3) {
        let words: Vec<String> = four.iter().map(|(n, v)| format!("{n:>7} {v:016x}")).collect();
        page.line(&format!("{indent}{}", words.join(" ")));
    }
    if let Some(code) = &state.code {
        let words: Vec<String> = code
            .bytes
            .iter()
            .enumerate()
            .map(
                |(n, b)| {
                    if code.trap == Some(n) { format!("<{b:02x}>") } else { format!("{b:02x}") }
                },
            )
            .collect();
        page.wrapped(&format!("{indent}code      "), &words.join(" "));
    }
}

fn place(place: &kolumbo_case::CodePlace) -> String {
    let mut text = match (&place.function, place.offset, place.size) {
        (Some(name), Some(offset), Some(size)) => format!("{name}+{offset:#x}/{size:#x}"),
        (Some(name), Some(offset), None) => format!("{name}+{offset:#x}"),
        (Some(name), ..) => name.clone(),
        (None, ..) => place.address.map_or_else(|| "?".into(), |a| format!("{a:#x}")),
    };
    if let Some(module) = &place.module {
        text.push_str(&format!(" [{module}]"));
    }
    if let (Some(file), Some(line)) = (&place.file, place.line) {
        text.push_str(&format!(" {file}:{line}"));
    }
    text
}

fn stack(page: &mut Page, trace: &Trace) {
    page.line(&format!(
        "  {}",
        if trace.label.is_empty() { "stack" } else { trace.label.trim_end_matches(':') }
    ));
    let mut context = StackContext::Unknown;
    for (n, frame) in trace.frames.iter().enumerate() {
        boundaries(page, trace, n);
        if frame.context != context {
            context = frame.context;
            page.line(&format!("    <{}>", name(context)));
        }
        page.line(&format!("    {}{}", mark(frame), place(&frame.place)));
    }
    boundaries(page, trace, trace.frames.len());
}

fn boundaries(page: &mut Page, trace: &Trace, after: usize) {
    for boundary in trace.boundaries.iter().filter(|b| b.after_frames == after) {
        machine(page, &boundary.state, "    ");
    }
}

fn mark(frame: &Frame) -> &'static str {
    match (frame.reliable, frame.inlined) {
        (false, _) => "? ",
        (true, true) => "inlined ",
        (true, false) => "",
    }
}

fn name(context: StackContext) -> &'static str {
    match context {
        StackContext::Unknown => "...",
        StackContext::Task => "task",
        StackContext::Irq => "interrupt",
        StackContext::SoftIrq => "softirq",
        StackContext::Nmi => "NMI",
        StackContext::Exception => "exception",
    }
}

fn facts(page: &mut Page, boot: &BootFacts) {
    let compiler = match (&boot.compiler, &boot.compiler_version) {
        (Some(name), Some(version)) => Some(format!("{name} {version}")),
        (Some(name), None) => Some(name.clone()),
        _ => None,
    };
    let memory = boot
        .memory_total_kib
        .map(|total| format!("{} of {total} KiB", boot.memory_available_kib.unwrap_or(0)));
    let cpus = match (boot.cpus, boot.cpus_allowed) {
        (Some(up), _) => Some(format!("{up} up")),
        (None, Some(allowed)) => Some(format!("{allowed} allowed, none reported up")),
        _ => None,
    };
    page.wrapped("boot      ", boot.release.as_deref().unwrap_or("of an unknown kernel"));
    for (label, value) in [
        ("  build     ", boot.build.clone()),
        ("  compiler  ", compiler),
        ("  command   ", boot.command_line.clone()),
        ("  machine   ", boot.hardware.clone()),
        ("  memory    ", memory),
        ("  CPUs      ", cpus),
        ("  initcalls ", (boot.initcalls > 0).then(|| boot.initcalls.to_string())),
        ("  pending   ", boot.initcall_pending.clone()),
        ("  phase     ", Some(boot.phase.to_string())),
        ("  last line ", boot.last_line.as_ref().map(|p| p.text.clone())),
    ] {
        if let Some(value) = value {
            page.wrapped(label, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kolumbo_case::{CodeBytes, CodePlace, Registers};

    fn crash() -> CrashReport {
        let mut crash = CrashReport {
            title: "general protection fault in f".into(),
            crash_type: "DoS".into(),
            panicked: true,
            quote_depth: 2,
            ..Default::default()
        };
        crash.context.cpu = Some(1);
        crash.context.pid = Some(7);
        crash.context.comm = Some("init".into());
        let pc = CodePlace {
            function: Some("f".into()),
            offset: Some(1),
            size: Some(2),
            ..Default::default()
        };
        let code =
            CodeBytes { bytes: vec![0x0f, 0x0b], trap: Some(1), unit: 1, ..Default::default() };
        crash.states.push(MachineState {
            pc: Some(pc.clone()),
            registers: Registers(vec![("rax".into(), 1), ("rbx".into(), 2)]),
            code: Some(code),
            ..Default::default()
        });
        let frame =
            Frame { place: pc, reliable: false, context: StackContext::Irq, ..Default::default() };
        crash.traces.push(Trace {
            label: "Call Trace:".into(),
            frames: vec![frame],
            ..Default::default()
        });
        crash
    }

    #[test]
    fn one_crash_in_full() {
        let result = ReadResult { reports: vec![crash(), crash()], ..Default::default() };
        expect![[r#"
            general protection fault in f
              DoS, panicked, quoted 2 deep, bytes 0-0
              who       CPU 1, PID 7 (init)
              at        f+0x1/0x2
                  rax 0000000000000001     rbx 0000000000000002
              code      0f <0b>
              Call Trace
                <interrupt>
                ? f+0x1/0x2
        "#]]
        .assert_eq(&report(&result, Shown::First));
        assert_eq!(report(&result, Shown::Overview).matches("general").count(), 2);
        assert_eq!(report(&result, Shown::All).matches("Call Trace").count(), 2);
        assert_eq!(report(&ReadResult::default(), Shown::First), "no crash was found\n");
    }
}
