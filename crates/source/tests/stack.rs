//! A repository that imitates a distribution's stack: a vanilla base, labelled patches, and a stable
//! branch that took some of them. The table is asserted row by row.
#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kolumbo_case::stack::{Held, PlanAction, RemarkKind, StackRow, StackStatus};
use kolumbo_source::stack::git::{GitError, Repository};
use kolumbo_source::stack::plan::plan;
use kolumbo_source::stack::revert::{RevertError, series};
use kolumbo_source::stack::status::{Question, status};

struct Repo {
    dir: tempfile::TempDir,
    cache: tempfile::TempDir,
}

fn git_is_there() -> bool {
    let there = Command::new("git").arg("--version").output().is_ok();
    assert!(there || std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "git is missing");
    if !there {
        eprintln!("skipped: git is missing");
    }
    there
}

/// Whether git can try a merge without a work tree: `merge-tree --merge-base` came with 2.40, and a
/// distribution may have no newer one to install, so that its absence is never a failure.
fn git_merges() -> bool {
    if !git_is_there() {
        return false;
    }
    let said = Command::new("git").arg("--version").output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let version = said.split_ascii_whitespace().nth(2).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
    let new = (numbers.next(), numbers.next()) >= (Some(2), Some(40));
    if !new {
        eprintln!("skipped: git {version} is older than 2.40");
    }
    new
}

impl Repo {
    fn new() -> Repo {
        let repo = Repo { dir: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
        repo.git(&["init", "-q", "-b", "base"]);
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            let lines: String = (0..20).map(|n| format!("{name}{n}\n")).collect();
            fs::write(repo.path().join(name), lines).unwrap();
        }
        repo.commit("base");
        repo
    }
    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.path())
            .args(arguments)
            .envs([
                ("GIT_AUTHOR_NAME", "A. Author"),
                ("GIT_AUTHOR_EMAIL", "a@example.org"),
                ("GIT_COMMITTER_NAME", "C"),
                ("GIT_COMMITTER_EMAIL", "c@example.org"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
    /// Replaces lines of a file and commits.
    fn edit(&self, file: &str, changes: &[(usize, &str)], message: &str) -> String {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        for (at, new) in changes {
            lines[*at] = new;
        }
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        self.commit(message)
    }
    fn branch(&self, name: &str) {
        self.git(&["checkout", "-q", "-b", name, "base"]);
    }
    fn ask(&self, upstream: Option<&str>) -> Result<StackStatus, GitError> {
        let repository = Repository::open(&self.path())?;
        status(
            &repository,
            &Question {
                stack: "base..stack",
                onto: "stable",
                upstream,
                labels: &[],
                cache: self.cache.path(),
            },
        )
    }
}

/// Every file of the repository, the index and the objects included, with its bytes.
fn everything(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            everything(&entry.path(), into);
        } else {
            into.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
}

fn row<'s>(status: &'s StackStatus, subject: &str) -> &'s StackRow {
    status.rows.iter().find(|r| r.subject == subject).unwrap_or_else(|| panic!("{subject}"))
}

/// Upstream, stable and the stack on the base. Returns the upstream commits by letter.
fn imitation(repo: &Repo) -> BTreeMap<&'static str, String> {
    let mut up = BTreeMap::new();
    repo.branch("upstream");
    for file in ["a", "b", "c", "d", "e", "f", "g"] {
        let id = repo.edit(file, &[(3, "up3"), (15, "up15")], &format!("{file}: change it"));
        up.insert(file, id);
    }
    let fix = format!("f: repair it\n\nFixes: {} (\"f: change it\")", &up["f"][..12]);
    up.insert("fix", repo.edit("f", &[(9, "repair")], &fix));

    repo.branch("stable");
    let upstream = |file: &str| format!("{file}: change it\n\ncommit {} upstream.", up[file]);
    repo.edit("a", &[(3, "up3"), (15, "up15")], &upstream("a"));
    repo.edit(
        "b",
        &[(3, "stable3"), (15, "up15")],
        &format!("b: change it\n\n[ Upstream commit {} ]", up["b"]),
    );
    repo.edit("c", &[(3, "by hand"), (15, "up15")], "c: change it");
    let taken = repo.edit("d", &[(3, "up3"), (15, "up15")], &upstream("d"));
    repo.edit(
        "d",
        &[(3, "d3"), (15, "d15")],
        &format!("Revert \"d: change it\"\n\nThis reverts commit {taken}."),
    );
    repo.edit("e", &[(3, "up3")], &upstream("e"));
    repo.edit("i", &[(0, "else")], "i: something else");

    repo.branch("stack");
    let picked = |label: &str, file: &str| {
        format!("{label}: {file}: change it\n\n(cherry picked from commit {})", up[file])
    };
    for (label, file) in [
        ("UPSTREAM", "a"),
        ("UPSTREAM", "b"),
        ("BACKPORT", "c"),
        ("UPSTREAM", "d"),
        ("UPSTREAM", "e"),
    ] {
        repo.edit(file, &[(3, "up3"), (15, "up15")], &picked(label, file));
    }
    repo.edit("f", &[(3, "other"), (15, "up15")], &picked("UPSTREAM", "f"));
    repo.edit("g", &[(3, "up3"), (15, "up15")], "FROMGIT: g: change it");
    repo.edit("h", &[(3, "one")], "CLANG3: h: first");
    repo.edit("h", &[(15, "two")], "CHROMIUM: CLANG4: h: second");
    up
}

