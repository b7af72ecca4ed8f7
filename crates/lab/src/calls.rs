//! Watches calls in a running guest: the registers before each call and behind it.
//!
//! Breakpoints stand at call instructions and, while a call is under way, where it returns to. Whether what is
//! seen is in order is not known here; the caller is asked. Main function: [`watch`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kolumbo_case::{Event, GuestView, VcpuRegisters};
use kolumbo_machine::{Halt, Machine, MachineError, Sink};

use crate::boot::{self, BootError};

/// Longest wait of the loop, so that an interrupt by the user is seen in time.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// How long one instruction may take on a host that is busy.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Most calls that are under way at once; one that never returns must not cost memory for ever.
const MOST_UNDER_WAY: usize = 256;
/// Most stops of a guest; each costs about a millisecond.
const MOST_STOPS: u32 = 200_000;

/// One call instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSite {
    /// Its address, as the guest sees it.
    pub address: u64,
    /// Where it returns to.
    pub next: u64,
}

/// What is watched, and for how long.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The calls.
    pub sites: Vec<CallSite>,
    /// Calls that are seen of each site at most.
    pub per_site: u32,
    /// Time that is left for further calls once one was not in order: the guest will rarely live long.
    pub linger: Duration,
    /// Time for all of it, from the start of the guest.
    pub limit: Duration,
    /// Where the stack canary lies, in bytes from the CPU's per-CPU base, where the kernel has one.
    pub canary: Option<u64>,
}

/// A call that was seen from its beginning to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenCall {
    /// Index of the site.
    pub site: usize,
    /// Registers at the call instruction.
    pub before: VcpuRegisters,
    /// Registers where it returned to.
    pub after: VcpuRegisters,
    /// The first instruction that it reached.
    pub target: Option<u64>,
    /// The stack canary of the CPU at its end.
    pub canary: Option<u64>,
}

/// Why the watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Enough calls were seen.
    Enough,
    /// The guest powered off, reset itself, or is gone.
    GuestEnded,
    /// The time was over.
    TimeIsUp,
    /// The user ended it.
    Interrupted,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The calls, in order.
    pub seen: Vec<SeenCall>,
    /// Calls that began and did not come back while they were watched.
    pub under_way: usize,
    /// Why it ended.
    pub ending: Ending,
    /// Milliseconds since the start of the guest.
    pub wall_ms: u64,
}

/// Boots what `request` says and watches it. `is_broken` says whether a call was not in order.
pub fn watch(
    request: &boot::Request,
    watch: &Watch,
    interrupted: &AtomicBool,
    is_broken: &mut dyn FnMut(&SeenCall) -> bool,
) -> Result<Watched, BootError> {
    let mut prepared = boot::prepare(request)?;
    prepared.plan.breakpoints = true;
    let (machine, ..) = boot::start(&prepared)?;
    let mut watcher = Watcher {
        deadline: machine.started() + watch.limit,
        machine,
        watch,
        places: BTreeSet::new(),
        counts: vec![0; watch.sites.len()],
        under_way: Vec::new(),
        seen: Vec::new(),
    };
    let ending = match watcher.run(interrupted, is_broken) {
        Ok(ending) => ending,
        // A QEMU that ended took its guest along.
        Err(_) if watcher.machine.has_exited() => Ending::GuestEnded,
        Err(other) => return Err(other.into()),
    };
    let wall_ms = watcher.machine.now_ms();
    watcher.machine.end(&mut Unheard)?;
    Ok(Watched { seen: watcher.seen, under_way: watcher.under_way.len(), ending, wall_ms })
}

/// A call that has begun.
struct Begun {
    site: usize,
    before: VcpuRegisters,
    target: Option<u64>,
}

struct Watcher<'w> {
    machine: Machine,
    watch: &'w Watch,
    deadline: Instant,
    /// Breakpoints that are set.
    places: BTreeSet<u64>,
    /// Calls seen of each site.
    counts: Vec<u32>,
    under_way: Vec<Begun>,
    seen: Vec<SeenCall>,
}

