//! A matrix as text, JUnit, KTAP, KCIDB, lines for GitHub and one HTML page.
//!
//! Each report is a pure function of [`MatrixFile`](kolumbo_case::matrix::MatrixFile); what lies in
//! the case folders of the cells comes through [`Details`]. Decides how things are said, never what
//! they are. Guest text is hostile here: whatever leaves goes through [`visible()`] first.

mod details;
pub(crate) mod words;

pub mod github;
pub mod html;
pub mod junit;
pub mod kcidb;
pub mod ktap;
pub mod text;

pub use details::{ConsoleTail, Details, NoDetails};
pub(crate) use words::visible_lines;
pub use words::{Mark, Outcome, labels, mark, outcome, visible};