#[test]
fn the_table_is_right_row_by_row() {
    if !git_is_there() {
        return;
    }
    let repo = Repo::new();
    let up = imitation(&repo);
    let mut before = BTreeMap::new();
    everything(&repo.path(), &mut before);
    let first = repo.ask(Some("upstream")).unwrap();
    let again = repo.ask(Some("upstream")).unwrap();
    assert_eq!(first, again, "from the index");
    let mut after = BTreeMap::new();
    everything(&repo.path(), &mut after);
    assert!(before == after, "the repository was written to");

    assert_eq!(first.rows.len(), 9);
    assert_eq!(first.target_commits, 7);
    let held: Vec<(&str, Held)> = first.rows.iter().map(|r| (r.subject.as_str(), r.held)).collect();
    assert_eq!(
        held,
        [
            ("a: change it", Held::SamePatch),
            ("b: change it", Held::Named),
            ("c: change it", Held::SameSubject),
            ("d: change it", Held::Reverted),
            ("e: change it", Held::Partly),
            ("f: change it", Held::Absent),
            ("g: change it", Held::Absent),
            ("h: first", Held::Absent),
            ("h: second", Held::Absent),
        ]
    );
    let remarks =
        |subject: &str| row(&first, subject).remarks.iter().map(|r| r.kind).collect::<Vec<_>>();
    assert_eq!(remarks("a: change it"), []);
    assert_eq!(remarks("c: change it"), [RemarkKind::ShouldBeUpstream]);
    assert_eq!(remarks("f: change it"), [RemarkKind::ShouldBeBackport, RemarkKind::MissingFix]);
    assert_eq!(remarks("g: change it"), [RemarkKind::NamesNothing]);
    assert_eq!(row(&first, "b: change it").names, [up["b"].clone()]);
    assert_eq!(row(&first, "h: second").labels, ["CHROMIUM", "CLANG4"]);
    let reverted = row(&first, "d: change it").reverted_by.as_ref().unwrap();
    assert!(repo.git(&["log", "-1", "--format=%s", reverted]).starts_with("Revert"));

    // The stable branch takes one more: only that is asked of git, and the row changes.
    repo.git(&["checkout", "-q", "stable"]);
    repo.git(&["cherry-pick", &up["g"]]);
    let later = repo.ask(None).unwrap();
    assert_eq!(row(&later, "g: change it").held, Held::SamePatch);
    // What was reverted is applied again.
    repo.git(&["cherry-pick", &up["d"]]);
    assert_eq!(row(&repo.ask(None).unwrap(), "d: change it").held, Held::SamePatch);
}

#[test]
fn a_plan_drops_keeps_and_knows_conflicts() {
    if !git_merges() {
        return;
    }
    let repo = Repo::new();
    imitation(&repo);
    repo.git(&["checkout", "-q", "stack"]);
    repo.edit("i", &[(0, "ours")], "CHROMIUM: i: ours");
    let repository = Repository::open(&repo.path()).unwrap();
    let mut before = BTreeMap::new();
    everything(&repo.path(), &mut before);
    let planned = plan(&repository, repo.ask(None).unwrap()).unwrap();
    let mut after = BTreeMap::new();
    everything(&repo.path(), &mut after);
    assert!(before == after, "the repository was written to");
    let actions: Vec<PlanAction> = planned.steps.iter().map(|s| s.action).collect();
    use PlanAction::{Conflict, Drop, Keep};
    assert_eq!(
        actions,
        [Drop, Drop, Conflict, Keep, Keep, Keep, Keep, Keep, Keep, Conflict],
        "{planned:#?}"
    );
    assert_eq!(planned.steps[2].conflicts, [("c".to_owned(), 4)]);
    assert_eq!(planned.steps[9].conflicts, [("i".to_owned(), 1)]);
    assert_eq!(planned.steps[5].relabel.as_deref(), Some("BACKPORT"));
}

