//! What a matrix is asked for: axes, cells, and what each cell boots.
//!
//! Axes come from a TOML file ([`file`](super::file)) or from `--axis`; here they become cells.
//! Nothing is opened. Main type: [`Plan`].

use kolumbo_case::{Accel, BootSpec, Engine, HostSpec, VerdictKind};
use serde::{Deserialize, Serialize};

use crate::size;

/// Names of axes that mean an option of `kolumbo boot`.
pub const KNOWN_AXES: &[&str] = &[
    "kernel",
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
];
/// Most cells of one matrix.
pub const MOST_CELLS: usize = 1_000_000;
/// Longest label, in characters.
const LONGEST_LABEL: usize = 60;

/// What is wrong with what was asked for, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct PlanError {
    /// `FILE:LINE:COLUMN`, or the option.
    pub place: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// One axis as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisPlan {
    /// Its name.
    pub name: String,
    /// Label and value, in order.
    pub values: Vec<(String, String)>,
    /// Where it stands, for errors.
    pub place: String,
}

/// Some values of some axes, by label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// Axis name and the labels that match.
    pub terms: Vec<(String, Vec<String>)>,
    /// Where it stands, for errors.
    pub place: String,
}

/// What everything else is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The kernel, unless an axis names it.
    pub kernel: Option<String>,
    /// Number of CPUs.
    pub smp: Option<String>,
    /// Memory.
    pub memory: Option<String>,
    /// Words of the kernel's command line.
    pub append: Vec<String>,
    /// QEMU's CPU model.
    pub cpu: Option<String>,
    /// QEMU's machine.
    pub machine: Option<String>,
    /// Accelerator.
    pub accel: Option<String>,
    /// Initramfs.
    pub initramfs: Option<String>,
    /// Modules.
    pub modules: Vec<String>,
    /// Program and arguments.
    pub exec: Vec<String>,
    /// Time limit.
    pub timeout: Option<String>,
    /// The kernel of a guest that is the host of this one.
    #[serde(default)]
    pub host_kernel: Option<String>,
    /// Its number of CPUs.
    #[serde(default)]
    pub host_smp: Option<String>,
    /// Its memory.
    #[serde(default)]
    pub host_memory: Option<String>,
    /// Words of its command line.
    #[serde(default)]
    pub host_append: Vec<String>,
    /// Modules that are loaded there.
    #[serde(default)]
    pub host_modules: Vec<String>,
}

/// Everything that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What the user calls the matrix.
    pub title: String,
    /// What all cells have in common.
    pub base: Template,
    /// The axes.
    pub axes: Vec<AxisPlan>,
    /// Cells that are left out.
    pub exclude: Vec<Pattern>,
    /// Cells that are in although they were left out; every axis is named.
    pub include: Vec<Pattern>,
    /// Which verdicts are expected where; the last that matches counts.
    pub expect: Vec<(Pattern, Vec<VerdictKind>)>,
    /// Axis and label of values that joined later; they are only in cells of `extra`.
    #[serde(default)]
    pub added: Vec<(String, String)>,
    /// Labels of cells that joined later, to settle what the table left open.
    #[serde(default)]
    pub extra: Vec<Vec<String>>,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedCell {
    /// For each axis the index of the value.
    pub at: Vec<u32>,
    /// Expected verdicts; empty for a healthy boot.
    pub expect: Vec<VerdictKind>,
}

/// A checked request: every cell can be turned into a boot.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What was asked for.
    pub request: Request,
    /// For each axis, whether its values are numbers; they are in rising order then.
    pub ordered: Vec<bool>,
    /// The cells, the last axis changing fastest.
    pub cells: Vec<PlannedCell>,
}

