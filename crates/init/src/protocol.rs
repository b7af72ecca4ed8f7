//! The lines that init says on its own channel, and their total parser.
//!
//! A line is `kolumbo-init/1 WORD {...}`: the mark with the protocol's version, one word, and one
//! JSON object with that word's fields. Every control character inside is escaped, so that a line
//! is a line; a line is at most [`words::LINE_LIMIT`] bytes long. A reader ignores fields it does
//! not know; a new word does not raise the version, a changed one does.
//!
//! | word | when | fields |
//! | --- | --- | --- |
//! | `hello` | at once, after an empty line that ends what a reset cut | `boot_ms`, `channel` |
//! | `facts` | once | those of [`GuestFacts`] |
//! | `start` | before each job | `job`, `name`, `up_ms` |
//! | `beat` | each second while a job runs | see [`Beat`] |
//! | `done` | after each job | `job`, `name`, `up_ms`, and one of `errno`, `exit`, `signal` |
//! | `trouble` | when a step of init failed | `doing`, `errno` |
//! | `end` | all jobs are done | `up_ms`, `taint` |
//! | `poweroff` | the last word | `up_ms`, `way`: `power-off` or `restart` |
//!
//! `job` is `module` (its `name` is the file's name) or `exec` (its `name` is the program's path).
//! A job that ended with `errno` 0 is a module that was loaded. Where the guest cannot fork, a
//! `trouble` says so and PID 1 loads the module itself: no `beat` comes while it does.

use kolumbo_case::file::GuestFacts;
use serde::Deserialize;

use crate::words;

/// One line of init.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// Userspace is reached.
    Hello(Hello),
    /// What init found out about the guest.
    Facts(Box<GuestFacts>),
    /// A job begins.
    Start(Start),
    /// A job runs on.
    Beat(Beat),
    /// A job ended.
    Done(Done),
    /// A step of init failed; it went on.
    Trouble(Trouble),
    /// All jobs are done.
    End(End),
    /// Init asks the kernel to power off next.
    PowerOff(PowerOff),
    /// A word of a later kolumbo.
    Unknown {
        /// The word.
        word: String,
    },
}

/// Init's first word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Uptime in milliseconds.
    pub boot_ms: u64,
    /// Which way out init found: `debugcon`, `debugcon by /dev/port`, `ttyS1 by port`, `/dev/ttyS1`.
    pub channel: String,
}

/// Which kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Loading a module.
    Module,
    /// Running a program.
    Exec,
}

/// A job begins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Start {
    /// Which kind of job.
    pub job: JobKind,
    /// The module's file name or the program's path.
    #[serde(default)]
    pub name: String,
    /// Uptime in milliseconds.
    #[serde(default)]
    pub up_ms: u64,
}

/// A look at the process that does the job, from the process that waits for it.
///
/// Two beats tell a sleeping worker (state `S`, neither `cpu_ticks` nor `switches` grow), a
/// spinning one (`R`, `cpu_ticks` grows, `switches` does not), a working one (`switches` grows) and
/// one that waits in the kernel and cannot be woken (`D`) apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Beat {
    /// Which kind of job.
    pub job: JobKind,
    /// The module's file name or the program's path.
    #[serde(default)]
    pub name: String,
    /// Uptime in milliseconds.
    #[serde(default)]
    pub up_ms: u64,
    /// Process id of the worker in the guest.
    #[serde(default)]
    pub pid: u32,
    /// State letter of `/proc/PID/stat`; `?` where the guest has no /proc.
    #[serde(default)]
    pub state: String,
    /// User and system time used so far, in ticks of 10 ms.
    #[serde(default)]
    pub cpu_ticks: u64,
    /// Voluntary context switches so far.
    #[serde(default)]
    pub switches: u64,
    /// Kernel function that the worker waits in; empty where it runs or the guest does not tell.
    #[serde(default)]
    pub wchan: String,
}

