//! Patch stacks in git, as a quilt series or in mails: which patches a branch already holds, and how to take some back.
//!
//! Decides from commits alone; the user's repository is only read. Main functions: [`status::status`],
//! [`plan::plan`], [`revert::series`].

mod diff;
mod error;
pub mod git;
mod history;
pub mod index;
pub mod mail;
pub mod message;
pub mod plan;
mod remarks;
pub mod revert;
mod scratch;
pub mod series;
pub mod status;
