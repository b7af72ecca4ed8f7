//! Reads Kconfig files, line by line.
//!
//! Decides what belongs to which entry. The language is documented in
//! Documentation/kbuild/kconfig-language.rst. Files outside the tree are not read, and no file twice
//! from within itself. Main function: [`read`].

use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::expr::{Expr, Term};
use super::{DefaultValue, Kconfig, Prompt};

/// Deepest chain of `source`; the tree's own has less than ten.
const DEEPEST: usize = 64;
/// Files that are read at most; the tree has some 1,800.
const MOST_FILES: usize = 20_000;
/// Largest file that is read.
const LARGEST: u64 = 4 << 20;
/// Gaps that are told one by one.
const GAPS: usize = 16;

/// Why no Kconfig could be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KconfigError {
    /// The tree has no top file.
    #[error("cannot read {path}: name the top folder of a kernel tree with --source")]
    NoTree {
        /// The file that is missing.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Reads the Kconfig files of the tree at `top` for `arch`, the folder below `arch/`.
pub fn read(top: &Path, arch: &str) -> Result<Kconfig, KconfigError> {
    let first = top.join("Kconfig");
    if let Err(source) = std::fs::metadata(&first) {
        return Err(KconfigError::NoTree { path: first, source });
    }
    let mut parser = Parser {
        top,
        arch,
        kconfig: Kconfig::default(),
        scopes: Vec::new(),
        entry: None,
        selects: Vec::new(),
        open: Vec::new(),
        unread: 0,
    };
    parser.file(Path::new("Kconfig"));
    parser.finish_entry();
    let Parser { mut kconfig, selects, unread, .. } = parser;
    for Select { target, by, when } in selects {
        kconfig.options.entry(target).or_default().selected_by.push((by, when));
    }
    if unread > 0 {
        kconfig.gaps.push(format!("{unread} further Kconfig files or lines could not be read"));
    }
    Ok(kconfig)
}

/// What an `if`, a `menu` or a `choice` puts around the entries in it.
enum Scope {
    If(Expr),
    Menu { title: String, when: Vec<Expr> },
    Choice { when: Vec<Expr> },
}

/// The entry that attributes belong to.
enum Entry {
    Symbol(Box<Open>),
    /// The innermost scope: a menu or a choice.
    Scope,
    /// A comment or `mainmenu`.
    Nothing,
}

#[derive(Default)]
struct Open {
    name: String,
    prompts: Vec<(String, Expr)>,
    depends: Vec<Expr>,
    defaults: Vec<DefaultValue>,
    selects: Vec<(String, Expr)>,
}

struct Select {
    target: String,
    by: String,
    when: Expr,
}

struct Parser<'a> {
    top: &'a Path,
    arch: &'a str,
    kconfig: Kconfig,
    scopes: Vec<Scope>,
    entry: Option<Entry>,
    selects: Vec<Select>,
    /// Files that are being read, from the top.
    open: Vec<PathBuf>,
    unread: usize,
}