impl Plan {
    /// Checks the request and lays out its cells.
    pub fn new(mut request: Request) -> Result<Plan, PlanError> {
        if request.axes.is_empty() {
            return Err(PlanError {
                place: "matrix".to_owned(),
                reason: "no axis was given; name one with --axis smp=1,2,4 or in a TOML file"
                    .into(),
            });
        }
        check_axes(&request)?;
        let ordered: Vec<bool> = request.axes.iter_mut().map(sort_numbers).collect();
        let patterns = request.exclude.iter().chain(&request.include);
        for pattern in patterns.chain(request.expect.iter().map(|(p, _)| p)) {
            check_pattern(&request, pattern)?;
        }
        for pattern in &request.include {
            if let Some(axis) =
                request.axes.iter().find(|a| !pattern.terms.iter().any(|(n, _)| *n == a.name))
            {
                return Err(PlanError {
                    place: pattern.place.clone(),
                    reason: format!("an include names every axis; '{}' is missing", axis.name),
                });
            }
        }
        let cells = lay_out(&request)?;
        let plan = Plan { request, ordered, cells };
        // Each value of each axis is tried once, so that no run fails for what could be said now.
        for (axis, values) in plan.request.axes.iter().enumerate() {
            for value in 0..values.values.len() {
                let Some(cell) = plan.cells.iter().find(|c| c.at[axis] as usize == value) else {
                    continue;
                };
                plan.spec(&cell.at)?;
            }
        }
        Ok(plan)
    }

    /// The name of the cell at these values: its labels joined by `/`.
    pub fn name(&self, at: &[u32]) -> String {
        let labels =
            self.request.axes.iter().zip(at).map(|(a, v)| a.values[*v as usize].0.as_str());
        labels.collect::<Vec<_>>().join("/")
    }

    /// What the cell at these values boots.
    pub fn spec(&self, at: &[u32]) -> Result<BootSpec, PlanError> {
        let chosen: Vec<(&AxisPlan, &str)> = self
            .request
            .axes
            .iter()
            .zip(at)
            .map(|(axis, v)| (axis, axis.values[*v as usize].1.as_str()))
            .collect();
        let fill = |text: &str| fill_placeholders(text, &chosen);
        let base = &self.request.base;
        let of = |name: &str, base: Option<&String>| -> Option<String> {
            let axis = chosen.iter().find(|(a, _)| a.name == name).map(|(_, v)| (*v).to_owned());
            axis.or_else(|| base.cloned()).map(|v| fill(&v)).filter(|v| !v.is_empty())
        };
        let wrong = |name: &str, reason: String| PlanError {
            place: chosen
                .iter()
                .find(|(a, _)| a.name == name)
                .map_or_else(|| format!("base.{name}"), |(a, _)| a.place.clone()),
            reason,
        };
        let kernel = of("kernel", base.kernel.as_ref()).ok_or_else(|| {
            wrong("kernel", "no kernel was named; use an axis 'kernel' or -k PATH".to_owned())
        })?;
        let cpus = |name: &str, base: Option<&String>| {
            let text = of(name, base).unwrap_or_else(|| "1".to_owned());
            text.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(|| {
                wrong(name, format!("'{text}' is not a number of CPUs; write 1, 2, 4"))
            })
        };
        let bytes = |name: &str, base: Option<&String>| {
            let text = of(name, base).unwrap_or_else(|| "1G".to_owned());
            size::parse_memory(&text).map_err(|e| wrong(name, e))
        };
        let timeout = of("timeout", base.timeout.as_ref()).unwrap_or_else(|| "3m".to_owned());
        let timeout_ms = size::parse_duration_ms(&timeout).map_err(|e| wrong("timeout", e))?;
        let accel = match of("accel", base.accel.as_ref()) {
            Some(name) => name.parse::<Accel>().map_err(|e| wrong("accel", e))?,
            None => Accel::Auto,
        };
        let all = |name: &str, base: &[String]| -> Vec<String> {
            let axis = chosen.iter().filter(|(a, _)| a.name == name).map(|(_, v)| (*v).to_owned());
            base.iter().cloned().chain(axis).map(|v| fill(&v)).filter(|v| !v.is_empty()).collect()
        };
        let exec = match chosen.iter().find(|(a, _)| a.name == "exec") {
            Some((_, text)) => shlex::split(&fill(text)).ok_or_else(|| {
                wrong("exec", format!("cannot split '{text}': a quote is not closed"))
            })?,
            None => base.exec.iter().map(|w| fill(w)).collect(),
        };
        let host = match of("host-kernel", base.host_kernel.as_ref()) {
            Some(kernel) => Some(HostSpec {
                kernel,
                smp: cpus("host-smp", base.host_smp.as_ref())?,
                memory: bytes("host-memory", base.host_memory.as_ref())?,
                append: all("host-append", &base.host_append),
                modules: all("host-module", &base.host_modules),
            }),
            None => None,
        };
        Ok(BootSpec {
            kernel,
            smp: cpus("smp", base.smp.as_ref())?,
            memory: bytes("memory", base.memory.as_ref())?,
            append: all("append", &base.append),
            initrd: of("initramfs", base.initramfs.as_ref()),
            modules: all("module", &base.modules),
            exec,
            cpu: of("cpu", base.cpu.as_ref()),
            machine: of("machine", base.machine.as_ref()),
            accel,
            timeout_ms,
            engine: Engine::Qemu,
            host,
        })
    }
}

