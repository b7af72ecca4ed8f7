//! Who was running: the `CPU: ... PID: ...` line and its companions.
//!
//! Decides CPU, task, taint, release and hardware of a dump from single lines. Taint letters are
//! those of kernel/panic.c, `taint_flags`, up to v6.18.

use kolumbo_case::CrashContext;

/// Letter and meaning.
static TAINTS: &[(char, &str)] = &[
    ('P', "proprietary module was loaded"),
    ('G', "only free modules were loaded"),
    ('F', "module was force loaded"),
    ('S', "kernel running on an out of specification system"),
    ('R', "module was force unloaded"),
    ('M', "processor reported a machine check exception"),
    ('B', "bad page referenced or some unexpected page flags"),
    ('U', "taint requested by userspace application"),
    ('D', "kernel died recently, there was an oops or BUG"),
    ('A', "ACPI table overridden by user"),
    ('W', "kernel issued a warning"),
    ('C', "staging driver was loaded"),
    ('I', "workaround for a bug in platform firmware applied"),
    ('O', "externally built module was loaded"),
    ('E', "unsigned module was loaded"),
    ('L', "soft lockup occurred"),
    ('K', "kernel has been live patched"),
    ('X', "auxiliary taint of the distribution"),
    ('T', "kernel was built with the struct randomization plugin"),
    ('N', "an in-kernel test has been run"),
    ('J', "a userspace mutating debug operation was performed on fwctl"),
];

/// Takes what `line` says into `context`; tells whether it was a line of this kind.
pub(crate) fn parse_context(line: &str, context: &mut CrashContext) -> bool {
    let text = line.trim();
    if text.starts_with("CPU: ") || text.starts_with("Pid: ") || text.starts_with("PID: ") {
        return task_line(text, context);
    }
    if let Some(name) = text.strip_prefix("Hardware name:") {
        context.hardware.get_or_insert_with(|| name.trim().to_owned());
        return true;
    }
    if let Some(name) = text.strip_prefix("Workqueue: ") {
        context.workqueue.get_or_insert_with(|| name.trim().to_owned());
        return true;
    }
    if let Some(list) = text.strip_prefix("Modules linked in:") {
        if context.modules.is_empty() {
            let names = list.split(" [last unloaded").next().unwrap_or(list);
            context.modules =
                names.split_ascii_whitespace().take(4096).map(str::to_owned).collect();
        }
        return true;
    }
    false
}

/// `CPU: 0 UID: 0 PID: 117 Comm: init Not tainted 6.5.0-rc5 #1 PREEMPT`.
fn task_line(text: &str, context: &mut CrashContext) -> bool {
    if context.pid.is_some() {
        return true;
    }
    context.cpu = context.cpu.or(number_behind(text, "CPU: "));
    context.uid = number_behind(text, "UID: ");
    context.pid = number_behind(text, "PID: ").or(number_behind(text, "Pid: "));
    let comm = text.split_once("Comm: ").or(text.split_once("comm: ")).map(|(_, rest)| rest);
    let (comm, rest) = match comm {
        Some(rest) => match rest.find(" Not tainted").or(rest.find(" Tainted: ")) {
            Some(at) => (Some(rest[..at].trim()), &rest[at + 1..]),
            None => (rest.split(' ').next(), ""),
        },
        None => (None, ""),
    };
    context.comm = comm.filter(|c| !c.is_empty()).map(str::to_owned);
    let version = if let Some(version) = rest.strip_prefix("Not tainted") {
        context.tainted = Some(false);
        version
    } else if let Some(flags) = rest.strip_prefix("Tainted: ") {
        context.tainted = Some(true);
        taint(flags, context)
    } else {
        ""
    };
    // Old kernels put the version in brackets.
    let version = version.trim();
    let version = version.strip_prefix('(').map_or(version, |v| v.strip_suffix(')').unwrap_or(v));
    let (release, build) = match version.split_once(" #") {
        Some((release, build)) => (release.trim(), Some(format!("#{}", build.trim()))),
        None => (version.split(' ').next().unwrap_or(""), None),
    };
    if !release.is_empty() {
        context.release.get_or_insert_with(|| release.to_owned());
    }
    context.build = context.build.take().or(build);
    true
}

/// Reads the letters and gives back what stands behind them.
fn taint<'a>(flags: &'a str, context: &mut CrashContext) -> &'a str {
    let mut rest = flags;
    loop {
        let trimmed = rest.trim_start();
        let word = trimmed.split(' ').next().unwrap_or("");
        let letters = !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
        if !letters {
            break;
        }
        context.taint.push_str(word);
        rest = &trimmed[word.len()..];
    }
    context.taint_meaning = context
        .taint
        .chars()
        .map(|c| {
            TAINTS
                .iter()
                .find(|(l, _)| *l == c)
                .map_or(format!("{c}: unknown"), |(_, m)| format!("{c}: {m}"))
        })
        .collect();
    rest
}

fn number_behind(text: &str, name: &str) -> Option<u32> {
    let rest = &text[text.find(name)? + name.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> CrashContext {
        let mut context = CrashContext::default();
        assert!(parse_context(line, &mut context));
        context
    }

    #[test]
    fn task_lines() {
        let c = read("CPU: 0 PID: 117 Comm: init Not tainted 6.5.0-rc5 #1");
        assert_eq!(
            (c.cpu, c.pid, c.comm.as_deref(), c.tainted),
            (Some(0), Some(117), Some("init"), Some(false))
        );
        assert_eq!((c.release.as_deref(), c.build.as_deref()), (Some("6.5.0-rc5"), Some("#1")));
        let c = read(
            "CPU: 5 UID: 7 PID: 127 Comm: a b Tainted: G    B D W  OE      5.11.0-rc2+ #1 PREEMPT(full)",
        );
        assert_eq!((c.comm.as_deref(), c.taint.as_str(), c.uid), (Some("a b"), "GBDWOE", Some(7)));
        assert_eq!(
            (c.release.as_deref(), c.build.as_deref()),
            (Some("5.11.0-rc2+"), Some("#1 PREEMPT(full)"))
        );
        assert!(
            c.taint_meaning[3].starts_with("W: kernel issued a warning")
                || c.taint_meaning.len() == 6
        );
        let c = read("Pid: 1, comm: swapper Not tainted (2.6.32 #3)");
        assert_eq!(
            (c.pid, c.comm.as_deref(), c.release.as_deref()),
            (Some(1), Some("swapper"), Some("2.6.32"))
        );
        let c = read("CPU: 1 PID: 2");
        assert_eq!((c.cpu, c.pid, c.comm), (Some(1), Some(2), None));
    }

    #[test]
    fn other_lines() {
        assert_eq!(read("Modules linked in: a b(O) [last unloaded: c]").modules, ["a", "b(O)"]);
        assert_eq!(read("Hardware name: QEMU").hardware.as_deref(), Some("QEMU"));
    }
}
