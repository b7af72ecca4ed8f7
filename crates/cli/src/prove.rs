//! `kolumbo prove`: what was concluded is seen happening.

use anyhow::Result;
use clap::Args;
use kolumbo_lab::size;

use crate::exit::Outcome;
use crate::host_kvm::{self, HostKvmArgs};

/// Arguments of `kolumbo prove`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ProveArgs {
    #[command(flatten)]
    pub(crate) host_kvm: HostKvmArgs,

    /// Longest time it may take (20s, 1m)
    #[arg(short, long, default_value = "60s", value_parser = size::parse_duration_ms, value_name = "DUR")]
    pub(crate) timeout: u64,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &ProveArgs) -> Result<Outcome> {
    if args.host_kvm.host_kvm {
        return host_kvm::run(&args.host_kvm, args.timeout, args.json);
    }
    Ok(Outcome::Usage)
}