/// `kernel=gcc:PATH,clang:PATH`, `smp=1,2,4`, `append=off:"a=1,b",on:...`: an axis as `--axis` takes
/// it. Where the first value has a label, a piece without one belongs to the value before it, so
/// that a value may hold commas; double quotes protect commas and colons, too.
pub fn parse_axis(text: &str) -> Result<AxisPlan, PlanError> {
    let place = format!("--axis {text}");
    let wrong = |reason: &str| PlanError { place: place.clone(), reason: reason.to_owned() };
    let (name, rest) = text
        .split_once('=')
        .ok_or_else(|| wrong("an axis is written NAME=VALUE,VALUE or NAME=LABEL:VALUE,..."))?;
    let pieces = split_outside_quotes(rest).ok_or_else(|| wrong("a quote is not closed"))?;
    let mut values: Vec<(Option<String>, String)> = Vec::new();
    for piece in pieces {
        match (split_label(&piece), values.first()) {
            (Some((label, value)), _) => values.push((Some(label), value)),
            (None, Some((Some(_), _))) => {
                if let Some((_, value)) = values.last_mut() {
                    value.push(',');
                    value.push_str(&piece);
                }
            }
            (None, _) => values.push((None, piece)),
        }
    }
    if rest.is_empty() {
        values.clear();
    }
    let values = values
        .into_iter()
        .map(|(label, value)| {
            let value = value.replace('"', "");
            (label.unwrap_or_else(|| label_of(&value)), value)
        })
        .collect();
    Ok(AxisPlan { name: name.trim().to_owned(), values, place })
}

/// A label for a value that has none: the value itself, or the end of a path.
pub fn label_of(value: &str) -> String {
    let short = match value.rsplit('/').find(|part| !part.is_empty()) {
        Some(last) if value.contains('/') => last,
        _ => value,
    };
    let label: String = short.chars().take(LONGEST_LABEL).collect();
    if label.is_empty() { "none".to_owned() } else { label }
}

fn split_outside_quotes(text: &str) -> Option<Vec<String>> {
    let mut pieces = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                pieces.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = pieces.last_mut() {
            last.push(c);
        }
    }
    (!quoted).then_some(pieces)
}

fn split_label(piece: &str) -> Option<(String, String)> {
    let (label, value) = piece.split_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    (!label.is_empty() && label.chars().all(plain)).then(|| (label.to_owned(), value.to_owned()))
}

