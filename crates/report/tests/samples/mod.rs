//! Makes matrices for tests: small ones with a planted sickness, hostile ones, large ones.
//!
//! Nothing is measured here: the figures follow from the seeds. Main item: [`Maker`].
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test that includes this file uses a part of it"
)]

use kolumbo_case::file::{CaseState, GuestFacts, HostFacts, InputFile, QemuFacts};
use kolumbo_case::matrix::{
    Answer, Axis, AxisValue, Bug, Cell, Condition, Counts, MATRIX_FORMAT_VERSION, MatrixFile,
    Place, Relation, Run, Term,
};
use kolumbo_case::{CaseFile, Evidence, Phase, VcpuSample, Verdict, VerdictKind};
use kolumbo_report::matrix::{ConsoleTail, Details};

/// Text that tries to break out of everything.
pub const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(1)> ]]> \
                           \" ' & \\ `${x}` \0 \x1b[31mred\x1b[0m \x1b]0;title\x07 \u{202e}txt.exe\u{202c} \
                           \u{2028}\u{2029} \r\nKTAP version 1\nok 1 - fake # SKIP\n::error::fake %0A \u{ffff} #";

/// Numbers that look random and are the same each time.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

/// Makes a matrix from axes and a rule that says what a run comes to.
pub struct Maker {
    pub axes: Vec<Axis>,
    pub repeat: u32,
    pub signatures: Vec<(&'static str, VerdictKind, &'static str)>,
}

pub fn axis(name: &str, ordered: bool, values: &[(&str, &str, &str)]) -> Axis {
    let values = values
        .iter()
        .map(|&(label, value, note)| AxisValue {
            label: label.into(),
            value: value.into(),
            note: note.into(),
        })
        .collect();
    Axis { name: name.into(), ordered, values }
}

/// What a rule decides for one run.
#[derive(Clone, Copy)]
pub enum Fate {
    Healthy,
    /// By index into the signatures.
    Sick(u32),
    Spoilt,
}

impl Maker {
    /// Two kernels, three widths, three command lines.
    pub fn small(repeat: u32) -> Maker {
        Maker {
            axes: vec![
                axis(
                    "kernel",
                    false,
                    &[
                        ("gcc", "build/gcc/bzImage", "gcc (Debian 12.2.0-14) 12.2.0"),
                        ("clang", "build/clang/bzImage", "Debian clang version 19.1.7"),
                    ],
                ),
                axis("smp", true, &[("1", "1", ""), ("2", "2", ""), ("4", "4", "")]),
                axis(
                    "append",
                    false,
                    &[
                        ("off", "spec_rstack_overflow=off", ""),
                        ("safe-ret", "spec_rstack_overflow=safe-ret", ""),
                        ("ibpb", "spec_rstack_overflow=ibpb", ""),
                    ],
                ),
            ],
            repeat,
            signatures: vec![
                (
                    "hung-boot in srso_alias_safe_ret",
                    VerdictKind::HungBoot,
                    "all CPUs spin in srso_alias_safe_ret and nothing was printed for 12 s",
                ),
                (
                    "WARNING: suspicious RCU usage in cpuhp_thread_fun",
                    VerdictKind::BootedWithSplats,
                    "booted, but printed WARNING: suspicious RCU usage",
                ),
                (
                    "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
                    VerdictKind::Panicked,
                    "the kernel panicked: Attempted to kill init!",
                ),
            ],
        }
    }

    /// A table of about `cells` cells over five axes.
    pub fn large(cells: usize) -> Maker {
        let mut maker = Maker::small(1);
        let numbered = |name: &str, ordered: bool, n: usize| Axis {
            name: name.into(),
            ordered,
            values: (1..=n)
                .map(|i| {
                    let label = if ordered { i.to_string() } else { format!("{name}-{i}") };
                    AxisValue { value: label.clone(), label, note: String::new() }
                })
                .collect(),
        };
        let rest = cells.div_ceil(2 * 5 * 4 * 5).max(1);
        maker.axes = vec![
            numbered("kernel", false, rest),
            numbered("config", false, 2),
            numbered("smp", true, 5),
            numbered("cpu", false, 4),
            numbered("append", false, 5),
        ];
        maker
    }

