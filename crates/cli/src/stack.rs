//! `kolumbo stack`: from arguments to a table of patches, a plan, or a series of reverts.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueHint};
use kolumbo_source::stack::git::Repository;
use kolumbo_source::stack::plan::plan;
use kolumbo_source::stack::revert::series;
use kolumbo_source::stack::series::Stack;
use kolumbo_source::stack::status::{Question, status};

use crate::boot::cache_folder;
use crate::exit::Outcome;
use crate::matrix::screen;

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
    Plan(PlanArgs),
    /// Print the series that takes patches with certain labels back, for 'git am'
    Revert(RevertArgs),
}

/// Arguments of `kolumbo stack status`.
#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    question: QuestionArgs,

    /// Show diffs that have to be compared one below the other, also where the terminal has room for two
    #[arg(long)]
    plain: bool,
}

/// Arguments of `kolumbo stack plan`.
#[derive(Debug, Args)]
struct PlanArgs {
    #[command(flatten)]
    question: QuestionArgs,

    /// Make the result this new branch, and show git's range-diff of old and new stack
    #[arg(long, value_name = "NEWBRANCH")]
    apply: Option<String>,

    /// Make the branch without the patches that conflict
    #[arg(long, requires = "apply")]
    leave_out_conflicts: bool,
}

/// What is asked by both.
#[derive(Debug, Args)]
struct QuestionArgs {
    /// The stack: BASE..BRANCH, BASE for all behind it up to HEAD, a folder with a quilt series or with
    /// patches, a series, or a mailbox
    #[arg(value_name = "STACK")]
    stack: String,

    /// The commit that patches in files are made for, unless they say so (format-patch --base)
    #[arg(long, value_name = "COMMIT")]
    base: Option<String>,

    /// The branch, tag or commit that it shall stand on
    #[arg(long, value_name = "COMMIT")]
    onto: String,

    /// Where upstream's history is, to find repairs and prerequisites that are missing
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
    /// The stack: BASE..BRANCH, BASE for all behind it up to HEAD, a folder with a quilt series or with
    /// patches, a series, or a mailbox
    #[arg(value_name = "STACK")]
    stack: String,

    /// The commit that patches in files are made for, unless they say so (format-patch --base)
    #[arg(long, value_name = "COMMIT")]
    base: Option<String>,

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
            let (_, _, found) = ask(&args.question)?;
            if args.question.json {
                serde_json::to_writer_pretty(&mut out, &found)?;
                writeln!(out)?;
            } else {
                let width = screen::width().filter(|_| !args.plain);
                write!(out, "{}", kolumbo_report::stack::status(&found, width))?;
            }
        }
        StackCommand::Plan(args) => {
            let (repository, stack, found) = ask(&args.question)?;
            let mut planned = plan(&repository, &stack, found)?;
            if let Some(branch) = &args.apply {
                planned.apply(&repository, branch, args.leave_out_conflicts)?;
            }
            if args.question.json {
                serde_json::to_writer_pretty(&mut out, &planned.plan)?;
                writeln!(out)?;
            } else {
                write!(out, "{}", kolumbo_report::stack::plan(&planned.plan))?;
            }
        }
        StackCommand::Revert(args) => {
            let repository = Repository::open(&args.repository)?;
            let stack = Stack::open(&repository, &args.stack, args.base.as_deref())?;
            out.write_all(&series(&repository, &stack, &args.label)?)?;
        }
    }
    Ok(Outcome::Done)
}

fn ask(args: &QuestionArgs) -> Result<(Repository, Stack, kolumbo_case::StackStatus)> {
    let repository = Repository::open(&args.repository)?;
    let cache = cache_folder()?;
    let stack = Stack::open(&repository, &args.stack, args.base.as_deref())?;
    let question = Question {
        stack: &stack,
        onto: &args.onto,
        upstream: args.upstream.as_deref(),
        labels: &args.label,
        cache: &cache,
    };
    let found = status(&repository, &question)?;
    Ok((repository, stack, found))
}
