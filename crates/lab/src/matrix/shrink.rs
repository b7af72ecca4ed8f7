//! Under which smallest conditions a table is sick.
//!
//! Takes marks of cells, gives boxes: for each axis the set of values that a condition allows, as
//! few restricted axes as possible, no healthy cell inside, every sick cell inside at least one.
//! Knows neither guests nor words. Main functions: [`conditions`], [`questions`].

use std::collections::{HashMap, HashSet};

/// The shape of a table.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Number of values of each axis.
    pub sizes: Vec<usize>,
    /// Which axes have an order: their sets are ranges.
    pub ordered: Vec<bool>,
}

/// What is known of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It strikes here.
    Sick,
    /// It does not.
    Healthy,
    /// Not tested, not often enough, or hidden by something else.
    Unknown,
}

/// A set of values for each axis. It covers a cell when each of the cell's values is in its set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Area {
    /// For each axis, for each value, whether it is allowed.
    pub allowed: Vec<Vec<bool>>,
}

impl Area {
    fn all(shape: &Shape) -> Area {
        Area { allowed: shape.sizes.iter().map(|n| vec![true; *n]).collect() }
    }

    /// Whether the cell at these values lies inside.
    pub fn covers(&self, at: &[u32]) -> bool {
        at.iter().zip(&self.allowed).all(|(v, set)| set.get(*v as usize) == Some(&true))
    }

    /// The axes that are restricted.
    pub fn restricted(&self) -> impl Iterator<Item = usize> + '_ {
        self.allowed
            .iter()
            .enumerate()
            .filter(|(_, set)| set.contains(&false))
            .map(|(axis, _)| axis)
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The conditions; together they cover every sick cell.
    pub areas: Vec<Area>,
    /// Other areas with as few axes that cover the same sick cells as the one of that index: the
    /// table cannot tell them apart.
    pub rivals: Vec<(usize, Area)>,
    /// Sick cells that are left, because more than [`MOST_AREAS`] conditions would be needed.
    pub left: usize,
}

/// A sentence with more conditions than this says nothing.
pub const MOST_AREAS: usize = 12;
/// Most combinations of axes that are tried: all of them up to ten axes.
const MOST_SUBSETS: usize = 1 << 10;
/// Candidates that are widened for one combination of axes. Each costs a walk over the cells.
const MOST_CANDIDATES: usize = 64;

/// The smallest conditions that hold for every sick cell and for no healthy one.
///
/// Combinations of axes are tried from none to all, so that a condition restricts as few axes as
/// the table allows; among equals the one that covers more sick cells comes first. Biased towards
/// the general: a value that was never tested does not restrict.
pub fn conditions(shape: &Shape, cells: &[(Vec<u32>, Mark)]) -> Found {
    let sick: Vec<&[u32]> = marked(cells, Mark::Sick);
    let healthy: Vec<&[u32]> = marked(cells, Mark::Healthy);
    let mut open: HashSet<usize> = (0..sick.len()).collect();
    let mut found = Found::default();
    let subsets = subsets(shape.sizes.len());
    let largest = subsets.last().map_or(0, Vec::len);
    for size in 0..=largest {
        if open.is_empty() {
            break;
        }
        let mut candidates: Vec<(Area, Vec<usize>)> = Vec::new();
        for axes in subsets.iter().filter(|s| s.len() == size) {
            candidates.extend(candidates_of(shape, axes, &sick, &healthy, &open));
        }
        // Greedy cover. The order of candidates is that of the axes, so ties are stable.
        while !open.is_empty() {
            let gain = |covered: &[usize]| covered.iter().filter(|i| open.contains(i)).count();
            let Some(best) = (0..candidates.len())
                .max_by_key(|i| (gain(&candidates[*i].1), std::cmp::Reverse(*i)))
                .filter(|i| gain(&candidates[*i].1) > 0)
            else {
                break;
            };
            if found.areas.len() == MOST_AREAS {
                found.left = open.len();
                return found;
            }
            let (area, covered) = candidates.swap_remove(best);
            let index = found.areas.len();
            for (other, others) in &candidates {
                if *others == covered && *other != area {
                    found.rivals.push((index, other.clone()));
                }
            }
            for i in &covered {
                open.remove(i);
            }
            found.areas.push(area);
        }
    }
    found.left = open.len();
    drop_needless(&mut found, &sick);
    found
}

