//! Results to text.
//!
//! Every report is a pure function of what is stored, so that a live run and a replayed one read
//! alike. How a finding was reached is not known here, and nothing is printed.

pub mod boot;
pub mod build;
pub mod casebook;
pub mod casebook_page;
pub mod check;
pub mod check_sarif;
pub mod check_testcase;
pub mod config;
pub mod config_minimum;
pub mod crash;
pub mod emulation;
pub mod explain;
pub mod explain_mail;
pub mod matrix;
pub mod proof;
pub mod stack;
mod stack_versus;
pub mod wrap;
