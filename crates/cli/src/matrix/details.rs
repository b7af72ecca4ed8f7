//! What lies in the case folders of a matrix, for the reports that show it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use kolumbo_case::{CaseFile, MatrixFile};
use kolumbo_lab::folder::{CONSOLE_FILE, Folder, replace};
use kolumbo_report::explain;
use kolumbo_report::matrix::{ConsoleTail, Details};

use crate::explain_case;

/// Bugs that are explained: each costs the reading of an image.
const EXPLAINED: usize = 8;

/// The case folders below the folder of a matrix.
pub(crate) struct FolderDetails<'a> {
    dir: &'a Path,
    matrix: &'a MatrixFile,
    cache: &'a Path,
}

impl<'a> FolderDetails<'a> {
    pub(crate) fn new(dir: &'a Path, matrix: &'a MatrixFile, cache: &'a Path) -> Self {
        FolderDetails { dir, matrix, cache }
    }

    fn folder(&self, cell: u32, run: usize) -> Option<PathBuf> {
        let run = self.matrix.cells.get(cell as usize)?.runs.get(run)?;
        (!run.folder.is_empty()).then(|| self.dir.join(&run.folder))
    }

    /// Explains one run of each bug and keeps that in its case. A case that cannot be read or
    /// written has no explanation, and its report says nothing of one.
    pub(crate) fn explain_bugs(&self) {
        let mut first: HashMap<u32, PathBuf> = HashMap::new();
        for (cell, index) in self.matrix.cells.iter().zip(0u32..) {
            for (run, what) in cell.runs.iter().enumerate() {
                if let (Some(bug), Some(folder)) = (what.bug, self.folder(index, run)) {
                    first.entry(bug).or_insert(folder);
                }
            }
        }
        for (_, path) in first.into_iter().filter(|(bug, _)| (*bug as usize) < EXPLAINED) {
            let Ok(folder) = Folder::read(&path) else { continue };
            let mut case = folder.case.clone();
            if case.explanation.is_some() {
                continue;
            }
            let console = folder.console().unwrap_or_default();
            case.explanation = explain_case::explanation(&case, &console, self.cache);
            if case.explanation.is_some() {
                let _ = replace(&path, &case);
            }
        }
    }
}

impl Details for FolderDetails<'_> {
    fn case(&self, cell: u32, run: usize) -> Option<CaseFile> {
        Folder::read(&self.folder(cell, run)?).ok().map(|f| f.case)
    }

    fn console(&self, cell: u32, run: usize, most: usize) -> Option<ConsoleTail> {
        let mut file = File::open(self.folder(cell, run)?.join(CONSOLE_FILE)).ok()?;
        let length = file.metadata().ok()?.len();
        let before = length.saturating_sub(most as u64);
        file.seek(SeekFrom::Start(before)).ok()?;
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes).ok()?;
        Some(ConsoleTail { bytes, before })
    }

    fn explanation(&self, cell: u32, run: usize) -> Option<String> {
        let explanation = self.case(cell, run)?.explanation?;
        Some(explain::report(&explanation, explain::Shown::default()))
    }
}
