//! The command line: what may be said, and what was.
//!
//! An operation is a line in `operations::OPERATIONS`, from which its subcommand follows.

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum, crate_version, value_parser};

use crate::bench;
use crate::columns::List;
use crate::failure::Failure;
use crate::location::{self, Location};
use crate::operations::{OPERATIONS, Operation};
use crate::text;

/// What the command is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// A value of each row.
    Rows(&'static Operation, RowArgs),
    Load(LoadArgs),
    List,
    Info(NameArgs),
    Remove(NamesArgs),
    Collect(CollectArgs),
    Doctor,
    Bench(BenchArgs),
    Man(ManArgs),
    Completions(CompletionsArgs),
}

/// Of every operation on rows.
#[derive(Debug, Args)]
pub(crate) struct RowArgs {
    /// A matrix: FILE.npy, or shm:NAME for a segment
    #[arg(value_name = "INPUT")]
    pub(crate) input: Location,
    /// FILE.npy, or shm:NAME (kept after exit); without it a value a line
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<Location>,
    /// Only these columns, from 1: 6- or 2,4,7-9
    #[arg(short, long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) columns: Option<List>,
    /// Only these rows, from 1: 1000- or 1-500
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true)]
    pub(crate) rows: Option<List>,
    /// The vector: FILE.npy or shm:NAME, one axis
    #[arg(skip)]
    pub(crate) with: Option<Location>,
    /// At most N workers [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = some_workers)]
    pub(crate) workers: Option<usize>,
    /// Forked for this call, or from a pool
    #[arg(long, value_name = "KIND", default_value = "fork", hide_possible_values = true)]
    pub(crate) executor: Kind,
    /// Give up after so long: 10m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(crate) deadline: Option<Duration>,
    /// Kill a worker that finishes no row for so long
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(crate) stall: Option<Duration>,
    /// Try a row that kills its worker so often again [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// A row that cannot be had: fail, or nan in its place
    #[arg(long, value_name = "WHAT", default_value = "fail", hide_possible_values = true)]
    pub(crate) on_poison: OnPoison,
    /// Say how it went on standard error: text or json
    #[arg(long, value_name = "FORM", hide_possible_values = true)]
    pub(crate) report: Option<Form>,
    /// No progress bar, no warnings
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Where workers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Fork,
    Pool,
}

/// What becomes of rows that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnPoison {
    Fail,
    Nan,
}

/// What a report is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// FILE.npy of any shape
    #[arg(value_name = "INPUT")]
    pub(crate) input: Location,
    /// The segment's name under /dev/shm
    #[arg(value_name = "NAME", value_parser = bare_name)]
    pub(crate) name: String,
    /// No report
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
struct NoArgs {}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// A segment's name, or FILE.npy (or any path with a slash)
    #[arg(value_name = "NAME")]
    pub(crate) name: Location,
}

#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// Names of segments (shm: may stand before them)
    #[arg(value_name = "NAME", required = true, value_parser = bare_name)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    /// Directories to look for unfinished output files in
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) directories: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Bytes of the matrix: 1GiB, 200MB [default: 512MiB, or a quarter of the room]
    #[arg(short, long, value_name = "BYTES", value_parser = text::parse_bytes)]
    pub(crate) size: Option<u64>,
    /// Its columns
    #[arg(short, long, value_name = "N", default_value = "1024")]
    pub(crate) columns: NonZeroU32,
    /// No progress bar
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write a page for each command [default: the main page, to standard output]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    pub(crate) shell: clap_complete::Shell,
}

#[expect(clippy::unnecessary_wraps, reason = "what clap asks for")]
fn bare_name(name: &str) -> Result<String, String> {
    Ok(location::bare_name(name).to_owned())
}

fn some_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed (leave it out for one per core)".to_owned()),
        Ok(workers) => Ok(workers),
        Err(_) => Err("no number".to_owned()),
    }
}

/// A time in which something can be done.
fn some_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("nothing is done in no time".to_owned()) } else { Ok(time) }
}

/// Help without blank lines, so that it fits a screen.
const TEMPLATE: &str = "{about}\n{usage-heading} {usage}\n{all-args}{after-help}";