fn check_axes(request: &Request) -> Result<(), PlanError> {
    let mut cells = 1usize;
    for (i, axis) in request.axes.iter().enumerate() {
        let wrong = |reason: String| PlanError { place: axis.place.clone(), reason };
        if axis.values.is_empty() {
            return Err(wrong(format!("axis '{}' has no value", axis.name)));
        }
        if request.axes[..i].iter().any(|a| a.name == axis.name) {
            return Err(wrong(format!("axis '{}' is given twice", axis.name)));
        }
        if !KNOWN_AXES.contains(&axis.name.as_str()) && !is_used(request, &axis.name) {
            return Err(wrong(format!(
                "unknown axis '{}': the known ones are {}; an axis of your own needs {{{}}} in one of the \
                 other values",
                axis.name,
                KNOWN_AXES.join(", "),
                axis.name
            )));
        }
        for (j, (label, _)) in axis.values.iter().enumerate() {
            if label.chars().count() > LONGEST_LABEL || label.is_empty() {
                return Err(wrong(format!(
                    "a label of axis '{}' is empty or longer than {LONGEST_LABEL} characters",
                    axis.name
                )));
            }
            // Labels are names of folders, too.
            let is_dots = label == "." || label == "..";
            if is_dots || label.chars().any(|c| c == '/' || c.is_control()) {
                return Err(wrong(format!(
                    "label '{}' of axis '{}' cannot be the name of a folder; give it another \
                     one: LABEL:VALUE",
                    label.escape_debug(),
                    axis.name
                )));
            }
            if axis.values[..j].iter().any(|(l, _)| l == label) {
                return Err(wrong(format!(
                    "axis '{}' has two values with the label '{label}', so two cells would have one \
                     name; give them labels: LABEL:VALUE",
                    axis.name
                )));
            }
        }
        cells = cells.saturating_mul(axis.values.len());
        if cells > MOST_CELLS {
            return Err(wrong(format!("the axes make more than {MOST_CELLS} cells")));
        }
    }
    Ok(())
}

/// Whether `{name}` stands in the base or in a value of an axis.
fn is_used(request: &Request, name: &str) -> bool {
    let wanted = format!("{{{name}}}");
    let base = &request.base;
    let single = [
        &base.kernel,
        &base.smp,
        &base.memory,
        &base.cpu,
        &base.machine,
        &base.accel,
        &base.initramfs,
        &base.timeout,
        &base.host_kernel,
        &base.host_smp,
        &base.host_memory,
    ];
    single.into_iter().flatten().any(|v| v.contains(&wanted))
        || [&base.append, &base.modules, &base.exec, &base.host_append, &base.host_modules]
            .into_iter()
            .flatten()
            .any(|v| v.contains(&wanted))
        || request.axes.iter().flat_map(|a| &a.values).any(|(_, v)| v.contains(&wanted))
}

/// Sorts an axis whose values are all numbers (or sizes) and says whether it is one.
fn sort_numbers(axis: &mut AxisPlan) -> bool {
    let number = |value: &str| match axis.name.as_str() {
        "memory" | "host-memory" => size::parse_memory(value).ok(),
        "timeout" => size::parse_duration_ms(value).ok(),
        "kernel" | "append" | "cpu" | "machine" | "accel" | "host-kernel" | "host-append" => None,
        _ => value.parse::<u64>().ok(),
    };
    let numbers: Option<Vec<u64>> = axis.values.iter().map(|(_, v)| number(v)).collect();
    let Some(numbers) = numbers.filter(|n| n.len() > 1) else { return false };
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by_key(|i| numbers[*i]);
    axis.values = order.iter().map(|i| axis.values[*i].clone()).collect();
    true
}

