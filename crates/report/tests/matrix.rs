//! The reports of a matrix: what they say, and that nothing breaks out of them.

mod samples;

use expect_test::{Expect, expect};
use kolumbo_case::matrix::{MatrixFile, Place};
use kolumbo_report::matrix::text::{self, Style};
use kolumbo_report::matrix::{github, junit, ktap};

fn table(matrix: &MatrixFile, style: Style, expect: Expect) {
    expect.assert_eq(&text::table(matrix, style));
}

#[test]
fn a_planted_sickness() {
    table(
        &samples::planted(),
        Style::default(),
        expect![[r#"
        srso: kernel 2 x smp 3 x append 3, 18 cells

        kernel  smp  | off  safe-ret  ibpb  (append)
        gcc     1    | ok   ok        ok
                2    | ok   ok        ok
                4    | ok   ok        ok
        clang   1    | ok   ok        ok
                2    | ok   HUNG A!   ok
                4    | ok   HUNG A!   ok

          A, B: which bug; !: not as expected

        A  hung-boot in srso_alias_safe_ret
           sick when: clang and smp >= 2 and safe-ret
           2 of 2 runs in 2 cells

        18 cells, 16 healthy, 2 sick, 2 not as expected, 18 runs, 88.1 s
    "#]],
    );
}

#[test]
fn where_anything_fails_comes_before_each_bug() {
    let mut matrix = samples::mixed();
    let sentence = "clang and smp ≥ 2".to_owned();
    matrix.any_bug = Some(Place { sentence, ..Place::default() });
    let text = text::table(&matrix, Style::default());
    let (before, _) = text.split_once("A  hung-boot").unwrap();
    assert!(before.ends_with("anything fails: clang and smp >= 2\n"), "{before}");
    let mut page = Vec::new();
    kolumbo_report::matrix::html::write(&matrix, &kolumbo_report::matrix::NoDetails, &mut page)
        .unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("<p>Anything fails: clang and smp ≥ 2</p>\n<ol>"));
    for (write, expected) in [
        (ktap::write as Write, "# anything fails: clang and smp ≥ 2\n# A: "),
        (junit::write, "<property name=\"anything fails\" value=\"clang and smp ≥ 2\""),
        (github::commands, "::error title=anything fails::clang and smp ≥ 2\n"),
    ] {
        let mut out = Vec::new();
        write(&matrix, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

type Write = fn(&MatrixFile, &mut dyn std::io::Write) -> std::io::Result<()>;

#[test]
fn a_flaky_guest_and_everything_else() {
    table(
        &samples::mixed(),
        Style { unicode: true, ..Style::default() },
        expect![[r#"
        srso: kernel 2 × smp 3 × append 3, 18 cells

        kernel  smp  │ off  safe-ret       ibpb  (append)
        gcc     1    │ err  ok             ok
                2    │ ok   ok             ok
                4    │ ok   ok             SPLAT B
        clang   1    │ ok   ok             ok
                2    │ ok   flaky 4/10 A!  ok
                4    │ ok   flaky 4/10 A!  ..

          flaky 3/10: 3 of 10 runs were sick; err: no run could be judged; ..: not run yet; A, B: which bug;
          !: not as expected

        A  hung-boot in srso_alias_safe_ret
           sick when: clang and smp ≥ 2 and safe-ret
           8 of 20 runs in 2 cells: 40% (22% to 61% at 95% confidence)
           open: smp 3 was not tested: the limit is 2 or 3
        B  WARNING: suspicious RCU usage in cpuhp_thread_fun
           sick when: smp ≥ 4 and ibpb
           10 of 10 runs in 1 cell

        18 cells, 13 healthy, 1 sick, 2 flaky, 1 without an answer, 1 pending, 2 not as expected, 170 runs,
        12 min 03 s
        not finished: cells are still to be run
        gap: the compiler of the kernel gcc could not be read
    "#]],
    );
}

#[test]
fn a_narrow_terminal_gets_rows() {
    table(
        &samples::mixed(),
        Style { width: 44, ..Style::default() },
        expect![[r#"
        srso: kernel 2 x smp 3 x append 3, 18 cells

        kernel  smp  append    |
        gcc     1    off       | err
                     safe-ret  | ok
                     ibpb      | ok
                2    off       | ok
                     safe-ret  | ok
                     ibpb      | ok
                4    off       | ok
                     safe-ret  | ok
                     ibpb      | SPLAT B
        clang   1    off       | ok
                     safe-ret  | ok
                     ibpb      | ok
                2    off       | ok
                     safe-ret  | flaky 4/10 A!
                     ibpb      | ok
                4    off       | ok
                     safe-ret  | flaky 4/10 A!
                     ibpb      | ..

          flaky 3/10: 3 of 10 runs were sick; err:
          no run could be judged; ..: not run yet;
          A, B: which bug; !: not as expected

        A  hung-boot in srso_alias_safe_ret
           sick when: clang and smp >= 2 and safe-ret
           8 of 20 runs in 2 cells: 40% (22% to 61%
           at 95% confidence)
           open: smp 3 was not tested: the limit is
                 2 or 3
        B  WARNING: suspicious RCU usage in
           cpuhp_thread_fun
           sick when: smp >= 4 and ibpb
           10 of 10 runs in 1 cell

        18 cells, 13 healthy, 1 sick, 2 flaky, 1
        without an answer, 1 pending, 2 not as
        expected, 170 runs, 12 min 03 s
        not finished: cells are still to be run
        gap: the compiler of the kernel gcc could
             not be read
    "#]],
    );
}

#[test]
fn a_large_table_is_summed_up() {
    table(
        &samples::large(1_000),
        Style::default(),
        expect![[r#"
        nightly: kernel 5 x config 2 x smp 5 x cpu 4 x append 5, 1000 cells

        kernel
          kernel-1  ....................     1% of runs sick; 2 of 200 cells sick or flaky
          kernel-2  ####................    19% of runs sick; 37 of 200 cells sick or flaky
          kernel-3  ....................     1% of runs sick; 2 of 200 cells sick or flaky
          kernel-4  #...................     3% of runs sick; 5 of 200 cells sick or flaky
          kernel-5  ###.................    17% of runs sick; 34 of 200 cells sick or flaky
        config
          config-1  #...................     7% of runs sick; 37 of 500 cells sick or flaky
          config-2  ##..................     9% of runs sick; 43 of 500 cells sick or flaky
        smp
          1  #...................     3% of runs sick; 6 of 200 cells sick or flaky
          2  ##..................     9% of runs sick; 17 of 200 cells sick or flaky
          3  ##..................     9% of runs sick; 18 of 200 cells sick or flaky
          4  ##..................    10% of runs sick; 19 of 200 cells sick or flaky
          5  ##..................    10% of runs sick; 20 of 200 cells sick or flaky
        cpu
          cpu-1  ##..................     8% of runs sick; 21 of 250 cells sick or flaky
          cpu-2  #...................     6% of runs sick; 16 of 250 cells sick or flaky
          cpu-3  #...................     6% of runs sick; 16 of 250 cells sick or flaky
          cpu-4  ##..................    11% of runs sick; 27 of 250 cells sick or flaky
        append
          append-1  ....................     1% of runs sick; 1 of 200 cells sick or flaky
          append-2  ....................     1% of runs sick; 1 of 200 cells sick or flaky
          append-3  #######.............    33% of runs sick; 65 of 200 cells sick or flaky
          append-4  ....................     1% of runs sick; 1 of 200 cells sick or flaky
          append-5  #...................     6% of runs sick; 12 of 200 cells sick or flaky

          SPLAT B!        kernel-1/config-2/4/cpu-4/append-5
          SPLAT B!        kernel-1/config-2/5/cpu-4/append-5
          HUNG A!         kernel-2/config-1/2/cpu-1/append-3
          HUNG A!         kernel-2/config-1/2/cpu-2/append-3
          HUNG A!         kernel-2/config-1/2/cpu-3/append-3
          HUNG A!         kernel-2/config-1/2/cpu-4/append-3
          HUNG A!         kernel-2/config-1/3/cpu-1/append-3
          HUNG A!         kernel-2/config-1/3/cpu-2/append-3
          HUNG A!         kernel-2/config-1/3/cpu-3/append-3
          HUNG A!         kernel-2/config-1/3/cpu-4/append-3
          SPLAT B!        kernel-2/config-2/1/cpu-4/append-5
          SPLAT B!        kernel-2/config-2/2/cpu-4/append-5
          SPLAT B!        kernel-2/config-2/3/cpu-4/append-5
          SPLAT B!        kernel-2/config-2/4/cpu-4/append-5
          SPLAT B!        kernel-2/config-2/5/cpu-4/append-5
          SPLAT B!        kernel-3/config-2/4/cpu-4/append-5
          PANIC C!        kernel-4/config-1/1/cpu-1/append-1
          PANIC C!        kernel-4/config-1/1/cpu-1/append-2
          PANIC C!        kernel-4/config-1/1/cpu-1/append-3
          PANIC C!        kernel-4/config-1/1/cpu-1/append-4
          PANIC C!        kernel-4/config-1/1/cpu-1/append-5
          err             kernel-1/config-2/2/cpu-4/append-2
          err             kernel-3/config-1/5/cpu-1/append-3
          err             kernel-3/config-2/4/cpu-1/append-5
          err             kernel-4/config-1/3/cpu-3/append-4
          err             kernel-5/config-2/5/cpu-2/append-1
          and 59 more that are sick, flaky, without an answer or not as expected

          err: no run could be judged; A, B: which bug; !: not as expected

        A  hung-boot in srso_alias_safe_ret
           sick when: kernel of every third and smp >= 2 and append-3
           64 of 64 runs in 64 cells
        B  WARNING: suspicious RCU usage in cpuhp_thread_fun
           11 of 11 runs in 11 cells
        C  Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
           5 of 5 runs in 5 cells

        1000 cells, 915 healthy, 80 sick, 5 without an answer, 80 not as expected, 1000 runs, 74 min 40 s
    "#]],
    );
}

#[test]
fn a_run_that_ended_is_one_line() {
    let mut matrix = samples::mixed();
    let lines = |matrix: &MatrixFile| {
        let said = ["gcc/1/off", "gcc/4/ibpb", "clang/1/off"].map(|name| {
            let cell = matrix.cells.iter().find(|c| c.name.starts_with(name)).unwrap();
            text::line(cell, &cell.runs[1])
        });
        said.join("\n")
    };
    expect![[r#"
        err      gcc/1/off #2 attempt 3  3.4 s  qemu-system-x86_64 was killed by signal 9 while the guest ran
        SPLAT    gcc/4/ibpb #2  3.6 s  WARNING: suspicious RCU usage in cpuhp_thread_fun
        ok       clang/1/off #2  3.7 s"#]].assert_eq(&lines(&matrix));
    for cell in &mut matrix.cells {
        cell.name.push_str("\n\x1b[2J\u{202e}");
        cell.runs.iter_mut().for_each(|r| r.reason = samples::HOSTILE.repeat(20));
    }
    for line in lines(&matrix).lines() {
        assert!(line.chars().count() < 400 && !line.contains(['\x1b', '\u{202e}']), "{line:?}");
    }
}

#[test]
fn hostile_text_does_nothing_in_a_terminal() {
    for unicode in [false, true] {
        for width in [0, 10, 44, 100, 400] {
            let style = Style { colour: false, width, unicode };
            let text = text::table(&samples::hostile(), style);
            let acts =
                |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!text.contains(acts), "{text:?}");
            assert!(text.lines().count() < 400, "{} lines", text.lines().count());
        }
    }
    let painted = text::table(&samples::hostile(), Style { colour: true, ..Style::default() });
    let mut plain = String::new();
    for part in painted.split("\x1b[") {
        // Only kolumbo's own colours are sequences.
        plain.push_str(part.split_once('m').map_or(part, |(code, rest)| {
            if code.chars().all(|c| c.is_ascii_digit() || c == ';') { rest } else { part }
        }));
    }
    assert_eq!(plain, text::table(&samples::hostile(), Style::default()));
}