fn command() -> Command {
    let rows = OPERATIONS.iter().map(|operation| {
        let with = operation.with.map(|help| {
            Arg::new("with")
                .long("with")
                .value_name("V")
                .help(help)
                .required(true)
                .value_parser(value_parser!(Location))
        });
        let named = if with.is_some() { " --with v.npy" } else { "" };
        let example = format!("{} m.npy{named} -o out.npy", operation.name);
        described::<RowArgs>(operation.name, operation.about, &example).args(with)
    });
    Command::new("rowfork")
        .about("Rows of large .npy files and shared-memory segments, by processes: exact, and as fast as memory")
        .version(crate_version!())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .help_template(TEMPLATE)
        .after_help("Example: rowfork sum m.npy | sort -g | head\nrowfork COMMAND --help says more of each")
        .subcommands(rows)
        .subcommands([
            described::<LoadArgs>(
                "load",
                "Place a .npy file in a segment, kept for others until rowfork rm",
                "load m.npy prices && rowfork sum shm:prices",
            ),
            described::<NoArgs>("ls", "List segments: what, how large, how old, whose", "ls"),
            described::<NameArgs>("info", "Say what an array is, and who has it mapped", "info prices"),
            described::<NamesArgs>("rm", "Remove segments (NumPy keeps what it has mapped of them)", "rm prices"),
            described::<CollectArgs>(
                "gc",
                "Remove what killed programs have left: segments, unfinished files",
                "gc /data/out",
            ),
            described::<NoArgs>(
                "doctor",
                "Say what this machine lacks for shared arrays, and what to do",
                "doctor || echo not here
Exit code 0 if nothing is bad, 1 otherwise; a note is not bad",
            ),
            described::<BenchArgs>("bench", "Measure this machine: memory, sums by threads and workers, calls", "")
                .after_help(bench::HELP),
            described::<ManArgs>("man", "Write the manual page", "man | man -l -"),
            described::<CompletionsArgs>(
                "completions",
                "Write completions for a shell",
                "completions bash > ~/.local/share/bash-completion/completions/rowfork",
            ),
        ])
}

fn described<A: Args>(name: &'static str, about: &'static str, example: &str) -> Command {
    let command = A::augment_args(Command::new(name)).about(about);
    command.after_help(format!("Example: rowfork {example}")).help_template(TEMPLATE)
}

/// What the command line asks for. Whatever makes no sense ends the process here, with exit code 2; so do `--help` and
/// `--version`, with 0.
pub(crate) fn from_command_line() -> Order {
    let matches = command().get_matches();
    order(&matches).unwrap_or_else(|error| error.exit())
}

fn order(matches: &ArgMatches) -> Result<Order, clap::Error> {
    let (name, matches) = matches.subcommand().expect("clap asks for one");
    if let Some(operation) = OPERATIONS.iter().find(|operation| operation.name == name) {
        let mut args = RowArgs::from_arg_matches(matches)?;
        args.with = operation.with.and_then(|_| matches.get_one("with").cloned());
        return Ok(Order::Rows(operation, args));
    }
    Ok(match name {
        "load" => Order::Load(LoadArgs::from_arg_matches(matches)?),
        "ls" => Order::List,
        "info" => Order::Info(NameArgs::from_arg_matches(matches)?),
        "rm" => Order::Remove(NamesArgs::from_arg_matches(matches)?),
        "gc" => Order::Collect(CollectArgs::from_arg_matches(matches)?),
        "doctor" => Order::Doctor,
        "bench" => Order::Bench(BenchArgs::from_arg_matches(matches)?),
        "man" => Order::Man(ManArgs::from_arg_matches(matches)?),
        _ => Order::Completions(CompletionsArgs::from_arg_matches(matches)?),
    })
}

/// The manual page, or one for each command.
pub(crate) fn write_man_pages(directory: Option<&Path>) -> Result<(), Failure> {
    match directory {
        None => Ok(clap_mangen::Man::new(command()).render(&mut io::stdout())?),
        Some(directory) => clap_mangen::generate_to(command(), directory).map_err(|error| {
            Failure::Said(format!("{}: {error}; name a directory that is there", directory.display()))
        }),
    }
}

/// What a shell completes.
pub(crate) fn write_completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "rowfork", &mut script);
    Ok(io::Write::write_all(&mut io::stdout(), &script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_nothing_wrong() {
        command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_fits_a_screen_and_has_an_example() {
        let mut whole = command();
        whole.build();
        let main = whole.clone();
        for command in whole.get_subcommands_mut().chain([&mut main.clone()]) {
            let help = command.clone().term_width(80).render_help().to_string();
            assert!(help.contains("Example: rowfork "), "{help}");
            assert!(help.lines().count() <= 24, "{} lines:\n{help}", help.lines().count());
            assert!(help.lines().all(|line| line.len() <= 100), "{help}");
        }
    }
}
