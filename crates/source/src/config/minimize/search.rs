//! Delta debugging over sets of changes.
//!
//! Decides which set is tried next; what a set is, and what trying means, it does not know. The algorithm
//! is ddmin of Zeller and Hildebrandt (2002), with closed sets in place of sets, and a last pass that takes
//! single members away from the closed result. Main function: [`smallest`].

use std::collections::BTreeSet;

/// Places of changes.
pub(super) type Set = BTreeSet<usize>;

/// The smallest closed set that `bad` holds for, of `all` changes, for all of which it holds. No member can
/// be taken away, together with those that need it, without `bad` ceasing to hold; a smaller set of quite
/// other members may exist.
pub(super) fn smallest<E>(
    all: usize,
    close: &dyn Fn(&Set) -> Set,
    bad: &mut dyn FnMut(&Set) -> Result<bool, E>,
) -> Result<Set, E> {
    let mut items: Vec<usize> = (0..all).collect();
    let mut parts = 2;
    while items.len() > 1 {
        let size = items.len().div_ceil(parts);
        let chunks: Vec<Set> = items.chunks(size).map(|c| c.iter().copied().collect()).collect();
        if let Some(chunk) = first(&chunks, &mut |chunk| bad(&close(chunk)))? {
            items = chunks[chunk].iter().copied().collect();
            parts = 2;
            continue;
        }
        // Of two parts, the one is what the other leaves.
        let without = |chunk: &Set| -> Set {
            items.iter().copied().filter(|item| !chunk.contains(item)).collect()
        };
        let rests: Vec<Set> =
            if chunks.len() > 2 { chunks.iter().map(without).collect() } else { Vec::new() };
        if let Some(rest) = first(&rests, &mut |rest| bad(&close(rest)))? {
            items = rests[rest].iter().copied().collect();
            parts = (chunks.len() - 1).max(2);
        } else if chunks.len() >= items.len() {
            break;
        } else {
            parts = (chunks.len() * 2).min(items.len());
        }
    }
    let mut found = close(&items.into_iter().collect());
    while let Some(less) = one_less(&found, close, bad)? {
        found = less;
    }
    Ok(found)
}

/// A closed part of `set` without one member and those that need it, for which `bad` holds.
fn one_less<E>(
    set: &Set,
    close: &dyn Fn(&Set) -> Set,
    bad: &mut dyn FnMut(&Set) -> Result<bool, E>,
) -> Result<Option<Set>, E> {
    let mut tried = BTreeSet::new();
    for member in set {
        let needs = |other: &usize| close(&Set::from([*other])).contains(member);
        let rest: Set = set.iter().copied().filter(|other| !needs(other)).collect();
        let rest = close(&rest);
        let smaller = !rest.is_empty() && rest.len() < set.len() && rest.is_subset(set);
        if smaller && tried.insert(rest.clone()) && bad(&rest)? {
            return Ok(Some(rest));
        }
    }
    Ok(None)
}

fn first<E>(
    sets: &[Set],
    holds: &mut dyn FnMut(&Set) -> Result<bool, E>,
) -> Result<Option<usize>, E> {
    for (at, set) in sets.iter().enumerate() {
        if holds(set)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sets in which each number needs some smaller ones.
    fn closing(needs: &[Vec<usize>]) -> impl Fn(&Set) -> Set + '_ {
        move |set| {
            let mut closed = set.clone();
            let mut open: Vec<usize> = set.iter().copied().collect();
            while let Some(at) = open.pop() {
                open.extend(needs[at].iter().copied().filter(|n| closed.insert(*n)));
            }
            closed
        }
    }

    fn found(all: usize, needs: &[Vec<usize>], bad: &dyn Fn(&Set) -> bool) -> (Vec<usize>, usize) {
        let mut tests = 0;
        let close = closing(needs);
        let set = smallest::<()>(all, &close, &mut |set| {
            tests += 1;
            Ok(bad(set))
        });
        (set.unwrap().into_iter().collect(), tests)
    }

    #[test]
    fn one_guilty_of_many_is_found_in_few_tests() {
        let none = vec![Vec::new(); 4096];
        let (set, tests) = found(4096, &none, &|set| set.contains(&3000));
        assert_eq!(set, [3000]);
        assert!(tests <= 26, "{tests}");
        assert_eq!(found(100, &none, &|set| set.contains(&3) && set.contains(&97)).0, [3, 97]);
    }

    #[test]
    fn what_was_brought_along_and_is_not_needed_goes() {
        // 9 needs 5 and 1; 5 alone is guilty.
        let mut needs = vec![Vec::new(); 10];
        needs[9] = vec![5, 1];
        assert_eq!(found(10, &needs, &|set| set.contains(&5)).0, [5]);
        assert_eq!(found(10, &needs, &|set| set.contains(&9)).0, [1, 5, 9]);
    }

    proptest! {
        #[test]
        fn nothing_can_be_taken_away(
            needs in prop::collection::vec(prop::collection::vec(0usize..40, 0..3), 40),
            guilty in prop::collection::btree_set(0usize..40, 1..4),
        ) {
            let needs: Vec<Vec<usize>> =
                needs.iter().enumerate().map(|(at, n)| n.iter().copied().filter(|o| *o < at).collect()).collect();
            let (set, _) = found(40, &needs, &|set| guilty.is_subset(set));
            let set: Set = set.into_iter().collect();
            // The guilty and what they need, and nothing else.
            prop_assert_eq!(set, closing(&needs)(&guilty));
        }
    }
}
