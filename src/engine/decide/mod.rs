//! What to do when workers die, hang, or time runs out: [`after_deaths`] and [`decide`], functions
//! of what is known, with no clock, no process and no system call in them, and so tested without
//! any.
//!
//! | file | what |
//! |---|---|
//! | `ledger.rs` | what is remembered of a call, and the judgement of one death |
//! | `terms.rs` | what is seen, and what can be decided |
//! | `units.rs` | blocks, and pieces of those that were split |
//! | `blame.rs` | when a row is to blame for the deaths over it |
//! | `clock.rs` | who is overdue |
//! | `update_outcome.rs` | which rows are new after a failed update |
//!
//! Called by the supervisor, which sees the deaths and performs what is decided. The protocol is in
//! `control/README.md`.

mod blame;
mod clock;
mod ledger;
mod terms;
#[cfg(test)]
mod tests;
mod units;
mod update_outcome;

pub(crate) use clock::{Clock, DEATH_LIMIT, INIT_LIMIT, STARTUP_LIMIT, Vital};
pub(crate) use ledger::Ledger;
pub(crate) use terms::{Action, Change, Death, Division, KernelTrust, Rules, Snapshot, Verdict};
pub(crate) use update_outcome::update_outcome;

use crate::engine::control::ClaimState;
use crate::engine::report::EarlyEnd;
use crate::error::Error;

/// What becomes of the units of workers that have ended. Its one effect is on the ledger.
pub(crate) fn after_deaths(
    ledger: &mut Ledger,
    states: &[ClaimState],
    deaths: &[Death],
) -> Vec<Change> {
    let mut changes = Vec::new();
    if states.contains(&ClaimState::Corrupt) {
        return changes; // nothing here is believed, and `decide` begins again
    }
    let limit_before = ledger.limit();
    // Failures first: no row beyond the lowest of them is convicted, in whatever order the workers
    // ended.
    for death in deaths {
        ledger.note_failure(states, death);
    }
    for death in deaths {
        ledger.after_death(states, death, &mut changes);
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
    if let Some(error) = ledger.no_progress(snapshot) {
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