    pub fn make(&self, mut fate: impl FnMut(&[u32], u32) -> Fate) -> MatrixFile {
        let mut matrix = MatrixFile {
            matrix_version: MATRIX_FORMAT_VERSION,
            kolumbo: "0.1.0".into(),
            title: "srso".into(),
            started: "2026-11-22T04:00:00Z".into(),
            state: CaseState::Done,
            axes: self.axes.clone(),
            confidence: 0.95,
            host: HostFacts {
                kernel: "6.1.0-56-cloud-amd64".into(),
                cpu: "AMD EPYC 7R13".into(),
                cpus: 2,
                memory: 24 << 30,
                ..HostFacts::default()
            },
            ..MatrixFile::default()
        };
        let mut dice = Dice::new(7);
        let total: usize = self.axes.iter().map(|a| a.values.len()).product();
        for number in 0..total {
            let mut at = vec![0; self.axes.len()];
            let mut rest = number;
            for (place, axis) in self.axes.iter().enumerate().rev() {
                at[place] = u32::try_from(rest % axis.values.len()).unwrap();
                rest /= axis.values.len();
            }
            let fates: Vec<Fate> = (0..self.repeat).map(|r| fate(&at, r)).collect();
            matrix.cells.push(self.cell(at, &fates, &mut dice));
        }
        self.bugs(&mut matrix);
        matrix
    }

    fn cell(&self, at: Vec<u32>, fates: &[Fate], dice: &mut Dice) -> Cell {
        let labels: Vec<&str> =
            self.axes.iter().zip(&at).map(|(a, &v)| a.values[v as usize].label.as_str()).collect();
        let name = labels.join("/");
        let mut cell = Cell {
            command: format!("kolumbo boot --out again/{name} {}", labels.join(" ")),
            at,
            ..Cell::default()
        };
        for (repeat, &fate) in (1u32..).zip(fates) {
            let run = self.run(&name, repeat, fate, dice);
            match fate {
                Fate::Healthy => cell.counts.healthy += 1,
                Fate::Sick(_) => cell.counts.sick += 1,
                Fate::Spoilt => cell.counts.errors += 1,
            }
            cell.runs.push(run);
        }
        cell.name = name;
        cell.counts.interval = wilson(cell.counts.sick, cell.counts.judged());
        cell.answer = match cell.counts {
            _ if fates.is_empty() => Answer::Pending,
            Counts { healthy: 0, sick: 0, .. } => Answer::Error,
            Counts { sick: 0, .. } => Answer::Healthy,
            Counts { healthy: 0, .. } => Answer::Sick,
            _ => Answer::Flaky,
        };
        cell.as_expected = match cell.answer {
            Answer::Pending | Answer::Error => None,
            answer => Some(answer == Answer::Healthy),
        };
        cell
    }

    fn run(&self, name: &str, repeat: u32, fate: Fate, dice: &mut Dice) -> Run {
        let mut t = 180 + dice.below(60);
        let mut timeline = vec![(Phase::Firmware, 0)];
        for (phase, takes) in [
            (Phase::Decompressor, 120),
            (Phase::EarlyConsole, 400),
            (Phase::SmpBringUp, 250),
            (Phase::Initcalls, 1_900),
            (Phase::Init, 60),
            (Phase::Userspace, 240),
            (Phase::Shutdown, 90),
        ] {
            timeline.push((phase, t));
            t += takes + dice.below(takes / 3);
        }
        let mut run = Run {
            repeat,
            attempt: 1,
            folder: format!("cells/{name}/{repeat}"),
            started: "2026-11-22T04:00:10Z".into(),
            verdict: Some(VerdictKind::Booted),
            reason: "init ran and the guest powered off".into(),
            phase: Phase::Shutdown,
            wall_ms: t,
            decided_ms: t,
            timeline,
            ..Run::default()
        };
        match fate {
            Fate::Healthy => {}
            Fate::Sick(bug) => {
                let (signature, verdict, reason) = self.signatures[bug as usize];
                run.verdict = Some(verdict);
                run.signature = signature.into();
                run.reason = reason.into();
                run.bug = Some(bug);
                if verdict != VerdictKind::BootedWithSplats {
                    run.timeline.truncate(4);
                    run.phase = Phase::SmpBringUp;
                    run.decided_ms = run.timeline[3].1 + 12_400 + dice.below(900);
                    run.wall_ms = run.decided_ms + 300;
                }
            }
            Fate::Spoilt => {
                run.verdict = None;
                run.reason = "qemu-system-x86_64 was killed by signal 9 while the guest ran".into();
                run.timeline.truncate(2);
                run.phase = Phase::Decompressor;
                run.attempt = 3;
            }
        }
        run
    }

