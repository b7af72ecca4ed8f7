//! `kolumbo matrix --executor slurm` with a real slurmctld and two real slurmds on loopback.

mod guest;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest::table::{cells, sentences};
use guest::{kernel, kolumbo, soak};
use serde_json::Value;

const PROGRAMS: &[&str] =
    &["munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "scancel"];

/// A cluster of two nodes in a folder of its own; it ends with this value.
struct Cluster {
    dir: PathBuf,
    daemons: Vec<(String, Child)>,
}

impl Cluster {
    fn start(dir: &Path) -> Cluster {
        let mut cluster = Cluster { dir: dir.to_owned(), daemons: Vec::new() };
        let at = |name: &str| dir.join(name).display().to_string();
        let key = dir.join("munge.key");
        // Only this test speaks to this munged.
        fs::write(&key, [0x5a; 128]).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.join("state")).unwrap();
        fs::write(dir.join("slurm.conf"), configuration(dir)).unwrap();
        let munged = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            format!("--key-file={}", at("munge.key")),
            format!("--socket={}", at("munge.sock")),
            format!("--pid-file={}", at("munged.pid")),
            format!("--log-file={}", at("munged.log")),
            format!("--seed-file={}", at("munged.seed")),
        ];
        cluster.daemon("munged", &munged);
        wait_for("munged's socket", Duration::from_secs(20), || dir.join("munge.sock").exists());
        cluster.daemon("slurmctld", &["-D".into(), "-c".into()]);
        for node in ["n1", "n2"] {
            cluster.daemon("slurmd", &["-D".into(), "-N".into(), node.into()]);
        }
        wait_for("two idle nodes", Duration::from_secs(60), || {
            let idle = cluster.command("sinfo").args(["--noheader", "-N", "-o", "%T"]).output();
            idle.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).matches("idle").count() == 2)
        });
        cluster
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.dir.join("slurm.conf"));
        command
    }

    fn daemon(&mut self, program: &str, arguments: &[String]) {
        let log = fs::File::create(self.dir.join(format!("{program}-{}.out", self.daemons.len())));
        let log = log.unwrap();
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // A process group of its own, so that a lost node is lost with its jobs' steps.
            .process_group(0);
        let name = format!("{program} {}", arguments.join(" "));
        self.daemons.push((name, command.spawn().unwrap()));
    }

    /// Kills a node and everything that it runs.
    fn lose(&mut self, node: &str) {
        let at = self.daemons.iter().position(|(name, _)| name.ends_with(node)).unwrap();
        let (_, mut daemon) = self.daemons.remove(at);
        let _ = Command::new("pkill")
            .args(["-9", "-f", &format!("slurmstepd.*{}", self.dir.display())])
            .status();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        kill_marked("slurmstepd");
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["slurmctld.log", "slurmd-n1.log", "slurmd-n2.log", "munged.log"] {
            let log = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            let from = log.len().saturating_sub(1500);
            text.push_str(&format!("--- {name}\n{}\n", log.get(from..).unwrap_or(&log)));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.command("scancel").args(["--user", "root"]).output();
        for (_, daemon) in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Steps of the nodes of this test; there is no other Slurm on a machine that runs tests.
fn kill_marked(program: &str) {
    let _ = Command::new("pkill").args(["-9", "-x", program]).status();
}

fn configuration(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let ports: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |i: usize| ports[i].local_addr().unwrap().port();
    format!(
        "ClusterName=kolumbo\nSlurmctldHost=localhost(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n\
         AuthType=auth/munge\nAuthInfo=socket={munge}\nCryptoType=crypto/munge\n\
         SlurmctldPort={ctl}\nStateSaveLocation={state}\nSlurmdSpoolDir={spool}\n\
         SlurmctldPidFile={ctlpid}\nSlurmdPidFile={dpid}\nSlurmctldLogFile={ctllog}\n\
         SlurmdLogFile={dlog}\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
         SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nSchedulerType=sched/backfill\n\
         ReturnToService=2\nMpiDefault=none\nAccountingStorageType=accounting_storage/none\n\
         JobAcctGatherType=jobacct_gather/none\nSlurmdTimeout=10\nMinJobAge=300\n\
         CommunicationParameters=NoInAddrAny,NoCtldInAddrAny\nSlurmdParameters=config_overrides\n\
         NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={one} CPUs=4 RealMemory=8000\n\
         NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={two} CPUs=4 RealMemory=8000\n\
         PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP\n",
        munge = at("munge.sock"),
        ctl = port(0),
        state = at("state"),
        spool = at("spool-%n"),
        ctlpid = at("slurmctld.pid"),
        dpid = at("slurmd-%n.pid"),
        ctllog = at("slurmctld.log"),
        dlog = at("slurmd-%n.log"),
        one = port(1),
        two = port(2),
    )
}

fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Whether Slurm is here; its absence fails under `KOLUMBO_REQUIRE_ALL=1`.
fn has_slurm(test: &str) -> bool {
    let missing = PROGRAMS.iter().find(|p| {
        let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        !folders.iter().any(|dir| Path::new(dir).join(p).exists())
    });
    let root = fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.uid() == 0
    });
    let reason = match (missing, root) {
        (Some(program), _) => format!("{test} needs {program} (slurmctld, slurmd, munge)"),
        (None, false) => format!("{test} needs to be root: Slurm's daemons run jobs of others"),
        (None, true) => return true,
    };
    let required = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
    assert!(!required, "{reason}");
    eprintln!("skipped: {reason}");
    false
}

