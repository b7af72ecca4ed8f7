//! Patch stacks in git: which patches a branch already holds, and how to take some back.
//!
//! Decides from commits alone; the user's repository is only read. Main functions: [`status::status`],
//! [`plan::plan`], [`revert::series`].

pub mod git;
pub mod index;
pub mod message;
pub mod plan;
pub mod revert;
mod scratch;
pub mod status;
