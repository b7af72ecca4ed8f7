//! Experiments.
//!
//! The smallest experiment is one boot: [`kernel`] finds what the user named, [`boot`] runs it with
//! `machine` under the eyes of `judge`, and [`folder`] keeps what was learnt, at every moment. No
//! console line is understood here.

pub mod boot;
pub mod calls;
pub mod emulation;
pub mod folder;
pub mod inputs;
mod inside;
pub mod kernel;
pub mod matrix;
mod monitored;
pub mod nested;
pub mod package;
pub mod size;
pub mod standstill;
pub mod symbolise;