/// A job ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Done {
    /// Which kind of job.
    pub job: JobKind,
    /// The module's file name or the program's path.
    #[serde(default)]
    pub name: String,
    /// Uptime in milliseconds.
    #[serde(default)]
    pub up_ms: u64,
    /// Error number of loading the module (0: loaded) or of starting the program.
    pub errno: Option<u32>,
    /// Exit code of the program.
    pub exit: Option<u32>,
    /// Signal that ended the worker; 9 or 11 while a module is loaded mean that the kernel oopsed.
    pub signal: Option<u32>,
}

impl Done {
    /// Whether the job did what it was to do.
    pub fn succeeded(&self) -> bool {
        match self.job {
            JobKind::Module => self.errno == Some(0),
            JobKind::Exec => self.exit == Some(0),
        }
    }
}

/// A step of init failed; it went on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Trouble {
    /// What it was doing.
    pub doing: String,
    /// Linux error number; 0 where there is none.
    pub errno: u32,
}

/// All jobs are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct End {
    /// Uptime in milliseconds.
    pub up_ms: u64,
    /// `/proc/sys/kernel/tainted`, or none where it cannot be read.
    pub taint: Option<u64>,
}

/// Init's last word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PowerOff {
    /// Uptime in milliseconds.
    pub up_ms: u64,
    /// `power-off`, or `restart` where the guest has no way to switch itself off.
    pub way: String,
}

/// Why a line is not one of init's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line does not start with the mark: noise, or the rest of a line that a reset cut.
    #[error("reading init's channel: the line does not start with '{}'", words::MARK)]
    NoMark,
    /// The init in the guest is of another kolumbo.
    #[error(
        "reading init's channel: the guest speaks version {version:?}, this kolumbo reads '{}'; rebuild the initramfs with this kolumbo",
        words::MARK
    )]
    Version {
        /// What stands behind the stem of the mark, at most 16 characters.
        version: String,
    },
    /// The mark is there, but what follows is not the object that the word has.
    #[error("reading init's channel: the line '{word}' cannot be read: {reason}")]
    Fields {
        /// The word, at most 32 characters.
        word: String,
        /// What the JSON reader said.
        reason: String,
    },
    /// The line is longer than any line of init.
    #[error("reading init's channel: a line of {length} bytes is longer than init's longest")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// Reads one line of init, without its newline. Total: any text gives a message or an error.
