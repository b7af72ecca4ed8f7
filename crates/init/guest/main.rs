//! kolumbo's init: PID 1 of a guest.
//!
//! Says hello, reports what the guest is, does the jobs of the plan, reports the taint and powers
//! off. It is freestanding: no library, no allocator, no libc. Every step may fail on a small or
//! sick kernel; then it says so and goes on. As PID 1 it never exits.

#![no_std]
#![no_main]

#[path = "x86_64.rs"]
mod arch;
mod channel;
mod facts;
mod jobs;
mod line;
mod plan;
mod shutdown;
mod sys;
#[path = "../src/words.rs"]
#[allow(dead_code, reason = "the host needs words that init does not")]
mod words;

use line::Line;

/// Exit code of a process that is not PID 1: this program powers the machine off.
const NOT_INIT: i32 = 64;

/// The first Rust function of the process; `arch` calls it on the kernel's initial stack.
extern "C" fn start() -> ! {
    if sys::getpid() != 1 {
        sys::exit(NOT_INIT);
    }
    let boot_ms = sys::uptime_ms();
    // The port needs no file, so hello comes before anything else is touched. Where there is no
    // port, the channel lies behind a device file.
    if !channel::open_port() {
        prepare_files();
        channel::open_device();
        hello(boot_ms);
    } else {
        hello(boot_ms);
        prepare_files();
    }
    facts::report(boot_ms);

    let mut buffer = [0u8; words::PLAN_LIMIT];
    match sys::read_file(words::PLAN_PATH, &mut buffer) {
        Ok(bytes) => jobs::run_all(plan::Plan::new(bytes)),
        Err(sys::Errno::NOT_FOUND) => {}
        Err(e) => trouble("reading the plan", e),
    }
    shutdown::power_off()
}

fn hello(boot_ms: u64) {
    // A reset may have cut the line before this one.
    channel::write(b"\n");
    let mut line = Line::new(words::HELLO);
    line.number("boot_ms", boot_ms);
    line.text("channel", channel::name().as_bytes());
    line.say();
}

/// Reports that a step failed. The host shows it; nothing else follows from it.
fn trouble(doing: &str, e: sys::Errno) {
    let mut line = Line::new(words::TROUBLE);
    line.text("doing", doing.as_bytes());
    line.number("errno", u64::from(e.0));
    line.say();
}

fn prepare_files() {
    let mounts = [
        (c"/proc", c"proc", "mounting /proc"),
        (c"/sys", c"sysfs", "mounting /sys"),
        (c"/dev", c"devtmpfs", "mounting /dev"),
        (c"/tmp", c"tmpfs", "mounting /tmp"),
    ];
    for (target, kind, doing) in mounts {
        // The folder is there unless the initramfs is another's; an error shows when mounting.
        let _ = sys::mkdir(target, 0o755);
        if let Err(e) = sys::mount(kind, target, kind) {
            // A kernel may have mounted devtmpfs itself (CONFIG_DEVTMPFS_MOUNT).
            if e != sys::Errno::BUSY {
                trouble(doing, e);
            }
        }
    }
    for fd in 0..3 {
        if !sys::is_open(fd) {
            // The kernel found no console to give to init. Programs still need three files.
            let _ = sys::open(c"/dev/null", sys::O_RDWR);
        }
    }
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo) -> ! {
    // The panic may have come in the middle of a line.
    channel::write(b"\n");
    let mut line = Line::new(words::TROUBLE);
    line.text("doing", b"running init, which has a defect");
    if let Some(location) = info.location() {
        line.text("file", location.file().as_bytes());
        line.number("line", u64::from(location.line()));
    }
    line.say();
    shutdown::power_off()
}
