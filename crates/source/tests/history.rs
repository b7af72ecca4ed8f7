//! What is read of a history without the git program is what the program says: commit by commit, in all
//! forms that a repository can have, and with an error that helps where it is broken.
#![allow(clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kolumbo_source::stack::git::{Commit, GitError, Repository};
use sha2::{Digest, Sha256};

fn git_is_there() -> bool {
    let there = Command::new("git").arg("--version").output().is_ok();
    assert!(there || std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "git is missing");
    if !there {
        eprintln!("skipped: git is missing");
    }
    there
}

/// Standard output of git with some input.
fn git_with(dir: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(arguments)
        .envs([
            ("GIT_AUTHOR_NAME", "A"),
            ("GIT_AUTHOR_EMAIL", "a@x"),
            ("GIT_COMMITTER_NAME", "C"),
            ("GIT_COMMITTER_EMAIL", "c@x"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(input));
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    output.stdout
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&git_with(dir, arguments, b"")).trim().to_owned()
}

fn lines(dir: &Path, arguments: &[&str]) -> Vec<String> {
    git(dir, arguments).lines().map(str::to_owned).collect()
}

/// Numbers without chance.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// Names that sort in odd ways, need quotes, or are now a file and now a folder.
const NAMES: [&str; 16] = [
    "a",
    "a.c",
    "a-b",
    "a/b",
    "a/b/c",
    "a0",
    "deep/er/than/others",
    "deep/er.c",
    "with space",
    "tab\\there",
    "new\\nline",
    "\\\"quoted\\\"",
    "\u{e4}\u{f6}",
    "\\377\\376",
    ":colon",
    "z/\u{1f600}",
];
/// Modes of files; of a submodule the name of a commit is all there is.
const MODES: [&str; 4] = ["100644", "100755", "120000", "160000"];

/// A stream for `git fast-import`: `commits` commits on some lines, of which some begin anew and some are
/// merged, with messages in several encodings.
fn stream(commits: usize, hash: usize) -> Vec<u8> {
    let mut numbers = Numbers(7);
    let mut out = Vec::new();
    let mut lines: Vec<usize> = Vec::new();
    for mark in 1..=commits {
        let line = if lines.is_empty() || numbers.below(40) == 0 {
            None
        } else {
            Some(numbers.below(lines.len()))
        };
        let mut head =
            format!("commit refs/heads/l{}\nmark :{mark}\n", line.unwrap_or(lines.len()));
        // Clocks differ by some steps, and many commits have the same time.
        let date = 1_000_000_000 + mark / 3 * 10 + numbers.below(40);
        let author = ["A. Author <a@x>", "J\u{f6}rg  B  <j@x>", " <no@name>", "No Mail <>"]
            [numbers.below(4)];
        let _ = writeln!(head, "author {author} {date} +0100\ncommitter C <c@x> {date} -0200");
        let (encoding, message): (&str, &[u8]) = match numbers.below(8) {
            0 => ("ISO-8859-1", b"gr\xfc\xdfe\n\n\x80 body\n"),
            1 => ("koi8-r", b"\xc1\xc2\xd7\n"),
            2 => ("EUC-JP", b"\xa4\xa2 \xff\n"),
            3 => ("", b"\n\nlate subject\n\n\nand more\n\n\n"),
            4 => ("", b"not utf-8: \xe4\xff"),
            5 => ("", b""),
            6 => ("utf8", "\u{fc}\r\n:100644 looks like a line of raw\n\n".as_bytes()),
            _ => ("", b"subsystem: change\n\nSigned-off-by: A <a@x>\n"),
        };
        if !encoding.is_empty() {
            let _ = writeln!(head, "encoding {encoding}");
        }
        let _ = writeln!(head, "data {}", message.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(message);
        out.push(b'\n');
        if let Some(line) = line {
            let _ = writeln!(out, "from :{}", lines[line]);
            for _ in 0..[0, 0, 0, 0, 0, 0, 1, 1, 2, 3][numbers.below(10)] {
                let _ = writeln!(out, "merge :{}", lines[numbers.below(lines.len())]);
            }
        }
        for _ in 0..numbers.below(6) {
            let name = NAMES[numbers.below(NAMES.len())];
            if numbers.below(4) == 0 {
                // Also of what is not there, or of a whole folder.
                let name =
                    if numbers.below(3) == 0 { name.split('/').next().unwrap() } else { name };
                let _ = writeln!(out, "D \"{name}\"");
                continue;
            }
            match MODES[numbers.below(MODES.len())] {
                "160000" => {
                    let commit = format!("{:0hash$x}", numbers.below(5) + 1);
                    let _ = writeln!(out, "M 160000 {commit} \"{name}\"");
                }
                mode => {
                    let text = format!("{}", numbers.below(5));
                    let _ =
                        writeln!(out, "M {mode} inline \"{name}\"\ndata {}\n{text}", text.len());
                }
            }
        }
        match line {
            Some(line) => lines[line] = mark,
            None => lines.push(mark),
        }
    }
    out.extend_from_slice(b"done\n");
    out
}

/// A repository with such a history, and its folder.
fn made(commits: usize, format: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    fs::create_dir(&path).unwrap();
    git(&path, &["init", "-q", &format!("--object-format={format}")]);
    let stream = stream(commits, if format == "sha1" { 40 } else { 64 });
    git_with(&path, &["fast-import", "--quiet", "--done"], &stream);
    git(&path, &["symbolic-ref", "HEAD", "refs/heads/l0"]);
    (dir, path)
}

/// What `git log` says of commits.
fn said_by_git(dir: &Path, walk: &str, commits: &str) -> Vec<Commit> {
    let arguments = [
        "log",
        walk,
        "--stdin",
        "-z",
        "--raw",
        "--root",
        "--no-abbrev",
        "--no-renames",
        "--no-ext-diff",
        "--diff-merges=off",
        "--encoding=UTF-8",
        "--no-decorate",
        "--no-notes",
        "--format=%H%n%P%n%an <%ae>%n%B",
    ];
    let out = git_with(dir, &arguments, commits.as_bytes());
    let mut found: Vec<Commit> = Vec::new();
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut name_follows = false;
    let close = |found: &mut Vec<Commit>, names: &mut Vec<Vec<u8>>| {
        if let Some(last) = found.last_mut().filter(|_| !names.is_empty()) {
            let mut digest = Sha256::new();
            names.drain(..).for_each(|name| digest.update([name.as_slice(), b"\0"].concat()));
            last.files = digest.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        }
    };
    for record in out.split(|b| *b == 0) {
        if std::mem::take(&mut name_follows) {
            names.push(record.to_vec());
            continue;
        }
        let record = record.strip_prefix(b"\n").unwrap_or(record);
        if record.starts_with(b":") {
            name_follows = true;
            continue;
        }
        let text = String::from_utf8_lossy(record);
        let mut parts = text.splitn(4, '\n');
        let Some(id) = parts.next().filter(|id| id.len() >= 40) else { continue };
        close(&mut found, &mut names);
        found.push(Commit {
            id: id.to_owned(),
            parents: parts.next().unwrap().split_whitespace().count(),
            author: parts.next().unwrap().to_owned(),
            message: parts.next().unwrap_or("").to_owned(),
            files: String::new(),
        });
    }
    close(&mut found, &mut names);
    found
}

fn by_id(commits: Vec<Commit>) -> BTreeMap<String, Commit> {
    commits.into_iter().map(|commit| (commit.id.clone(), commit)).collect()
}

fn read(repository: &Repository, commits: &[String]) -> Result<Vec<Commit>, GitError> {
    let mut found = Vec::new();
    repository.each(commits, &mut |commit| found.push(commit))?;
    Ok(found)
}

/// Compares all that can be asked of a repository. `dir` is where git is started.
fn compare(repository: &Repository, dir: &Path) {
    let all = lines(dir, &["rev-list", "--all"]);
    assert_eq!(
        read(repository, &all).unwrap(),
        said_by_git(dir, "--no-walk=unsorted", &all.join("\n"))
    );
    let mut numbers = Numbers(3);
    let tips = lines(dir, &["for-each-ref", "--format=%(objectname)", "refs/heads"]);
    for _ in 0..12 {
        let tip = &tips[numbers.below(tips.len())];
        let without: Vec<String> =
            (0..numbers.below(3)).map(|_| all[numbers.below(all.len())].clone()).collect();
        let range: Vec<String> =
            [tip.clone()].into_iter().chain(without.iter().map(|id| format!("^{id}"))).collect();
        let mut found = Vec::new();
        repository.each_of(tip, &without, &mut |commit| found.push(commit)).unwrap();
        let ids: Vec<&String> = found.iter().map(|commit| &commit.id).collect();
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len());
        assert_eq!(ids, repository.range(tip, &without).unwrap().iter().collect::<Vec<_>>());
        let expected = said_by_git(dir, "--do-walk", &range.join("\n"));
        assert_eq!(by_id(found), by_id(expected), "{range:?}");
    }
    let words = |line: &String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let parents: BTreeMap<String, Vec<String>> = lines(dir, &["rev-list", "--all", "--parents"])
        .iter()
        .map(|line| (words(line)[0].clone(), words(line)[1..].to_vec()))
        .collect();
    for _ in 0..40 {
        let (one, other) = (&all[numbers.below(all.len())], &all[numbers.below(all.len())]);
        let bases = Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(["merge-base", "--all", one, other])
            .output();
        let bases = String::from_utf8(bases.unwrap().stdout).unwrap();
        match repository.merge_base(one, other) {
            Ok(base) => assert!(bases.lines().any(|b| b == base), "{one} {other}: {base}, {bases}"),
            Err(GitError::Unrelated { .. }) => assert_eq!(bases, "", "{one} {other}"),
            Err(error) => panic!("{error}"),
        }
        let ancestor = ["merge-base", "--is-ancestor", one, other];
        let ancestor = Command::new("git").arg("-C").arg(dir).args(ancestor).status().unwrap();
        assert_eq!(repository.is_ancestor(one, other), ancestor.success(), "{one} {other}");
        let range = format!("^{one}");
        let sorted = lines(dir, &["rev-list", "--reverse", "--topo-order", other, &range]);
        let line = repository.line(one, other).unwrap();
        assert_eq!(line.iter().collect::<BTreeSet<_>>(), sorted.iter().collect::<BTreeSet<_>>());
        let mut before = BTreeSet::new();
        for id in &line {
            let missing = |parent: &&String| line.contains(parent) && !before.contains(parent);
            assert!(
                !parents[id].iter().any(|parent| missing(&parent)),
                "{id} stands before a parent"
            );
            before.insert(id);
        }
    }
}

#[test]
fn commits_are_what_git_log_says() {
    if !git_is_there() {
        return;
    }
    let (_dir, path) = made(700, "sha1");
    let open = |path: &Path| Repository::open(path).unwrap();
    compare(&open(&path), &path);

    // A line of history keeps git's order to the commit.
    let line = lines(&path, &["rev-list", "--first-parent", "l0"]);
    assert_eq!(
        read(&open(&path), &line).unwrap(),
        said_by_git(&path, "--no-walk=unsorted", &line.join("\n"))
    );
    // The other forms of the same history.
    let commits: Vec<String> = lines(&path, &["rev-list", "--all", "--reverse"]);
    git(&path, &["commit-graph", "write", "--split"]);
    git(&path, &["branch", "half", &commits[commits.len() / 2]]);
    let from = format!("{}\n", git(&path, &["rev-parse", "half"]));
    git_with(
        &path,
        &["commit-graph", "write", "--split=no-merge", "--stdin-commits"],
        from.as_bytes(),
    );
    git(&path, &["commit-graph", "write", "--split=no-merge", "--reachable"]);
    compare(&open(&path), &path);
    // Now the newest trees are whole, and older ones differ from them.
    git(&path, &["repack", "-q", "-a", "-d", "-f"]);
    git(&path, &["multi-pack-index", "write"]);
    compare(&open(&path), &path);

    // From a folder inside, a work tree beside it, a bare clone that borrows its objects.
    let inside = path.join("some/folder");
    fs::create_dir_all(&inside).unwrap();
    let tip = open(&path).resolve("HEAD").unwrap();
    assert_eq!(open(&inside).resolve("l0").unwrap(), tip);
    let beside = path.with_file_name("beside");
    git(
        &path,
        &["worktree", "add", "-q", "--no-checkout", "-b", "own", beside.to_str().unwrap(), "l1"],
    );
    assert_eq!(open(&beside).resolve("HEAD").unwrap(), git(&path, &["rev-parse", "l1"]));
    let bare = path.with_file_name("bare.git");
    git(&path, &["clone", "-q", "--bare", "--shared", ".", bare.to_str().unwrap()]);
    compare(&open(&bare), &bare);
}

#[test]
fn a_line_comes_in_the_order_of_git() {
    if !git_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"]);
    let mut stream = String::new();
    // More than one reader gets, with times that stand still and go back.
    for n in 0..2500 {
        let date = 1_000_000_000 + n / 7 * 5 - (n % 5) * 3;
        let _ = write!(
            stream,
            "commit refs/heads/b\ncommitter C <c@x> {date} +0000\ndata 2\nx\nM 644 inline f{}/{n}\ndata 1\nx\n",
            n % 3
        );
    }
    git_with(dir.path(), &["fast-import", "--quiet"], stream.as_bytes());
    let repository = Repository::open(dir.path()).unwrap();
    for range in
        [vec!["b"], vec!["b", "^b~700"], vec!["b", "^b~3"], vec!["b~100", "^b~101", "^b~400"]]
    {
        let said = said_by_git(dir.path(), "--do-walk", &range.join("\n"));
        let id = |name: &&str| repository.resolve(name.trim_start_matches('^')).unwrap();
        let without: Vec<String> = range[1..].iter().map(id).collect();
        let mut found = Vec::new();
        repository.each_of(&id(&range[0]), &without, &mut |commit| found.push(commit)).unwrap();
        assert_eq!(found, said, "{range:?}");
        assert!(!found.is_empty());
    }
}

#[test]
fn names_mean_what_they_mean_to_git() {
    if !git_is_there() {
        return;
    }
    let (_dir, path) = made(120, "sha1");
    git(&path, &["tag", "-a", "-m", "t", "v1-rc1", "l0~1"]);
    git(&path, &["branch", "feature/x", "l0~2"]);
    let repository = Repository::open(&path).unwrap();
    let head = git(&path, &["rev-parse", "HEAD"]);
    for name in [
        "HEAD",
        "@",
        "l0",
        "heads/l0",
        "refs/heads/l0",
        "v1-rc1",
        "v1-rc1^{}",
        "v1-rc1~1",
        "feature/x",
        "HEAD~3",
        "HEAD^",
        "HEAD^1",
        "l0^0",
        "v1-rc1^{commit}",
        &head,
        &head[..9],
        &format!("v1-rc1-3-g{}", &head[..8]),
    ] {
        let spec = format!("{name}^{{commit}}");
        assert_eq!(repository.resolve(name).unwrap(), git(&path, &["rev-parse", &spec]), "{name}");
    }
    // Names that mean each other, or nothing that is there.
    let strange = "0".repeat(39) + "1";
    fs::write(path.join(".git/refs/heads/circle"), "ref: refs/heads/circle\n").unwrap();
    fs::write(path.join(".git/refs/heads/dangling"), format!("{strange}\n")).unwrap();
    for name in [
        "",
        "circle",
        "dangling",
        "nothing",
        "-x",
        "--all",
        "l0..l1",
        "^l0",
        "HEAD:a",
        "HEAD^{tree}",
        "HEAD^99",
        &strange,
        "abc",
        "\0",
    ] {
        let error = repository.resolve(name).unwrap_err();
        assert!(matches!(error, GitError::NoCommit { .. }), "{name}: {error}");
    }
    assert!(matches!(Repository::open(Path::new("/")), Err(GitError::NoRepository { .. })));
    assert!(matches!(Repository::open(&path.join("gone")), Err(GitError::NoRepository { .. })));
}

#[test]
fn sha256_replacements_grafts_and_shallow_clones() {
    if !git_is_there() {
        return;
    }
    let (_dir, path) = made(150, "sha256");
    compare(&Repository::open(&path).unwrap(), &path);

    let (_dir, path) = made(150, "sha1");
    git(&path, &["commit-graph", "write", "--reachable"]);
    let all = lines(&path, &["rev-list", "--all"]);
    git(&path, &["replace", &all[20], &all[60]]);
    git(&path, &["replace", "--graft", &all[30], &all[90], &all[100]]);
    compare(&Repository::open(&path).unwrap(), &path);
    git(&path, &["replace", "-d", &all[20], &all[30]]);
    git(&path, &["config", "advice.graftFileDeprecated", "false"]);
    let grafts = format!("# none\n{} {}\n{}\n", all[10], all[70], all[40]);
    fs::write(path.join(".git/info/grafts"), grafts).unwrap();
    compare(&Repository::open(&path).unwrap(), &path);
    fs::remove_file(path.join(".git/info/grafts")).unwrap();

    let shallow = path.with_file_name("shallow");
    let url = format!("file://{}", path.display());
    git(
        &path,
        &[
            "clone",
            "-q",
            "--no-checkout",
            "--depth=5",
            "--no-single-branch",
            &url,
            shallow.to_str().unwrap(),
        ],
    );
    for tip in
        lines(&shallow, &["for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes/origin/l*"])
    {
        git(&shallow, &["branch", "-f", "-q", &format!("own-{tip}"), &format!("origin/{tip}")]);
    }
    let repository = Repository::open(&shallow).unwrap();
    assert!(repository.is_shallow());
    compare(&repository, &shallow);
}

#[test]
fn names_in_a_reftable_are_asked_of_git() {
    if !git_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let init = ["init", "-q", "--ref-format=reftable"];
    let init = Command::new("git").arg("-C").arg(dir.path()).args(init).output().unwrap();
    if !init.status.success() {
        eprintln!("skipped: git is older than 2.45");
        return;
    }
    git(dir.path(), &["commit", "-q", "--allow-empty", "-m", "x"]);
    git(dir.path(), &["commit", "-q", "--allow-empty", "-m", "y"]);
    let repository = Repository::open(dir.path()).unwrap();
    let tip = repository.resolve("HEAD").unwrap();
    assert_eq!(tip, git(dir.path(), &["rev-parse", "HEAD"]));
    assert_eq!(repository.range(&tip, &[]).unwrap().len(), 2);
    assert!(matches!(repository.resolve("nothing"), Err(GitError::NoCommit { .. })));
}

/// Every file of a folder with its bytes.
fn everything(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.path().is_dir() {
            true => everything(&entry.path(), into),
            false => drop(into.insert(entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
}

#[test]
fn gaps_and_damage_are_told_and_nothing_is_fetched_or_written() {
    if !git_is_there() {
        return;
    }
    let (_dir, path) = made(60, "sha1");
    git(&path, &["config", "uploadpack.allowFilter", "true"]);
    let partial = path.with_file_name("partial");
    let url = format!("file://{}", path.display());
    git(
        &path,
        &["clone", "-q", "--no-checkout", "--filter=tree:0", &url, partial.to_str().unwrap()],
    );
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    everything(&partial, &mut before);
    let repository = Repository::open(&partial).unwrap();
    let tip = repository.resolve("HEAD").unwrap();
    let error = repository.each_of(&tip, &[], &mut |_| {}).unwrap_err();
    assert!(matches!(&error, GitError::Missing { kind: "tree", .. }), "{error}");
    assert!(error.to_string().contains("partial clone"), "{error}");
    assert!(repository.range(&tip, &[]).unwrap().len() > 1);
    everything(&partial, &mut after);
    assert!(before == after, "the clone was written to");

    // Loose objects that are cut, empty, of another kind, or not there.
    let loose = path.with_file_name("loose");
    fs::create_dir(&loose).unwrap();
    git(&loose, &["init", "-q", "-b", "main"]);
    for n in 0..4 {
        fs::create_dir_all(loose.join("folder")).unwrap();
        fs::write(loose.join("folder/file"), format!("{n}")).unwrap();
        git(&loose, &["add", "-A"]);
        git(&loose, &["commit", "-q", "-m", &format!("{n}")]);
    }
    let object = |name: &str| {
        let id = git(&loose, &["rev-parse", name]);
        (loose.join(".git/objects").join(&id[..2]).join(&id[2..]), id)
    };
    let ask = || {
        let repository = Repository::open(&loose).unwrap();
        let tip = repository.resolve("main").unwrap();
        repository.each_of(&tip, &[], &mut |_| {})
    };
    ask().unwrap();
    for (name, kind) in [("main~1:folder", "tree"), ("main~2^{tree}", "tree"), ("main~2", "commit")]
    {
        let (file, id) = object(name);
        let (blob, _) = object("main:folder/file");
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let error = ask().unwrap_err();
        let told =
            matches!(&error, GitError::Missing { kind: k, id: i, .. } if *k == kind && *i == id);
        assert!(told && error.to_string().contains("git fsck"), "{name}: {error}");
        for bytes in
            [&whole[..whole.len() / 2], b"", b"\x78\x9c", &fs::read(&blob).unwrap(), &[0xff; 100]]
        {
            fs::write(&file, bytes).unwrap();
            let error = ask().unwrap_err();
            assert!(
                matches!(&error, GitError::Damaged { id: i, .. } if *i == id),
                "{name}: {error}"
            );
        }
        fs::remove_file(&file).unwrap();
        fs::write(&file, whole).unwrap();
    }
    ask().unwrap();
    // Trees and commits that git would not have made.
    let raw = |kind: &str, bytes: &[u8]| {
        let arguments = ["hash-object", "-t", kind, "--literally", "-w", "--stdin"];
        String::from_utf8(git_with(&loose, &arguments, bytes)).unwrap().trim().to_owned()
    };
    let repository = Repository::open(&loose).unwrap();
    let id = [7; 20];
    let entry =
        |mode: &str, name: &str| [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &id].concat();
    let trees = [
        entry("100644", ""),
        entry("", "x"),
        entry("abc", "x"),
        entry("100644", "x")[..9].to_vec(),
        entry("40000000000", "x"),
        b"no zero".to_vec(),
    ];
    for tree in trees {
        let tree = raw("tree", &tree);
        let commit = raw("commit", format!("tree {tree}\nauthor A <a> 1 +0\n\nx").as_bytes());
        let error = read(&repository, &[commit]).unwrap_err();
        assert!(matches!(&error, GitError::Damaged { id, .. } if *id == tree), "{error}");
    }
    for commit in ["", "tree\n", "tree 0123\n\n", "parent x\n"] {
        let commit = raw("commit", commit.as_bytes());
        let error = read(&repository, std::slice::from_ref(&commit)).unwrap_err();
        assert!(matches!(&error, GitError::Damaged { id, .. } if *id == commit), "{error}");
    }
    // Names that sort wrong or come twice are names all the same.
    let twice =
        raw("tree", &[entry("160000", "b"), entry("160000", "a"), entry("160000", "a")].concat());
    let commit = raw("commit", format!("tree {twice}\n\n").as_bytes());
    assert_eq!(read(&repository, std::slice::from_ref(&commit)).unwrap()[0].files.len(), 16);

    // Few trees that stand for more files than there could be, and folders without end.
    let hex = |id: &str| -> Vec<u8> {
        (0..20).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).unwrap()).collect()
    };
    let mut tree = raw("tree", &entry("160000", "x"));
    for _ in 0..9 {
        let names = (0..10).map(|n| [format!("40000 {n}\0").as_bytes(), &hex(&tree)].concat());
        tree = raw("tree", &names.collect::<Vec<_>>().concat());
    }
    let commit = raw("commit", format!("tree {tree}\n\n").as_bytes());
    assert_eq!(read(&repository, &[commit]).unwrap()[0].files.len(), 16);
    let deep = format!(
        "commit refs/heads/deep\ncommitter C <c@x> 1 +0\ndata 0\nM 644 inline {}f\ndata 0\n",
        "d/".repeat(2100)
    );
    git_with(&loose, &["fast-import", "--quiet"], deep.as_bytes());
    let commit = repository.resolve("deep").unwrap();
    let error = read(&repository, &[commit]).unwrap_err().to_string();
    assert!(error.contains("too deeply"), "{error}");
}
