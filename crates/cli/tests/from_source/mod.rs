//! What tests share that build kernels from source: minutes where nothing was built yet, one where everything was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Until when kernels may be built, in seconds since 1970: a run of all tests has its time, too. What is built by then
/// is kept, so that the next run goes on.
const UNTIL: &str = "KOLUMBO_BUILD_UNTIL";

/// What `kolumbo case run CASE` came to, with its exit code; none, with a word about it, where kernels are not wanted or
/// could not be built in time. Kernels are kept where a user's are. `case` is a name or a folder, `home` is empty.
pub(crate) fn run(case: &str, compilers: &[&str], home: &Path) -> Option<(Value, Option<i32>)> {
    let required = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
    if !required && std::env::var("KOLUMBO_CASES").as_deref() != Ok("1") {
        eprintln!("skipped: the kernels of {case} are built from source; set KOLUMBO_CASES=1");
        return None;
    }
    for tool in compilers.iter().chain(&["qemu-system-x86_64", "flex", "bison", "bc"]) {
        assert!(Command::new(tool).arg("--version").output().is_ok(), "{tool} is not installed");
    }
    let out = home.join("run");
    let mut building = kolumbo(case, home, &out).arg("--build-only").spawn().unwrap();
    let Some(built) = wait(&mut building) else {
        eprintln!(
            "cut off: the kernels of {case} are not all built, and the time of {UNTIL} is over; what is built \
             is kept, and nothing of {case} was booted"
        );
        return None;
    };
    assert!(built.success(), "the kernels of {case} cannot be built: {built}");
    let booted = kolumbo(case, home, &out).status().unwrap();
    let run = serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap();
    Some((run, booted.code()))
}

fn kolumbo(case: &str, home: &Path, out: &Path) -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_kolumbo"));
    command.args(["case", "run", case, "--out"]).arg(out);
    if let Some(tree) = std::env::var_os("KOLUMBO_LINUX_SOURCE") {
        command.arg("--source").arg(tree);
    }
    command.env("HOME", home).env("XDG_CACHE_HOME", cache).env_remove("XDG_STATE_HOME");
    // Whoever waits for minutes sees what is done.
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// Finding out that everything is built takes seconds, and is always worth it.
const LOOK: Duration = Duration::from_secs(60);

/// How it ended; none where it had to be ended because the time is over.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let until = std::env::var(UNTIL).ok().map(|text| {
        let seconds = text.parse().unwrap_or_else(|e| panic!("{UNTIL}: {e}"));
        (UNIX_EPOCH + Duration::from_secs(seconds)).max(SystemTime::now() + LOOK)
    });
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if until.is_some_and(|until| SystemTime::now() >= until) {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
