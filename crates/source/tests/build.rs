//! Builds of a small tree that looks like a kernel's to make: progress, errors, going on after a kill.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kolumbo_case::BuildState;
use kolumbo_source::build::tree::Edit;
use kolumbo_source::build::{BuildError, BuildResult, Observer, Request, Step, build, read};

/// Steps and notes as they were told.
#[derive(Default)]
struct Seen {
    steps: Vec<(u32, u32, bool, String)>,
    notes: Vec<String>,
}

impl Observer for Seen {
    fn step(&mut self, step: Step<'_>) {
        self.steps.push((step.done, step.total, step.estimated, step.file.to_owned()));
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

const MAKEFILE: &str = "
SRC := $(CURDIR)
all: bzImage
defconfig:
\t@printf 'CONFIG_A=y\\nCONFIG_B=y\\n# CONFIG_GONE is not set\\n' > $(O)/.config
olddefconfig:
\t@sed -i '/CONFIG_NEVER/d' $(O)/.config
bzImage: $(O)/one.o $(O)/two.o
\t@echo '  LD      vmlinux'
\t@mkdir -p $(O)/arch/x86/boot $(O)/include/config
\t@echo 6.1.0-test > $(O)/include/config/kernel.release
\t@cat $(O)/one.o $(O)/two.o > $(O)/arch/x86/boot/bzImage
$(O)/%.o: $(SRC)/%.c
\t@echo '  CC      $*.o'
\t@if grep -q wait $<; then touch $(O)/waiting; sleep 60; fi
\t@if grep -q warn $<; then echo '$<:1:1: warning: careful [-Wcareful]' >&2; fi
\t@if grep -q broken $<; then echo '$<:1:2: error: it is broken' >&2; echo '    1 | broken' >&2; exit 1; fi
\t@cp $< $@
";

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree { dir };
        fs::create_dir(tree.source()).unwrap();
        tree.write("Makefile", MAKEFILE);
        tree.write("one.c", "int one; /* warn */\n");
        tree.write("two.c", "int two;\n");
        tree
    }
    fn source(&self) -> PathBuf {
        self.dir.path().join("linux")
    }
    fn write(&self, name: &str, text: &str) {
        fs::write(self.source().join(name), text).unwrap();
    }
    fn request(&self) -> Request {
        Request {
            source: self.source(),
            toolchain: "gcc".into(),
            config: vec!["defconfig".into()],
            edits: Vec::new(),
            targets: vec!["bzImage".into()],
            out: None,
            shared: false,
            cache: self.dir.path().join("cache"),
            jobs: 1,
            ccache: false,
            started: String::new(),
        }
    }
}

fn gcc() -> bool {
    let there = ["gcc", "make"].iter().all(|p| Command::new(p).arg("--version").output().is_ok());
    assert!(there || std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "gcc and make");
    if !there {
        eprintln!("skipped: builds need gcc and make");
    }
    there
}

fn built(request: &Request) -> (BuildResult, Seen) {
    let mut seen = Seen::default();
    (build(request, &mut seen).unwrap(), seen)
}

#[test]
fn a_build_is_told_kept_and_found_again() {
    if !gcc() {
        return;
    }
    let tree = Tree::new();
    let (first, seen) = built(&tree.request());
    assert!(!first.cached && first.file.state == BuildState::Done);
    let files: Vec<&str> = seen.steps.iter().map(|s| s.3.as_str()).collect();
    assert_eq!(files, ["one.o", "two.o", "vmlinux"]);
    assert!(seen.steps[0].2, "there was no build to measure against");
    assert_eq!((first.file.steps, first.file.release.as_str()), (3, "6.1.0-test"));
    let warning = &first.file.warnings[0];
    assert_eq!(
        (warning.kind.as_str(), warning.file.as_str(), warning.count),
        ("-Wcareful", "one.c", 1)
    );
    assert_eq!(read(&first.out).unwrap(), first.file);
    assert!(built(&tree.request()).0.cached);

    // A change of the tree is another build; in the same folder the total is known then.
    let mut request = tree.request();
    request.out = Some(first.out.clone());
    tree.write("two.c", "int two = 2;\n");
    let (again, seen) = built(&request);
    assert!(!again.cached);
    assert_eq!(seen.steps, [(1, 3, false, "two.o".into()), (2, 3, false, "vmlinux".into())]);
    assert_eq!(again.file.steps, 3);
}