/// Conditions whose sick cells the others cover are left out: one that restricts more axes, and was found
/// later, may have made them needless.
fn drop_needless(found: &mut Found, sick: &[&[u32]]) {
    let mut index = 0;
    while index < found.areas.len() {
        let others = || found.areas.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, a)| a);
        let needless = sick
            .iter()
            .filter(|at| found.areas[index].covers(at))
            .all(|at| others().any(|area| area.covers(at)));
        if needless {
            found.areas.remove(index);
            found.rivals.retain(|(of, _)| *of != index);
            for (of, _) in &mut found.rivals {
                *of -= usize::from(*of > index);
            }
        } else {
            index += 1;
        }
    }
}

/// Cells that would decide between an area and a rival: covered by one of them only, and not known
/// yet. Indices of values, at most `most` cells, the nearest to known sick cells first.
pub fn questions(
    shape: &Shape,
    cells: &[(Vec<u32>, Mark)],
    area: &Area,
    rival: &Area,
    most: usize,
) -> Vec<Vec<u32>> {
    let known: HashMap<&[u32], Mark> = cells.iter().map(|(at, m)| (at.as_slice(), *m)).collect();
    let sick: Vec<&[u32]> = marked(cells, Mark::Sick).into_iter().take(64).collect();
    let mut asked: Vec<Vec<u32>> = Vec::new();
    for start in &sick {
        // One step away from a sick cell is enough to tell two areas apart that both hold it.
        for axis in 0..shape.sizes.len() {
            for value in 0..shape.sizes[axis] {
                let mut at = start.to_vec();
                at[axis] = u32::try_from(value).unwrap_or(u32::MAX);
                let undecided =
                    !matches!(known.get(at.as_slice()), Some(Mark::Sick | Mark::Healthy));
                if undecided && area.covers(&at) != rival.covers(&at) && !asked.contains(&at) {
                    asked.push(at);
                    if asked.len() == most {
                        return asked;
                    }
                }
            }
        }
    }
    asked
}

fn marked(cells: &[(Vec<u32>, Mark)], wanted: Mark) -> Vec<&[u32]> {
    cells.iter().filter(|(_, m)| *m == wanted).map(|(at, _)| at.as_slice()).collect()
}

/// Every combination of axes, smallest first, in the order of the axes.
fn subsets(axes: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = vec![Vec::new()];
    let mut last = all.clone();
    while !last.is_empty() && all.len() < MOST_SUBSETS {
        let mut next = Vec::new();
        for subset in &last {
            let from = subset.last().map_or(0, |a| a + 1);
            for axis in from..axes {
                let mut longer = subset.clone();
                longer.push(axis);
                next.push(longer);
            }
        }
        all.extend(next.iter().cloned());
        last = next;
    }
    // With very many axes the middle is left out, but one cell alone can always be described.
    if all.last().is_none_or(|s| s.len() < axes) {
        all.push((0..axes).collect());
    }
    all
}

/// The areas that restrict just these axes and hold no healthy cell, each with the sick cells that
/// it covers.
fn candidates_of(
    shape: &Shape,
    axes: &[usize],
    sick: &[&[u32]],
    healthy: &[&[u32]],
    open: &HashSet<usize>,
) -> Vec<(Area, Vec<usize>)> {
    let project = |at: &[u32]| -> Vec<u32> { axes.iter().map(|a| at[*a]).collect() };
    let spoilt: HashSet<Vec<u32>> = healthy.iter().map(|at| project(at)).collect();
    let mut seeds: Vec<Vec<u32>> = Vec::new();
    let mut seen: HashSet<Vec<u32>> = HashSet::new();
    let mut sick_here: HashSet<Vec<u32>> = HashSet::new();
    for (i, at) in sick.iter().enumerate() {
        let key = project(at);
        if spoilt.contains(&key) {
            continue;
        }
        if open.contains(&i) && seen.insert(key.clone()) {
            seeds.push(key.clone());
        }
        sick_here.insert(key);
    }
    let mut areas: Vec<(Area, Vec<usize>)> = Vec::new();
    for seed in seeds.into_iter().take(MOST_CANDIDATES) {
        let area = widen(shape, axes, &seed, &spoilt, &sick_here);
        if areas.iter().any(|(known, _)| *known == area) {
            continue;
        }
        let covered = (0..sick.len()).filter(|i| area.covers(sick[*i])).collect();
        areas.push((area, covered));
    }
    areas
}

