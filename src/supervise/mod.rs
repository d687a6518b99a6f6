//! What to do when workers die, hang, or time runs out: [`bury`] and [`decide`], functions of what is known, with no clock,
//! no process and no system call in them, and so tested without any.
//!
//! | file | what |
//! |---|---|
//! | `ledger.rs` | what is remembered of a call, and the judgement of one death |
//! | `units.rs` | blocks, and pieces of those that were split |
//! | `blame.rs` | when a row is to blame for the deaths over it |
//! | `clock.rs` | who is overdue |
//!
//! Called by the supervisor, which sees the deaths and performs what is decided. The protocol is in `control/README.md`.

mod blame;
mod clock;
mod ledger;
#[cfg(test)]
mod tests;
mod units;

pub(crate) use clock::{Clock, DEATH_LIMIT, INIT_LIMIT, STARTUP_LIMIT, Vital};
pub(crate) use ledger::Ledger;

use std::ops::Range;
use std::time::Instant;

use crate::control::{ClaimState, Message, Owner, Saved};
use crate::error::{DeathCause, Error};
use crate::report::EarlyEnd;

/// The end of one worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) owner: Owner,
    pub(crate) cause: DeathCause,
    /// The row that its slot says it was at; untrusted.
    pub(crate) row: usize,
    /// In place: how far it was; untrusted.
    pub(crate) saved: Option<Saved>,
    /// What it left in its slot; untrusted.
    pub(crate) message: Option<Message>,
}

/// What the supervisor sees at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    /// The claim words, decoded after all known deaths.
    pub(crate) units: &'a [ClaimState],
    /// The workers that are alive.
    pub(crate) vitals: &'a [Vital],
    pub(crate) cancelled: bool,
    pub(crate) now: Instant,
}

/// What becomes of the units of the dead, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// In place: of these rows, put those back that `owner` had saved. They are the first.
    Restore { rows: Range<usize>, owner: Owner },
    /// `CLAIMED(owner)`, or `DONE` by it, becomes `FREE`.
    Free { unit: usize, owner: Owner },
    /// The unit is not to be done any more.
    Retire { unit: usize },
    /// A new unit, free or done.
    Add { unit: usize, rows: Range<usize>, state: ClaimState },
    /// The next worker shall look at this unit first.
    HandBack { unit: usize },
    /// Workers pass over this row from now on.
    Skip { row: usize },
    /// Units that start at this row or later need not be done.
    Limit { row: usize },
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// SIGKILL to a worker that is overdue.
    Kill(Owner),
    /// Kill all workers, free every block, begin again.
    Restart,
    /// Free what is done: it shall be done once more.
    RunAgain,
    /// Fork this many workers.
    Spawn(usize),
    /// End all workers and return this.
    Finish(Verdict),
}

/// How a call ends.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every row is done or has failed, and that may be.
    Complete,
    /// With rows that were not run.
    Early(EarlyEnd),
    /// Nothing can be answered.
    Failed(Error),
    /// A worker does not die.
    Unkillable(Owner),
}

/// Whose code the workers of a call run, and so what a crash may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Ours: no stray stores.
    BuiltIn,
    /// The user's, which sees no writable output: what it did to its own process.
    Guarded,
    /// The user's: it may have written to any row of the output, and to the control block.
    Unguarded,
}

/// How a unit is divided to find the row that kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Division {
    /// At the row that the worker noted before it began with it.
    AtTheRow,
    /// In halves: what is noted is the unit.
    InHalves,
    /// Not at all: the result depends on the cut. The row is passed over.
    Never,
}

/// What a call allows and wants.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// At most so many at a time.
    pub(crate) workers: usize,
    /// So many deaths convict a row.
    pub(crate) attempts: u32,
    /// Go on without rows that fail.
    pub(crate) fill: bool,
    /// The output is the input: only what was saved can be run again.
    pub(crate) in_place: bool,
    pub(crate) kernel: Kernel,
    pub(crate) division: Division,
}

/// What becomes of the units of workers that have ended. Its one effect is on the ledger.
pub(crate) fn bury(ledger: &mut Ledger, states: &[ClaimState], deaths: &[Death]) -> Vec<Change> {
    let mut changes = Vec::new();
    if states.contains(&ClaimState::Corrupt) {
        return changes; // nothing here is believed, and `decide` begins again
    }
    let limit_before = ledger.limit();
    // Failures first: no row beyond the lowest of them is convicted, in whatever order the workers ended.
    for death in deaths {
        ledger.note_failure(states, death);
    }
    for death in deaths {
        ledger.bury(states, death, &mut changes);
    }
    if ledger.limit() < limit_before {
        changes.push(Change::Limit { row: ledger.limit() });
    }
    changes
}

/// What to do next. Its one effect is on the ledger.
pub(crate) fn decide(ledger: &mut Ledger, snapshot: &Snapshot<'_>) -> Vec<Action> {
    if let Some(verdict) = ledger.take_end() {
        return vec![Action::Finish(verdict)];
    }
    if let Some(unit) = snapshot.units.iter().position(|state| *state == ClaimState::Corrupt) {
        return vec![ledger.restart_or_give_up(unit)];
    }
    let n_unfinished = ledger.unfinished(snapshot.units).count();
    if n_unfinished == 0 {
        return vec![ledger.end_of_run()];
    }
    if snapshot.cancelled {
        return vec![Action::Finish(Verdict::Early(EarlyEnd::Cancelled))];
    }
    if ledger.clock.is_over(snapshot.now) {
        return vec![Action::Finish(Verdict::Early(EarlyEnd::Deadline))];
    }
    if let Some(error) = ledger.despair(snapshot) {
        return vec![Action::Finish(Verdict::Failed(error))];
    }
    let mut actions = ledger.overdue(snapshot);
    let live = snapshot.vitals.len();
    if let Some(message) = ledger.take_setup_failure() {
        // The others can do the work, if there are any.
        if live == 0 {
            return vec![Action::Finish(Verdict::Failed(Error::WorkerSetup { message }))];
        }
        return actions;
    }
    let wanted = ledger.max_workers().min(n_unfinished);
    if live < wanted {
        actions.push(Action::Spawn(wanted - live));
    }
    actions
}
