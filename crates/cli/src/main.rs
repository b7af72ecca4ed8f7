//! The command line. There is nothing interesting here.

mod args;
mod boot;
mod build;
mod case;
mod check;
mod config;
mod console_output;
mod exit;
mod explain;
mod explain_case;
mod host;
mod host_kvm;
mod images;
mod log_files;
mod maintainers;
mod manual;
mod matrix;
mod prove;
mod read;
mod show;
mod stack;

use std::process::ExitCode;

fn main() -> ExitCode {
    exit::run(args::parse())
}
