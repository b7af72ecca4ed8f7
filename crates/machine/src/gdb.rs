//! The GDB remote protocol, as much of it as breakpoints need.
//!
//! One socket, one thread: a request is sent and its reply awaited up to a deadline; stops of the guest that
//! come in between are queued. Registers and memory are read through the monitor instead, so that there is
//! one reader of them. Replies come from a process that a hostile guest may have taken over, so every packet
//! is bounded and checked. The protocol is described in the manual of GDB, "Remote Protocol". Main type:
//! [`GdbClient`].

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest packet that is read; QEMU's own are below 5 KiB.
const MAX_PACKET: usize = 64 << 10;
/// Stops that are kept; more than a few only come from a QEMU gone mad.
const MAX_STOPS: usize = 64;
/// GDB's number for "stopped at a breakpoint".
const SIGTRAP: u8 = 5;

/// Why talking to QEMU's debugger failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GdbError {
    /// The socket was closed: QEMU ended.
    #[error("QEMU closed its debugger while {doing}")]
    Closed {
        /// What was being done.
        doing: String,
    },
    /// No reply in time.
    #[error("QEMU's debugger did not answer within {waited:?} while {doing}")]
    NoAnswer {
        /// What was being done.
        doing: String,
        /// How long was waited.
        waited: Duration,
    },
    /// QEMU refused the request.
    #[error("QEMU's debugger refused {doing}: it said '{said}'")]
    Refused {
        /// What was being done.
        doing: String,
        /// Its reply.
        said: String,
    },
    /// Something that is not the protocol.
    #[error("QEMU's debugger answered with something that is not the protocol while {doing}")]
    Garbage {
        /// What was being done.
        doing: String,
    },
    /// The socket failed.
    #[error("cannot use QEMU's debugger while {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// The guest stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// GDB's number of the signal: 5 at a breakpoint.
    pub signal: u8,
    /// The virtual CPU, from 0, where QEMU says it.
    pub cpu: Option<u32>,
}

impl Stop {
    /// A breakpoint was reached, or a step is done.
    pub fn is_trap(self) -> bool {
        self.signal == SIGTRAP
    }
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The guest stopped.
    Stopped(Stop),
    /// QEMU says that the guest is gone.
    Gone,
    /// The reply to a request.
    Reply(Vec<u8>),
}

/// Bytes that are not the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not GDB's remote protocol")]
pub struct NotGdb;

