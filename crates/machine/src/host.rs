//! What is worth knowing of the host, read from /proc and /sys.
//!
//! Every file may be missing; what cannot be read stays empty.

use std::collections::BTreeMap;
use std::path::Path;

use kolumbo_case::file::HostFacts;

/// Reads the facts of the host that may bear on how a guest runs.
pub fn read_facts() -> HostFacts {
    let uname = rustix::system::uname();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu_field = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == name))
            .map(|(_, v)| v.trim().to_owned())
            .unwrap_or_default()
    };
    HostFacts {
        kernel: format!(
            "{} {} {}",
            uname.release().to_string_lossy(),
            uname.version().to_string_lossy(),
            uname.machine().to_string_lossy()
        ),
        cpu: cpu_field("model name"),
        microcode: cpu_field("microcode"),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory: memory_total(&read("/proc/meminfo")),
        vulnerabilities: vulnerabilities(Path::new("/sys/devices/system/cpu/vulnerabilities")),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `MemTotal` of /proc/meminfo in bytes; 0 when it is not there.
fn memory_total(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|v| v.trim().strip_suffix(" kB"))
        .and_then(|v| v.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn vulnerabilities(dir: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|e| {
            let text = std::fs::read_to_string(e.path()).ok()?;
            Some((e.file_name().to_string_lossy().into_owned(), text.trim().to_owned()))
        })
        .collect()
}

/// Ticks of this host's time stamp counter in a millisecond, to about a thousandth; none where there
/// is no such counter. Takes some 20 ms.
///
/// QEMU's translator gives it to its guests as it is (`cpu_get_tsc`), whatever the CPU model says.
pub fn tsc_khz() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::time::{Duration, Instant};
        const LONG: Duration = Duration::from_millis(20);
        // SAFETY: RDTSC is there on every x86-64 CPU and has no effect.
        let now = || (Instant::now(), unsafe { core::arch::x86_64::_rdtsc() });
        let (begun, from) = now();
        std::thread::sleep(LONG);
        let (ended, to) = now();
        let ns = u64::try_from(ended.duration_since(begun).as_nanos()).ok()?;
        to.checked_sub(from)?.checked_mul(1_000_000)?.checked_div(ns).filter(|khz| *khz > 0)
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// CPU time in microseconds that thread `thread` of process `process` has been given; none where
/// the kernel does not tell (no schedstat and no such thread).
pub fn thread_cpu_time_us(process: u32, thread: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")).ok()?;
    // Documentation/scheduler/sched-stats.rst: the first field is the time on a CPU in ns.
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory_total("MemTotal:       24 kB\nMemFree: 1 kB\n"), 24 * 1024);
        assert_eq!(memory_total("nothing"), 0);
    }

    #[test]
    fn the_counter_runs_evenly() {
        let (one, two) = (tsc_khz().unwrap(), tsc_khz().unwrap());
        assert!(one.abs_diff(two) * 20 < one, "{one} and {two} kHz");
    }

    #[test]
    fn our_own_cpu_time_grows() {
        let (process, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero());
        let thread = u32::try_from(thread.get()).unwrap();
        let Some(before) = thread_cpu_time_us(process, thread) else {
            assert!(!Path::new("/proc/self/schedstat").exists());
            return;
        };
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 20 {
            std::hint::spin_loop();
        }
        assert!(thread_cpu_time_us(process, thread).unwrap() > before);
    }
}