fn check_pattern(request: &Request, pattern: &Pattern) -> Result<(), PlanError> {
    for (name, labels) in &pattern.terms {
        let wrong = |reason: String| PlanError { place: pattern.place.clone(), reason };
        let Some(axis) = request.axes.iter().find(|a| a.name == *name) else {
            let known: Vec<&str> = request.axes.iter().map(|a| a.name.as_str()).collect();
            return Err(wrong(format!(
                "there is no axis '{name}'; the axes are {}",
                known.join(", ")
            )));
        };
        for label in labels {
            if !axis.values.iter().any(|(l, _)| l == label) {
                let known: Vec<&str> = axis.values.iter().map(|(l, _)| l.as_str()).collect();
                return Err(wrong(format!(
                    "axis '{name}' has no value '{label}'; it has {}",
                    known.join(", ")
                )));
            }
        }
    }
    Ok(())
}

/// A pattern by indices: for each axis the values that match, or none where it is free.
fn by_index(request: &Request, pattern: &Pattern) -> Vec<Option<Vec<u32>>> {
    let index = |axis: &AxisPlan, label: &String| {
        axis.values.iter().position(|(l, _)| l == label).and_then(|i| u32::try_from(i).ok())
    };
    let axes = request.axes.iter();
    axes.map(|axis| {
        let (_, labels) = pattern.terms.iter().find(|(n, _)| *n == axis.name)?;
        Some(labels.iter().filter_map(|l| index(axis, l)).collect())
    })
    .collect()
}

fn matches(pattern: &[Option<Vec<u32>>], at: &[u32]) -> bool {
    pattern.iter().zip(at).all(|(set, v)| set.as_ref().is_none_or(|set| set.contains(v)))
}

fn lay_out(request: &Request) -> Result<Vec<PlannedCell>, PlanError> {
    let index = |patterns: &[Pattern]| -> Vec<_> {
        patterns.iter().map(|p| by_index(request, p)).collect()
    };
    let (exclude, include) = (index(&request.exclude), index(&request.include));
    let expect: Vec<_> = request.expect.iter().map(|(p, v)| (by_index(request, p), v)).collect();
    let mut cells = Vec::new();
    let mut at = vec![0u32; request.axes.len()];
    loop {
        let labels = || request.axes.iter().zip(&at).map(|(a, v)| &a.values[*v as usize].0);
        let joined = request
            .axes
            .iter()
            .zip(labels())
            .any(|(axis, l)| request.added.iter().any(|(a, b)| *a == axis.name && b == l));
        let out = joined || exclude.iter().any(|p| matches(p, &at));
        let extra = || request.extra.iter().any(|e| e.iter().eq(labels()));
        if !out || include.iter().any(|p| matches(p, &at)) || extra() {
            let expect = expect.iter().rev().find(|(p, _)| matches(p, &at));
            let expect = expect.map_or_else(Vec::new, |(_, v)| (*v).clone());
            cells.push(PlannedCell { at: at.clone(), expect });
        }
        // The last axis changes fastest.
        let mut axis = at.len();
        loop {
            if axis == 0 {
                if cells.is_empty() {
                    return Err(PlanError {
                        place: "matrix".to_owned(),
                        reason: "every cell is excluded".to_owned(),
                    });
                }
                return Ok(cells);
            }
            axis -= 1;
            at[axis] += 1;
            if (at[axis] as usize) < request.axes[axis].values.len() {
                break;
            }
            at[axis] = 0;
        }
    }
}

