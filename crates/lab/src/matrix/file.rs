//! A matrix as a TOML file (docs/matrix.md has the schema).
//!
//! Text in, [`Request`] out; every error has file, line and column. Opens nothing.

use std::ops::Range;

use kolumbo_case::VerdictKind;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::plan::{AxisPlan, Pattern, PlanError, Request, Template, label_of};

/// What stands in the file beside the request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MatrixToml {
    /// Axes, cells and what they boot.
    pub request: Request,
    /// Runs of each cell.
    pub repeat: Option<u32>,
    /// Confidence level, between 0 and 1.
    pub confidence: Option<f64>,
    /// A boot with splats counts as healthy.
    pub allow_splats: Option<bool>,
    /// A sickness that one run of the table shows is booted once more.
    pub confirm: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Schema {
    #[serde(default)]
    title: String,
    repeat: Option<Spanned<u32>>,
    confidence: Option<Spanned<f64>>,
    allow_splats: Option<bool>,
    confirm: Option<bool>,
    #[serde(default)]
    base: Base,
    #[serde(default)]
    axis: Vec<Spanned<Axis>>,
    #[serde(default)]
    exclude: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    include: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    expect: Vec<Spanned<Expect>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Base {
    kernel: Option<String>,
    smp: Option<Spanned<Value>>,
    memory: Option<Spanned<Value>>,
    append: Option<Spanned<Value>>,
    cpu: Option<String>,
    machine: Option<String>,
    accel: Option<String>,
    #[serde(alias = "initrd")]
    initramfs: Option<String>,
    #[serde(alias = "modules")]
    module: Option<Spanned<Value>>,
    exec: Option<Spanned<Value>>,
    timeout: Option<Spanned<Value>>,
    host_kernel: Option<String>,
    host_smp: Option<Spanned<Value>>,
    host_memory: Option<Spanned<Value>>,
    host_append: Option<Spanned<Value>>,
    #[serde(alias = "host-modules")]
    host_module: Option<Spanned<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Axis {
    name: String,
    values: Spanned<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(default)]
    when: toml::Table,
    verdict: Spanned<Value>,
}

/// Reads the text of `name`, which is only used to say where an error is.
pub fn parse(name: &str, text: &str) -> Result<MatrixToml, PlanError> {
    let places = Places { name, text };
    let schema: Schema = toml::from_str(text).map_err(|e| PlanError {
        place: e.span().map_or_else(|| name.to_owned(), |span| places.of(span)),
        reason: e.message().to_owned(),
    })?;
    let base = schema.base;
    let words = |v: &Option<Spanned<Value>>| -> Result<Vec<String>, PlanError> {
        v.as_ref().map_or(Ok(Vec::new()), |v| places.scalars(v.span(), v.get_ref()))
    };
    let one = |v: &Option<Spanned<Value>>| -> Result<Option<String>, PlanError> {
        v.as_ref().map(|v| places.scalar(v.span(), v.get_ref())).transpose()
    };
    // A program may be given as it is typed.
    let exec = match &base.exec {
        Some(v) if v.get_ref().is_str() => {
            let text = places.scalar(v.span(), v.get_ref())?;
            shlex::split(&text)
                .ok_or_else(|| places.wrong(v.span(), "a quote is not closed".to_owned()))?
        }
        other => words(other)?,
    };
    let base = Template {
        smp: one(&base.smp)?,
        memory: one(&base.memory)?,
        timeout: one(&base.timeout)?,
        append: words(&base.append)?,
        host_smp: one(&base.host_smp)?,
        host_memory: one(&base.host_memory)?,
        host_append: words(&base.host_append)?,
        host_modules: words(&base.host_module)?,
        host_kernel: base.host_kernel,
        modules: words(&base.module)?,
        exec,
        kernel: base.kernel,
        cpu: base.cpu,
        machine: base.machine,
        accel: base.accel,
        initramfs: base.initramfs,
    };
    let axes = schema.axis.iter().map(|a| places.axis(a)).collect::<Result<_, _>>()?;
    let patterns = |list: &[Spanned<toml::Table>]| {
        list.iter().map(|p| places.pattern(p.span(), p.get_ref())).collect::<Result<Vec<_>, _>>()
    };
    let expect = schema.expect.iter().map(|e| {
        let verdicts = places.verdicts(&e.get_ref().verdict)?;
        Ok((places.pattern(e.span(), &e.get_ref().when)?, verdicts))
    });
    let request = Request {
        title: schema.title,
        base,
        axes,
        exclude: patterns(&schema.exclude)?,
        include: patterns(&schema.include)?,
        expect: expect.collect::<Result<_, _>>()?,
        ..Request::default()
    };
    if let Some(repeat) = schema.repeat.as_ref().filter(|r| *r.get_ref() == 0) {
        return Err(places.wrong(repeat.span(), "each cell is run at least once".to_owned()));
    }
    if let Some(level) = schema.confidence.as_ref().filter(|c| !(0.5..1.0).contains(c.get_ref())) {
        return Err(places.wrong(
            level.span(),
            "a confidence level lies between 0.5 and 1, for example 0.95".to_owned(),
        ));
    }
    Ok(MatrixToml {
        request,
        repeat: schema.repeat.map(Spanned::into_inner),
        confidence: schema.confidence.map(Spanned::into_inner),
        allow_splats: schema.allow_splats,
        confirm: schema.confirm,
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

    fn wrong(&self, span: Range<usize>, reason: String) -> PlanError {
        PlanError { place: self.of(span), reason }
    }

    fn scalar(&self, span: Range<usize>, value: &Value) -> Result<String, PlanError> {
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

    fn scalars(&self, span: Range<usize>, value: &Value) -> Result<Vec<String>, PlanError> {
        match value {
            Value::Array(list) => list.iter().map(|v| self.scalar(span.clone(), v)).collect(),
            single => Ok(vec![self.scalar(span, single)?]),
        }
    }

    /// Values as `[1, 2]`, as `{ label = "value" }`, or as a list of `{ label = ..., value = ... }`, which
    /// keeps its order.
    fn axis(&self, axis: &Spanned<Axis>) -> Result<AxisPlan, PlanError> {
        let Axis { name, values } = axis.get_ref();
        let span = values.span();
        let pairs = match values.get_ref() {
            Value::Table(table) => table
                .iter()
                .map(|(label, v)| Ok((label.clone(), self.scalar(span.clone(), v)?)))
                .collect::<Result<_, _>>()?,
            Value::Array(list) => list
                .iter()
                .map(|v| match v {
                    Value::Table(entry) => self.labelled(span.clone(), entry),
                    single => {
                        let value = self.scalar(span.clone(), single)?;
                        Ok((label_of(&value), value))
                    }
                })
                .collect::<Result<_, _>>()?,
            other => {
                return Err(self.wrong(
                    span,
                    format!(
                        "a list or a table of values was expected here, not {}",
                        other.type_str()
                    ),
                ));
            }
        };
        Ok(AxisPlan { name: name.clone(), values: pairs, place: self.of(span) })
    }

    fn labelled(
        &self,
        span: Range<usize>,
        entry: &toml::Table,
    ) -> Result<(String, String), PlanError> {
        match (entry.get("label"), entry.get("value"), entry.len()) {
            (Some(label), Some(value), 2) => {
                Ok((self.scalar(span.clone(), label)?, self.scalar(span, value)?))
            }
            _ => Err(self.wrong(
                span,
                "a value of an axis is a text, a number or { label = ..., value = ... }".to_owned(),
            )),
        }
    }

    fn pattern(&self, span: Range<usize>, table: &toml::Table) -> Result<Pattern, PlanError> {
        let terms = table
            .iter()
            .map(|(axis, v)| Ok((axis.clone(), self.scalars(span.clone(), v)?)))
            .collect::<Result<_, PlanError>>()?;
        Ok(Pattern { terms, place: self.of(span) })
    }

    fn verdicts(&self, names: &Spanned<Value>) -> Result<Vec<VerdictKind>, PlanError> {
        let find = |name: String| {
            VerdictKind::ALL.iter().copied().find(|v| v.name() == name).ok_or_else(|| {
                let known: Vec<&str> = VerdictKind::ALL.iter().map(|v| v.name()).collect();
                self.wrong(
                    names.span(),
                    format!("unknown verdict '{name}'; the verdicts are {}", known.join(", ")),
                )
            })
        };
        self.scalars(names.span(), names.get_ref())?.into_iter().map(find).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::plan::Plan;

    const GOOD: &str = r#"
title = "safe-ret"
repeat = 5
confidence = 0.9
confirm = false

[base]
memory = "512m"
append = ["quiet", "spec={mode}"]
exec = "/bin/echo 'a b'"

[[axis]]
name = "kernel"
values = { gcc = "/g/bzImage", clang = "/c/bzImage" }

[[axis]]
name = "smp"
values = [1, 2, 4]

[[axis]]
name = "mode"
values = [{ label = "off", value = "0" }, { label = "safe-ret", value = "1" }]

[[exclude]]
kernel = "gcc"
smp = [2, 4]

[[expect]]
when = { kernel = "clang", smp = [2, 4] }
verdict = ["hung-boot", "hung-shutdown"]
"#;

    #[test]
    fn the_whole_schema() {
        let file = parse("m.toml", GOOD).unwrap();
        assert_eq!((file.repeat, file.confidence), (Some(5), Some(0.9)));
        assert_eq!((file.confirm, file.allow_splats), (Some(false), None));
        let plan = Plan::new(file.request).unwrap();
        assert_eq!(plan.cells.len(), 8);
        let last = plan.cells.iter().find(|c| plan.name(&c.at) == "clang/4/safe-ret").unwrap();
        assert_eq!(last.expect, [VerdictKind::HungBoot, VerdictKind::HungShutdown]);
        let spec = plan.spec(&last.at).unwrap();
        assert_eq!(spec.append, ["quiet", "spec=1"]);
        assert_eq!(spec.exec, ["/bin/echo", "a b"]);
        assert_eq!((spec.smp, spec.memory), (4, 512 << 20));
    }

    #[test]
    fn errors_have_line_and_column() {
        let error = |text: &str| {
            parse("m.toml", text)
                .and_then(|f| Plan::new(f.request).map(|_| ()))
                .unwrap_err()
                .to_string()
        };
        for (text, expected) in [
            ("title = 3", "m.toml:1:9: "),
            ("\n[base]\nkernl = \"x\"", "m.toml:3:1: unknown field `kernl`"),
            ("[[axis]]\nname = \"smp\"\nvalues = []", "m.toml:3:10: axis 'smp' has no value"),
            ("[[axis]]\nname = \"smp\"\nvalues = true", "m.toml:3:10: a list"),
            ("[[axis]]\nname = \"x\"\nvalues = [1]", "m.toml:3:10: unknown axis 'x'"),
            ("repeat = 0", "m.toml:1:10: each cell"),
            ("confidence = 1.5", "m.toml:1:14: a confidence"),
            ("a =", "m.toml:1:4: "),
            (
                "[base]\nkernel='k'\n[[axis]]\nname='smp'\nvalues=[1]\n[[expect]]\nverdict='dead'",
                "m.toml:7:9: unknown verdict 'dead'",
            ),
            (
                "[base]\nkernel='k'\n[[axis]]\nname='smp'\nvalues=[1]\n[[exclude]]\nsmp=3",
                "m.toml:6:1: axis 'smp' has no value '3'",
            ),
        ] {
            let e = error(text);
            assert!(e.starts_with(expected), "{text:?}: {e}");
        }
    }
}