    /// Bugs in order of the signatures, without those that never struck.
    fn bugs(&self, matrix: &mut MatrixFile) {
        let mut place = vec![None; self.signatures.len()];
        for (number, &(signature, ..)) in self.signatures.iter().enumerate() {
            let mut bug = Bug { signature: signature.into(), ..Bug::default() };
            for (index, cell) in (0u32..).zip(&matrix.cells) {
                let hits = cell.runs.iter().filter(|r| r.bug == Some(number as u32)).count();
                if hits > 0 {
                    bug.cells.push(index);
                    bug.struck += hits as u32;
                    bug.judged += cell.counts.judged();
                }
            }
            if bug.struck > 0 {
                bug.interval = wilson(bug.struck, bug.judged);
                place[number] = Some(u32::try_from(matrix.bugs.len()).unwrap());
                matrix.bugs.push(bug);
            }
        }
        for run in matrix.cells.iter_mut().flat_map(|c| &mut c.runs) {
            run.bug = run.bug.and_then(|b| place[b as usize]);
        }
    }
}

/// Wilson's interval at 95%.
pub fn wilson(k: u32, n: u32) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (p, n, z) = (f64::from(k) / f64::from(n), f64::from(n), 1.96);
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let below = 1.0 + z * z / n;
    (((middle - half) / below).max(0.0), ((middle + half) / below).min(1.0))
}

fn clang_smp_safe_ret(matrix: &mut MatrixFile, bug: usize) {
    matrix.bugs[bug].conditions = vec![Condition {
        terms: vec![
            Term { axis: 0, relation: Relation::OneOf { values: vec![1] } },
            Term { axis: 1, relation: Relation::AtLeast { value: 1 } },
            Term { axis: 2, relation: Relation::OneOf { values: vec![1] } },
        ],
        text: "clang and smp ≥ 2 and safe-ret".into(),
    }];
    matrix.bugs[bug].sentence = "sick when: clang and smp ≥ 2 and safe-ret".into();
}

/// Sick each time for clang, two or more CPUs and safe-ret.
pub fn planted() -> MatrixFile {
    let mut matrix = Maker::small(1).make(|at, _| match *at {
        [1, (1..), 1] => Fate::Sick(0),
        _ => Fate::Healthy,
    });
    clang_smp_safe_ret(&mut matrix, 0);
    matrix
}

/// The same in about a third of the runs, with splats, an expected one, failures and cells that
/// were not run.
pub fn mixed() -> MatrixFile {
    let mut dice = Dice::new(3);
    let mut matrix = Maker::small(10).make(|at, _| match *at {
        [1, (1..), 1] if dice.below(10) < 3 => Fate::Sick(0),
        [_, 2, 2] => Fate::Sick(1),
        [0, 0, 0] => Fate::Spoilt,
        [1, 0, 1] if dice.below(10) < 1 => Fate::Spoilt,
        _ => Fate::Healthy,
    });
    clang_smp_safe_ret(&mut matrix, 0);
    matrix.bugs[0].open = vec!["smp 3 was not tested: the limit is 2 or 3".into()];
    matrix.bugs[1].conditions =
        vec![Condition { terms: Vec::new(), text: "smp ≥ 4 and ibpb".into() }];
    let expected = matrix.cells.iter_mut().find(|c| c.name == "gcc/4/ibpb").unwrap();
    expected.expect = vec![VerdictKind::BootedWithSplats];
    expected.as_expected = Some(true);
    let pending = matrix.cells.last_mut().unwrap();
    *pending = Cell {
        name: pending.name.clone(),
        at: pending.at.clone(),
        command: pending.command.clone(),
        ..Cell::default()
    };
    matrix.bugs[1].cells.pop();
    matrix.bugs[1].struck = 10;
    matrix.bugs[1].judged = 10;
    matrix.bugs[1].interval = wilson(10, 10);
    matrix.state = CaseState::Running;
    matrix.gaps = vec!["the compiler of the kernel gcc could not be read".into()];
    matrix
}

