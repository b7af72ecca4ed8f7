//! `--plain` against the kernel's own scripts/diffconfig, byte by byte.
//!
//! The pairs: Debian's configurations as they lie in the cache, the configurations of a kernel
//! tree, edits at random, and lines that nobody would write. Without the script or Python the test
//! says so and passes, unless `KOLUMBO_REQUIRE_ALL=1`.
#![allow(clippy::print_stderr, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;

use kolumbo_source::config::diff::Side;
use kolumbo_source::config::script::{Form, script_diff};

fn skip(what: &str) {
    assert!(
        std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
        "the comparison with scripts/diffconfig needs {what}"
    );
    eprintln!("skipped: the comparison with scripts/diffconfig needs {what}");
}

fn cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(base.join("kolumbo"))
}

/// The folder that `scripts/kernel.sh scripts` fills.
fn script(cache: &Path) -> Option<PathBuf> {
    Some(cache.join("linux-scripts/scripts/diffconfig")).filter(|p| p.is_file())
}

/// Debian's configurations in the cache.
fn configurations(cache: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for kind in ["kernels", "other-kernels", "images"] {
        for folder in std::fs::read_dir(cache.join(kind)).into_iter().flatten().flatten() {
            for file in
                std::fs::read_dir(folder.path().join("boot")).into_iter().flatten().flatten()
            {
                if file.file_name().to_string_lossy().starts_with("config-") {
                    found.push((file.path(), std::fs::read(file.path()).unwrap()));
                }
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, bytes)| bytes).collect()
}

/// Linux 6.1's tinyconfig and defconfig, where its source may be had: it is what cases are built from.
fn tiny_and_default(cache: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let needed = ["KOLUMBO_REQUIRE_ALL", "KOLUMBO_CASES"];
    let needed = needed.iter().any(|name| std::env::var(name).as_deref() == Ok("1"));
    let tree = match std::env::var_os("KOLUMBO_LINUX_SOURCE") {
        Some(tree) => PathBuf::from(tree),
        None if needed || cache.join("sources").is_dir() => {
            let mut note = |text: &str| eprintln!("{text}");
            kolumbo_source::fetch::debian("linux-source-6.1", cache, &mut note).unwrap().tree
        }
        None => {
            eprintln!(
                "skipped: tinyconfig and defconfig need linux-source-6.1; set KOLUMBO_CASES=1"
            );
            return None;
        }
    };
    let out = tempfile::tempdir().unwrap();
    let made = |target: &str| {
        let mut make = Command::new("make");
        make.arg("-C").arg(&tree).arg(format!("O={}", out.path().display())).arg(target);
        let done = make.env_remove("MAKEFLAGS").output().unwrap();
        assert!(done.status.success(), "{target}: {done:?}");
        std::fs::read(out.path().join(".config")).unwrap()
    };
    Some((made("tinyconfig"), made("defconfig")))
}

/// Numbers that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).unwrap()
    }
}

/// A configuration after some edits of the kinds that people and tools make.
fn edited(config: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = config.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..1 + dice.below(60) {
        let at = dice.below(lines.len());
        let from = dice.below(lines.len());
        match dice.below(8) {
            0 => {
                lines.remove(at);
            }
            1 => lines[at] = lines[from].clone(),
            2 => lines.insert(at, format!("CONFIG_NEW_{from}=y").into_bytes()),
            3 => lines.insert(at, format!("# CONFIG_NEW_{from} is not set").into_bytes()),
            4 => lines[at].push(b'\r'),
            5 => {
                lines.insert(at, "CONFIG_TEXT_é=\"a \\\"quoted\\\" = \\\\ ü\"".as_bytes().to_vec())
            }
            6 => {
                let name = lines[at].split(|b| *b == b'=').next().unwrap().to_vec();
                if name.starts_with(b"CONFIG_") {
                    lines[at] = [name, format!("={from}").into_bytes()].concat();
                }
            }
            _ => lines.insert(at, b"# a remark".to_vec()),
        }
    }
    let mut text = lines.join(&b'\n');
    if dice.below(3) == 0 {
        // The last line has no end.
        text.truncate(text.len() - 1);
    }
    text
}

/// Lines that no Kconfig writes.
const ODD: [&str; 10] = [
    "",
    "CONFIG_A=y",
    "CONFIG_A=y\r\nCONFIG_B=m\r\n# CONFIG_C is not set\r\n",
    "CONFIG_A=y\rCONFIG_B=m\r# CONFIG_C is not set\r",
    "CONFIG_A=\nCONFIG_=y\nCONFIG_B==\nCONFIG_C=a=b\n",
    " is not set\n# is not set\nfoo bar is not set\n# CONFIG_ is not set\n",
    "CONFIG_A=x is not set\n\u{e9}\u{e9}CONFIG_Z is not set\n\u{1f600}# CONFIG_ZZ is not set\n",
    "CONFIG_A=y\nCONFIG_A=m\n# CONFIG_A is not set\n# CONFIG_B is not set\nCONFIG_B=y\n",
    "  CONFIG_A=y\n\tCONFIG_B=y\nconfig_c=y\n#CONFIG_D=y\nCONFIG_E=0x10\nCONFIG_F=-1\nCONFIG_a=1\n",
    "CONFIG_S=\"a\u{2028}b\u{85}c\u{0b}d\u{0c}e\"\nCONFIG_T=\"\\\"\\\\\"\nCONFIG_U=\"\u{fc}\"\nCONFIG_E=\"\u{e9}",
];