/// Replaces `{axis}` by the value that was chosen. What is put in is not looked at again.
fn fill_placeholders(text: &str, chosen: &[(&AxisPlan, &str)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let found = from.find('}').and_then(|close| {
            let name = &from[1..close];
            let value = chosen.iter().find(|(axis, _)| axis.name == name)?.1;
            Some((value, close + 1))
        });
        match found {
            Some((value, length)) => {
                out.push_str(value);
                rest = &from[length..];
            }
            None => {
                out.push('{');
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(text: &str) -> AxisPlan {
        parse_axis(text).unwrap()
    }

    fn request(axes: &[&str]) -> Request {
        let base = Template { kernel: Some("k".into()), ..Template::default() };
        Request { base, axes: axes.iter().map(|a| axis(a)).collect(), ..Request::default() }
    }

    fn error(axes: &[&str]) -> String {
        Plan::new(request(axes)).unwrap_err().to_string()
    }

    #[test]
    fn axes_of_the_command_line() {
        let pairs = |text: &str| axis(text).values;
        let pair = |l: &str, v: &str| (l.to_owned(), v.to_owned());
        assert_eq!(pairs("smp=1,2"), [pair("1", "1"), pair("2", "2")]);
        assert_eq!(
            pairs("kernel=gcc:/a/bzImage,clang:/b"),
            [pair("gcc", "/a/bzImage"), pair("clang", "/b")]
        );
        assert_eq!(pairs("kernel=/a/x,/b/y"), [pair("x", "/a/x"), pair("y", "/b/y")]);
        // The shell took the quotes away: the comma belongs to the value before it.
        assert_eq!(
            pairs("append=off:mitigations=off,nosmt,on:a b"),
            [pair("off", "mitigations=off,nosmt"), pair("on", "a b")]
        );
        assert_eq!(pairs("append=off:\"a,on:b\",x:y"), [pair("off", "a,on:b"), pair("x", "y")]);
        assert!(parse_axis("smp").is_err());
        assert!(parse_axis("append=a:\"b").is_err());
    }

    #[test]
    fn cells_follow_the_axes() {
        let mut request = request(&["smp=4,1,2", "append=off:,on:x={t}", "t=a,b"]);
        request.exclude.push(Pattern {
            terms: vec![
                ("smp".into(), vec!["1".into(), "2".into()]),
                ("t".into(), vec!["b".into()]),
            ],
            place: String::new(),
        });
        request.include.push(Pattern {
            terms: vec![
                ("smp".into(), vec!["2".into()]),
                ("append".into(), vec!["on".into()]),
                ("t".into(), vec!["b".into()]),
            ],
            place: String::new(),
        });
        let plan = Plan::new(request).unwrap();
        assert_eq!(plan.ordered, [true, false, false]);
        let names: Vec<String> = plan.cells.iter().map(|c| plan.name(&c.at)).collect();
        assert_eq!(
            names,
            [
                "1/off/a", "1/on/a", "2/off/a", "2/on/a", "2/on/b", "4/off/a", "4/off/b", "4/on/a",
                "4/on/b"
            ]
        );
        assert_eq!(plan.spec(&plan.cells[4].at).unwrap().append, ["x=b"]);
        assert!(plan.spec(&plan.cells[5].at).unwrap().append.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_runs() {
        assert!(error(&["smpp=1,2"]).contains("unknown axis 'smpp'"));
        assert!(error(&["smp="]).contains("no value"));
        assert!(error(&["smp=1", "smp=2"]).contains("given twice"));
        assert!(error(&["kernel=/a/k,/b/k"]).contains("label 'k'"));
        assert!(error(&["smp=1,two"]).contains("not a number of CPUs"));
        assert!(error(&["memory=1x"]).contains("memory=1x"));
        assert!(error(&["timeout=soon"]).contains("not a time"));
        assert!(error(&["accel=warp"]).contains("unknown accelerator"));
        assert!(error(&["exec=a:'x"]).contains("quote"));
        assert!(Plan::new(Request::default()).unwrap_err().reason.contains("--axis"));
        let mut request = request(&["smp=1,2"]);
        request.expect.push((
            Pattern { terms: vec![("smp".into(), vec!["3".into()])], place: "f:1:2".into() },
            Vec::new(),
        ));
        let e = Plan::new(request).unwrap_err().to_string();
        assert!(e.starts_with("f:1:2: axis 'smp' has no value '3'"), "{e}");
    }

    #[test]
    fn a_placeholder_is_filled_once() {
        let mut request = request(&["a={b}", "b=x"]);
        request.base.append = vec!["{a} {c} {".into()];
        let plan = Plan::new(request).unwrap();
        assert_eq!(plan.spec(&plan.cells[0].at).unwrap().append, ["{b} {c} {"]);
    }
}