impl Watcher<'_> {
    fn run(
        &mut self,
        interrupted: &AtomicBool,
        is_broken: &mut dyn FnMut(&SeenCall) -> bool,
    ) -> Result<Ending, MachineError> {
        self.settle()?;
        for _ in 0..MOST_STOPS {
            let cpu = match self.next_stop(interrupted)? {
                Ok(cpu) => cpu,
                Err(ending) => return Ok(ending),
            };
            let Ok(registers) = self.machine.registers(cpu) else { return Ok(Ending::GuestEnded) };
            let Some(at) = registers.get("rip") else { continue };
            if let Some(call) = self.returned(at, &registers) {
                if is_broken(&call) {
                    self.deadline = self.deadline.min(Instant::now() + self.watch.linger);
                }
                self.counts[call.site] += 1;
                self.seen.push(call);
            }
            if self.counts.iter().all(|n| *n >= self.watch.per_site) {
                return Ok(Ending::Enough);
            }
            let called = self.site_at(at);
            if let Some(ending) = self.pass(cpu, at)? {
                return Ok(ending);
            }
            if let Some(site) = called {
                let target = self.machine.registers(cpu).ok().and_then(|r| r.get("rip"));
                if self.under_way.len() == MOST_UNDER_WAY {
                    self.under_way.remove(0);
                }
                self.under_way.push(Begun { site, before: registers, target });
            }
            self.settle()?;
        }
        Ok(Ending::TimeIsUp)
    }

    /// The CPU that stops next, or why none does.
    fn next_stop(&mut self, interrupted: &AtomicBool) -> Result<Result<u32, Ending>, MachineError> {
        let mut halt = self.machine.run_until(self.wake(), &mut Unheard)?;
        loop {
            match halt {
                Halt::Break { cpu } => return Ok(Ok(cpu)),
                Halt::Ended => return Ok(Err(Ending::GuestEnded)),
                Halt::TimeIsUp if interrupted.load(Ordering::Relaxed) => {
                    return Ok(Err(Ending::Interrupted));
                }
                Halt::TimeIsUp if Instant::now() >= self.deadline => {
                    return Ok(Err(Ending::TimeIsUp));
                }
                Halt::TimeIsUp => halt = self.machine.wait_until(self.wake(), &mut Unheard)?,
            }
        }
    }

    fn wake(&self) -> Instant {
        self.deadline.min(Instant::now() + LONGEST_WAIT)
    }

    /// The site whose call instruction stands there, unless enough was seen of it.
    fn site_at(&self, address: u64) -> Option<usize> {
        let site = self.watch.sites.iter().position(|s| s.address == address)?;
        (self.counts[site] < self.watch.per_site).then_some(site)
    }

    /// The call that ends at `at`. Calls are told apart by their stacks: another task, another CPU or an
    /// interrupt may make the same call meanwhile.
    fn returned(&mut self, at: u64, registers: &VcpuRegisters) -> Option<SeenCall> {
        let rsp = registers.get("rsp")?;
        let index = self.under_way.iter().position(|begun| {
            self.watch.sites[begun.site].next == at && begun.before.get("rsp") == Some(rsp)
        })?;
        let Begun { site, before, target } = self.under_way.remove(index);
        let canary = self.watch.canary.and_then(|offset| {
            let mut bytes = [0; 8];
            let address = registers.get("gs_base")?.wrapping_add(offset);
            self.machine.read_memory(registers.cpu, address, &mut bytes).ok()?;
            Some(u64::from_le_bytes(bytes))
        });
        Some(SeenCall { site, before, after: registers.clone(), target, canary })
    }

    /// Lets `cpu` run the instruction at the breakpoint where it stands.
    fn pass(&mut self, cpu: u32, at: u64) -> Result<Option<Ending>, MachineError> {
        if self.places.remove(&at) {
            self.machine.clear_breakpoint(at)?;
        }
        match self.machine.step_cpu(cpu, Instant::now() + STEP_LIMIT, &mut Unheard)? {
            Halt::Break { .. } => Ok(None),
            Halt::Ended => Ok(Some(Ending::GuestEnded)),
            Halt::TimeIsUp => Ok(Some(Ending::TimeIsUp)),
        }
    }

    /// Sets the breakpoints that are wanted now, and no others.
    fn settle(&mut self) -> Result<(), MachineError> {
        let sites = self.watch.sites.iter().zip(&self.counts);
        let open = sites.filter(|(_, n)| **n < self.watch.per_site).map(|(s, _)| s.address);
        let returns = self.under_way.iter().map(|b| self.watch.sites[b.site].next);
        let wanted: BTreeSet<u64> = open.chain(returns).collect();
        for address in self.places.difference(&wanted) {
            self.machine.clear_breakpoint(*address)?;
        }
        for address in wanted.difference(&self.places) {
            self.machine.set_breakpoint(*address)?;
        }
        self.places = wanted;
        Ok(())
    }
}

/// Nobody listens to the console here.
struct Unheard;

impl Sink for Unheard {
    fn console(&mut self, _: &[u8]) {}
    fn event(&mut self, _: Event) {}
}