#[test]
fn a_revert_series_takes_the_labels_back() {
    if !git_merges() {
        return;
    }
    let repo = Repo::new();
    imitation(&repo);
    let repository = Repository::open(&repo.path()).unwrap();
    let mut before = BTreeMap::new();
    everything(&repo.path(), &mut before);
    let labels = ["CLANG3".to_owned(), "CLANG4".to_owned()];
    let mails = series(&repository, "base..stack", &labels).unwrap();
    let mut after = BTreeMap::new();
    everything(&repo.path(), &mut after);
    assert!(before == after, "the repository was written to");

    let mbox = repo.cache.path().join("mbox");
    fs::write(&mbox, mails).unwrap();
    repo.git(&["checkout", "-q", "stack"]);
    repo.git(&["am", "-q", mbox.to_str().unwrap()]);
    assert_eq!(repo.git(&["diff", "--stat", "base", "stack", "--", "h"]), "");
    let subjects = repo.git(&["log", "-2", "--format=%s"]);
    assert_eq!(subjects, "Revert \"CLANG3: h: first\"\nRevert \"CHROMIUM: CLANG4: h: second\"");
    let none = series(&repository, "base..stack", &["ANDROID".into()]);
    assert!(matches!(none, Err(RevertError::Nothing { .. })));
    // Something later on the same lines is in the way.
    repo.edit("a", &[(3, "later")], "a: later");
    let stuck = series(&repository, "base..stack", &["UPSTREAM".into()]);
    assert!(
        matches!(&stuck, Err(RevertError::Conflict { files, .. }) if files == "a"),
        "{stuck:?}"
    );
}

#[test]
fn broken_repositories_are_told() {
    if !git_is_there() {
        return;
    }
    let repo = Repo::new();
    imitation(&repo);
    // A merge in the stack, a message without a subject, an author that is not UTF-8.
    repo.git(&["checkout", "-q", "-b", "side", "base"]);
    repo.edit("i", &[(10, "side")], "i: side");
    repo.git(&["checkout", "-q", "stack"]);
    repo.git(&["merge", "-q", "--no-ff", "-m", "Merge side", "side"]);
    let tree = repo.git(&["rev-parse", "HEAD^{tree}"]);
    let parent = repo.git(&["rev-parse", "HEAD"]);
    let raw = [
        format!("tree {tree}\nparent {parent}\nauthor J").as_bytes(),
        b"\xf6rg <j@example.org> 1 +0000\ncommitter C <c@example.org> 1 +0000\n\n",
    ]
    .concat();
    let object = repo.cache.path().join("raw");
    fs::write(&object, raw).unwrap();
    let id = repo.git(&["hash-object", "-t", "commit", "-w", object.to_str().unwrap()]);
    repo.git(&["reset", "-q", "--hard", &id]);
    let found = repo.ask(None).unwrap();
    assert_eq!(row(&found, "Merge side").held, Held::Merge);
    let last = found.rows.iter().find(|r| r.subject.is_empty()).unwrap();
    assert!(last.author.starts_with('J') && last.held == Held::Absent, "{last:?}");

    let repository = Repository::open(&repo.path()).unwrap();
    let missing = repository.resolve("no-such-branch").unwrap_err().to_string();
    assert!(missing.contains("no-such-branch"), "{missing}");
    assert!(repository.resolve("--output=/tmp/x").is_err());
    assert!(Repository::open(repo.cache.path()).is_err());

    // A shallow clone has no common commit.
    let clone = Repo { dir: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
    let url = format!("file://{}", repo.path().display());
    clone.git(&["init", "-q"]);
    clone.git(&["fetch", "-q", "--depth=2", &url, "base:base", "stack:stack", "stable:stable"]);
    match clone.ask(None) {
        Ok(status) => assert!(status.gaps.iter().any(|g| g.contains("shallow")), "{status:?}"),
        Err(e) => assert!(e.to_string().contains("shallow"), "{e}"),
    }

    // An object is gone.
    let blob = repo.git(&["rev-parse", "stack~3:h"]);
    let path = repo.path().join(".git/objects").join(&blob[..2]).join(&blob[2..]);
    fs::remove_file(&path).unwrap();
    let fresh = Repo { dir: repo.dir, cache: tempfile::tempdir().unwrap() };
    let error = fresh.ask(None).unwrap_err().to_string();
    assert!(error.contains("failed"), "{error}");
}
