//! What to do when workers die, hang, or time runs out: [`after_deaths`] and [`decide`]. They are
//! functions of what is known. They have no clock, no process and no system call in them, so
//! `tests.rs` tests them without any.
//!
//! | file | what |
//! |---|---|
//! | `ledger.rs` | what is remembered of a call, and the judgement of one death |
//! | `terms.rs` | what is seen, and what can be decided |
//! | `units.rs` | blocks, and pieces of those that were split |
//! | `blame.rs` | when a row is to blame for the deaths over it |
//! | `clock.rs` | which workers are overdue |
//! | `update_outcome.rs` | which rows are new after a failed update |
//!
//! The supervisor calls both: it sees the deaths and performs what is decided. Everything that it
//! passes in from shared memory is untrusted, because a kernel may have overwritten it. The
//! protocol is in `control/README.md`.
//!
//! Both are called from one thread, the caller's, in turn: a look at the control block, `decide`, a
//! sleep until a worker ends or something is due, `after_deaths`. Both return lists of things to do
//! and do none of them. Each rule can thus be read and tested by itself.

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

/// What becomes of the units of workers that have ended, as a list of changes in the order in which
/// they must be made. Its one effect is on the ledger.
///
/// `states` are the claim words, loaded after all of `deaths` were seen: the words of these workers
/// no longer change. The list is empty if a word is corrupt. Then nothing that the words say about
/// the dead is believed, and [`decide`] begins the run again.
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
    // Failures first: no row beyond the lowest of them is given up, in whatever order the workers
    // ended. So the answer does not depend on the order in which the supervisor sees the deaths.
    for death in deaths {
        ledger.note_failure(states, death);
    }
    for death in deaths {
        ledger.after_death(states, death, &mut changes);
    }
    // One change at the end, since only the lowest limit counts.
    if ledger.limit() < limit_before {
        changes.push(Change::Limit { row: ledger.limit() });
    }
    changes
}

/// What to do next. Its one effect is on the ledger.
///
/// The rules come in the order of their right of way, and the first that ends the call does so:
///
/// 1. An end that [`after_deaths`] has found stands.
/// 2. A corrupt word makes the rest of the snapshot worthless.
/// 3. A call whose units are all finished is over, even if it was cancelled, or its time ran out,
///    in the same moment: the result is there.
/// 4. Cancellation and deadline.
/// 5. Too many deaths without progress.
/// 6. Overdue workers are killed, and one that does not die of that ends the call.
/// 7. A worker that could not be set up ends the call if no other is alive.
/// 8. New workers for the slots that are empty.
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
        // The others can do the work, if there are any. A new worker would probably fail in the
        // same way, so none is forked this time.
        if live == 0 {
            return vec![Action::Finish(Verdict::Failed(Error::WorkerSetup { message }))];
        }
        return actions;
    }
    // No more workers than units: one that finds nothing to claim has cost a fork.
    let wanted = ledger.max_workers().min(n_unfinished);
    if live < wanted {
        actions.push(Action::Spawn(wanted - live));
    }
    actions
}
