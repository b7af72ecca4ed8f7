//! A repository that imitates a distribution's stack: a vanilla base, labelled patches, and a stable
//! branch that took some of them. The table is asserted row by row.
#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kolumbo_case::stack::{Held, PlanAction, RemarkKind, StackRow, StackStatus};
use kolumbo_source::stack::git::{GitError, Repository};
use kolumbo_source::stack::plan::{ApplyError, plan};
use kolumbo_source::stack::revert::{RevertError, series};
use kolumbo_source::stack::series::{Stack, StackError};
use kolumbo_source::stack::status::{Question, patches, status};

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

/// Whether git can try a merge without a work tree: `merge-tree --write-tree` came with 2.38, and a
/// distribution may have no newer one to install, so that its absence is never a failure.
fn git_merges() -> bool {
    if !git_is_there() {
        return false;
    }
    let said = Command::new("git").arg("--version").output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let version = said.split_ascii_whitespace().nth(2).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
    let new = (numbers.next(), numbers.next()) >= (Some(2), Some(38));
    if !new {
        eprintln!("skipped: git {version} is older than 2.38");
    }
    new
}

impl Repo {
    /// A folder for one.
    fn empty() -> Repo {
        let repo = Repo { dir: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
        fs::create_dir_all(repo.path()).unwrap();
        repo
    }
    fn new() -> Repo {
        let repo = Repo::empty();
        repo.git(&["init", "-q", "-b", "base"]);
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            let lines: String = (0..20).map(|n| format!("{name}{n}\n")).collect();
            fs::write(repo.path().join(name), lines).unwrap();
        }
        repo.commit("base");
        repo
    }
    /// Two levels deep, so that what breaks out of it is seen.
    fn path(&self) -> PathBuf {
        self.dir.path().join("deep/repo")
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
    fn stack(&self, named: &str) -> Stack {
        Stack::open(&Repository::open(&self.path()).unwrap(), named, None).unwrap()
    }
    fn ask(&self, upstream: Option<&str>) -> Result<StackStatus, GitError> {
        let repository = Repository::open(&self.path())?;
        let stack = self.stack("base..stack");
        status(
            &repository,
            &Question {
                stack: &stack,
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
    let versus = row(&first, "c: change it").versus.clone().unwrap();
    assert!(versus.ours.starts_with("c\n") && versus.ours.contains("\n-c3\n+up3\n"), "{versus:?}");
    assert!(versus.theirs.contains("\n-c3\n+by hand\n") && versus.left_out == 0, "{versus:?}");
    assert!(row(&first, "b: change it").versus.is_none(), "the same upstream commit");
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
    let planned =
        plan(&repository, &repo.stack("base..stack"), repo.ask(None).unwrap()).unwrap().plan;
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
    let mails = series(&repository, &repo.stack("base..stack"), &labels).unwrap();
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
    let none = series(&repository, &repo.stack("base..stack"), &["ANDROID".into()]);
    assert!(matches!(none, Err(RevertError::Nothing { .. })));
    // Something later on the same lines is in the way.
    repo.edit("a", &[(3, "later")], "a: later");
    let stuck = series(&repository, &repo.stack("base..stack"), &["UPSTREAM".into()]);
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
    let clone = Repo::empty();
    let url = format!("file://{}", repo.path().display());
    clone.git(&["init", "-q"]);
    clone.git(&["fetch", "-q", "--depth=2", &url, "base:base", "stack:stack", "stable:stable"]);
    let mut before = BTreeMap::new();
    everything(&clone.path(), &mut before);
    let asked = clone.ask(None);
    let mut after = BTreeMap::new();
    everything(&clone.path(), &mut after);
    assert!(before == after, "the shallow clone was written to");
    match asked {
        Ok(status) => assert!(status.gaps.iter().any(|g| g.contains("shallow")), "{status:?}"),
        Err(e) => assert!(e.to_string().contains("shallow"), "{e}"),
    }

    // A merge and a patch without a subject become commits of the new branch, too, and the shallow
    // clone is as it was.
    if git_merges() {
        let stack = repo.stack("base..stack");
        let mut planned = plan(&repository, &stack, found).unwrap();
        planned.apply(&repository, "straight", true).unwrap();
        assert_eq!(repo.git(&["rev-list", "--count", "--merges", "stable..straight"]), "0");
        // What the merge brought is there already, as the commit of its side.
        assert!(repo.git(&["log", "--format=%s", "straight"]).contains("i: side"));
        let rows = &planned.plan.status.rows;
        let merge = rows.iter().position(|r| r.held == Held::Merge).unwrap();
        assert_eq!(planned.plan.steps[merge].action, PlanAction::Empty);
        repo.git(&["fsck", "--strict", "--no-dangling"]);
        repo.git(&["branch", "-q", "-D", "straight"]);
    }

    // An object is gone.
    let blob = repo.git(&["rev-parse", "stack~3:h"]);
    let path = repo.path().join(".git/objects").join(&blob[..2]).join(&blob[2..]);
    fs::remove_file(&path).unwrap();
    let patch =
        "Subject: h\n\ndiff --git a/h b/h\n--- a/h\n+++ b/h\n@@ -1,2 +1,2 @@\n-h0\n+new\n h1\n";
    let file = repo.cache.path().join("h.patch");
    fs::write(&file, patch).unwrap();
    let fresh = Repo { dir: repo.dir, cache: tempfile::tempdir().unwrap() };
    let mut before = BTreeMap::new();
    everything(&fresh.path(), &mut before);
    let error = fresh.ask(None).unwrap_err().to_string();
    assert!(error.contains("failed"), "{error}");
    // A patch of the file that is gone is a marked row.
    let repository = Repository::open(&fresh.path()).unwrap();
    let stack = Stack::open(&repository, file.to_str().unwrap(), Some("stack~3")).unwrap();
    let marked = patches(&repository, &stack, &[]).unwrap();
    let misfit = stack.misfit(&marked[0].commit.id).unwrap();
    assert!(!misfit.applies && misfit.patch_id.is_some(), "{misfit:?}");
    let mut after = BTreeMap::new();
    everything(&fresh.path(), &mut after);
    assert!(before == after, "the damaged repository was written to");
}

#[test]
fn a_plan_becomes_a_branch_and_nothing_else_changes() {
    if !git_merges() {
        return;
    }
    let repo = Repo::new();
    imitation(&repo);
    let repository = Repository::open(&repo.path()).unwrap();
    let stack = repo.stack("base..stack");
    let new = || plan(&repository, &stack, repo.ask(None).unwrap()).unwrap();
    let refs = || repo.git(&["for-each-ref"]);
    let (before, index) = (refs(), fs::read(repo.path().join(".git/index")).unwrap());

    let error = new().apply(&repository, "rebased", false).unwrap_err();
    assert!(matches!(&error, ApplyError::Conflicts { count: 1, .. }), "{error}");
    for name in ["a..b", "-x", "@{-1}", "", "a b"] {
        let error = new().apply(&repository, name, true).unwrap_err();
        assert!(matches!(error, ApplyError::BadName { .. }), "{name}: {error}");
    }
    let error = new().apply(&repository, "stable", true).unwrap_err();
    assert!(matches!(error, ApplyError::Exists { .. }), "{error}");
    assert_eq!(refs(), before);

    let mut planned = new();
    planned.apply(&repository, "rebased", true).unwrap();
    let applied = planned.plan.applied.as_ref().unwrap();
    assert_eq!(applied.commit, repo.git(&["rev-parse", "rebased"]));
    let subjects = repo.git(&["log", "--reverse", "--format=%s", "stable..rebased"]);
    assert_eq!(
        subjects.lines().collect::<Vec<_>>(),
        [
            "UPSTREAM: d: change it",
            "UPSTREAM: e: change it",
            "BACKPORT: f: change it",
            "FROMGIT: g: change it",
            "CLANG3: h: first",
            "CHROMIUM: CLANG4: h: second",
        ]
    );
    // Authors, dates and messages are those of the stack.
    let about = |commit: &str| repo.git(&["log", "-1", "--format=%an %ae %ad %b", commit]);
    assert_eq!(about("rebased"), about("stack"));
    assert_eq!(about("rebased~3"), about("stack~3"));
    // All that the branch needs is there.
    repo.git(&["fsck", "--strict", "--no-dangling"]);
    assert_eq!(repo.git(&["diff", "--stat", "stack", "rebased", "--", "h"]), "");
    // The proof: what was dropped, what stayed, what changed.
    let signs: String = applied
        .range_diff
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|s| s.len() == 1 && "<=!>".contains(s))
        .collect();
    assert_eq!(signs, "<<<=!!===", "{}", applied.range_diff);
    assert!(applied.range_diff.contains("BACKPORT: f: change it"), "{}", applied.range_diff);

    // One name more, and index and all others as they were.
    let after: Vec<String> =
        refs().lines().filter(|l| !l.ends_with("refs/heads/rebased")).map(str::to_owned).collect();
    assert_eq!(after.join("\n"), before);
    assert!(fs::read(repo.path().join(".git/index")).unwrap() == index);
    let again = new().apply(&repository, "rebased", true).unwrap_err();
    assert!(matches!(again, ApplyError::Exists { .. }), "{again}");
}

/// The stack as files: what they say is what the commits said.
#[test]
fn a_stack_of_files_is_as_one_of_commits() {
    if !git_merges() {
        return;
    }
    let repo = Repo::new();
    imitation(&repo);
    let repository = Repository::open(&repo.path()).unwrap();
    let of_commits = repo.ask(None).unwrap();
    let folder = repo.cache.path().join("mails");
    let mails = folder.to_str().unwrap();
    repo.git(&["format-patch", "-q", "-o", mails, "--base=base", "base..stack"]);
    let mailbox = repo.cache.path().join("all.mbox");
    fs::write(&mailbox, repo.git(&["format-patch", "--stdout", "base..stack"]) + "\n").unwrap();
    // quilt: no heads but a line, other folders in names, and comments in the series.
    let quilt = repo.cache.path().join("quilt/patches");
    fs::create_dir_all(&quilt).unwrap();
    let mut series = "# our patches\n\n".to_owned();
    for (n, row) in of_commits.rows.iter().enumerate() {
        let name = format!("p{n}.patch");
        let diff = repo.git(&["diff", "--no-prefix", &format!("{}^", row.commit), &row.commit]);
        let message =
            repo.git(&["log", "-1", "--format=From: %an <%ae>%nSubject: %s%n%n%b", &row.commit]);
        let diff: Vec<&str> =
            diff.lines().filter(|l| !l.starts_with("index ") && !l.starts_with("diff ")).collect();
        fs::write(quilt.join(&name), format!("{message}\n\n{}\n", diff.join("\n"))).unwrap();
        series.push_str(&format!("{name} -p0 # {n}\n"));
    }
    fs::write(quilt.join("series"), series).unwrap();

    let mut before = BTreeMap::new();
    everything(&repo.path(), &mut before);
    for (named, base) in [
        (mails, None),
        (mailbox.to_str().unwrap(), Some("base")),
        (quilt.parent().unwrap().to_str().unwrap(), Some("base")),
    ] {
        let stack = Stack::open(&repository, named, base).unwrap();
        let ask = |stack: &Stack| {
            let question = Question {
                stack,
                onto: "stable",
                upstream: None,
                labels: &[],
                cache: repo.cache.path(),
            };
            status(&repository, &question).unwrap()
        };
        let found = ask(&stack);
        assert_eq!(
            found,
            ask(&Stack::open(&repository, named, base).unwrap()),
            "the same commits every time"
        );
        let plain = |status: &StackStatus| -> Vec<StackRow> {
            let rows = status.rows.iter().cloned();
            rows.map(|row| StackRow { commit: String::new(), file: None, ..row }).collect()
        };
        assert_eq!(plain(&found), plain(&of_commits), "{named}");
        assert!(found.rows.iter().all(|r| r.file.is_some()), "{found:?}");
        let files = plan(&repository, &stack, found).unwrap().plan;
        let commits =
            plan(&repository, &repo.stack("base..stack"), of_commits.clone()).unwrap().plan;
        let steps = |plan: &kolumbo_case::stack::StackPlan| -> Vec<_> {
            plan.steps.iter().map(|s| (s.action, s.relabel.clone(), s.conflicts.clone())).collect()
        };
        assert_eq!(steps(&files), steps(&commits));
        let mails = series_of(&repository, &stack);
        assert!(mails.contains("This reverts the patch "), "{mails}");
    }
    let mut after = BTreeMap::new();
    everything(&repo.path(), &mut after);
    assert!(before == after, "the repository was written to");
}

fn series_of(repository: &Repository, stack: &Stack) -> String {
    let mails = series(repository, stack, &["CLANG4".to_owned()]).unwrap();
    String::from_utf8(mails).unwrap()
}

#[test]
fn broken_patches_are_marked_rows() {
    if !git_merges() {
        return;
    }
    let repo = Repo::new();
    imitation(&repo);
    let repository = Repository::open(&repo.path()).unwrap();
    let dir = repo.cache.path().join("broken");
    fs::create_dir(&dir).unwrap();
    let write = |name: &str, text: &[u8]| fs::write(dir.join(name), text).unwrap();
    let hunk = |from: &str, to: &str| {
        format!("--- a/h\n+++ b/h\n@@ -3,3 +3,3 @@\n h2\n-{from}\n+{to}\n h4\n")
    };
    write(
        "1-good.patch",
        format!("From: \u{c3} <a@x>\nSubject: good\n\nx\n{}", hunk("h3", "new")).as_bytes(),
    );
    write("2-conflict.patch", format!("Subject: conflict\n\n{}", hunk("h3", "other")).as_bytes());
    write("3-headless.patch", hunk("new", "newer").as_bytes());
    write(
        "4-fuzzy.patch",
        b"Subject: fuzzy\n\n--- a/h\n+++ b/h\n@@ -2,5 +2,5 @@\n moved\n h2\n-newer\n+newest\n h4\n h5\n",
    );
    write("5-nothing.patch", b"Subject: nothing\n\nno change\n");
    write(
        "6-author.patch",
        &[
            b"From: J\xf6rg <j@x>\nSubject: author\n\n".as_slice(),
            hunk("newest", "last").as_bytes(),
        ]
        .concat(),
    );
    write(
        "7-outside.patch",
        b"Subject: outside\n\n--- a/../../x\n+++ b/../../x\n@@ -0,0 +1 @@\n+x\n",
    );
    write(
        "8-binary.patch",
        &[
            b"Subject: rubbish\n\ndiff --git a/h b/h\nGIT binary patch\n\0\xff\n".as_slice(),
            &[0xfe; 300],
        ]
        .concat(),
    );
    let mut before = BTreeMap::new();
    everything(&repo.path(), &mut before);
    let named = dir.to_str().unwrap();
    let stack = Stack::open(&repository, named, Some("base")).unwrap();
    let question = Question {
        stack: &stack,
        onto: "stable",
        upstream: None,
        labels: &[],
        cache: repo.cache.path(),
    };
    let found = status(&repository, &question).unwrap();
    let kinds: Vec<(String, Vec<RemarkKind>)> = found
        .rows
        .iter()
        .map(|r| (r.file.clone().unwrap(), r.remarks.iter().map(|m| m.kind).collect()))
        .collect();
    use RemarkKind::{DoesNotApply, Fuzzy, NoHead};
    let expected: [(&str, &[RemarkKind]); 8] = [
        ("1-good.patch", &[]),
        ("2-conflict.patch", &[DoesNotApply]),
        ("3-headless.patch", &[NoHead]),
        ("4-fuzzy.patch", &[Fuzzy]),
        ("5-nothing.patch", &[DoesNotApply]),
        ("6-author.patch", &[]),
        ("7-outside.patch", &[DoesNotApply]),
        ("8-binary.patch", &[DoesNotApply]),
    ];
    let kinds: Vec<(&str, &[RemarkKind])> =
        kinds.iter().map(|(f, k)| (f.as_str(), k.as_slice())).collect();
    assert_eq!(kinds, expected, "{found:#?}");
    assert!(found.rows[1].remarks[0].text.ends_with("h:3"), "{found:#?}");
    assert_eq!(found.rows[2].subject, "3-headless.patch");
    assert!(found.rows[5].author.starts_with('J'), "{found:#?}");
    let planned = plan(&repository, &stack, found).unwrap().plan;
    assert_eq!(planned.steps[1].conflicts, [("h".to_owned(), 3)]);
    assert_eq!(planned.steps[0].action, PlanAction::Keep);
    let lost = series(
        &repository,
        &Stack::open(&repository, dir.join("1-good.patch").to_str().unwrap(), Some("base"))
            .unwrap(),
        &["X".into()],
    );
    assert!(matches!(lost, Err(RevertError::Nothing { .. })));

    // Series and folders that make no sense.
    let series_file = dir.join("series");
    fs::write(&series_file, "../../etc/passwd\n").unwrap();
    let open = |base| Stack::open(&repository, named, base);
    assert!(matches!(open(Some("base")), Err(StackError::Outside { line: 1, .. })));
    fs::write(&series_file, "none.patch\n").unwrap();
    assert!(matches!(open(Some("base")), Err(StackError::Io { .. })));
    fs::write(&series_file, "# nothing\n").unwrap();
    assert!(matches!(open(Some("base")), Err(StackError::NoPatches { .. })));
    fs::write(&series_file, "1-good.patch\n").unwrap();
    assert!(matches!(open(None), Err(StackError::NoBase { .. })));
    assert!(matches!(open(Some("nowhere")), Err(StackError::Git(GitError::NoCommit { .. }))));
    let mut after = BTreeMap::new();
    everything(&repo.path(), &mut after);
    assert!(before == after, "the repository was written to");
    for outside in ["x", "deep/x"] {
        assert!(!repo.dir.path().join(outside).exists(), "{outside} was written");
    }
}

/// Upstream repaired and prepared, and the stable branch has neither.
#[test]
fn prerequisites_and_repairs_are_told() {
    if !git_merges() {
        return;
    }
    let repo = Repo::new();
    repo.branch("upstream");
    let prepared = repo.edit("a", &[(5, "prepared"), (6, "too")], "a: prepare");
    repo.edit("a", &[(15, "far away")], "a: something else");
    let taken = repo.edit("b", &[(5, "taken")], "b: prepare");
    let fixed = repo.edit("a", &[(5, "fixed")], "a: fix it");
    let fixed_b = repo.edit("b", &[(5, "fixed")], "b: fix it");
    let easy = repo.edit("c", &[(5, "easy")], "c: easy");
    repo.branch("stable");
    repo.edit("b", &[(5, "taken")], &format!("b: prepare\n\ncommit {taken} upstream."));
    repo.branch("stack");
    let names = |subject: &str, id: &str, fixes: &str| {
        format!("BACKPORT: {subject}\n\n{fixes}\n(cherry picked from commit {id})")
    };
    repo.edit(
        "a",
        &[(5, "backported")],
        &names("a: fix it", &fixed, &format!("Fixes: {} (\"a: prepare\")", &prepared[..12])),
    );
    repo.edit(
        "b",
        &[(6, "backported")],
        &names("b: fix it", &fixed_b, &format!("Fixes: {} (\"b: prepare\")", &taken[..12])),
    );
    repo.edit(
        "c",
        &[(5, "easy"), (6, "more")],
        &names("c: easy", &easy, "Fixes: 0123456789ab (\"nobody knows\")"),
    );
    let found = repo.ask(Some("upstream")).unwrap();
    let remarks = |subject: &str| -> Vec<(RemarkKind, bool)> {
        let row = row(&found, subject);
        row.remarks.iter().map(|r| (r.kind, r.text.contains(&prepared[..12]))).collect()
    };
    assert_eq!(
        remarks("a: fix it"),
        [(RemarkKind::RepairsAbsent, true), (RemarkKind::Prerequisite, true)],
        "{found:#?}"
    );
    assert_eq!(remarks("b: fix it"), [], "the target has what it stands on: {found:#?}");
    assert_eq!(remarks("c: easy"), [], "{found:#?}");
    // Once the stack has it, nothing is missing.
    repo.git(&["cherry-pick", "-x", &prepared, "--strategy-option=theirs"]);
    assert_eq!(remarks_of(&repo.ask(Some("upstream")).unwrap(), "a: fix it"), []);
}

fn remarks_of(status: &StackStatus, subject: &str) -> Vec<RemarkKind> {
    row(status, subject).remarks.iter().map(|r| r.kind).collect()
}