/// Every string of it tries to break out, and indices point nowhere.
pub fn hostile() -> MatrixFile {
    let mut matrix = mixed();
    let long = format!("{HOSTILE}{}", "x".repeat(20_000));
    matrix.title = HOSTILE.into();
    matrix.kolumbo = HOSTILE.into();
    matrix.started = HOSTILE.into();
    matrix.host.cpu = HOSTILE.into();
    matrix.gaps = vec![long.clone()];
    matrix.confidence = f64::NAN;
    for axis in &mut matrix.axes {
        axis.name = format!("{}{HOSTILE}", axis.name);
        for value in &mut axis.values {
            value.label = format!("{}{HOSTILE}", value.label);
            value.value = long.clone();
            value.note = HOSTILE.into();
        }
    }
    for bug in &mut matrix.bugs {
        bug.signature = long.clone();
        bug.sentence = long.clone();
        bug.open = vec![long.clone()];
        bug.cells.push(u32::MAX);
        bug.interval = (f64::NAN, f64::INFINITY);
    }
    for (number, cell) in matrix.cells.iter_mut().enumerate() {
        cell.name = format!("{number}{HOSTILE}");
        cell.command = long.clone();
        cell.counts.interval = (f64::NAN, -1.0);
        if number % 5 == 0 {
            cell.at = vec![u32::MAX; number % 7];
        }
        for run in &mut cell.runs {
            run.reason = HOSTILE.into();
            run.signature = HOSTILE.into();
            run.folder = HOSTILE.into();
            run.started = HOSTILE.into();
            run.wall_ms = u64::MAX;
            run.timeline = vec![(Phase::Shutdown, u64::MAX), (Phase::Firmware, 3)];
            run.bug = run.bug.map(|b| if number % 3 == 0 { u32::MAX } else { b });
        }
    }
    matrix.any_bug = Some(Place { sentence: long, ..Place::default() });
    matrix
}

/// About `cells` cells with three planted bugs, one of which strikes half of the time.
pub fn large(cells: usize) -> MatrixFile {
    let mut dice = Dice::new(11);
    let mut matrix = Maker::large(cells).make(|at, _| match *at {
        [kernel, _, (1..), _, 2] if kernel % 3 == 1 => Fate::Sick(0),
        [_, 1, _, 3, 4] if dice.below(2) == 0 => Fate::Sick(1),
        [kernel, 0, 0, 0, _] if kernel % 7 == 3 => Fate::Sick(2),
        _ if dice.below(200) == 0 => Fate::Spoilt,
        _ => Fate::Healthy,
    });
    matrix.title = "nightly".into();
    matrix.bugs[0].sentence = "sick when: kernel of every third and smp ≥ 2 and append-3".into();
    matrix
}

/// Case folders that were never written.
pub struct Folders<'m> {
    pub matrix: &'m MatrixFile,
    /// Bytes of each console.
    pub console: usize,
}

