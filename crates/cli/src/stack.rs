//! `kolumbo stack`: from arguments to a table of patches, a plan, or a series of reverts.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueHint};
use kolumbo_source::stack::git::Repository;
use kolumbo_source::stack::plan::plan;
use kolumbo_source::stack::revert::series;
use kolumbo_source::stack::status::{Question, status};

use crate::boot::cache_folder;
use crate::exit::Outcome;

/// Arguments of `kolumbo stack`.
#[derive(Debug, Args)]
pub(crate) struct StackArgs {
    #[command(subcommand)]
    command: StackCommand,
}

/// What to do with a stack.
#[derive(Debug, Subcommand)]
enum StackCommand {
    /// Say of each patch whether the target holds it, and where labels lie
    Status(StatusArgs),
    /// Say what a rebase would drop, keep and conflict in; tried in a scratch repository
    Plan(StatusArgs),
    /// Print the series that takes patches with certain labels back, for 'git am'
    Revert(RevertArgs),
}

/// Arguments of `kolumbo stack status` and `kolumbo stack plan`.
#[derive(Debug, Args)]
struct StatusArgs {
    /// The stack: BASE..BRANCH, or BASE for all behind it up to HEAD
    #[arg(value_name = "RANGE")]
    stack: String,

    /// The branch, tag or commit that it shall stand on
    #[arg(long, value_name = "COMMIT")]
    onto: String,

    /// Where upstream's history is, to find repairs that are missing
    #[arg(long, value_name = "COMMIT")]
    upstream: Option<String>,

    /// A further label that subjects may begin with; may be given more than once
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,

    /// The repository; it is only read
    #[arg(short = 'C', long, default_value = ".", value_name = "DIR", value_hint = ValueHint::DirPath)]
    repository: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `kolumbo stack revert`.
#[derive(Debug, Args)]
struct RevertArgs {
    /// The stack: BASE..BRANCH, or BASE for all behind it up to HEAD
    #[arg(value_name = "RANGE")]
    stack: String,

    /// Labels of the patches, with commas between them
    #[arg(long, value_name = "LABELS", value_delimiter = ',', required = true)]
    label: Vec<String>,

    /// The repository; it is only read
    #[arg(short = 'C', long, default_value = ".", value_name = "DIR", value_hint = ValueHint::DirPath)]
    repository: PathBuf,
}

pub(crate) fn run(args: &StackArgs) -> Result<Outcome> {
    let mut out = std::io::stdout().lock();
    match &args.command {
        StackCommand::Status(args) => {
            let (_, found) = ask(args)?;
            if args.json {
                serde_json::to_writer_pretty(&mut out, &found)?;
                writeln!(out)?;
            } else {
                write!(out, "{}", kolumbo_report::stack::status(&found))?;
            }
        }
        StackCommand::Plan(args) => {
            let (repository, found) = ask(args)?;
            let planned = plan(&repository, found)?;
            if args.json {
                serde_json::to_writer_pretty(&mut out, &planned)?;
                writeln!(out)?;
            } else {
                write!(out, "{}", kolumbo_report::stack::plan(&planned))?;
            }
        }
        StackCommand::Revert(args) => {
            let repository = Repository::open(&args.repository)?;
            out.write_all(&series(&repository, &args.stack, &args.label)?)?;
        }
    }
    Ok(Outcome::Done)
}

fn ask(args: &StatusArgs) -> Result<(Repository, kolumbo_case::StackStatus)> {
    let repository = Repository::open(&args.repository)?;
    let cache = cache_folder()?;
    let question = Question {
        stack: &args.stack,
        onto: &args.onto,
        upstream: args.upstream.as_deref(),
        labels: &args.label,
        cache: &cache,
    };
    let found = status(&repository, &question)?;
    Ok((repository, found))
}
