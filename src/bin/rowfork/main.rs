//! The command `rowfork`: a file in, a file out. It parses the arguments, decides what to do, does
//! it, and prints the outcome.
//!
//! This crate is the only code of the project that prints, and the only one that exits.

mod args;
mod bench;
mod cli;
mod columns;
mod deliver;
mod doctor;
mod element;
mod failure;
mod gather;
mod input;
mod json;
mod location;
mod operations;
mod progress;
mod report;
mod segments;
mod signals;
mod text;

use std::process::ExitCode;

use self::cli::Order;
use self::failure::Failure;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    rowfork::failpoints::throw_by_environment();
    signals::listen();
    let order = cli::parse();
    match run(&order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn run(order: &Order) -> Result<(), Failure> {
    match order {
        Order::Rows(operation, args) => operations::run(operation, args),
        Order::Load(args) => segments::load(args),
        Order::List => segments::list(),
        Order::Info(args) => segments::info(&args.name),
        Order::Remove(args) => segments::remove(&args.names),
        Order::Collect(args) => segments::collect(&args.directories),
        Order::Doctor => doctor::run(),
        Order::Bench(args) => bench::run(args),
        Order::Man(args) => cli::write_man_pages(args.directory.as_deref()),
        Order::Completions(args) => cli::write_completions(args.shell),
    }
}
