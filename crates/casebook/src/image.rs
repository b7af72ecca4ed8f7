//! Changes of the bytes of a built image.
//!
//! A pattern has to be there as often as the case says, else nothing is written. Main function: [`edited`].

use crate::file::CaseError;
use crate::recipe::ImageEdit;

/// `bytes` with the edits made, one after the other.
pub fn edited(mut bytes: Vec<u8>, edits: &[ImageEdit]) -> Result<Vec<u8>, CaseError> {
    for edit in edits {
        let places = places_of(&bytes, &edit.find);
        if places.len() != edit.hits {
            return Err(CaseError {
                place: edit.place.clone(),
                reason: format!(
                    "the bytes to find are in the image {} times, not {}",
                    places.len(),
                    edit.hits
                ),
            });
        }
        for at in places {
            bytes[at..at + edit.replace.len()].copy_from_slice(&edit.replace);
        }
    }
    Ok(bytes)
}

/// Where `wanted` begins, without overlaps.
fn places_of(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let Some(&first) = wanted.first() else { return Vec::new() };
    let mut places = Vec::new();
    let mut from = 0;
    while let Some(found) = bytes[from..].iter().position(|b| *b == first) {
        let at = from + found;
        if bytes[at..].starts_with(wanted) {
            places.push(at);
            from = at + wanted.len();
        } else {
            from = at + 1;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_there_as_often_as_expected_or_nothing_changes() {
        let edit = |find: &[u8], replace: &[u8], hits| ImageEdit {
            find: find.to_vec(),
            replace: replace.to_vec(),
            hits,
            place: "case.toml:3:1".to_owned(),
        };
        let bytes = b"xabab-abx".to_vec();
        let good = edited(bytes.clone(), &[edit(b"ab", b"cd", 3), edit(b"dc", b"--", 1)]).unwrap();
        assert_eq!(good, b"xc--d-cdx");
        let error = edited(bytes.clone(), &[edit(b"ab", b"cd", 1)]).unwrap_err().to_string();
        assert_eq!(error, "case.toml:3:1: the bytes to find are in the image 3 times, not 1");
        // A pattern that overlaps itself is found once where one replacement destroys the other.
        assert_eq!(places_of(b"aaaa", b"aaa"), [0]);
        assert_eq!(places_of(b"aab", b"ab"), [1]);
    }
}