#[test]
fn plain_equals_the_script() {
    let Some(script) = cache().as_deref().and_then(script) else {
        return skip("the script: run scripts/kernel.sh scripts");
    };
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("python3");
    }
    let debian = cache().map(|c| configurations(&c)).unwrap_or_default();
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for a in &debian {
        for b in &debian {
            pairs.push((a.clone(), b.clone()));
        }
    }
    if let Some((tiny, default)) = cache().and_then(|c| tiny_and_default(&c)) {
        pairs.push((tiny.clone(), default.clone()));
        pairs.push((default, tiny));
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let base = debian.first().cloned().unwrap_or_else(|| {
        (0..400).flat_map(|n| format!("CONFIG_OPTION_{n}=y\n").into_bytes()).collect()
    });
    for _ in 0..24 {
        let other = edited(&base, &mut dice);
        pairs.push((base.clone(), other.clone()));
        pairs.push((other, edited(&base, &mut dice)));
    }
    for (number, a) in ODD.iter().enumerate() {
        let b = ODD[(number + 3) % ODD.len()];
        pairs.push((a.as_bytes().to_vec(), b.as_bytes().to_vec()));
        pairs.push((b.as_bytes().to_vec(), a.as_bytes().to_vec()));
    }
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let mut compared = 0;
    for (number, (old, new)) in pairs.iter().enumerate() {
        std::fs::write(&a, old).unwrap();
        std::fs::write(&b, new).unwrap();
        // Starting Python costs more than all the rest.
        let forms = [Form::Changes, Form::Merge];
        for form in forms.into_iter().take(1 + usize::from(number % 3 == 0)) {
            let mut python = Command::new("python3");
            python.env("PYTHONUTF8", "1").arg(&script);
            if form == Form::Merge {
                python.arg("-m");
            }
            let theirs = python.arg(&a).arg(&b).output().unwrap();
            match script_diff(old, new, form) {
                Ok(ours) => {
                    assert!(theirs.status.success(), "pair {number}: {theirs:?}");
                    assert_eq!(
                        String::from_utf8_lossy(&ours),
                        String::from_utf8_lossy(&theirs.stdout),
                        "pair {number}, {form:?}"
                    );
                    assert_eq!(ours, theirs.stdout, "pair {number}, {form:?}");
                    compared += 1;
                }
                Err(no_value) => {
                    assert!(!theirs.status.success(), "pair {number}: {no_value}");
                }
            }
        }
    }
    println!("scripts/diffconfig: {compared} outputs of {} pairs are equal", pairs.len());
    assert!(compared >= 80, "only {compared} outputs were compared");
}

/// What a maintainer's mail of 2018 shows of two configurations, a distribution's of 4.14.35 and one of 4.14
/// without its stable releases.
const MAIL: &str = "\
-ARCH_HAS_REFCOUNT y
-BPF_JIT_ALWAYS_ON n
-EXOFS_DEBUG n
-EXOFS_FS m
-GENERIC_CPU_VULNERABILITIES y
-KASAN n
-ORE m
-PAGE_TABLE_ISOLATION y
-RETPOLINE y
-UNWINDER_FRAME_POINTER n
-UNWINDER_GUESS n
-UNWINDER_ORC y
+FRAME_POINTER y
+FRAME_POINTER_UNWINDER y
+GUESS_UNWINDER n
+HAVE_ARCH_KMEMCHECK y
+HAVE_RELIABLE_STACKTRACE y
+ORC_UNWINDER n
";

/// The pair as far as the mail tells it: what both have does not show.
#[test]
fn the_list_of_a_mail_comes_out() {
    let side = |sign: char| -> String {
        let lines = MAIL.lines().filter_map(|line| line.strip_prefix(sign)?.split_once(' '));
        let own = lines.map(|(name, value)| match value {
            "n" => format!("# CONFIG_{name} is not set\n"),
            value => format!("CONFIG_{name}={value}\n"),
        });
        // Not in the order of names, as Kconfig writes them.
        let mut own: Vec<String> = own.collect();
        own.reverse();
        format!(
            "CONFIG_X86_64=y\nCONFIG_PARAVIRT=y\n{}# CONFIG_DEBUG_INFO is not set\n",
            own.concat()
        )
    };
    let (old, new) = (side('-'), side('+'));
    let ours = script_diff(old.as_bytes(), new.as_bytes(), Form::Changes).unwrap();
    assert_eq!(String::from_utf8_lossy(&ours), MAIL);
    // What of it matters for boot is told first.
    let side = |path, text: &str| (path, kolumbo_source::config::Config::parse(text.as_bytes()));
    let ((a, old), (b, new)) = (side("a", &old), side("b", &new));
    let found = kolumbo_source::config::diff::diff(
        Side { path: a, config: &old },
        Side { path: b, config: &new },
        None,
    );
    let topic = |name: &str| found.changes.iter().find(|c| c.name == name).unwrap().boot.clone();
    assert_eq!(topic("RETPOLINE").as_deref(), Some("mitigations"));
    assert_eq!(topic("UNWINDER_ORC").as_deref(), Some("unwinder and frame pointers"));
    assert_eq!(topic("EXOFS_FS"), None);
}