/// Where a tree lies, who builds it and when does not show in the image.
#[test]
fn the_same_tree_in_another_folder_gives_the_same_image() {
    if !gcc() {
        return;
    }
    let makefile = "
SRC := $(CURDIR)
defconfig:
\t@echo CONFIG_A=y > $(O)/.config
bzImage:
\t@echo '  CC      one.o'
\t@echo '#define MADE __FILE__' > $(O)/made.h
\t@echo nop > $(O)/two.S
\t@cd $(O) && $(CC) -g $(KCFLAGS) -I$(O) -c $(SRC)/one.c -o one.o
\t@cd $(O) && $(CC) -g $(KAFLAGS) -c two.S -o two.o
\t@mkdir -p $(O)/arch/x86/boot
\t@(cat $(O)/one.o $(O)/two.o; echo $(KBUILD_BUILD_TIMESTAMP) $(KBUILD_BUILD_USER) $(KBUILD_BUILD_HOST) $(KBUILD_BUILD_VERSION)) \\
\t\t> $(O)/arch/x86/boot/bzImage
";
    let image = || {
        let tree = Tree::new();
        tree.write("Makefile", makefile);
        tree.write("one.c", "#include \"made.h\"\nconst char *source = __FILE__;\n");
        let built = built(&tree.request()).0;
        let bytes = fs::read(built.file.image.as_ref().unwrap()).unwrap();
        let place = tree.dir.path().to_str().unwrap().to_owned();
        (bytes, place)
    };
    let ((first, place), (second, other)) = (image(), image());
    assert_ne!(place, other);
    assert!(first == second, "the images differ");
    let text = String::from_utf8_lossy(&first);
    assert!(text.contains("one.c") && !text.contains(&place), "{text}");
    assert!(text.ends_with("1970-01-01 kolumbo kolumbo 1\n"), "{text}");
}

#[test]
fn edits_leave_the_tree_alone() {
    if !gcc() {
        return;
    }
    let tree = Tree::new();
    let mut request = tree.request();
    let plain = built(&request).0;
    request.edits =
        vec![Edit { file: "two.c".into(), search: "int two".into(), replace: "long two".into() }];
    let edited = built(&request).0;
    assert_ne!(plain.out, edited.out);
    let image = |b: &BuildResult| fs::read_to_string(b.file.image.as_ref().unwrap()).unwrap();
    assert!(image(&plain).contains("int two") && image(&edited).contains("long two"));
    assert_eq!(fs::read_to_string(tree.source().join("two.c")).unwrap(), "int two;\n");
    assert_eq!(edited.file.edited, ["two.c"]);
}

