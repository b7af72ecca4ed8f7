//! The QEMU Machine Protocol, as much of it as watching a guest needs.
//!
//! One socket, one thread: a command is sent and its reply awaited up to a deadline; events that
//! arrive in between are queued. Replies come from a process that a hostile guest may have taken
//! over, so every line is bounded and every field is optional.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use kolumbo_case::QemuEvent;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

/// Longest reply that is read; `info registers -a` of 255 CPUs is about 1 MiB.
const MAX_LINE: usize = 16 << 20;

/// Why talking to QEMU's monitor failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The socket was closed: QEMU ended.
    #[error("QEMU closed its monitor while {doing}")]
    Closed {
        /// What was being done.
        doing: String,
    },
    /// No reply in time.
    #[error("QEMU's monitor did not answer within {waited:?} while {doing}")]
    NoAnswer {
        /// What was being done.
        doing: String,
        /// How long was waited.
        waited: Duration,
    },
    /// QEMU refused the command.
    #[error("QEMU refused {doing}: {message}")]
    Refused {
        /// What was being done.
        doing: String,
        /// QEMU's own words.
        message: String,
    },
    /// Something that is not QMP.
    #[error("QEMU's monitor answered with something that is not QMP while {doing}")]
    Garbage {
        /// What was being done.
        doing: String,
    },
    /// The socket failed.
    #[error("cannot use QEMU's monitor while {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// One message from QEMU.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The greeting, with the version as `major.minor.micro`.
    Greeting {
        /// Version of QEMU.
        version: String,
    },
    /// A command succeeded.
    Return(Value),
    /// A command failed, with QEMU's words.
    Error(String),
    /// An event, where it is one that matters; [`None`] for the others.
    Event(Option<QemuEvent>),
}

/// Parses one line of QMP. Total over bytes; [`None`] means that it is not QMP.
pub fn parse_message(line: &[u8]) -> Option<Message> {
    let value: Value = serde_json::from_slice(line).ok()?;
    if let Some(greeting) = value.get("QMP") {
        let qemu = greeting.get("version").and_then(|v| v.get("qemu"));
        let part = |name| qemu.and_then(|q| q.get(name)).and_then(Value::as_u64).unwrap_or(0);
        return Some(Message::Greeting {
            version: format!("{}.{}.{}", part("major"), part("minor"), part("micro")),
        });
    }
    if let Some(error) = value.get("error") {
        let text = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
        return Some(Message::Error(text.to_owned()));
    }
    if let Some(name) = value.get("event").and_then(Value::as_str) {
        return Some(Message::Event(parse_event(name, value.get("data"))));
    }
    value.get("return").map(|v| Message::Return(v.clone()))
}

fn parse_event(name: &str, data: Option<&Value>) -> Option<QemuEvent> {
    let text = |key: &str| {
        data.and_then(|d| d.get(key)).and_then(Value::as_str).unwrap_or("unknown").to_owned()
    };
    let guest = data.and_then(|d| d.get("guest")).and_then(Value::as_bool).unwrap_or(false);
    match name {
        "RESET" => Some(QemuEvent::Reset { guest, reason: text("reason") }),
        "SHUTDOWN" => Some(QemuEvent::Shutdown { guest, reason: text("reason") }),
        "GUEST_PANICKED" => Some(QemuEvent::GuestPanicked { action: text("action") }),
        _ => None,
    }
}

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub struct QmpClient {
    socket: UnixStream,
    /// Bytes that were read and not yet consumed; `buffer[..searched]` holds no newline.
    buffer: Vec<u8>,
    searched: usize,
    events: VecDeque<QemuEvent>,
    closed: bool,
}