impl Parser<'_> {
    fn gap(&mut self, text: String) {
        if self.kconfig.gaps.len() < GAPS {
            self.kconfig.gaps.push(text);
        } else {
            self.unread += 1;
        }
    }

    fn file(&mut self, path: &Path) {
        let again = self.open.iter().any(|p| p == path);
        if again || self.open.len() >= DEEPEST || self.kconfig.files.len() >= MOST_FILES {
            self.gap(format!("{}: sourced from within itself or too deep", path.display()));
            return;
        }
        // A tree from elsewhere may not lead us out of it.
        if path.components().any(|c| !matches!(c, Component::Normal(_))) {
            self.gap(format!("{}: outside the tree, not read", path.display()));
            return;
        }
        let whole = self.top.join(path);
        let size = std::fs::metadata(&whole).map(|m| if m.is_file() { m.len() } else { u64::MAX });
        let text = match size {
            Ok(size) if size <= LARGEST => std::fs::read(&whole),
            Ok(_) => Err(std::io::Error::other("no file, or a very large one")),
            Err(e) => Err(e),
        };
        let text = match text {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) => return self.gap(format!("{}: {e}", path.display())),
        };
        self.kconfig.files.push(path.to_owned());
        self.open.push(path.to_owned());
        let scopes = self.scopes.len();
        self.lines(&text);
        self.finish_entry();
        // A menu ends in the file that it began in.
        self.scopes.truncate(scopes);
        self.open.pop();
    }

    fn lines(&mut self, text: &str) {
        let mut lines = text.lines();
        // The indentation of a help text, once its first line was seen.
        let mut help: Option<Option<usize>> = None;
        while let Some(line) = lines.next() {
            if let Some(indent) = help {
                let here = indentation(line);
                if line.trim().is_empty() {
                    continue;
                }
                match indent {
                    None if here > 0 => {
                        help = Some(Some(here));
                        continue;
                    }
                    Some(least) if here >= least => continue,
                    _ => help = None,
                }
            }
            let mut joined = line.to_owned();
            while joined.ends_with('\\') {
                joined.pop();
                joined.push_str(lines.next().unwrap_or(""));
            }
            let statement = without_comment(&joined).trim();
            if statement.is_empty() {
                continue;
            }
            let (word, rest) = split_word(statement);
            if word == "help" || word == "---help---" {
                help = Some(None);
            } else {
                self.statement(word, rest, statement);
            }
        }
    }

    fn statement(&mut self, word: &str, rest: &str, whole: &str) {
        match word {
            "config" | "menuconfig" => {
                self.finish_entry();
                let open = Open { name: rest.to_owned(), ..Open::default() };
                self.entry = Some(Entry::Symbol(Box::new(open)));
            }
            "source" | "rsource" | "osource" | "orsource" => {
                self.finish_entry();
                self.source(rest, word.contains("rs"));
            }
            "menu" => {
                self.finish_entry();
                self.scopes.push(Scope::Menu { title: unquoted(rest), when: Vec::new() });
                self.entry = Some(Entry::Scope);
            }
            "choice" => {
                self.finish_entry();
                self.scopes.push(Scope::Choice { when: Vec::new() });
                self.entry = Some(Entry::Scope);
            }
            "if" => {
                self.finish_entry();
                self.scopes.push(Scope::If(Expr::parse(rest)));
            }
            "endif" | "endmenu" | "endchoice" => {
                self.finish_entry();
                self.scopes.pop();
            }
            "comment" | "mainmenu" => {
                self.finish_entry();
                self.entry = Some(Entry::Nothing);
            }
            "depends" => {
                let when = Expr::parse(rest.strip_prefix("on").unwrap_or(rest).trim());
                self.depends(when);
            }
            _ => self.attribute(word, rest, whole),
        }
    }

    fn attribute(&mut self, word: &str, rest: &str, whole: &str) {
        let Some(Entry::Symbol(open)) = &mut self.entry else { return };
        match word {
            "bool" | "boolean" | "tristate" | "string" | "hex" | "int" | "prompt" => {
                if !rest.is_empty() {
                    let (text, when) = conditional(rest);
                    open.prompts.push((unquoted(text), when));
                }
            }
            "def_bool" | "def_tristate" | "default" => {
                let (value, when) = conditional(rest);
                open.defaults.push(DefaultValue { value: Expr::parse(value), when });
            }
            "select" => {
                let (target, when) = conditional(rest);
                open.selects.push((target.to_owned(), when));
            }
            "imply" | "range" | "option" | "visible" | "modules" | "optional" | "transitional"
            | "allnoconfig_y" => {}
            // Assignments of variables and macros.
            _ if whole.contains('=') => {}
            _ => {
                let file = self.open.last().map(|p| p.display().to_string()).unwrap_or_default();
                let start: String = whole.chars().take(60).collect();
                self.gap(format!("{file}: not understood: {start}"));
            }
        }
    }

    fn depends(&mut self, expr: Expr) {
        match &mut self.entry {
            Some(Entry::Symbol(open)) => open.depends.push(expr),
            Some(Entry::Scope) => {
                if let Some(Scope::Menu { when, .. } | Scope::Choice { when }) =
                    self.scopes.last_mut()
                {
                    when.push(expr);
                }
            }
            Some(Entry::Nothing) | None => {}
        }
    }

    fn finish_entry(&mut self) {
        let Some(Entry::Symbol(open)) = self.entry.take() else { return };
        let mut all: Vec<Expr> = Vec::new();
        let mut menu = Vec::new();
        let mut in_choice = false;
        for scope in &self.scopes {
            match scope {
                Scope::If(expr) => all.push(expr.clone()),
                Scope::Menu { title, when } => {
                    menu.push(title.clone());
                    all.extend(when.iter().cloned());
                }
                Scope::Choice { when } => {
                    in_choice = true;
                    all.extend(when.iter().cloned());
                }
            }
        }
        all.extend(open.depends);
        for (target, when) in open.selects {
            self.selects.push(Select { target, by: open.name.clone(), when });
        }
        let symbol = self.kconfig.options.entry(open.name).or_default();
        if symbol.depends.is_empty() {
            symbol.menu = menu;
        }
        symbol.in_choice |= in_choice;
        symbol.prompts.extend(open.prompts.into_iter().map(|(text, when)| Prompt { text, when }));
        symbol.defaults.extend(open.defaults);
        symbol.depends.push(Expr::And(all));
    }

    fn source(&mut self, rest: &str, relative: bool) {
        let named = unquoted(rest);
        let named = named.replace("$(SRCARCH)", self.arch).replace("$SRCARCH", self.arch);
        // User mode Linux has headers of another architecture.
        let named = named.replace("$(HEADER_ARCH)", self.arch);
        let path = if relative {
            let folder = self.open.last().and_then(|p| p.parent()).unwrap_or(Path::new(""));
            folder.join(&named)
        } else {
            PathBuf::from(&named)
        };
        self.file(&path);
    }
}

