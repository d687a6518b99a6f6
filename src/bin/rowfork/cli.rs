//! The command line as a whole: its commands, what was said, the manual page and completions.
//!
//! An operation is a line in `operations::OPERATIONS`, from which its subcommand follows.

use std::io;
use std::path::Path;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, crate_version, value_parser};

use crate::args::{
    BenchArgs, CollectArgs, CompletionsArgs, LoadArgs, ManArgs, NameArgs, NamesArgs, NoArgs,
    RowArgs,
};
use crate::bench;
use crate::failure::Failure;
use crate::location::Location;
use crate::operations::{OPERATIONS, Operation};

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

/// What the command line asks for. Whatever makes no sense ends the process here, with exit code 2;
/// so do `--help` and `--version`, with 0.
pub(crate) fn parse() -> Order {
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
            Failure::Said(format!(
                "{}: {error}; name a directory that is there",
                directory.display()
            ))
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