impl QmpClient {
    /// Takes over one end of a connected socket whose other end QEMU has.
    pub fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(QmpClient {
            socket,
            buffer: Vec::new(),
            searched: 0,
            events: VecDeque::new(),
            closed: false,
        })
    }

    /// The descriptor to poll for input.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// QEMU has closed its end.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Waits for the greeting and leaves negotiation mode. Returns QEMU's version.
    pub fn handshake(&mut self, limit: Duration) -> Result<String, QmpError> {
        let doing = "waiting for its greeting";
        let deadline = Instant::now() + limit;
        let version = loop {
            match self.next_message(deadline, limit, doing)? {
                Message::Greeting { version } => break version,
                Message::Event(event) => self.events.extend(event),
                Message::Return(_) | Message::Error(_) => {}
            }
        };
        self.command("qmp_capabilities", json!({}), limit)?;
        Ok(version)
    }

    /// Runs one command and waits for its reply.
    pub fn command(
        &mut self,
        name: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        let deadline = Instant::now() + limit;
        self.send(line.as_bytes(), deadline, name)?;
        loop {
            match self.next_message(deadline, limit, name)? {
                Message::Return(value) => return Ok(value),
                Message::Error(message) => {
                    return Err(QmpError::Refused { doing: name.to_owned(), message });
                }
                Message::Event(event) => self.events.extend(event),
                Message::Greeting { .. } => {}
            }
        }
    }

    /// Runs a command of the human monitor in the context of CPU `cpu` and returns its text.
    pub fn human(&mut self, line: &str, cpu: u32, limit: Duration) -> Result<String, QmpError> {
        let reply = self.command(
            "human-monitor-command",
            json!({ "command-line": line, "cpu-index": cpu }),
            limit,
        )?;
        match reply {
            Value::String(text) => Ok(text),
            _ => Err(QmpError::Garbage { doing: line.to_owned() }),
        }
    }

    /// Lets a guest run again that was stopped for a look. Returns false, and leaves it as it is, where the guest had
    /// reset itself or powered off just before: QEMU says so only when it stands still already, and a kernel that runs
    /// on behind its power-off panics.
    pub fn run_on(&mut self, limit: Duration) -> Result<bool, QmpError> {
        self.collect();
        if self.events.iter().any(|event| matches!(event, QemuEvent::Shutdown { .. })) {
            return Ok(false);
        }
        self.command("cont", json!({}), limit)?;
        Ok(true)
    }

    /// Events came in while a reply was waited for: they are here, and nothing more may arrive to poll for.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty() || self.buffer.contains(&b'\n')
    }

    /// Reads what has arrived without waiting and returns the events in it.
    pub fn drain(&mut self) -> Vec<QemuEvent> {
        self.collect();
        self.events.drain(..).collect()
    }

    fn collect(&mut self) {
        self.fill();
        while let Some(line) = self.take_line() {
            if let Some(Message::Event(Some(event))) = parse_message(&line) {
                self.events.push_back(event);
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8], deadline: Instant, doing: &str) -> Result<(), QmpError> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, deadline, doing)?;
                }
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                    self.closed = true;
                    return Err(QmpError::Closed { doing: doing.to_owned() });
                }
                Err(source) => return Err(QmpError::Io { doing: doing.to_owned(), source }),
            }
        }
        Ok(())
    }

    fn next_message(
        &mut self,
        deadline: Instant,
        limit: Duration,
        doing: &str,
    ) -> Result<Message, QmpError> {
        loop {
            if let Some(line) = self.take_line() {
                return parse_message(&line)
                    .ok_or_else(|| QmpError::Garbage { doing: doing.to_owned() });
            }
            if self.closed {
                return Err(QmpError::Closed { doing: doing.to_owned() });
            }
            if Instant::now() >= deadline {
                return Err(QmpError::NoAnswer { doing: doing.to_owned(), waited: limit });
            }
            self.wait(PollFlags::IN, deadline, doing)?;
            self.fill();
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Instant, doing: &str) -> Result<(), QmpError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.socket, flags)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(QmpError::Io { doing: doing.to_owned(), source: e.into() }),
        }
    }

    fn fill(&mut self) {
        let mut chunk = [0u8; 16 << 10];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => {
                    self.closed = true;
                    return;
                }
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    if self.buffer.len() > MAX_LINE {
                        // No reply is that long: whoever writes it is not QEMU any more.
                        self.closed = true;
                        self.buffer.clear();
                        self.searched = 0;
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        match self.buffer[self.searched..].iter().position(|&b| b == b'\n') {
            Some(at) => {
                let end = self.searched + at;
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let parse = |s: &str| parse_message(s.as_bytes());
        assert_eq!(
            parse(r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}}}}"#),
            Some(Message::Greeting { version: "7.2.22".into() })
        );
        assert_eq!(
            parse(r#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#),
            Some(Message::Event(Some(QemuEvent::Shutdown {
                guest: true,
                reason: "guest-reset".into()
            })))
        );
        assert_eq!(parse(r#"{"event":"STOP"}"#), Some(Message::Event(None)));
        assert_eq!(
            parse(r#"{"error":{"class":"X","desc":"no"}}"#),
            Some(Message::Error("no".into()))
        );
        assert_eq!(parse(r#"{"return":7}"#), Some(Message::Return(json!(7))));
        assert_eq!(parse("qemu: oops"), None);
    }

    #[test]
    fn a_guest_that_powered_off_meanwhile_is_not_let_run() {
        // What QEMU says to each command, and what was asked of it.
        let ask = |to_stop: &'static str| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut client = QmpClient::new(ours).unwrap();
            let peer = std::thread::spawn(move || {
                let mut asked = Vec::new();
                for line in BufReader::new(theirs.try_clone().unwrap()).lines() {
                    let line = line.unwrap();
                    let reply =
                        if line.contains("\"stop\"") { to_stop } else { "{\"return\":{}}\n" };
                    asked.push(line);
                    theirs.write_all(reply.as_bytes()).unwrap();
                }
                asked
            });
            let limit = Duration::from_secs(5);
            client.command("stop", json!({}), limit).unwrap();
            let ran_on = client.run_on(limit).unwrap();
            let events = client.drain();
            drop(client);
            (ran_on, events.len(), peer.join().unwrap().len())
        };
        assert_eq!(ask("{\"event\":\"STOP\"}\n{\"return\":{}}\n"), (true, 0, 2));
        let off = "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-shutdown\"}}\n{\"return\":{}}\n";
        assert_eq!(ask(off), (false, 1, 1));
        let behind = "{\"return\":{}}\n{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\n";
        assert_eq!(ask(behind), (false, 1, 1));
    }

    #[test]
    fn a_command_queues_events_and_survives_split_lines() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = QmpClient::new(ours).unwrap();
        let peer = std::thread::spawn(move || {
            theirs.write_all(b"{\"event\":\"RESET\",\"data\":{\"guest\":true}}\n{\"ret").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            theirs.write_all(b"urn\":\"ok\"}\n").unwrap();
            theirs
        });
        let reply = client.human("info status", 0, Duration::from_secs(5)).unwrap();
        assert_eq!(reply, "ok");
        assert!(client.has_events(), "nothing more comes to poll for");
        assert!(matches!(client.drain()[..], [QemuEvent::Reset { guest: true, .. }]));
        assert!(!client.has_events());
        drop(peer.join().unwrap());
        assert!(matches!(
            client.command("stop", json!({}), Duration::from_secs(5)),
            Err(QmpError::Closed { .. })
        ));
    }
}
