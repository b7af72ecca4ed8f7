//! The test of emulated instructions as text: a line a form, and the sentence on top.

use std::fmt::Write;

use kolumbo_case::emulation::{Difference, EmulationFile, FormResult, Outcome, Place};

/// The whole report.
pub fn report(file: &EmulationFile) -> String {
    let mut text = sentence(file);
    text.push('\n');
    let _ = writeln!(text, "  hypervisor  {}", file.hypervisor);
    if let Some(guest) = &file.guest {
        let _ = writeln!(text, "  release     {}", guest.release);
        if let Some(srso) = guest.vulnerabilities.get("spec_rstack_overflow") {
            let _ = writeln!(text, "  srso        {srso}");
        }
    }
    if let Some(speed) = file.instructions_per_second {
        let _ =
            writeln!(text, "  speed       {:.1} million instructions a second", speed as f64 / 1e6);
    }
    let _ = writeln!(
        text,
        "  time        {:.2} s, the test itself {:.2} s",
        file.wall_ms as f64 / 1e3,
        file.test_ms as f64 / 1e3
    );
    let width = file.forms.iter().map(|f| f.form.len()).max().unwrap_or(0);
    for place in [Place::Apic, Place::Device] {
        let _ = writeln!(text, "{}", heading(place));
        for form in file.forms.iter().filter(|f| f.place == place) {
            let _ = writeln!(text, "  {:width$}  {}", form.form, outcome(form));
        }
    }
    text
}

/// What the test says, in one sentence.
pub fn sentence(file: &EmulationFile) -> String {
    let (all, ok) = (file.forms.len(), file.count(Outcome::Ok));
    let (differs, not_run) = (file.count(Outcome::Differs), file.count(Outcome::NotRun));
    let mut text = if differs > 0 {
        format!(
            "differs: this hypervisor emulates {differs} of {all} instruction forms other than the CPU \
             executes them"
        )
    } else if ok > 0 {
        format!("ok: {ok} of {all} instruction forms are emulated as the CPU executes them")
    } else {
        "nothing was found out".to_owned()
    };
    if not_run > 0 {
        let _ = write!(text, "; the time was over before {not_run}");
    }
    text
}

fn heading(place: Place) -> &'static str {
    match place {
        Place::Apic => "on the page of the APIC",
        Place::Device => "on a page that no memory and no device is behind",
    }
}

fn outcome(form: &FormResult) -> String {
    match (form.outcome, &form.first) {
        (Outcome::Ok, _) => "ok".to_owned(),
        (Outcome::Refused, _) => "not emulated".to_owned(),
        (Outcome::NotRun, _) => "not run".to_owned(),
        (Outcome::Differs, None) => "differs".to_owned(),
        (Outcome::Differs, Some(first)) => {
            format!("differs in {} of {}: {}", form.differing, form.trials, example(first))
        }
    }
}

fn example(d: &Difference) -> String {
    let mut text = format!("{:#x} and {:#x}", d.memory, d.operand);
    if d.flags_executed != d.flags_emulated {
        let (executed, emulated) = (d.flags_executed, d.flags_emulated);
        let _ = write!(text, ", flags {emulated:#x} where the CPU has {executed:#x}");
    }
    if d.memory_executed != d.memory_emulated {
        let (executed, emulated) = (d.memory_executed, d.memory_emulated);
        let _ = write!(text, ", result {emulated:#x} where the CPU has {executed:#x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(name: &str, place: Place, outcome: Outcome) -> FormResult {
        FormResult { form: name.into(), place, outcome, trials: 8, differing: 0, first: None }
    }

    #[test]
    fn a_difference_is_said_with_its_first_example() {
        let first = Difference {
            memory: 0,
            operand: 0x1000,
            flags_before: 0,
            flags_executed: 0x46,
            flags_emulated: 0x82,
            memory_executed: 0x1000,
            memory_emulated: 0x1000,
        };
        let differs = FormResult {
            differing: 5,
            first: Some(first),
            ..form("testl $imm, mem", Place::Apic, Outcome::Differs)
        };
        let file = EmulationFile {
            hypervisor: "vmlinux".into(),
            forms: vec![
                differs,
                form("movl mem, %ecx", Place::Device, Outcome::Ok),
                form("sete mem", Place::Device, Outcome::NotRun),
            ],
            test_ms: 20,
            wall_ms: 1400,
            ..EmulationFile::default()
        };
        let text = report(&file);
        assert!(text.starts_with("differs: this hypervisor emulates 1 of 3 "), "{text}");
        assert!(text.contains("the time was over before 1"), "{text}");
        let line =
            "testl $imm, mem  differs in 5 of 8: 0x0 and 0x1000, flags 0x82 where the CPU has 0x46";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("result"), "{text}");
    }

    #[test]
    fn nothing_found_out_is_not_ok() {
        assert_eq!(sentence(&EmulationFile::default()), "nothing was found out");
    }
}
