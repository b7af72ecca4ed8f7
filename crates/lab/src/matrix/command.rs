//! A boot as the command line that a person or a batch system runs.

use kolumbo_case::{Accel, BootSpec};
use kolumbo_machine::qemu;

/// Arguments of `kolumbo boot` (without the program) that boot just this. `--exec` comes last, as it
/// has to.
pub fn boot_arguments(spec: &BootSpec, between: &[String]) -> Vec<String> {
    let mut words: Vec<String> = vec!["boot".into(), spec.kernel.clone()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("-s", spec.smp.to_string());
    option("-m", memory(spec.memory));
    option("-t", format!("{}ms", spec.timeout_ms));
    if spec.accel != Accel::Auto {
        option("--accel", spec.accel.name().to_owned());
    }
    for (name, value) in [("--cpu", &spec.cpu), ("--machine", &spec.machine), ("-I", &spec.initrd)]
    {
        if let Some(value) = value {
            option(name, value.clone());
        }
    }
    for append in &spec.append {
        option("--append", append.clone());
    }
    for module in &spec.modules {
        option("--module", module.clone());
    }
    if let Some(host) = &spec.host {
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        option("--host-kernel", host.kernel.clone());
        option("--host-smp", host.smp.to_string());
        option("--host-memory", memory(host.memory));
        for append in &host.append {
            option("--host-append", append.clone());
        }
        for module in &host.modules {
            option("--host-module", module.clone());
        }
    }
    if !spec.engine.is_qemu() {
        words.extend(["--engine".to_owned(), spec.engine.name().to_owned()]);
    }
    words.extend(between.iter().cloned());
    if !spec.exec.is_empty() {
        words.push("--exec".to_owned());
        words.extend(spec.exec.iter().cloned());
    }
    words
}

/// The whole command on one line that a shell takes.
pub fn boot_command(spec: &BootSpec) -> String {
    let words = boot_arguments(spec, &[]);
    let quoted = words.iter().map(|w| qemu::quote(w)).collect::<Vec<_>>().join(" ");
    format!("kolumbo {quoted}")
}

fn memory(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ => format!("{}k", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_can_be_pasted() {
        let spec = BootSpec {
            kernel: "/k/bz Image".into(),
            smp: 2,
            memory: 512 << 20,
            append: vec!["a=1 b".into()],
            exec: vec!["/bin/x".into(), "-y".into()],
            timeout_ms: 90_000,
            ..BootSpec::default()
        };
        assert_eq!(
            boot_command(&spec),
            "kolumbo boot '/k/bz Image' -s 2 -m 512M -t 90000ms --append 'a=1 b' --exec /bin/x -y"
        );
    }
}
