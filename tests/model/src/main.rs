//! Tries every order in which the processes of a call may take their steps, and every value that the memory model of the language
//! lets them read, on the files of rowfork that say how they agree: `src/control/` and `src/pool/board.rs`, unchanged. What is
//! covered and what is not stands in `src/control/README.md`.
//!
//! `cargo run --release --manifest-path tests/model/Cargo.toml [part of a model's name]`

#[path = "../../../src/blocks.rs"]
mod blocks;
#[expect(unused_imports, reason = "no model asks for all that rowfork has in these files")]
#[path = "../../../src/control/mod.rs"]
mod control;

mod call;
mod pool;
mod sys;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// One thing to be tried in all orders. Says whether a worker died in it, if one was to.
type Model = fn(steps: Option<u32>) -> bool;

struct Case {
    name: &'static str,
    /// A process is interrupted where it could go on so many times at most; as often as can be if nobody says.
    interruptions: Option<usize>,
    /// A worker is to die: before its first store, before its second, and so on to after its last.
    death: bool,
    model: Model,
}

const CASES: &[Case] = &[
    Case::new("claims: two workers, three blocks, one death", Some(1), call::three_blocks).with_death(),
    Case::new("claims: a block in pieces", Some(1), call::pieces).with_death(),
    Case::new("claims: late for the call before", Some(1), call::late),
    Case::new("board: two records", Some(2), pool::records),
    Case::new("board: a worker falls asleep", Some(2), pool::worker_sleeps),
    Case::new("board: the caller falls asleep", Some(2), pool::caller_sleeps),
    Case::new("pool: two calls, two workers", Some(1), pool::two_calls),
];

impl Case {
    const fn new(name: &'static str, interruptions: Option<usize>, model: Model) -> Self {
        Self { name, interruptions, death: false, model }
    }

    const fn with_death(self) -> Self {
        Self { death: true, ..self }
    }
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for case in CASES.iter().filter(|case| case.name.contains(&wanted)) {
        let began = Instant::now();
        let orders = if case.death {
            // Until nobody lives to see the step before which he was to die.
            let each = (0..).map(|steps| try_all(case, Some(steps)));
            let mut all = 0;
            for (steps, (orders, deaths)) in (0..).zip(each) {
                all += orders;
                if deaths == 0 {
                    print!("{steps} places to die, ");
                    break;
                }
            }
            all
        } else {
            try_all(case, None).0
        };
        let bound = case.interruptions.map_or("any".to_owned(), |n| format!("<= {n}"));
        println!("{}: {orders} orders, {bound} interruptions, {:.1} s", case.name, began.elapsed().as_secs_f64());
    }
}

/// How many orders there are, and in how many of them the worker died that was to.
fn try_all(case: &Case, steps: Option<u32>) -> (usize, usize) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = case.interruptions;
    builder.max_branches = 100_000;
    // Not all of the largest model then, but the same part each time, nearly.
    builder.max_duration = Some(std::time::Duration::from_secs(6));
    let (seen, model) = (Arc::clone(&counts), case.model);
    builder.check(move || {
        let died = model(steps);
        seen[0].fetch_add(1, Ordering::Relaxed);
        seen[1].fetch_add(died.into(), Ordering::Relaxed);
    });
    let [orders, deaths] = [0, 1].map(|at: usize| counts[at].load(Ordering::Relaxed));
    (orders, deaths)
}
