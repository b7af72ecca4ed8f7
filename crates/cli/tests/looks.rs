//! Looks at the virtual CPUs of a live guest: none may hide its end or let it run on behind it, and a CPU in a loop is
//! stopped where it is wanted.

mod guest;

use std::path::Path;
use std::time::{Duration, Instant};

use guest::{kernel, soak};
use kolumbo_case::{Accel, BootSpec, Event, EventKind, GuestView, QemuEvent};
use kolumbo_lab::boot::{Prepared, Request, prepare};
use kolumbo_machine::{Machine, Sink};

/// Keeps the console and whether QEMU reported the end.
#[derive(Default)]
struct Kept {
    console: Vec<u8>,
    ended: bool,
}

impl Kept {
    fn says(&self, text: &str) -> bool {
        self.console.windows(text.len()).any(|w| w == text.as_bytes())
    }
}

impl Sink for Kept {
    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }
    fn event(&mut self, event: Event) {
        self.ended |= matches!(event.kind, EventKind::Qemu(QemuEvent::Shutdown { .. }));
    }
}

fn prepared(kernel: &Path, spec: BootSpec) -> Prepared {
    let cache = tempfile::tempdir().unwrap();
    let spec = BootSpec {
        kernel: kernel.display().to_string(),
        smp: 1,
        memory: 256 << 20,
        accel: Accel::Tcg,
        ..spec
    };
    prepare(&Request { spec, cache: cache.path().to_owned(), ..Request::default() }).unwrap()
}

/// A power-off and a look at the same moment: QEMU reports the one while it is asked for the other. Looks come as
/// fast as they can from the moment at which the kernel starts init.
#[test]
fn no_look_hides_the_end_of_a_guest_or_lets_it_run_on() {
    let Some(kernel) = kernel("looks at the end") else { return };
    let prepared = prepared(&kernel, BootSpec::default());
    let (rounds, mut looks) = (if soak() { 60 } else { 8 }, 0);
    for round in 0..rounds {
        let mut machine = Machine::start(&prepared.plan, prepared.initramfs.as_deref()).unwrap();
        let mut kept = Kept::default();
        let begun = Instant::now();
        while !kept.ended {
            let console = String::from_utf8_lossy(&kept.console).into_owned();
            assert!(begun.elapsed() < Duration::from_secs(120), "round {round}: {console}");
            if kept.says("as init process") {
                looks += usize::from(machine.sample().is_ok());
                machine.step(Instant::now(), &mut kept).unwrap();
            } else {
                machine.step(Instant::now() + Duration::from_millis(20), &mut kept).unwrap();
            }
        }
        machine.step(Instant::now() + Duration::from_millis(100), &mut kept).unwrap();
        assert!(machine.is_stopped(), "round {round}");
        assert!(!kept.says("Attempted to kill init"), "round {round}: the guest ran on");
    }
    println!("{rounds} guests went down under {looks} looks");
}

/// A CPU in a loop is stopped where it is wanted, not where it happens to be.
#[test]
fn a_loop_is_stopped_in_a_place_of_choice() {
    let Some(kernel) = kernel("a loop") else { return };
    // With idle=poll an idle kernel goes round in a loop of a few instructions.
    let spec = BootSpec {
        append: vec!["idle=poll".to_owned()],
        exec: ["busybox", "sleep", "120"].map(str::to_owned).to_vec(),
        ..BootSpec::default()
    };
    let prepared = prepared(&kernel, spec);
    let mut machine = Machine::start(&prepared.plan, prepared.initramfs.as_deref()).unwrap();
    let mut kept = Kept::default();
    let begun = Instant::now();
    let mut looks: Vec<u64> = Vec::new();
    // Eight looks in a row at the idle loop, in which two places were seen: one is far rarer than the other.
    while looks.len() < 8 || looks.iter().all(|pc| *pc == looks[0]) {
        assert!(begun.elapsed() < Duration::from_secs(120), "{looks:x?}");
        machine.step(Instant::now() + Duration::from_millis(2), &mut kept).unwrap();
        if kept.says("as init process") {
            let pc = machine.sample().unwrap()[0].pc;
            looks.retain(|other| other.abs_diff(pc) < 64);
            looks.push(pc);
        }
    }
    let times = |pc: &u64| looks.iter().filter(|other| *other == pc).count();
    let rare = looks.iter().copied().min_by_key(times).unwrap();
    machine.stand_still_at(&[(0, rare)], 5000).unwrap();
    assert!(machine.is_stopped());
    let stands = machine.registers(0).unwrap().get("rip");
    assert_eq!(stands, Some(rare), "{looks:x?}");
    // It stands there, whoever looks.
    assert_eq!(machine.sample().unwrap()[0].pc, rare);
}
