//! What may be said on the command line: the options of each command, as plain structures.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::columns::List;
use crate::location::{self, Location};
use crate::text;

/// Of every operation on rows.
#[derive(Debug, Args)]
pub(crate) struct RowArgs {
    /// A matrix: FILE.npy, or shm:NAME for a segment
    #[arg(value_name = "INPUT")]
    pub(crate) input: Location,
    /// FILE.npy, or shm:NAME (kept after exit); without it a value a line
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<Location>,
    /// Only these, from 1, in INPUT's order: 6- or 2,4,7-9
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
pub(crate) struct NoArgs {}

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