impl Details for Folders<'_> {
    fn case(&self, cell: u32, run: usize) -> Option<CaseFile> {
        let cell = &self.matrix.cells[cell as usize];
        let run = cell.runs.get(run)?;
        let verdict = run.verdict?;
        let sample = |cpu| VcpuSample {
            cpu,
            halted: false,
            interrupts: false,
            pc: 0xffff_ffff_81e0_0f4b,
            symbol: Some("srso_alias_safe_ret+0xb/0x40".into()),
            instruction: Some("call   0xffffffff81e00f50".into()),
            ..VcpuSample::default()
        };
        let mut evidence = vec![Evidence::Line {
            t: run.timeline.last().map_or(0, |t| t.1),
            offset: 1_204,
            text: "[    0.412310] smpboot: Booting Node   0, Processors        #1".into(),
        }];
        if verdict != VerdictKind::Booted {
            evidence.extend((0..4).map(|cpu| Evidence::Vcpu {
                from_t: run.decided_ms.saturating_sub(12_000),
                to_t: run.decided_ms,
                samples: 48,
                text: "runs in a loop of 3 instructions with interrupts off".into(),
                last: sample(cpu),
            }));
            evidence.push(Evidence::Report {
                t: run.decided_ms,
                from: "host".into(),
                text: "QEMU used 11.8 s of CPU time during the silence".into(),
            });
        }
        Some(CaseFile {
            case_version: 1,
            state: CaseState::Done,
            inputs: vec![InputFile {
                role: "kernel".into(),
                path: "build/clang/bzImage".into(),
                size: 12_345_678,
                sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
            }],
            qemu: QemuFacts {
                version: "7.2.22".into(),
                argv: vec!["qemu-system-x86_64".into(), "-smp".into(), "4".into()],
                accel: "tcg".into(),
                accel_reason: "KVM is emulated here".into(),
            },
            guest: Some(GuestFacts {
                release: "6.1.176".into(),
                proc_version: "Linux version 6.1.176 (Debian clang version 19.1.7)".into(),
                cmdline: "console=ttyS0 spec_rstack_overflow=safe-ret".into(),
                ..GuestFacts::default()
            }),
            timeline: run.timeline.clone(),
            outcome: Some(Verdict {
                verdict,
                reason: run.reason.clone(),
                phase: run.phase,
                timed_out: false,
                last_sign_of_life_ms: run.timeline.last().map_or(0, |t| t.1),
                decided_ms: run.decided_ms,
                evidence,
            }),
            wall_ms: Some(run.wall_ms),
            ..CaseFile::default()
        })
    }

    fn console(&self, cell: u32, run: usize, most: usize) -> Option<ConsoleTail> {
        let run = self.matrix.cells[cell as usize].runs.get(run)?;
        let mut text = String::from("\x1b[2J\x1b[01;01HSeaBIOS (version 1.16.2)\r\n");
        for line in 0.. {
            if text.len() >= self.console {
                break;
            }
            let words =
                ["x86/fpu: Supporting XSAVE feature", "ACPI: Early table checksum verification"];
            text += &format!("[    0.{line:06}] {} {line:#x}\r\n", words[line % 2]);
        }
        if run.bug.is_some() {
            text += "[    0.412310] smp: Bringing up secondary CPUs ...\r\n";
        }
        let bytes = text.into_bytes();
        let before = bytes.len().saturating_sub(most);
        Some(ConsoleTail { bytes: bytes[before..].to_vec(), before: before as u64 })
    }

    fn explanation(&self, cell: u32, run: usize) -> Option<String> {
        let run = self.matrix.cells[cell as usize].runs.get(run)?;
        run.bug.map(|_| {
            "K0101 contract broken: srso_alias_safe_ret destroys the arithmetic flags\n\n  \
             its caller native_save_fl+0x2 reads ZF after the return\n"
                .to_owned()
        })
    }
}

/// Case folders whose every string tries to break out.
pub struct HostileFolders;

impl Details for HostileFolders {
    fn case(&self, _: u32, _: usize) -> Option<CaseFile> {
        let line = Evidence::Line { t: 1, offset: 1, text: HOSTILE.into() };
        Some(CaseFile {
            gaps: vec![HOSTILE.into()],
            outcome: Some(Verdict {
                verdict: VerdictKind::Panicked,
                reason: HOSTILE.into(),
                phase: Phase::Init,
                timed_out: true,
                last_sign_of_life_ms: u64::MAX,
                decided_ms: u64::MAX,
                evidence: vec![line; 1_000],
            }),
            ..CaseFile::default()
        })
    }

    fn console(&self, _: u32, _: usize, _: usize) -> Option<ConsoleTail> {
        let mut bytes = HOSTILE.as_bytes().to_vec();
        bytes.extend([0xff, 0xfe, 0x80, 0xf0, 0x9f]);
        Some(ConsoleTail { bytes, before: u64::MAX })
    }

    fn explanation(&self, _: u32, _: usize) -> Option<String> {
        Some(HOSTILE.into())
    }
}
