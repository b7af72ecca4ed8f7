//! `case.toml`: text in, [`Recipe`] out (docs/casebook.md has the schema).
//!
//! Every error has file, line and column, an unknown key included. Opens nothing.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use kolumbo_case::{FindingCode, VerdictKind};
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::recipe::{
    AxisWanted, Built, Expect, ImageEdit, KernelWanted, Proof, Recipe, SourceEdit, SourceWanted,
    Step, Vulnerability, When, is_of_kernels,
};

/// What is wrong with a case, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct CaseError {
    /// `FILE:LINE:COLUMN`.
    pub place: String,
    /// What is wrong and what to do.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    title: Spanned<String>,
    #[serde(default)]
    story: String,
    source: Option<Spanned<Source>>,
    #[serde(default)]
    edit: Vec<Spanned<Edit>>,
    #[serde(default)]
    kernel: Vec<Spanned<Kernel>>,
    #[serde(default)]
    base: toml::map::Map<String, Value>,
    #[serde(default)]
    axis: Vec<Spanned<Axis>>,
    #[serde(default)]
    exclude: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    expect: Vec<Spanned<ExpectEntry>>,
    #[serde(default)]
    vulnerability: Vec<Spanned<VulnerabilityEntry>>,
    #[serde(default)]
    proof: Vec<Spanned<ProofEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    debian: Option<String>,
    folder: Option<PathBuf>,
    git: Option<String>,
    tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    name: String,
    file: Spanned<PathBuf>,
    find: Spanned<String>,
    replace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Kernel {
    name: Spanned<String>,
    #[serde(default)]
    about: String,
    toolchain: Option<String>,
    #[serde(default)]
    config: Vec<String>,
    edits: Option<Spanned<Vec<String>>>,
    targets: Option<Vec<String>>,
    from: Option<Spanned<String>>,
    #[serde(default)]
    image_edit: Vec<Spanned<ImageEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageEntry {
    find: Spanned<String>,
    replace: Spanned<String>,
    #[serde(default = "one")]
    hits: usize,
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Axis {
    name: String,
    values: Spanned<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectEntry {
    #[serde(default)]
    when: toml::Table,
    verdict: Spanned<Value>,
    #[serde(default)]
    title: String,
    findings: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VulnerabilityEntry {
    #[serde(default)]
    when: toml::Table,
    file: Spanned<String>,
    says: String,
}

#[derive(Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
enum ProofEntry {
    Explain {
        kernel: String,
        finding: String,
        subject: String,
        suspect: String,
        #[serde(default)]
        names: String,
        #[serde(default, rename = "looks-like")]
        looks_like: String,
    },
    Check {
        kernel: String,
        culprits: Vec<String>,
    },
    Testcase {
        kernel: String,
        culprit: String,
        #[serde(default)]
        contains: Vec<String>,
    },
    Emulation {
        kernel: String,
        differs: bool,
        cpu: Option<String>,
        #[serde(default)]
        append: Vec<String>,
    },
    Prove {
        kernel: String,
        register: String,
        #[serde(default = "yes")]
        broken: bool,
        #[serde(default)]
        becomes: String,
        call: Option<String>,
    },
}

fn yes() -> bool {
    true
}

/// Keys of `[base]`, as in a matrix file. `qemu-opts` is for all boots.
const BASE_KEYS: &[&str] = &[
    "smp",
    "memory",
    "append",
    "cpu",
    "machine",
    "accel",
    "initramfs",
    "module",
    "exec",
    "timeout",
    "host-kernel",
    "host-smp",
    "host-memory",
    "host-append",
    "host-module",
    "qemu-opts",
];

/// Reads the text of `name`, which is only used to say where an error is.
pub fn parse(name: &str, text: &str) -> Result<Recipe, CaseError> {
    let places = Places { name, text };
    let schema: Schema = toml::from_str(text).map_err(|e| CaseError {
        place: e.span().map_or_else(|| name.to_owned(), |span| places.of(span)),
        reason: e.message().to_owned(),
    })?;
    if schema.title.get_ref().trim().is_empty() {
        return Err(places.wrong(schema.title.span(), "a case has a title".to_owned()));
    }
    let source = match &schema.source {
        Some(source) => places.source(source)?,
        None => SourceWanted { place: name.to_owned(), ..SourceWanted::default() },
    };
    let edits = schema.edit.iter().map(|e| places.edit(e)).collect::<Result<Vec<_>, _>>()?;
    let mut kernels: Vec<KernelWanted> = Vec::new();
    for entry in &schema.kernel {
        let kernel = places.kernel(entry, &edits, &kernels)?;
        kernels.push(kernel);
    }
    if kernels.is_empty() {
        return Err(CaseError {
            place: name.to_owned(),
            reason: "there is no [[kernel]] to build".to_owned(),
        });
    }
    let known = |kernel: &String| kernels.iter().any(|k| k.name == *kernel);
    let mut axes =
        schema.axis.iter().map(|a| places.axis(a.get_ref())).collect::<Result<Vec<_>, _>>()?;
    for axis in axes.iter().filter(|a| is_of_kernels(&a.name)) {
        if let Some((_, value)) = axis.values.iter().find(|(_, v)| !known(v)) {
            return Err(CaseError {
                place: axis.place.clone(),
                reason: format!("there is no [[kernel]] called '{value}'"),
            });
        }
    }
    if !axes.iter().any(|a| a.name == "kernel") {
        let values = kernels.iter().map(|k| (k.name.clone(), k.name.clone())).collect();
        let place = name.to_owned();
        axes.insert(0, AxisWanted { name: "kernel".to_owned(), values, place });
    }
    let mut proofs = Vec::new();
    for entry in &schema.proof {
        let proof = places.proof(entry)?;
        if !known(&proof.kernel) {
            let reason = format!("there is no [[kernel]] called '{}'", proof.kernel);
            return Err(CaseError { place: proof.place, reason });
        }
        proofs.push(proof);
    }
    let patterns = |list: &[Spanned<toml::Table>]| {
        list.iter()
            .map(|p| places.when(p.span(), p.get_ref(), &axes))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Recipe {
        exclude: patterns(&schema.exclude)?,
        expect: schema
            .expect
            .iter()
            .map(|e| places.expect(e, &axes))
            .collect::<Result<Vec<_>, _>>()?,
        vulnerabilities: schema
            .vulnerability
            .iter()
            .map(|v| places.vulnerability(v, &axes))
            .collect::<Result<Vec<_>, _>>()?,
        title: schema.title.into_inner(),
        story: schema.story.trim().to_owned(),
        source,
        edits,
        kernels,
        base: places.base(&schema.base)?,
        axes,
        proofs,
    })
}

/// Where things stand in the file.
struct Places<'a> {
    name: &'a str,
    text: &'a str,
}

impl Places<'_> {
    /// `FILE:LINE:COLUMN`, both from 1, columns in characters.
    fn of(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    fn wrong(&self, span: Range<usize>, reason: String) -> CaseError {
        CaseError { place: self.of(span), reason }
    }

    fn source(&self, source: &Spanned<Source>) -> Result<SourceWanted, CaseError> {
        let place = self.of(source.span());
        let Source { debian, folder, git, tag } = source.get_ref();
        let named = [debian.is_some(), folder.is_some(), git.is_some()];
        if named.iter().filter(|n| **n).count() != 1 || git.is_some() != tag.is_some() {
            let reason = "the source is one of debian = \"PACKAGE\", folder = \"DIR\", or git = \"REPOSITORY\" \
                          with tag = \"TAG\"";
            return Err(CaseError { place, reason: reason.to_owned() });
        }
        // The name becomes an argument of apt-get and part of paths.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        if let Some(package) =
            debian.as_ref().filter(|p| !p.starts_with("linux-") || !p.chars().all(plain))
        {
            let reason = format!("'{package}' is no name of a Debian package of Linux' source");
            return Err(CaseError { place, reason });
        }
        let git = git.clone().zip(tag.clone());
        Ok(SourceWanted { debian: debian.clone(), folder: folder.clone(), git, place })
    }

    fn edit(&self, entry: &Spanned<Edit>) -> Result<SourceEdit, CaseError> {
        let edit = entry.get_ref();
        let file = edit.file.get_ref();
        if file.as_os_str().is_empty() || !is_below(file) {
            let reason = format!("'{}' is no path below the tree", file.display());
            return Err(self.wrong(edit.file.span(), reason));
        }
        if edit.find.get_ref().is_empty() {
            return Err(self.wrong(edit.find.span(), "there is no text to find".to_owned()));
        }
        Ok(SourceEdit {
            name: edit.name.clone(),
            file: file.clone(),
            find: edit.find.get_ref().clone(),
            replace: edit.replace.clone(),
            place: self.of(entry.span()),
        })
    }

    fn kernel(
        &self,
        entry: &Spanned<Kernel>,
        edits: &[SourceEdit],
        before: &[KernelWanted],
    ) -> Result<KernelWanted, CaseError> {
        let kernel = entry.get_ref();
        let name = kernel.name.get_ref();
        let wrong = |reason: String| self.wrong(kernel.name.span(), reason);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            return Err(wrong(
                "the name of a kernel has letters, digits, '-', '_' and '.'".to_owned(),
            ));
        }
        if before.iter().any(|k| k.name == *name) {
            return Err(wrong(format!("there are two kernels called '{name}'")));
        }
        let names = kernel.edits.as_ref().map(|e| e.get_ref().clone()).unwrap_or_default();
        if let Some(missing) = names.iter().find(|n| !edits.iter().any(|e| e.name == **n)) {
            return Err(self.wrong(
                kernel.edits.as_ref().map_or_else(|| entry.span(), Spanned::span),
                format!("there is no [[edit]] called '{missing}'"),
            ));
        }
        let image_edits =
            kernel.image_edit.iter().map(|e| self.image_edit(e)).collect::<Result<Vec<_>, _>>()?;
        let built = match (&kernel.toolchain, &kernel.from) {
            (Some(toolchain), None) => Some(Built {
                toolchain: toolchain.clone(),
                config: kernel.config.clone(),
                edits: names,
                targets: kernel.targets.clone().unwrap_or_else(|| vec!["bzImage".to_owned()]),
            }),
            (None, Some(from)) => {
                if !before.iter().any(|k| k.name == *from.get_ref()) {
                    return Err(self.wrong(
                        from.span(),
                        format!(
                            "there is no [[kernel]] called '{}' before this one",
                            from.get_ref()
                        ),
                    ));
                }
                if image_edits.is_empty() || !names.is_empty() || !kernel.config.is_empty() {
                    return Err(wrong(
                        "a kernel made from another one has [[kernel.image-edit]] and nothing to build"
                            .to_owned(),
                    ));
                }
                None
            }
            _ => {
                return Err(wrong(
                    "a kernel has either a toolchain to be built with, or from = \"KERNEL\""
                        .to_owned(),
                ));
            }
        };
        if built.is_some() && !image_edits.is_empty() {
            return Err(wrong(
                "images are edited in a kernel of their own, with from = \"KERNEL\"".to_owned(),
            ));
        }
        Ok(KernelWanted {
            name: name.clone(),
            about: kernel.about.clone(),
            built,
            from: kernel.from.as_ref().map(|f| f.get_ref().clone()),
            image_edits,
            place: self.of(entry.span()),
        })
    }

    fn image_edit(&self, entry: &Spanned<ImageEntry>) -> Result<ImageEdit, CaseError> {
        let edit = entry.get_ref();
        let find = self.hex(&edit.find)?;
        let replace = self.hex(&edit.replace)?;
        if find.is_empty() || find.len() != replace.len() {
            return Err(self.wrong(
                edit.replace.span(),
                "as many bytes are put there as are looked for, and at least one".to_owned(),
            ));
        }
        Ok(ImageEdit { find, replace, hits: edit.hits, place: self.of(entry.span()) })
    }

    fn hex(&self, text: &Spanned<String>) -> Result<Vec<u8>, CaseError> {
        let digits: Option<Vec<u8>> = text
            .get_ref()
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect();
        let pairs = digits.filter(|d| d.len() % 2 == 0).ok_or_else(|| {
            self.wrong(text.span(), "bytes are pairs of hexadecimal digits".to_owned())
        })?;
        Ok(pairs.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
    }

    fn base(
        &self,
        table: &toml::map::Map<String, Value>,
    ) -> Result<Vec<(String, Vec<String>)>, CaseError> {
        let place = || {
            let start = self.text.find("[base]").unwrap_or(0);
            start..start
        };
        table
            .iter()
            .map(|(key, value)| {
                if !BASE_KEYS.contains(&key.as_str()) {
                    let reason =
                        format!("unknown key '{key}'; [base] has {}", BASE_KEYS.join(", "));
                    return Err(self.wrong(self.key_in_base(key).unwrap_or_else(place), reason));
                }
                Ok((key.clone(), self.scalars(place(), value)?))
            })
            .collect()
    }

    /// Where a key of `[base]` stands.
    fn key_in_base(&self, key: &str) -> Option<Range<usize>> {
        let start = self.text.find("[base]")?;
        let mut at = start;
        for line in self.text[start..].split_inclusive('\n') {
            if line.trim_start().starts_with(key) {
                return Some(at..at + key.len());
            }
            at += line.len();
        }
        None
    }

    fn scalar(&self, span: Range<usize>, value: &Value) -> Result<String, CaseError> {
        match value {
            Value::String(s) => Ok(s.clone()),
            Value::Integer(n) => Ok(n.to_string()),
            Value::Float(n) => Ok(n.to_string()),
            other => Err(self.wrong(
                span,
                format!("a text or a number was expected here, not {}", other.type_str()),
            )),
        }
    }

    fn scalars(&self, span: Range<usize>, value: &Value) -> Result<Vec<String>, CaseError> {
        match value {
            Value::Array(list) => list.iter().map(|v| self.scalar(span.clone(), v)).collect(),
            single => Ok(vec![self.scalar(span, single)?]),
        }
    }

    /// Values as a list, or as `{ label = "value" }`, or as a list of `{ label = ..., value = ... }`.
    fn axis(&self, axis: &Axis) -> Result<AxisWanted, CaseError> {
        let span = axis.values.span();
        let wrong = || {
            self.wrong(
                span.clone(),
                "an axis has a list of values or a table of labels and values".to_owned(),
            )
        };
        let values = match axis.values.get_ref() {
            Value::Table(table) => table
                .iter()
                .map(|(label, v)| Ok((label.clone(), self.scalar(span.clone(), v)?)))
                .collect::<Result<Vec<_>, CaseError>>()?,
            Value::Array(list) => list
                .iter()
                .map(|v| match v {
                    Value::Table(entry) => match (entry.get("label"), entry.get("value")) {
                        (Some(label), Some(value)) if entry.len() == 2 => Ok((
                            self.scalar(span.clone(), label)?,
                            self.scalar(span.clone(), value)?,
                        )),
                        _ => Err(wrong()),
                    },
                    single => {
                        let value = self.scalar(span.clone(), single)?;
                        Ok((value.clone(), value))
                    }
                })
                .collect::<Result<Vec<_>, CaseError>>()?,
            _ => return Err(wrong()),
        };
        if values.is_empty() {
            return Err(wrong());
        }
        Ok(AxisWanted { name: axis.name.clone(), values, place: self.of(span) })
    }

    fn when(
        &self,
        span: Range<usize>,
        table: &toml::Table,
        axes: &[AxisWanted],
    ) -> Result<When, CaseError> {
        let mut terms = Vec::new();
        for (name, value) in table {
            let Some(axis) = axes.iter().find(|a| a.name == *name) else {
                return Err(self.wrong(span, format!("there is no axis '{name}'")));
            };
            let labels = self.scalars(span.clone(), value)?;
            if let Some(l) =
                labels.iter().find(|l| !axis.values.iter().any(|(label, _)| label == *l))
            {
                return Err(self.wrong(span, format!("axis '{name}' has no value '{l}'")));
            }
            terms.push((name.clone(), labels));
        }
        Ok(When { terms, place: self.of(span) })
    }

    fn expect(
        &self,
        entry: &Spanned<ExpectEntry>,
        axes: &[AxisWanted],
    ) -> Result<Expect, CaseError> {
        let expect = entry.get_ref();
        let span = expect.verdict.span();
        let names = self.scalars(span.clone(), expect.verdict.get_ref())?;
        let verdicts = names.into_iter().map(|name| {
            VerdictKind::ALL.iter().copied().find(|v| v.name() == name).ok_or_else(|| {
                let known: Vec<&str> = VerdictKind::ALL.iter().map(|v| v.name()).collect();
                self.wrong(
                    span.clone(),
                    format!("unknown verdict '{name}'; the verdicts are {}", known.join(", ")),
                )
            })
        });
        let findings = match &expect.findings {
            Some(list) => list
                .get_ref()
                .iter()
                .map(|code| self.code(list.span(), code))
                .collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        Ok(Expect {
            when: self.when(entry.span(), &expect.when, axes)?,
            verdicts: verdicts.collect::<Result<_, _>>()?,
            title: expect.title.clone(),
            findings,
            place: self.of(entry.span()),
        })
    }

    fn vulnerability(
        &self,
        entry: &Spanned<VulnerabilityEntry>,
        axes: &[AxisWanted],
    ) -> Result<Vulnerability, CaseError> {
        let VulnerabilityEntry { when, file, says } = entry.get_ref();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if file.get_ref().is_empty() || !file.get_ref().chars().all(is_name) {
            let reason = format!("'{}' is no file of a vulnerability", file.get_ref());
            return Err(self.wrong(file.span(), reason));
        }
        Ok(Vulnerability {
            when: self.when(entry.span(), when, axes)?,
            file: file.get_ref().clone(),
            says: says.clone(),
        })
    }

    fn code(&self, span: Range<usize>, text: &str) -> Result<FindingCode, CaseError> {
        FindingCode::ALL.iter().copied().find(|c| c.id() == text || c.name() == text).ok_or_else(
            || {
                let known: Vec<&str> = FindingCode::ALL.iter().map(|c| c.id()).collect();
                self.wrong(
                    span,
                    format!("unknown finding '{text}'; explain gives {}", known.join(", ")),
                )
            },
        )
    }

    fn proof(&self, entry: &Spanned<ProofEntry>) -> Result<Proof, CaseError> {
        let (kernel, step) = match entry.get_ref() {
            ProofEntry::Explain { kernel, finding, subject, suspect, names, looks_like } => {
                let step = Step::Explain {
                    finding: self.code(entry.span(), finding)?,
                    subject: subject.clone(),
                    suspect: suspect.clone(),
                    names: names.clone(),
                    looks_like: looks_like.clone(),
                };
                (kernel, step)
            }
            ProofEntry::Check { kernel, culprits } => {
                (kernel, Step::Check { culprits: culprits.clone() })
            }
            ProofEntry::Testcase { kernel, culprit, contains } => {
                (kernel, Step::Testcase { culprit: culprit.clone(), contains: contains.clone() })
            }
            ProofEntry::Emulation { kernel, differs, cpu, append } => {
                let step =
                    Step::Emulation { differs: *differs, cpu: cpu.clone(), append: append.clone() };
                (kernel, step)
            }
            ProofEntry::Prove { kernel, register, broken, becomes, call } => {
                let step = Step::Prove {
                    register: register.to_ascii_lowercase(),
                    broken: *broken,
                    becomes: becomes.clone(),
                    call: call.clone(),
                };
                (kernel, step)
            }
        };
        Ok(Proof { kernel: kernel.clone(), step, place: self.of(entry.span()) })
    }
}

/// Whether a path stays below the folder that it is relative to.
pub(crate) fn is_below(path: &Path) -> bool {
    path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
title = "a bug"
story = "It was so."

[source]
debian = "linux-source-6.1"

[[edit]]
name = "defect"
file = "arch/x86/kernel/paravirt.c"
find = "good"
replace = "bad"

[[kernel]]
name = "sick"
toolchain = "clang-14"
config = ["tinyconfig", "+small.config"]
edits = ["defect"]

[[kernel]]
name = "patched"
from = "sick"
[[kernel.image-edit]]
find = "48 89 c3"
replace = "4889c0"
hits = 2

[base]
memory = "512m"
append = ["quiet", "x={smp}"]

[[axis]]
name = "smp"
values = [1, 2]

[[expect]]
when = { kernel = "sick", smp = 2 }
verdict = ["panicked", "hung-boot"]
title = "general protection fault in *"
findings = ["K0102"]

[[proof]]
step = "prove"
kernel = "sick"
register = "RCX"
becomes = "stack-canary"
"#;

    #[test]
    fn the_whole_schema() {
        let recipe = parse("case.toml", GOOD).unwrap();
        assert_eq!(recipe.kernels[1].image_edits[0].find, [0x48, 0x89, 0xc3]);
        assert_eq!(recipe.kernels[1].image_edits[0].hits, 2);
        assert_eq!(recipe.edits[0].place, "case.toml:8:1");
        // The axis of kernels is there by itself.
        let axes: Vec<(&str, usize)> =
            recipe.axes.iter().map(|a| (a.name.as_str(), a.values.len())).collect();
        assert_eq!(axes, [("kernel", 2), ("smp", 2)]);
        let labels = |smp: &str| {
            [("kernel".to_owned(), "sick".to_owned()), ("smp".to_owned(), smp.to_owned())]
        };
        assert!(recipe.expect[0].when.matches(&labels("2")));
        assert!(!recipe.expect[0].when.matches(&labels("1")));
        assert_eq!(recipe.base[1].1, ["quiet", "x={smp}"]);
        let Step::Prove { register, broken, .. } = &recipe.proofs[0].step else {
            panic!("no proof")
        };
        assert_eq!((register.as_str(), *broken), ("rcx", true));
    }

    #[test]
    fn errors_have_line_and_column() {
        let cases = [
            ("title = \"a bug\"", "titel = \"a bug\"", "case.toml:2:1: unknown field `titel`"),
            (
                "edits = [\"defect\"]",
                "edits = [\"defekt\"]",
                "case.toml:18:9: there is no [[edit]] called",
            ),
            (
                "from = \"sick\"",
                "from = \"sic\"",
                "case.toml:22:8: there is no [[kernel]] called 'sic'",
            ),
            ("4889c0", "4889", "case.toml:25:11: as many bytes"),
            ("48 89 c3", "48 8x", "case.toml:24:8: bytes are pairs"),
            ("smp = 2 }", "smp = 3 }", "case.toml:36:1: axis 'smp' has no value '3'"),
            ("\"hung-boot\"", "\"dead\"", "case.toml:38:11: unknown verdict 'dead'"),
            ("K0102", "K9999", "case.toml:40:12: unknown finding 'K9999'"),
            ("memory = ", "memroy = ", "case.toml:29:1: unknown key 'memroy'"),
            (
                "kernel = \"sick\"\nregister",
                "kernel = \"x\"\nregister",
                "case.toml:42:1: there is no [[kernel]]",
            ),
            ("arch/x86/kernel", "../x", "case.toml:10:8: '../x/paravirt.c' is no path below"),
            (
                "debian = \"linux-source-6.1\"",
                "debian = \"linux-x; rm\"",
                "case.toml:5:1: 'linux-x; rm'",
            ),
            ("debian = \"linux-source-6.1\"", "git = \"r\"", "case.toml:5:1: the source is one of"),
            ("becomes = ", "becames = ", "case.toml:42:1: unknown field `becames`"),
        ];
        for (old, new, expected) in cases {
            assert_eq!(GOOD.matches(old).count(), 1, "{old}");
            let error = parse("case.toml", &GOOD.replace(old, new)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{new}: {error}");
        }
    }
}
