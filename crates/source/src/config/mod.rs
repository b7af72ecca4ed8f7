//! A kernel configuration: the lines of a `.config` and what differs between two.
//!
//! Decides which option has which value and below which menu of the file it stands. Bytes in,
//! values out: files are found in [`input`]. Main type: [`Config`].

pub mod boot;
pub mod diff;
pub mod input;
pub mod minimize;
pub mod script;

use std::collections::{HashMap, HashSet};

/// Damaged lines that are told one by one.
const GAPS: usize = 8;

/// Options by name, without `CONFIG_`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    options: HashMap<String, Line>,
    /// The kernel that the heading names, such as `Linux/x86 6.1.192`; may be empty.
    pub kernel: String,
    /// Lines that could not be understood, in plain words.
    pub gaps: Vec<String>,
    menus: Vec<Vec<String>>,
}

/// The last line that an option has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    value: String,
    menu: usize,
}

impl Config {
    /// Reads a `.config`. Line ends may be those of DOS, the last one may be missing; bytes that
    /// are not UTF-8 are replaced. The last line of an option counts, as Kconfig has it.
    pub fn parse(text: &[u8]) -> Config {
        let text = String::from_utf8_lossy(text);
        let lines: Vec<&str> = text.lines().map(|l| l.trim_end_matches('\r')).collect();
        // Menus say where they end, comments do not (conf_write in scripts/kconfig/confdata.c,
        // since v5.5). Without any such line every heading stands alone.
        let menus: HashSet<&str> =
            lines.iter().filter_map(|l| l.strip_prefix("# end of ")).collect();
        let mut config = Config { menus: vec![Vec::new()], ..Config::default() };
        let mut path: Vec<String> = Vec::new();
        let mut damaged = 0;
        for (number, line) in lines.iter().enumerate() {
            if let Some(rest) = line.strip_prefix("CONFIG_") {
                match rest.split_once('=') {
                    Some((name, value)) if is_name(name) => config.put(name, value, number),
                    _ => config.damage(&mut damaged, number, line),
                }
            } else if let Some(rest) = line.strip_prefix("# CONFIG_") {
                match rest.strip_suffix(" is not set") {
                    Some(name) if is_name(name) => config.put(name, "n", number),
                    // A remark of a person about an option.
                    _ => {}
                }
            } else if let Some(title) = line.strip_prefix("# end of ") {
                if let Some(at) = path.iter().rposition(|t| t == title) {
                    path.truncate(at);
                    config.menus.push(path.clone());
                }
            } else if *line == "#"
                && let (Some(title), Some(&"#")) = (lines.get(number + 1), lines.get(number + 2))
                && let Some(title) = title.strip_prefix("# ")
            {
                // The heading of the file has another line above its own.
                if title.ends_with(" Kernel Configuration") {
                    continue;
                }
                while path.last().is_some_and(|t| !menus.contains(t.as_str())) {
                    path.pop();
                }
                path.push(title.to_owned());
                config.menus.push(path.clone());
            } else if config.kernel.is_empty()
                && let Some(title) = line.strip_prefix("# ")
                && let Some(kernel) = title.strip_suffix(" Kernel Configuration")
            {
                config.kernel = kernel.to_owned();
            } else if !line.is_empty() && !line.starts_with('#') {
                config.damage(&mut damaged, number, line);
            }
        }
        if damaged > GAPS {
            config.gaps.push(format!("{} further lines are not understood", damaged - GAPS));
        }
        config
    }

    /// The value as the file writes it, `n` for "is not set".
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(|l| l.value.as_str())
    }

    /// The value of a string option without its quotes and escapes.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.get(name)?.strip_prefix('"')?.strip_suffix('"')?;
        let mut text = String::with_capacity(value.len());
        let mut escaped = false;
        for c in value.chars() {
            if c == '\\' && !escaped {
                escaped = true;
            } else {
                text.push(c);
                escaped = false;
            }
        }
        Some(text)
    }

    /// Titles of the menus above the option, as the comments of the file have them.
    pub fn menu(&self, name: &str) -> &[String] {
        self.options.get(name).map_or(&[], |l| &self.menus[l.menu])
    }

    /// Number of options.
    pub fn len(&self) -> usize {
        self.options.len()
    }

    /// Whether there is no option at all.
    pub fn is_empty(&self) -> bool {
        self.options.is_empty()
    }

    /// Names in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.options.keys().map(String::as_str)
    }

    fn put(&mut self, name: &str, value: &str, number: usize) {
        let line = Line { value: value.to_owned(), menu: self.menus.len() - 1 };
        if let Some(old) = self.options.insert(name.to_owned(), line)
            && old.value != value
            && self.gaps.len() < GAPS
        {
            self.gaps.push(format!(
                "line {}: CONFIG_{name} was {} before; the last line counts",
                number + 1,
                old.value
            ));
        }
    }

    fn damage(&mut self, damaged: &mut usize, number: usize, line: &str) {
        *damaged += 1;
        if *damaged <= GAPS {
            let start: String = line.chars().take(40).collect();
            self.gaps.push(format!("line {} is not understood: {start}", number + 1));
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_menus_are_read() {
        let config = Config::parse(
            b"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.0 Kernel Configuration\n#\n\
              CONFIG_TOP=y\r\n\n#\n# General setup\n#\nCONFIG_A=m\n\n#\n# Inner\n#\nCONFIG_B=\"a \\\"b\\\" \\\\\"\n\
              # end of Inner\n\n#\n# a comment\n#\n# CONFIG_C is not set\n# end of General setup\nCONFIG_D=0x10",
        );
        assert_eq!(config.kernel, "Linux/x86 6.1.0");
        assert_eq!(config.get("TOP"), Some("y"));
        assert_eq!(config.get("C"), Some("n"));
        assert_eq!(config.get("D"), Some("0x10"));
        assert_eq!(config.text("B").as_deref(), Some(r#"a "b" \"#));
        assert_eq!(config.menu("TOP"), [] as [&str; 0]);
        assert_eq!(config.menu("B"), ["General setup", "Inner"]);
        assert_eq!(config.menu("C"), ["General setup", "a comment"]);
        assert_eq!(config.menu("D"), [] as [&str; 0]);
        assert_eq!(config.gaps, [] as [&str; 0]);
    }

    #[test]
    fn old_files_have_flat_headings() {
        let config = Config::parse(b"#\n# One\n#\nCONFIG_A=y\n#\n# Two\n#\nCONFIG_B=y\n");
        assert_eq!(config.menu("A"), ["One"]);
        assert_eq!(config.menu("B"), ["Two"]);
    }

    #[test]
    fn damage_is_a_gap() {
        let config =
            Config::parse(b"CONFIG_A=y\nCONFIG_NO_VALUE\n<<<<<<< HEAD\nCONFIG_A=n\n\xff\n");
        assert_eq!(config.get("A"), Some("n"));
        assert_eq!(config.gaps.len(), 4, "{:?}", config.gaps);
        let many = Config::parse("rubbish\n".repeat(1000).as_bytes());
        assert!(many.gaps.len() < 10 && many.gaps.last().unwrap().starts_with("992"));
    }
}