fn arguments(kernel: &Path, out: &Path) -> Vec<String> {
    let sick = "if [ $(grep -c ^processor /proc/cpuinfo) -ge 2 ] && grep -q safe-ret /proc/cmdline; \
                then echo c > /proc/sysrq-trigger; sleep 60; fi";
    let (kernel, out) = (kernel.display().to_string(), out.display().to_string());
    let exec = format!("exec=x:\"busybox sh -c '{sick}'\"");
    let words = [
        "matrix",
        "--executor",
        "slurm",
        "-k",
        &kernel,
        "-m",
        "256m",
        "--axis",
        "smp=1,2,4",
        "--axis",
        "append=off:mode=off,ibpb:mode=ibpb,safe-ret:mode=safe-ret",
        "--axis",
        &exec,
        "--out",
        &out,
        "--json",
    ];
    words.map(str::to_owned).to_vec()
}

fn judge(table: &Value, logs: &str) {
    let cells = cells(table);
    assert_eq!(cells.len(), 9);
    assert!(cells.values().all(|(_, judged)| *judged == 1), "{table:#}\n{logs}");
    assert_eq!(sentences(table), ["smp ≥ 2 and safe-ret"], "{table:#}\n{logs}");
}

#[test]
fn a_table_through_a_real_cluster() {
    let test = "a_table_through_a_real_cluster";
    let Some(kernel) = kernel(test) else { return };
    if !has_slurm(test) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(&home.path().join_and_make("slurm"));
    let out = home.path().join("m");
    let child = kolumbo(home.path())
        .env("SLURM_CONF", cluster.dir.join("slurm.conf"))
        .args(arguments(&kernel, &out))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A lost node costs half a minute until Slurm notices, and a hold of minutes after that.
    if soak() {
        wait_for("the first finished case", Duration::from_secs(120), || {
            let cases =
                Command::new("find").arg(&out).args(["-name", "case.json"]).output().unwrap();
            !cases.stdout.is_empty()
        });
        cluster.lose("n2");
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let table: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {stderr}\n{}", cluster.logs()));
    judge(&table, &cluster.logs());
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let scripts = fs::read_dir(out.join("slurm")).unwrap().flatten().count();
    assert!(scripts > 0, "no script was submitted");
}

trait JoinAndMake {
    fn join_and_make(&self, name: &str) -> PathBuf;
}

impl JoinAndMake for Path {
    fn join_and_make(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}
