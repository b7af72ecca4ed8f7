//! The jobs: a child does each, the parent beats.
//!
//! Decides how a job is run so that the host can see from outside how it goes: the parent alone
//! writes to the channel, so that lines cannot mix, and looks at the child once a second.

use core::ffi::CStr;

use crate::line::{Line, decimal};
use crate::plan::{Arguments, Job, Plan};
use crate::sys::{self, Errno};
use crate::{facts, trouble, words};

const BEAT_MS: u64 = 1000;
/// Exit code of a child whose program could not be started.
const NO_PROGRAM: i32 = 127;

/// How a job ended.
enum Outcome {
    Errno(u32),
    Exit(u32),
    Signal(u32),
}

pub fn run_all(mut plan: Plan) {
    sys::block_child_signal(true);
    while let Some(job) = plan.next_job() {
        let mut line = Line::new(words::START);
        line.text("job", job.kind().as_bytes());
        line.text("name", job.name());
        line.number("up_ms", sys::uptime_ms());
        line.say();

        let outcome = run(&job);

        let mut line = Line::new(words::DONE);
        line.text("job", job.kind().as_bytes());
        line.text("name", job.name());
        line.number("up_ms", sys::uptime_ms());
        match outcome {
            Outcome::Errno(n) => line.number("errno", u64::from(n)),
            Outcome::Exit(n) => line.number("exit", u64::from(n)),
            Outcome::Signal(n) => line.number("signal", u64::from(n)),
        }
        line.say();
    }
}

fn run(job: &Job) -> Outcome {
    // The child tells through this pipe why the program did not start; a program that starts
    // closes it without a word. Without a pipe, exit code 127 has to do.
    let pipe = match sys::pipe() {
        Ok(pipe) => Some(pipe),
        Err(e) => {
            trouble("making a pipe", e);
            None
        }
    };
    let outcome = match sys::fork() {
        Ok(0) => {
            sys::block_child_signal(false);
            work(job, pipe.map(|(_, writing)| writing))
        }
        Ok(pid) => {
            if let Some((_, writing)) = pipe {
                sys::close(writing);
            }
            let status = watch(job, pid);
            let why = pipe.and_then(|(reading, _)| why_not_started(reading));
            match (why, job, status & 0x7f, status >> 8 & 0xff) {
                (Some(errno), ..) => Outcome::Errno(errno),
                (None, Job::Module { .. }, 0, code) => Outcome::Errno(code),
                (None, Job::Exec { .. }, 0, code) => Outcome::Exit(code),
                (None, _, signal, _) => Outcome::Signal(signal),
            }
        }
        Err(e) => {
            trouble("forking", e);
            if let Some((_, writing)) = pipe {
                sys::close(writing);
            }
            match job {
                Job::Module { path, parameters } => Outcome::Errno(load(path, parameters)),
                // To run it here would end init.
                Job::Exec { .. } => Outcome::Errno(e.0),
            }
        }
    };
    if let Some((reading, _)) = pipe {
        sys::close(reading);
    }
    outcome
}

/// The child's part. An error number fits into an exit code: Linux has 133 of them.
fn work(job: &Job, tell: Option<usize>) -> ! {
    match job {
        Job::Module { path, parameters } => sys::exit(load(path, parameters) as i32),
        Job::Exec { path, arguments } => {
            sys::new_session();
            let e = execute(path, arguments);
            if let Some(fd) = tell {
                let _ = sys::write(fd, &e.0.to_le_bytes());
            }
            sys::exit(NO_PROGRAM)
        }
    }
}

fn load(path: &CStr, parameters: &CStr) -> u32 {
    sys::load_module(path, parameters).err().map_or(0, |e| e.0)
}

fn execute(path: &CStr, arguments: &Arguments) -> Errno {
    let mut pointers = [core::ptr::null(); words::ARGUMENT_LIMIT + 1];
    if arguments.count > words::ARGUMENT_LIMIT {
        return Errno::TOO_BIG;
    }
    for (slot, argument) in pointers.iter_mut().zip(arguments.clone()) {
        *slot = argument.as_ptr().cast::<u8>();
    }
    let environment = [
        c"PATH=/bin:/sbin:/usr/bin:/usr/sbin".as_ptr().cast(),
        c"HOME=/".as_ptr().cast(),
        c"TERM=dumb".as_ptr().cast(),
        // `words::LIBRARY_FOLDER`
        c"LD_LIBRARY_PATH=/kolumbo/lib".as_ptr().cast(),
        core::ptr::null(),
    ];
    sys::execve(path, &pointers, &environment)
}

fn why_not_started(reading: usize) -> Option<u32> {
    let mut errno = [0u8; 4];
    (sys::read(reading, &mut errno) == Ok(4)).then(|| u32::from_le_bytes(errno))
}

/// Waits until `pid` has ended and gives its status. Orphans are reaped on the way.
fn watch(job: &Job, pid: usize) -> u32 {
    let mut next_beat = sys::uptime_ms() + BEAT_MS;
    loop {
        while let Some((ended, status)) = sys::reap() {
            if ended == pid {
                return status;
            }
        }
        let now = sys::uptime_ms();
        if now >= next_beat {
            beat(job, pid, now);
            // After a long stop of the whole guest there is no point in catching up.
            next_beat = now + BEAT_MS;
        } else {
            sys::wait_for_child_signal(next_beat - now);
        }
    }
}

fn beat(job: &Job, pid: usize, now: u64) {
    let mut buffer = [0u8; 4096];
    let mut line = Line::new(words::BEAT);
    line.text("job", job.kind().as_bytes());
    line.text("name", job.name());
    line.number("up_ms", now);
    line.number("pid", pid as u64);
    match process_file(pid, b"/stat", &mut buffer) {
        Some(stat) => {
            // The name in parentheses may hold anything, spaces and parentheses too.
            let after = stat.iter().rposition(|&b| b == b')').map_or(0, |at| at + 1);
            let mut fields = stat[after..].trim_ascii().split(|&b| b == b' ');
            line.text("state", fields.next().unwrap_or(b"?"));
            // Fields 14 and 15 of proc_pid_stat(5); the state is field 3.
            let user = fields.nth(10).and_then(facts::number).unwrap_or(0);
            let system = fields.next().and_then(facts::number).unwrap_or(0);
            line.number("cpu_ticks", user + system);
        }
        None => line.text("state", b"?"),
    }
    if let Some(status) = process_file(pid, b"/status", &mut buffer) {
        const KEY: &[u8] = b"voluntary_ctxt_switches:";
        let switches = status
            .split(|&b| b == b'\n')
            .find_map(|l| l.strip_prefix(KEY))
            .and_then(|value| facts::number(value.trim_ascii()));
        line.number("switches", switches.unwrap_or(0));
    }
    if let Some(function) = process_file(pid, b"/wchan", &mut buffer)
        && function != b"0"
    {
        line.text("wchan", function);
    }
    line.say();
}

fn process_file<'a>(pid: usize, name: &[u8], into: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = [0u8; 64];
    let mut digits = [0u8; 20];
    let mut length = 0;
    for part in [b"/proc/", decimal(pid as u64, &mut digits), name] {
        path.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    sys::read_file(CStr::from_bytes_until_nul(&path).ok()?, into).ok()
}
