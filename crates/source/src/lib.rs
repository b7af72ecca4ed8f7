//! Kernel source: configurations, toolchains, builds, patch stacks.
//!
//! Decides what differs between two configurations and why, how a tree is built, and which patches
//! of a stack a branch already holds. It may know git, make and processes; it may not know guests
//! and consoles, and it prints nothing.

pub mod build;
pub mod config;
pub mod fetch;
pub mod kconfig;
pub mod stack;
