//! Conditions as a person says them: "clang and smp ≥ 2 and safe-ret".

use kolumbo_case::matrix::{Axis, Condition, Relation, Term};

use super::shrink::Area;

/// Axes whose labels speak for themselves.
const PLAIN: &[&str] =
    &["kernel", "append", "module", "exec", "initramfs", "machine", "cpu", "accel"];

/// An area of a table with these axes as a condition.
pub fn condition(axes: &[Axis], area: &Area) -> Condition {
    let terms: Vec<Term> = area
        .restricted()
        .map(|axis| Term {
            axis: u32::try_from(axis).unwrap_or(u32::MAX),
            relation: relation(&axes[axis], &area.allowed[axis]),
        })
        .collect();
    let text = terms.iter().map(|term| words(axes, term)).collect::<Vec<_>>().join(" and ");
    Condition { text: if terms.is_empty() { "always".to_owned() } else { text }, terms }
}

fn relation(axis: &Axis, allowed: &[bool]) -> Relation {
    let index = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
    let inside: Vec<u32> = (0..allowed.len()).filter(|i| allowed[*i]).map(index).collect();
    let (Some(first), Some(last)) = (inside.first(), inside.last()) else {
        return Relation::OneOf { values: inside };
    };
    if axis.ordered {
        let contiguous = (last - first) as usize + 1 == inside.len();
        if contiguous && *last as usize == allowed.len() - 1 {
            return Relation::AtLeast { value: *first };
        }
        // "smp ≤ 1" would be one CPU said in a long way.
        let is_one = first == last && axis.values[0].value == "1";
        if contiguous && *first == 0 && !is_one {
            return Relation::AtMost { value: *last };
        }
    }
    // "Not gcc" is shorter than the five others.
    let outside: Vec<u32> = (0..allowed.len()).filter(|i| !allowed[*i]).map(index).collect();
    if outside.len() == 1 && inside.len() > 1 {
        return Relation::NoneOf { values: outside };
    }
    Relation::OneOf { values: inside }
}

fn words(axes: &[Axis], term: &Term) -> String {
    let axis = &axes[term.axis as usize];
    let label = |i: u32| axis.values[i as usize].label.as_str();
    // A label that another axis has, too, does not say which axis is meant.
    let is_clear = |i: u32| {
        PLAIN.contains(&axis.name.as_str())
            && axes.iter().flat_map(|a| &a.values).filter(|v| v.label == label(i)).count() == 1
    };
    let list = |values: &[u32]| values.iter().map(|v| label(*v)).collect::<Vec<_>>().join(" or ");
    match &term.relation {
        Relation::AtLeast { value } => format!("{} ≥ {}", axis.name, label(*value)),
        Relation::AtMost { value } => format!("{} ≤ {}", axis.name, label(*value)),
        Relation::OneOf { values } if values.iter().all(|v| is_clear(*v)) => match values.len() {
            1 => list(values),
            _ => format!("({})", list(values)),
        },
        Relation::OneOf { values } => match values.len() {
            1 => format!("{} = {}", axis.name, list(values)),
            _ => format!("{} in ({})", axis.name, list(values)),
        },
        Relation::NoneOf { values } if values.iter().all(|v| is_clear(*v)) => {
            format!("not {}", list(values))
        }
        Relation::NoneOf { values } => format!("{} not {}", axis.name, list(values)),
    }
}

/// A rate with its interval: "30% of runs (12 of 40, 95% interval 18 to 45%)".
pub fn rate(struck: u32, judged: u32, interval: (f64, f64), confidence: f64) -> String {
    let percent = |x: f64| (x * 100.0).round();
    format!(
        "{}% of runs ({struck} of {judged}, {}% interval {} to {}%)",
        percent(f64::from(struck) / f64::from(judged.max(1))),
        percent(confidence),
        percent(interval.0),
        percent(interval.1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kolumbo_case::matrix::AxisValue;

    fn axis(name: &str, ordered: bool, labels: &[&str]) -> Axis {
        let values = labels
            .iter()
            .map(|l| AxisValue {
                label: (*l).to_owned(),
                value: (*l).to_owned(),
                ..AxisValue::default()
            })
            .collect();
        Axis { name: name.to_owned(), ordered, values }
    }

    #[test]
    fn conditions_read_like_a_sentence() {
        let axes = [
            axis("kernel", false, &["gcc", "clang"]),
            axis("smp", true, &["1", "2", "4"]),
            axis("append", false, &["off", "ibpb", "safe-ret"]),
            axis("fs", false, &["ext4", "off"]),
        ];
        let text = |allowed: [&[bool]; 4]| {
            condition(&axes, &Area { allowed: allowed.map(<[bool]>::to_vec).to_vec() }).text
        };
        let all = [&[true; 2][..], &[true; 3], &[true; 3], &[true; 2]];
        assert_eq!(text(all), "always");
        assert_eq!(
            text([&[false, true], &[false, true, true], &[false, false, true], &[true; 2]]),
            "clang and smp ≥ 2 and safe-ret"
        );
        assert_eq!(text([all[0], &[true, true, false], all[2], all[3]]), "smp ≤ 2");
        assert_eq!(text([all[0], &[false, true, false], all[2], all[3]]), "smp = 2");
        assert_eq!(text([all[0], &[true, false, false], all[2], all[3]]), "smp = 1");
        assert_eq!(text([all[0], all[1], &[false, true, true], all[3]]), "append not off");
        assert_eq!(text([all[0], all[1], &[true, false, true], all[3]]), "not ibpb");
        assert_eq!(text([all[0], all[1], all[2], &[true, false]]), "fs = ext4");
    }

    #[test]
    fn rates() {
        assert_eq!(
            rate(12, 40, (0.181, 0.454), 0.95),
            "30% of runs (12 of 40, 95% interval 18 to 45%)"
        );
    }
}