/// Takes the next whole packet off the front of `buffer`. `Ok(None)` means that more has to come.
pub fn take_packet(buffer: &mut Vec<u8>) -> Result<Option<Incoming>, NotGdb> {
    // Acknowledgements and whatever else stands between packets.
    let start = buffer.iter().position(|b| *b == b'$').unwrap_or(buffer.len());
    buffer.drain(..start);
    let Some(end) = buffer.iter().position(|b| *b == b'#') else {
        return if buffer.len() > MAX_PACKET { Err(NotGdb) } else { Ok(None) };
    };
    if end > MAX_PACKET {
        return Err(NotGdb);
    }
    let Some(digits) = buffer.get(end + 1..end + 3) else { return Ok(None) };
    let wanted = std::str::from_utf8(digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
    let data = buffer[1..end].to_vec();
    buffer.drain(..end + 3);
    if wanted != Some(checksum(&data)) {
        return Err(NotGdb);
    }
    Ok(Some(parse_packet(data)))
}

fn checksum(data: &[u8]) -> u8 {
    data.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// What a packet says.
fn parse_packet(data: Vec<u8>) -> Incoming {
    let signal = || {
        let digits = std::str::from_utf8(data.get(1..3)?).ok()?;
        u8::from_str_radix(digits, 16).ok()
    };
    match (data.first(), signal()) {
        (Some(b'S'), Some(signal)) => Incoming::Stopped(Stop { signal, cpu: None }),
        (Some(b'T'), Some(signal)) => {
            // `T05thread:01;` or, with several processes, `T05thread:p01.02;`
            let text = String::from_utf8_lossy(&data[3..]);
            let thread = text.split(';').find_map(|pair| pair.strip_prefix("thread:"));
            let number = thread.and_then(|t| {
                u32::from_str_radix(t.rsplit('.').next().unwrap_or(t), 16).ok()?.checked_sub(1)
            });
            Incoming::Stopped(Stop { signal, cpu: number })
        }
        (Some(b'W' | b'X'), Some(_)) => Incoming::Gone,
        _ => Incoming::Reply(data),
    }
}

/// A connection to QEMU's debugger.
#[derive(Debug)]
pub struct GdbClient {
    socket: UnixStream,
    buffer: Vec<u8>,
    stops: VecDeque<Stop>,
    closed: bool,
}

impl GdbClient {
    /// Takes over one end of a connected socket whose other end QEMU has.
    pub fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(GdbClient { socket, buffer: Vec::new(), stops: VecDeque::new(), closed: false })
    }

    /// The descriptor to poll for input.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// QEMU has closed its end, or has said that the guest is gone.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Waits until QEMU answers. Every packet is acknowledged: QEMU knows no other mode.
    pub fn handshake(&mut self, limit: Duration) -> Result<(), GdbError> {
        self.request("qSupported", "agreeing on the protocol", limit).map(drop)
    }

    /// Sets a hardware breakpoint: it changes no memory, so that it may stand where no code is yet.
    pub fn set_breakpoint(&mut self, address: u64, limit: Duration) -> Result<(), GdbError> {
        self.ok(
            &format!("Z1,{address:x},1"),
            &format!("setting a breakpoint at {address:#x}"),
            limit,
        )
    }

    /// Takes a breakpoint away.
    pub fn clear_breakpoint(&mut self, address: u64, limit: Duration) -> Result<(), GdbError> {
        self.ok(
            &format!("z1,{address:x},1"),
            &format!("clearing a breakpoint at {address:#x}"),
            limit,
        )
    }

    /// Lets every CPU run on. The stop that follows arrives by itself.
    pub fn go_on(&mut self, limit: Duration) -> Result<(), GdbError> {
        self.send("c", "letting the guest run on", limit)
    }

    /// Lets one CPU run one instruction. The stop that follows arrives by itself.
    pub fn step(&mut self, cpu: u32, limit: Duration) -> Result<(), GdbError> {
        let command = format!("vCont;s:{:x}", u64::from(cpu) + 1);
        self.send(&command, "letting a CPU run one instruction", limit)
    }

    /// The oldest stop that was not asked for yet, out of what has arrived.
    pub fn take_stop(&mut self) -> Result<Option<Stop>, GdbError> {
        self.fill();
        self.sort_out("watching the guest")?;
        Ok(self.stops.pop_front())
    }

    fn ok(&mut self, command: &str, doing: &str, limit: Duration) -> Result<(), GdbError> {
        match self.request(command, doing, limit)?.as_slice() {
            b"OK" => Ok(()),
            said => {
                let said: String = String::from_utf8_lossy(said).chars().take(80).collect();
                Err(GdbError::Refused { doing: doing.to_owned(), said })
            }
        }
    }

    fn request(
        &mut self,
        command: &str,
        doing: &str,
        limit: Duration,
    ) -> Result<Vec<u8>, GdbError> {
        let deadline = Instant::now() + limit;
        self.send(command, doing, limit)?;
        loop {
            if let Some(reply) = self.sort_out(doing)? {
                return Ok(reply);
            }
            if self.closed {
                return Err(GdbError::Closed { doing: doing.to_owned() });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GdbError::NoAnswer { doing: doing.to_owned(), waited: limit });
            }
            self.wait(PollFlags::IN, left, doing)?;
            self.fill();
        }
    }

    /// Queues the stops in the buffer, up to the first reply, which is returned.
    fn sort_out(&mut self, doing: &str) -> Result<Option<Vec<u8>>, GdbError> {
        loop {
            let taken = take_packet(&mut self.buffer);
            if let Ok(Some(_)) = taken {
                // A byte that does not fit into the socket is missed by nobody: whatever is sent next tells
                // QEMU that its packet arrived.
                let _ = self.socket.write(b"+");
            }
            match taken {
                Ok(None) => return Ok(None),
                Ok(Some(Incoming::Reply(reply))) => return Ok(Some(reply)),
                Ok(Some(Incoming::Gone)) => self.closed = true,
                Ok(Some(Incoming::Stopped(stop))) if self.stops.len() < MAX_STOPS => {
                    self.stops.push_back(stop);
                }
                Ok(Some(Incoming::Stopped(_))) | Err(NotGdb) => {
                    return Err(GdbError::Garbage { doing: doing.to_owned() });
                }
            }
        }
    }

    fn send(&mut self, command: &str, doing: &str, limit: Duration) -> Result<(), GdbError> {
        let packet = format!("${command}#{:02x}", checksum(command.as_bytes()));
        let deadline = Instant::now() + limit;
        let mut rest = packet.as_bytes();
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(GdbError::NoAnswer { doing: doing.to_owned(), waited: limit });
                    }
                    self.wait(PollFlags::OUT, left, doing)?;
                }
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                    self.closed = true;
                    return Err(GdbError::Closed { doing: doing.to_owned() });
                }
                Err(source) => return Err(GdbError::Io { doing: doing.to_owned(), source }),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, longest: Duration, doing: &str) -> Result<(), GdbError> {
        let timeout = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(GdbError::Io { doing: doing.to_owned(), source: e.into() }),
        }
    }

    /// Reads what is there without waiting. What is beyond the longest packet stays in the socket.
    fn fill(&mut self) {
        let mut chunk = [0u8; 4 << 10];
        while self.buffer.len() <= MAX_PACKET {
            match self.socket.read(&mut chunk) {
                Ok(0) => {
                    self.closed = true;
                    return;
                }
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn packet(text: &str) -> Vec<u8> {
        format!("${text}#{:02x}", checksum(text.as_bytes())).into_bytes()
    }

    #[test]
    fn packets_are_taken_one_by_one() {
        let mut buffer =
            [b"+".to_vec(), packet("OK"), b"+".to_vec(), packet("T05thread:02;")].concat();
        let whole = buffer.len();
        buffer.extend_from_slice(b"$T05thr");
        assert_eq!(take_packet(&mut buffer), Ok(Some(Incoming::Reply(b"OK".to_vec()))));
        let stop = Stop { signal: 5, cpu: Some(1) };
        assert_eq!(take_packet(&mut buffer), Ok(Some(Incoming::Stopped(stop))));
        assert_eq!(take_packet(&mut buffer), Ok(None));
        assert_eq!(buffer.len(), 7, "the beginning of a packet stays ({whole})");
        for (text, incoming) in [
            ("S05", Incoming::Stopped(Stop { signal: 5, cpu: None })),
            ("T02thread:p01.03;", Incoming::Stopped(Stop { signal: 2, cpu: Some(2) })),
            ("T05", Incoming::Stopped(Stop { signal: 5, cpu: None })),
            ("T05thread:00;", Incoming::Stopped(Stop { signal: 5, cpu: None })),
            ("W00", Incoming::Gone),
            ("E22", Incoming::Reply(b"E22".to_vec())),
            ("", Incoming::Reply(Vec::new())),
        ] {
            assert_eq!(take_packet(&mut packet(text)), Ok(Some(incoming)), "{text}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_refused_and_bounded() {
        assert_eq!(take_packet(&mut b"$OK#00".to_vec()), Err(NotGdb));
        assert_eq!(take_packet(&mut b"$OK#zz".to_vec()), Err(NotGdb));
        assert_eq!(take_packet(&mut vec![b'$'; MAX_PACKET + 2]), Err(NotGdb));
        let mut noise = vec![b'+'; 1 << 20];
        assert_eq!(take_packet(&mut noise), Ok(None));
        assert!(noise.is_empty(), "noise between packets is not kept");
    }

    #[test]
    fn a_stop_between_request_and_reply_is_kept() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = GdbClient::new(ours).unwrap();
        theirs.write_all(&packet("T05thread:01;")).unwrap();
        theirs.write_all(&packet("OK")).unwrap();
        client.set_breakpoint(0xffff_ffff_8100_0000, LIMIT).unwrap();
        let mut sent = vec![0; 64];
        let n = theirs.read(&mut sent).unwrap();
        let both = [packet("Z1,ffffffff81000000,1"), b"++".to_vec()].concat();
        assert_eq!(sent[..n], both, "the request, and an acknowledgement of each packet");
        assert_eq!(client.take_stop().unwrap(), Some(Stop { signal: 5, cpu: Some(0) }));
        assert_eq!(client.take_stop().unwrap(), None);
        theirs.write_all(&packet("E22")).unwrap();
        let refused = client.clear_breakpoint(1, LIMIT).unwrap_err().to_string();
        assert_eq!(refused, "QEMU's debugger refused clearing a breakpoint at 0x1: it said 'E22'");
        let silent = client.handshake(Duration::from_millis(1));
        assert!(matches!(silent, Err(GdbError::NoAnswer { .. })), "{silent:?}");
        drop(theirs);
        assert!(matches!(client.handshake(LIMIT), Err(GdbError::Closed { .. })));
    }

    #[test]
    fn a_flood_of_stops_ends_in_an_error() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = GdbClient::new(ours).unwrap();
        for _ in 0..MAX_STOPS + 2 {
            theirs.write_all(&packet("S05")).unwrap();
        }
        assert!(matches!(client.take_stop(), Err(GdbError::Garbage { .. })));
    }
}