/// `VALUE if CONDITION`; without a condition it always holds.
fn conditional(text: &str) -> (&str, Expr) {
    let always = || Expr::Term(Term::Constant("y".to_owned()));
    let mut quote = None;
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('(', None) => depth += 1,
            (')', None) => depth = depth.saturating_sub(1),
            ('i', None) if depth == 0 => {
                let word = text[at..].starts_with("if")
                    && text[..at].ends_with([' ', '\t', '"', ')'])
                    && text[at + 2..].starts_with([' ', '\t', '(', '!']);
                if word {
                    return (text[..at].trim(), Expr::parse(&text[at + 2..]));
                }
            }
            _ => {}
        }
    }
    (text.trim(), always())
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inner = ['"', '\'']
        .iter()
        .find_map(|&q| text.strip_prefix(q).map(|t| t.strip_suffix(q).unwrap_or(t)));
    inner.unwrap_or(text).replace("\\\"", "\"")
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('#', None) => return &line[..at],
            _ => {}
        }
    }
    line
}

fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start())
}

/// Columns before the first letter, with tabs of eight.
fn indentation(line: &str) -> usize {
    let mut columns = 0;
    for c in line.chars() {
        match c {
            ' ' => columns += 1,
            '\t' => columns = columns / 8 * 8 + 8,
            _ => break,
        }
    }
    columns
}

/// The folder below `arch/` that the heading of a configuration means, `Linux/x86 6.1.0`.
pub fn arch_of(kernel: &str) -> &str {
    let name = kernel.strip_prefix("Linux/").and_then(|r| r.split(' ').next()).unwrap_or("x86");
    match name {
        "x86_64" | "i386" => "x86",
        "sparc64" | "sparc32" => "sparc",
        "sh64" => "sh",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Kconfig) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let kconfig = read(dir.path(), "x86").unwrap();
        (dir, kconfig)
    }

    #[test]
    fn entries_menus_and_conditions() {
        let (_dir, kconfig) = tree(&[
            (
                "Kconfig",
                "mainmenu \"Linux/$(ARCH) $(KERNELVERSION) Kernel Configuration\"\n\
                 source \"arch/$(SRCARCH)/Kconfig\"\n",
            ),
            (
                "arch/x86/Kconfig",
                "config 64BIT\n\tbool \"64-bit kernel\" if \"$(ARCH)\" = \"x86\"\n\tdefault \"$(ARCH)\" != \"i386\"\n\
                 \thelp\n\t  config FAKE is only text here.\n\n\t  select NOTHING\n\
                 menu \"Processor type\"\n\tdepends on 64BIT\n\
                 config SMP # several\n\tbool \"Symmetric multi-processing support\"\n\tselect IRQ_WORK if \\\n\t  64BIT\n\
                 if SMP\nchoice\n\tprompt \"Count\"\n\tdepends on !TINY\nconfig MAXSMP\n\tbool \"if #1\"\nendchoice\nendif\n\
                 endmenu\n\
                 config AS_TPAUSE\n\tdef_bool $(as-instr,tpause %ecx # if) if 64BIT\n",
            ),
        ]);
        assert_eq!(kconfig.gaps, [] as [&str; 0]);
        assert!(kconfig.get("FAKE").is_none() && kconfig.get("NOTHING").is_none());
        let smp = kconfig.get("SMP").unwrap();
        assert_eq!(smp.menu, ["Processor type"]);
        assert_eq!(smp.prompts[0].text, "Symmetric multi-processing support");
        assert_eq!(kconfig.get("IRQ_WORK").unwrap().selected_by[0].0, "SMP");
        let max = kconfig.get("MAXSMP").unwrap();
        assert!(max.in_choice);
        assert_eq!(max.prompts[0].text, "if #1");
        let mut named = Vec::new();
        max.depends[0].symbols(&mut |s| named.push(s));
        assert_eq!(named, ["64BIT", "SMP", "TINY"]);
        assert_eq!(kconfig.get("AS_TPAUSE").unwrap().defaults.len(), 1);
    }

    #[test]
    fn a_hostile_tree_is_not_followed() {
        let (_dir, kconfig) = tree(&[(
            "Kconfig",
            "source \"Kconfig\"\nsource \"../../etc/passwd\"\nsource \"/etc/passwd\"\nsource \"none\"\nconfig A\n",
        )]);
        assert_eq!(kconfig.gaps.len(), 4, "{:?}", kconfig.gaps);
        assert!(kconfig.get("A").is_some());
        assert!(matches!(read(Path::new("/nonexistent"), "x86"), Err(KconfigError::NoTree { .. })));
    }
}