/// Builds that differ in edits share objects, and each keeps its own products.
#[test]
fn builds_that_differ_in_edits_share_their_objects() {
    if !gcc() {
        return;
    }
    let tree = Tree::new();
    let mut request = tree.request();
    request.shared = true;
    let edit = |file: &str, search: &str, replace: &str| {
        vec![Edit { file: file.into(), search: search.into(), replace: replace.into() }]
    };
    let image = |b: &BuildResult| fs::read_to_string(b.file.image.as_ref().unwrap()).unwrap();
    let steps = |seen: &Seen| seen.steps.iter().map(|s| s.3.clone()).collect::<Vec<_>>();
    request.edits = edit("two.c", "int two", "long two");
    let (first, seen) = built(&request);
    assert_eq!(steps(&seen), ["one.o", "two.o", "vmlinux"]);
    // Times of files are compared by make, some to the millisecond.
    std::thread::sleep(std::time::Duration::from_millis(20));
    request.edits = edit("two.c", "int two", "short two");
    let (second, seen) = built(&request);
    assert_eq!(steps(&seen), ["two.o", "vmlinux"]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    request.edits = Vec::new();
    let (plain, seen) = built(&request);
    assert_eq!(steps(&seen), ["two.o", "vmlinux"]);
    for (build, word) in [(&first, "long two"), (&second, "short two"), (&plain, "int two")] {
        assert!(image(build).contains(word), "{word}: {}", image(build));
        assert_eq!(build.file.state, BuildState::Done);
        assert!(build.file.image.as_ref().unwrap().starts_with(build.out.to_str().unwrap()));
    }
    request.edits = edit("two.c", "int two", "long two");
    assert!(built(&request).0.cached);
    assert_eq!(fs::read_to_string(tree.source().join("two.c")).unwrap(), "int two;\n");

    // An edit that does not compile breaks nothing but itself, and its log is kept.
    request.edits = edit("one.c", "int one;", "broken");
    let Err(BuildError::Failed { failure, log }) = build(&request, &mut Seen::default()) else {
        panic!("it was built")
    };
    assert_eq!((failure.file.as_str(), failure.message.as_str()), ("one.c", "it is broken"));
    assert!(fs::read_to_string(&log).unwrap().contains("it is broken"));
    assert_eq!(read(log.parent().unwrap()).unwrap().state, BuildState::Failed);
    request.edits = edit("one.c", "int one;", "int uno;");
    assert!(image(&built(&request).0).contains("int uno"));
}

/// When everything is killed while objects are made anew, none of them is trusted any more.
#[test]
fn a_shared_build_that_was_cut_off_is_begun_anew() {
    if !gcc() {
        return;
    }
    let tree = Tree::new();
    let mut request = tree.request();
    request.shared = true;
    built(&request);
    let workshop = fs::read_dir(request.cache.join("workshops")).unwrap().next().unwrap().unwrap();
    let out = workshop.path().join("out");
    // What a build that was cut off leaves behind: a note that it was under way.
    let state = workshop.path().join("workshop.json");
    let text = fs::read_to_string(&state).unwrap();
    assert!(text.contains("\"busy\":false"), "{text}");
    fs::write(&state, text.replace("\"busy\":false", "\"busy\":true")).unwrap();
    fs::write(out.join("one.o"), "half an object").unwrap();
    request.edits =
        vec![Edit { file: "two.c".into(), search: "int two".into(), replace: "long two".into() }];
    let (result, _) = built(&request);
    let image = fs::read_to_string(result.file.image.unwrap()).unwrap();
    assert!(image.contains("int one") && image.contains("long two"), "{image}");
}

#[test]
fn a_failed_build_names_the_first_error() {
    if !gcc() {
        return;
    }
    let tree = Tree::new();
    tree.write("two.c", "broken\n");
    let Err(BuildError::Failed { failure, log }) = build(&tree.request(), &mut Seen::default())
    else {
        panic!("it was built")
    };
    assert_eq!((failure.file.as_str(), failure.line), ("two.c", 1));
    assert_eq!(failure.message, "it is broken");
    assert_eq!(failure.context, ["    1 | broken"]);
    assert!(fs::read_to_string(&log).unwrap().contains("CC      one.o"));
    let kept = read(log.parent().unwrap()).unwrap();
    assert_eq!(kept.state, BuildState::Failed);
    // Mended, the build goes on and is good.
    tree.write("two.c", "int two;\n");
    assert_eq!(built(&tree.request()).0.file.state, BuildState::Done);
}

#[test]
fn fragments_are_merged_and_what_is_lost_is_told() {
    if !gcc() {
        return;
    }
    let tree = Tree::new();
    let fragment = tree.dir.path().join("extra");
    fs::write(&fragment, "# CONFIG_B is not set\nCONFIG_NEVER=y\n").unwrap();
    let mut request = tree.request();
    request.config = vec![format!("+{}", fragment.display()), "+C=m".into()];
    let (result, seen) = built(&request);
    let config = fs::read_to_string(result.out.join(".config")).unwrap();
    assert_eq!(config, "CONFIG_A=y\n# CONFIG_GONE is not set\n# CONFIG_B is not set\nCONFIG_C=m\n");
    assert_eq!(seen.notes, ["CONFIG_NEVER=y was asked for and Kconfig made it n"]);
    assert_eq!(result.file.gaps, seen.notes);
}

/// Another build of the same folder is refused while one runs, also when whoever began that one was
/// killed and only make is left.
#[test]
fn a_folder_is_built_by_one_at_a_time() {
    if !gcc() {
        return;
    }
    let tree = Tree::new();
    let mut request = tree.request();
    let out = tree.dir.path().join("out");
    request.out = Some(out.clone());
    let slow = fs::read_to_string(tree.source().join("two.c")).unwrap() + "// wait\n";
    tree.write("two.c", &slow);
    let other = request.clone();
    let worker = std::thread::spawn(move || {
        let result = build(&other, &mut Seen::default());
        assert!(matches!(result, Err(BuildError::Failed { .. })), "{result:?}");
    });
    while !out.join("waiting").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let refused = build(&request, &mut Seen::default());
    assert!(matches!(refused, Err(BuildError::Busy { .. })), "{refused:?}");
    kill_make(&out);
    worker.join().unwrap();
    assert!(out.join("one.o").exists());
    tree.write("two.c", "int two;\n");
    let (result, seen) = built(&request);
    let files: Vec<&str> = seen.steps.iter().map(|s| s.3.as_str()).collect();
    assert_eq!(files, ["two.o", "vmlinux"], "what was done is not done again");
    assert_eq!(result.file.state, BuildState::Done);
}

/// Ends the processes of the build of `out`, which name it in their arguments or environment.
fn kill_make(out: &Path) {
    let mark = format!("O={}", out.display());
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = arguments.split(|b| *b == 0).collect();
        let pid = entry.file_name().to_string_lossy().parse::<i32>();
        if let Ok(pid) = pid.map(rustix::process::Pid::from_raw)
            && arguments.first().is_some_and(|a| *a == b"make")
            && arguments.contains(&mark.as_bytes())
        {
            // What make runs is in its process group, which is that of this test: only make itself,
            // and what waits in the shell below it.
            let children = format!("/proc/{0}/task/{0}/children", pid.unwrap().as_raw_nonzero());
            for child in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
                end(child.parse().unwrap());
            }
            let _ = rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL);
        }
    }
}

fn end(pid: i32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        end(child.parse().unwrap());
    }
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
