//! What a report wants from the case folders of a matrix.
//!
//! Decides nothing: whoever has the folders implements [`Details`]. Everything is optional, since
//! folders vanish.

use kolumbo_case::CaseFile;

/// The end of a console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleTail {
    /// The bytes as the guest wrote them.
    pub bytes: Vec<u8>,
    /// How many bytes came before them.
    pub before: u64,
}

/// The case folders of a matrix. `cell` is an index into the cells, `run` one into the runs of that
/// cell. Reports ask only for what they have room for, and at most once for each run.
pub trait Details {
    /// The case file of a run.
    fn case(&self, cell: u32, run: usize) -> Option<CaseFile>;
    /// At most the last `most` bytes of the console of a run.
    fn console(&self, cell: u32, run: usize, most: usize) -> Option<ConsoleTail>;
    /// The explanation of a run's crash as plain text of many lines.
    fn explanation(&self, cell: u32, run: usize) -> Option<String>;
}

/// No folder is at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDetails;

impl Details for NoDetails {
    fn case(&self, _cell: u32, _run: usize) -> Option<CaseFile> {
        None
    }

    fn console(&self, _cell: u32, _run: usize, _most: usize) -> Option<ConsoleTail> {
        None
    }

    fn explanation(&self, _cell: u32, _run: usize) -> Option<String> {
        None
    }
}