///
/// # Errors
/// When the line is not one that init says; the line can be dropped and reading goes on.
pub fn parse_line(line: &str) -> Result<Message, LineError> {
    if line.len() > words::LINE_LIMIT {
        return Err(LineError::TooLong { length: line.len() });
    }
    let rest = line.strip_prefix(words::MARK_STEM).ok_or(LineError::NoMark)?;
    let (version, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if !words::MARK[words::MARK_STEM.len()..].eq(version) {
        return Err(LineError::Version { version: version.chars().take(16).collect() });
    }
    let rest = rest.trim_end_matches(['\r', '\n']);
    let (word, fields) = rest.split_once(' ').unwrap_or((rest, "{}"));
    Ok(match word {
        words::HELLO => Message::Hello(read(word, fields)?),
        words::FACTS => Message::Facts(Box::new(read(word, fields)?)),
        words::START => Message::Start(read(word, fields)?),
        words::BEAT => Message::Beat(read(word, fields)?),
        words::DONE => Message::Done(read(word, fields)?),
        words::TROUBLE => Message::Trouble(read(word, fields)?),
        words::END => Message::End(read(word, fields)?),
        words::POWEROFF => Message::PowerOff(read(word, fields)?),
        _ => Message::Unknown { word: word.chars().take(32).collect() },
    })
}

fn read<'a, T: Deserialize<'a>>(word: &str, fields: &'a str) -> Result<T, LineError> {
    serde_json::from_str(fields).map_err(|e| LineError::Fields {
        word: word.chars().take(32).collect(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_word_is_read() {
        assert_eq!(
            parse_line(r#"kolumbo-init/1 hello {"boot_ms":1234,"channel":"debugcon"}"#),
            Ok(Message::Hello(Hello { boot_ms: 1234, channel: "debugcon".into() }))
        );
        assert_eq!(
            parse_line(r#"kolumbo-init/1 start {"job":"module","name":"00-a.ko","up_ms":7}"#),
            Ok(Message::Start(Start { job: JobKind::Module, name: "00-a.ko".into(), up_ms: 7 }))
        );
        assert_eq!(
            parse_line(
                r#"kolumbo-init/1 beat {"job":"exec","name":"/bin/sh","up_ms":9,"pid":40,"state":"D","cpu_ticks":3,"switches":5,"wchan":"io_schedule"}"#
            ),
            Ok(Message::Beat(Beat {
                job: JobKind::Exec,
                name: "/bin/sh".into(),
                up_ms: 9,
                pid: 40,
                state: "D".into(),
                cpu_ticks: 3,
                switches: 5,
                wchan: "io_schedule".into(),
            }))
        );
        assert_eq!(
            parse_line(r#"kolumbo-init/1 trouble {"doing":"mounting /sys","errno":19}"#),
            Ok(Message::Trouble(Trouble { doing: "mounting /sys".into(), errno: 19 }))
        );
        assert_eq!(
            parse_line(r#"kolumbo-init/1 end {"up_ms":10,"taint":512}"#),
            Ok(Message::End(End { up_ms: 10, taint: Some(512) }))
        );
        assert_eq!(
            parse_line("kolumbo-init/1 poweroff {\"up_ms\":11,\"way\":\"power-off\"}\r"),
            Ok(Message::PowerOff(PowerOff { up_ms: 11, way: "power-off".into() }))
        );
        assert_eq!(
            parse_line("kolumbo-init/1 later [1]"),
            Ok(Message::Unknown { word: "later".into() })
        );
    }

    #[test]
    fn facts_become_guest_facts_and_keep_unknown_fields() {
        let line = r#"kolumbo-init/1 facts {"release":"6.1.0","vulnerabilities":{"spectre_v2":"Mitigation: \"x\""},"taint":0,"text":18446744071578845184,"page_size":4096}"#;
        let Ok(Message::Facts(facts)) = parse_line(line) else { panic!("not facts") };
        assert_eq!(facts.release, "6.1.0");
        assert_eq!(facts.vulnerabilities["spectre_v2"], "Mitigation: \"x\"");
        assert_eq!(facts.text, 0xffff_ffff_8100_0000);
        assert_eq!(facts.more["page_size"], 4096);
    }

    #[test]
    fn a_job_succeeds_only_with_a_zero_of_its_own_kind() {
        let done = |fields: &str| match parse_line(&format!("kolumbo-init/1 done {fields}")) {
            Ok(Message::Done(d)) => d.succeeded(),
            other => panic!("{other:?}"),
        };
        assert!(done(r#"{"job":"module","errno":0}"#));
        assert!(done(r#"{"job":"exec","exit":0}"#));
        assert!(!done(r#"{"job":"module","errno":8}"#));
        assert!(!done(r#"{"job":"module","signal":9}"#));
        assert!(!done(r#"{"job":"exec","exit":1}"#));
        assert!(!done(r#"{"job":"exec","errno":2}"#));
        assert!(!done(r#"{"job":"exec"}"#));
    }

    #[test]
    fn what_is_not_a_line_is_told_apart() {
        assert_eq!(parse_line(""), Err(LineError::NoMark));
        assert_eq!(parse_line("[    0.1] hello"), Err(LineError::NoMark));
        assert_eq!(
            parse_line("kolumbo-init/12 hello {}"),
            Err(LineError::Version { version: "12".into() })
        );
        assert!(matches!(
            parse_line(r#"kolumbo-init/1 hello {"boot_ms":-1}"#),
            Err(LineError::Fields { .. })
        ));
        assert!(matches!(
            parse_line(&format!("kolumbo-init/1 facts {}", "[".repeat(50_000))),
            Err(LineError::Fields { .. })
        ));
        assert!(matches!(parse_line(&"x".repeat(100_000)), Err(LineError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn parsing_is_total(line in r#"(kolumbo-init/1 )?(hello|facts|beat|done|end)? ?.{0,80}"#) {
            let _ = parse_line(&line);
        }
    }
}