/// Widens one combination of values: every axis takes what it can without a healthy cell inside.
/// An ordered axis grows to its ends over untested values; another one takes only values that are
/// sick themselves.
fn widen(
    shape: &Shape,
    axes: &[usize],
    seed: &[u32],
    spoilt: &HashSet<Vec<u32>>,
    sick: &HashSet<Vec<u32>>,
) -> Area {
    let mut sets: Vec<Vec<u32>> = seed.iter().map(|v| vec![*v]).collect();
    for (i, axis) in axes.iter().enumerate() {
        let size = u32::try_from(shape.sizes[*axis]).unwrap_or(u32::MAX);
        let start = seed[i];
        if shape.ordered[*axis] {
            grow(&mut sets, i, start + 1..size, spoilt, sick);
            grow(&mut sets, i, (0..start).rev(), spoilt, sick);
        } else {
            for value in (0..size).filter(|v| *v != start) {
                try_value(&mut sets, i, value, spoilt, sick, true);
            }
        }
    }
    let mut area = Area::all(shape);
    for (i, axis) in axes.iter().enumerate() {
        let allowed = &mut area.allowed[*axis];
        allowed.fill(false);
        for value in &sets[i] {
            allowed[*value as usize] = true;
        }
    }
    area
}

/// Lets a range grow in one direction up to the first healthy value. Where it does not reach the
/// end of the axis, what lies between the last sick value and the healthy one is untested and left
/// out.
fn grow(
    sets: &mut [Vec<u32>],
    axis: usize,
    mut values: impl Iterator<Item = u32>,
    spoilt: &HashSet<Vec<u32>>,
    sick: &HashSet<Vec<u32>>,
) {
    let mut kept = sets[axis].len();
    loop {
        let Some(value) = values.next() else { return };
        let is_sick = sick.iter().any(|key| inside(key, sets, axis, value));
        if !try_value(sets, axis, value, spoilt, sick, false) {
            sets[axis].truncate(kept);
            return;
        }
        if is_sick {
            kept = sets[axis].len();
        }
    }
}

/// Whether the combination lies in the sets, with `value` in place of the set of `axis`.
fn inside(key: &[u32], sets: &[Vec<u32>], axis: usize, value: u32) -> bool {
    key.iter().enumerate().all(|(i, v)| if i == axis { *v == value } else { sets[i].contains(v) })
}

