//! Tries every order in which the processes of a call may take their steps, and every value that
//! the memory model of the language lets them read, on the files of rowfork that say how they
//! agree: `src/engine/control/` and `src/executor/pool/job_board.rs`, unchanged. What is covered
//! and what is not stands in `src/engine/control/README.md`.
//!
//! `cargo run --release --manifest-path tests/model/Cargo.toml [part of a model's name [interruptions]]`

mod call;
mod engine;
mod pool;
mod sys;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use self::sys::atomic::WITNESS;

/// One thing to be tried in all orders. Says whether a worker died in it, if one was to.
type Model = fn(steps: Option<u32>) -> bool;

struct Case {
    name: &'static str,
    /// A process is interrupted where it could go on so many times at most; as often as can be if
    /// nobody says.
    interruptions: Option<usize>,
    /// A worker is to die: before its first store, before its second, and so on to after its last.
    death: bool,
    /// Without `sys::atomic::WITNESS`: it would take too long.
    quick: bool,
    model: Model,
}

const CASES: &[Case] = &[
    Case::new("claims: a block is taken over", Some(4), call::taken_over).with_death(),
    Case::new("claims: a block is done again", Some(4), call::done_again),
    Case::new("claims: two workers, three blocks, one death", Some(1), call::three_blocks)
        .with_death()
        .quick(),
    Case::new("claims: a block in pieces", Some(1), call::pieces).with_death().quick(),
    Case::new("claims: pieces come meanwhile", Some(4), call::pieces_come),
    Case::new("claims: late for the call before", Some(1), call::late).quick(),
    Case::new("board: two records", Some(2), pool::records),
    Case::new("board: a worker falls asleep", Some(2), pool::worker_sleeps),
    Case::new("board: the caller falls asleep", Some(2), pool::caller_sleeps),
    Case::new("pool: two calls, two workers", Some(1), pool::two_calls),
];

impl Case {
    const fn new(name: &'static str, interruptions: Option<usize>, model: Model) -> Self {
        Self { name, interruptions, death: false, quick: false, model }
    }

    const fn with_death(self) -> Self {
        Self { death: true, ..self }
    }

    const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_default();
    let asked: Option<usize> =
        arguments.next().map(|number| number.parse().expect("a number of interruptions"));
    for case in CASES.iter().filter(|case| case.name.contains(&wanted)) {
        let began = Instant::now();
        let interruptions = asked.or(case.interruptions);
        WITNESS.store(!case.quick, Ordering::Relaxed);
        let mut orders = 0;
        if case.death {
            let mut places = 0;
            loop {
                let (tried, deaths) = try_all(case.model, interruptions, Some(places));
                orders += tried;
                // Until nobody lives to see the step before which he was to die.
                if deaths == 0 {
                    break;
                }
                places += 1;
            }
            print!("{places} places to die, ");
        } else {
            orders = try_all(case.model, interruptions, None).0;
        }
        let bound = interruptions.map_or("any".to_owned(), |most| format!("<= {most}"));
        println!(
            "{}: {orders} orders, {bound} interruptions, {:.1} s",
            case.name,
            began.elapsed().as_secs_f64()
        );
    }
}

/// How many orders there are, and in how many of them the worker died that was to. Ends when all
/// are tried.
fn try_all(model: Model, interruptions: Option<usize>, steps: Option<u32>) -> (usize, usize) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = interruptions;
    builder.max_branches = 100_000;
    let seen = Arc::clone(&counts);
    builder.check(move || {
        let died = model(steps);
        seen[0].fetch_add(1, Ordering::Relaxed);
        seen[1].fetch_add(died.into(), Ordering::Relaxed);
    });
    let [orders, deaths] = [0, 1].map(|at: usize| counts[at].load(Ordering::Relaxed));
    (orders, deaths)
}
