//! The HTML page of a matrix: one file, nothing from elsewhere, nothing that a guest could start.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test starts a browser, and says why it was skipped"
)]

mod samples;

use std::process::Command;

use kolumbo_case::matrix::MatrixFile;
use kolumbo_report::matrix::{Details, NoDetails, html};
use samples::{Folders, HOSTILE, HostileFolders};

fn page(matrix: &MatrixFile, details: &dyn Details) -> String {
    let mut out = Vec::new();
    html::write(matrix, details, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What stands in each `<script>` element, with its attributes.
fn scripts(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for part in page.split("<script").skip(1) {
        let (attributes, rest) = part.split_once('>').unwrap();
        found.push((attributes.trim(), rest.split_once("</script>").unwrap().0));
    }
    found
}

#[test]
fn data_blocks_hold_what_the_matrix_says() {
    let matrix = samples::mixed();
    let page = page(&matrix, &Folders { matrix: &matrix, console: 10_000 });
    type Blocks<'a> = Vec<(&'a str, &'a str)>;
    let (code, data): (Blocks<'_>, Blocks<'_>) =
        scripts(&page).into_iter().partition(|(a, _)| a.is_empty());
    assert_eq!(code.len(), 1, "one script");
    let table: serde_json::Value = serde_json::from_str(data[0].1).unwrap();
    assert_eq!(table["cells"].as_array().unwrap().len(), 18);
    assert_eq!(table["bugs"][0]["letter"], "A");
    assert_eq!(table["bugs"][0]["sentence"], "sick when: clang and smp ≥ 2 and safe-ret");
    // Both flaky cells have a sick run and a healthy one to compare with; the pending cell nothing.
    assert_eq!(data.len() - 1, 19);
    let cell = matrix.cells.iter().position(|c| c.name == "clang/2/safe-ret").unwrap();
    let sick = matrix.cells[cell].runs.iter().position(|r| r.bug.is_some()).unwrap();
    let id = format!("id=\"d{cell}-{sick}\"");
    let (_, block) = data.iter().find(|(a, _)| a.contains(&id)).expect("the sick run");
    let block: serde_json::Value = serde_json::from_str(block).unwrap();
    assert!(block["console"].as_str().unwrap().starts_with("^[[2J^[[01;01HSeaBIOS"));
    assert!(block["explanation"].as_str().unwrap().contains("K0101"));
    assert_eq!(block["evidence"][1]["instruction"], "call   0xffffffff81e00f50");
}

#[test]
fn nothing_breaks_out_of_the_page() {
    let matrix = samples::hostile();
    let page = page(&matrix, &HostileFolders);
    for c in page.chars() {
        let acts = (c.is_control() && c != '\n')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!acts, "{c:?} is left");
    }
    for (attributes, text) in scripts(&page) {
        if !attributes.is_empty() {
            assert!(attributes.starts_with("type=\"application/json\" id=\""), "{attributes}");
            assert!(!text.contains(['<', '>', '&']));
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
    }
    // Outside of the scripts and the style the only tags are kolumbo's own.
    let mut rest = page.as_str();
    let mut markup = String::new();
    while let Some(at) = rest.find("<script") {
        markup.push_str(&rest[..at]);
        rest = rest[at..].split_once("</script>").unwrap().1;
    }
    markup.push_str(rest);
    let (before, style) = markup.split_once("<style>").unwrap();
    let markup = format!("{before}{}", style.split_once("</style>").unwrap().1);
    let own = [
        "!doctype", "html", "head", "meta", "title", "body", "header", "h1", "h2", "ul", "li",
        "ol", "b", "div", "p", "main", "section", "noscript", "footer", "aside",
    ];
    for tag in markup.split('<').skip(1) {
        let name = tag.trim_start_matches('/').split([' ', '>', '\n']).next().unwrap();
        assert!(own.contains(&name), "<{tag}");
    }
    assert!(markup.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert!(!markup.contains(HOSTILE));
}

#[test]
fn the_policy_allows_this_script_and_this_style_only() {
    let page = page(&samples::planted(), &NoDetails);
    let policy = page.split("Content-Security-Policy\" content=\"").nth(1).unwrap();
    let policy = policy.split('"').next().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert!(policy.contains("base-uri 'none'; form-action 'none'"), "{policy}");
    // Nothing is fetched, and no text of a guest becomes markup.
    for word in ["src=\"", "@import", "url(", "innerHTML", "insertAdjacent", "eval(", "fetch("] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn the_page_stays_bounded() {
    let matrix = samples::large(2_000);
    let folders = Folders { matrix: &matrix, console: 60_000 };
    let text = page(&matrix, &folders);
    let data: usize = scripts(&text)
        .iter()
        .filter(|(a, _)| a.contains("id=\"d"))
        .map(|(_, block)| block.len())
        .sum();
    assert!(data > html::HEALTHY && data <= html::EMBEDDED, "{data} bytes of details");
    assert!(text.contains("did not fit"), "the page says what was left out");
    // Every kind of failure has a proof.
    let blocks: String = scripts(&text)
        .iter()
        .filter(|(a, _)| a.contains("id=\"d"))
        .map(|(_, block)| *block)
        .collect();
    assert!(blocks.contains("K0101"));
    // Without folders a large table is a small file.
    let large = samples::large(10_000);
    let text = page(&large, &NoDetails);
    assert!(text.len() < large.cells.len() * 600, "{} bytes", text.len());
    assert!(text.trim_end().ends_with("</html>"));
}

/// What the browser made of a page; none without a browser.
fn dom(matrix: &MatrixFile, details: &dyn Details, fragment: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("matrix.html");
    std::fs::write(&file, page(matrix, details)).unwrap();
    let out = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000"])
        .arg("--enable-logging=stderr")
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .args(["--dump-dom", &format!("file://{}{fragment}", file.display())])
        .output();
    match out {
        Ok(out) if out.status.success() => {
            let log = String::from_utf8_lossy(&out.stderr);
            for word in ["Uncaught", "Refused", "Content Security Policy"] {
                assert!(!log.contains(word), "{log}");
            }
            Some(String::from_utf8_lossy(&out.stdout).into_owned())
        }
        other => {
            assert!(
                std::env::var_os("KOLUMBO_REQUIRE_ALL").is_none_or(|v| v != "1"),
                "KOLUMBO_REQUIRE_ALL=1 is set, and chromium did not run: {other:?}"
            );
            eprintln!("skipped: the page was not opened, chromium did not run");
            None
        }
    }
}

#[test]
fn a_browser_shows_cells_and_an_open_cell() {
    let matrix = samples::mixed();
    let folders = Folders { matrix: &matrix, console: 10_000 };
    let Some(dom) = dom(&matrix, &folders, "#c13") else { return };
    assert_eq!(dom.matches("role=\"gridcell\"").count(), 18);
    assert!(dom.contains("kernel clang, smp 2, append safe-ret: flaky 4/10, 4 of 10 runs sick"));
    let panel = dom.split("<aside").nth(1).unwrap().split("</aside>").next().unwrap();
    for text in [
        "<h2 id=\"panel-title\" tabindex=\"-1\">clang/2/safe-ret</h2>",
        "K0101 contract broken",
        "srso_alias_safe_ret+0xb/0x40",
        "smp: Bringing up secondary CPUs",
        ">clang/4/safe-ret</a>",
    ] {
        assert!(panel.contains(text), "{text}");
    }
}

#[test]
fn a_browser_runs_nothing_of_a_guest() {
    let matrix = samples::hostile();
    let Some(dom) = dom(&matrix, &HostileFolders, "#c13") else { return };
    assert_eq!(dom.matches("<script>").count(), 1, "kolumbo's own script and data blocks only");
    assert!(!dom.contains("<img"));
    assert_eq!(dom.matches("<aside").count(), 1);
    assert!(dom.contains("role=\"gridcell\""), "the script ran to its end");
}

#[test]
fn of_a_large_table_only_a_part_is_in_the_document() {
    let matrix = samples::large(10_000);
    let Some(dom) = dom(&matrix, &NoDetails, "") else { return };
    let cells = dom.matches("role=\"gridcell\"").count();
    assert!((100..4_000).contains(&cells), "{cells} cells in the document");
    assert!(dom.contains("aria-rowcount=\"100\"") && dom.contains("aria-colcount=\"100\""));
}

#[test]
fn a_browser_shows_tables_of_odd_shapes() {
    let one = |axes: usize| {
        let mut maker = samples::Maker::small(2);
        maker.axes.truncate(axes);
        maker.make(|at, _| match at.first() {
            Some(1) => samples::Fate::Sick(2),
            _ => samples::Fate::Healthy,
        })
    };
    let mut holes = one(3);
    holes.cells.retain(|c| c.at[1] != c.at[2]);
    for (matrix, fragment, cells) in [
        (MatrixFile::default(), "#c0", 0),
        (one(1), "#c1", 2),
        (one(2), "#c99", 6),
        (holes, "#c3", 12),
    ] {
        let Some(dom) = dom(&matrix, &NoDetails, fragment) else { return };
        assert_eq!(dom.matches("role=\"gridcell\"").count(), cells);
        assert_eq!(dom.contains("id=\"panel-title\""), fragment != "#c99" && cells > 0);
        assert_eq!(dom.matches("tabindex=\"0\" data-r=").count(), cells.min(1), "one stop for Tab");
    }
}