/// Adds a value to one axis when the slice that it adds holds no healthy cell (and, where asked
/// for, a sick one).
fn try_value(
    sets: &mut [Vec<u32>],
    axis: usize,
    value: u32,
    spoilt: &HashSet<Vec<u32>>,
    sick: &HashSet<Vec<u32>>,
    must_be_sick: bool,
) -> bool {
    let holds = |keys: &HashSet<Vec<u32>>| keys.iter().any(|key| inside(key, sets, axis, value));
    if holds(spoilt) || (must_be_sick && !holds(sick)) {
        return false;
    }
    sets[axis].push(value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full table of which `sick` says which cells are sick; `None` is unknown.
    fn table(shape: &Shape, sick: impl Fn(&[u32]) -> Option<bool>) -> Vec<(Vec<u32>, Mark)> {
        let mut cells = vec![Vec::new()];
        for size in &shape.sizes {
            cells = cells
                .into_iter()
                .flat_map(|at: Vec<u32>| {
                    (0..*size).map(move |v| {
                        let mut at = at.clone();
                        at.push(v as u32);
                        at
                    })
                })
                .collect();
        }
        cells
            .into_iter()
            .map(|at| {
                let mark = match sick(&at) {
                    Some(true) => Mark::Sick,
                    Some(false) => Mark::Healthy,
                    None => Mark::Unknown,
                };
                (at, mark)
            })
            .collect()
    }

    fn shape(sizes: &[usize], ordered: &[bool]) -> Shape {
        Shape { sizes: sizes.to_vec(), ordered: ordered.to_vec() }
    }

    fn sets(area: &Area) -> Vec<Vec<usize>> {
        area.allowed
            .iter()
            .map(|set| set.iter().enumerate().filter(|(_, a)| **a).map(|(v, _)| v).collect())
            .collect()
    }

    /// Whatever was found covers every sick cell and no healthy one.
    fn holds(cells: &[(Vec<u32>, Mark)], found: &Found) {
        for (at, mark) in cells {
            let covered = found.areas.iter().any(|a| a.covers(at));
            match mark {
                Mark::Sick => assert!(covered, "{at:?} is sick and not covered"),
                Mark::Healthy => assert!(!covered, "{at:?} is healthy and covered"),
                Mark::Unknown => {}
            }
        }
    }

    #[test]
    fn three_conditions_together() {
        let shape = shape(&[2, 3, 3], &[false, true, false]);
        let cells = table(&shape, |at| Some(at[0] == 1 && at[1] >= 1 && at[2] == 2));
        let found = conditions(&shape, &cells);
        holds(&cells, &found);
        assert_eq!(found.areas.len(), 1);
        assert_eq!(sets(&found.areas[0]), [vec![1], vec![1, 2], vec![2]]);
        assert!(found.rivals.is_empty());
    }

    #[test]
    fn nothing_and_everything() {
        let shape = shape(&[2, 2], &[false, true]);
        let found = conditions(&shape, &table(&shape, |_| Some(false)));
        assert!(found.areas.is_empty() && found.left == 0);
        let found = conditions(&shape, &table(&shape, |_| Some(true)));
        assert_eq!(found.areas.len(), 1);
        assert_eq!(found.areas[0].restricted().count(), 0);
    }

    #[test]
    fn either_of_two() {
        let shape = shape(&[3, 4], &[false, true]);
        let cells = table(&shape, |at| Some(at[0] == 0 || at[1] == 3));
        let found = conditions(&shape, &cells);
        holds(&cells, &found);
        assert_eq!(found.areas.len(), 2);
        assert!(found.areas.iter().all(|a| a.restricted().count() == 1));
    }

    #[test]
    fn a_condition_within_another_is_left_out() {
        // What is sick at 2 with 0 is hidden by something else with 1.
        let shape = shape(&[3, 2], &[true, false]);
        let cells = table(&shape, |at| match (at[0], at[1]) {
            (2, 1) => None,
            (1 | 2, 0) => Some(true),
            _ => Some(false),
        });
        let found = conditions(&shape, &cells);
        holds(&cells, &found);
        assert_eq!(found.areas.len(), 1);
        assert_eq!(sets(&found.areas[0]), [vec![1, 2], vec![0]]);
    }

    #[test]
    fn a_range_stops_where_nothing_was_tested() {
        // Sick at 0 and 1, unknown at 2, healthy at 3.
        let shape = shape(&[4], &[true]);
        let cells = table(&shape, |at| match at[0] {
            0 | 1 => Some(true),
            2 => None,
            _ => Some(false),
        });
        assert_eq!(sets(&conditions(&shape, &cells).areas[0]), [vec![0, 1]]);
        // Unknown up to the end is taken along.
        let cells = table(&shape, |at| match at[0] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        });
        assert_eq!(sets(&conditions(&shape, &cells).areas[0]), [vec![1, 2, 3]]);
    }

    #[test]
    fn what_the_table_cannot_tell_apart_is_a_rival() {
        // The two axes always change together: either could be the cause.
        let shape = shape(&[2, 2], &[false, false]);
        let cells = table(&shape, |at| (at[0] == at[1]).then_some(at[0] == 1));
        let found = conditions(&shape, &cells);
        holds(&cells, &found);
        assert_eq!((found.areas.len(), found.rivals.len()), (1, 1));
        let (index, rival) = &found.rivals[0];
        let asked = questions(&shape, &cells, &found.areas[*index], rival, 4);
        assert_eq!(asked, [vec![0, 1], vec![1, 0]]);
    }

    #[test]
    fn random_tables_are_always_explained_soundly() {
        // xorshift, so that a failure comes again.
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        for _ in 0..300 {
            let axes = 1 + random(4) as usize;
            let sizes: Vec<usize> = (0..axes).map(|_| 1 + random(4) as usize).collect();
            let ordered: Vec<bool> = (0..axes).map(|_| random(2) == 0).collect();
            let shape = shape(&sizes, &ordered);
            let marks: Vec<u64> = (0..256).map(|_| random(5)).collect();
            let mut next = marks.iter();
            let cells: Vec<_> = table(&shape, |_| None)
                .into_iter()
                .map(|(at, _)| match next.next() {
                    Some(0) => (at, Mark::Sick),
                    Some(1) => (at, Mark::Unknown),
                    _ => (at, Mark::Healthy),
                })
                .collect();
            let found = conditions(&shape, &cells);
            if found.left == 0 {
                holds(&cells, &found);
            }
        }
    }
}
