//! How a command ends: one table of exit codes, reached by one match.

use std::io::Write;
use std::process::ExitCode;

use kolumbo_case::verdict::{EXIT_CANNOT_TELL, EXIT_USAGE};
use kolumbo_case::{CaseFile, VerdictKind};

use crate::args::{Cli, Command};
use crate::{boot, check, explain, host, manual, read, show};
