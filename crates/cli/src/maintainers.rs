//! Who gets the mail: the kernel tree's own `scripts/get_maintainer.pl` says.

use std::path::Path;
use std::process::{Command, Stdio};

use kolumbo_case::Explanation;

/// Addresses for the source files that the innermost known frames lie in. Empty when the script is
/// missing or fails: a mail without recipients is still a mail.
pub(crate) fn of(tree: &Path, explanation: &Explanation) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for state in &explanation.states {
        let code = state.code.iter().filter(|l| l.trap).flat_map(|l| &l.source);
        for source in code.chain(state.frames.iter().filter(|f| f.reliable).flat_map(|f| &f.source))
        {
            if let Some(file) = file_in(tree, source)
                && !files.contains(&file)
                // Whoever looks after the entry of system calls is in every trace.
                && (files.is_empty() || !file.starts_with("arch/x86/entry/"))
            {
                files.push(file);
            }
        }
    }
    // The trap and its callers; further out lie the generic dispatchers.
    files.truncate(2);
    if files.is_empty() {
        return Vec::new();
    }
    let output = Command::new("perl")
        .arg("scripts/get_maintainer.pl")
        .args(["--no-rolestats", "--no-git-fallback", "-f"])
        .args(&files)
        .current_dir(tree)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::trim)
            .filter(|l| l.contains('@'))
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// The path of `function (file:line)` relative to the tree. Builds write absolute paths, so leading
/// folders are dropped until the tree has the file.
pub(crate) fn file_in(tree: &Path, source: &str) -> Option<String> {
    let inside = source.rsplit_once('(').map_or(source, |(_, place)| place.trim_end_matches(')'));
    let path = inside.rsplit_once(':').map_or(inside, |(path, _)| path);
    let parts: Vec<&str> =
        path.split('/').filter(|p| !p.is_empty() && *p != "." && *p != "..").collect();
    (0..parts.len())
        .map(|from| parts[from..].join("/"))
        .find(|candidate| tree.join(candidate).is_file())
}
