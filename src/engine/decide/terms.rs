//! What the supervisor sees and what can be decided: the terms in which
//! [`after_deaths`](super::after_deaths) and [`decide`](super::decide) are asked and answer.
//!
//! Plain data. A test builds it by hand, and the supervisor fills it from the control block, the
//! workers' exit statuses and the options of the call.

use std::ops::Range;
use std::time::Instant;

use super::clock::Vital;
use crate::engine::control::{ClaimState, Message, Owner, Saved};
use crate::engine::report::EarlyEnd;
use crate::error::{DeathCause, Error};

/// The end of one worker process. The process is reaped, so none of its stores is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    /// Which process: the slot, and its generation.
    pub(crate) owner: Owner,
    /// How it ended: by its exit status, by the fault that it noted, or because the supervisor
    /// killed it for being overdue. The exit status comes from the system, so it can be trusted;
    /// the rest cannot.
    pub(crate) cause: DeathCause,
    /// The row that its slot says it was at; `usize::MAX` if it had noted none. Untrusted.
    pub(crate) row: usize,
    /// In place: how far it was with saving rows. Untrusted.
    pub(crate) saved: Option<Saved>,
    /// What it left in its slot, if its end vouches for a message of this kind. Untrusted all the
    /// same: see [`Ledger::believable`](super::Ledger::believable).
    pub(crate) message: Option<Message>,
}

/// What the supervisor sees at one moment, from which [`decide`](super::decide) concludes.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    /// The claim words, decoded after all known deaths: the blocks, then the pieces.
    pub(crate) units: &'a [ClaimState],
    /// The workers that are alive, as far as the supervisor knows.
    pub(crate) vitals: &'a [Vital],
    /// The caller has asked to stop.
    pub(crate) cancelled: bool,
    /// The time, passed in so that a test can choose it.
    pub(crate) now: Instant,
}

/// What becomes of the units of the dead. The supervisor makes these changes in the order of the
/// list. Live workers see each of them at once, so rows are put back before their unit can be
/// claimed again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// In place: of these rows, put those back that `owner` had saved. They are the first of
    /// `rows`, as many as a worker saves at a time. It comes before the change that lets another
    /// worker claim them.
    Restore { rows: Range<usize>, owner: Owner },
    /// `CLAIMED(owner)`, or `DONE` by it, becomes `FREE`. With the owner, so that a unit which
    /// another worker owns by now stays with it.
    Free { unit: usize, owner: Owner },
    /// The unit is not to be done any more: its rows go on in pieces, or have failed.
    Retire { unit: usize },
    /// A new unit, a piece, under the next number. It is free, or done where in place the dead
    /// worker had finished its rows.
    Add { unit: usize, rows: Range<usize>, state: ClaimState },
    /// The next worker should look at this unit first, because it may hold the row that killed.
    OfferFirst { unit: usize },
    /// Workers pass over this row from now on. For folds, whose groups cannot be divided.
    Skip { row: usize },
    /// Units that start at this row or later need not be done, since a row of the unit that starts
    /// there has failed.
    Limit { row: usize },
}

/// What is to be done, in the order of the list.
#[derive(Debug)]
pub(crate) enum Action {
    /// SIGKILL to a worker that is overdue. It counts as dead only when it is.
    Kill(Owner),
    /// Kill all workers, free every block, begin again: the control block was overwritten.
    Restart,
    /// Free what is done, so that it is done once more: a crash may have written to any of it.
    RunAgain,
    /// Fork this many workers.
    Spawn(usize),
    /// End all workers and return this. Whatever comes after it in the list is not performed.
    Finish(Verdict),
}

/// How a call ends.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every row is done, or has failed where the policy lets the call go on without it.
    Complete,
    /// The call was cancelled or its time is over, and some rows were not run.
    Early(EarlyEnd),
    /// There is no answer but this error.
    Failed(Error),
    /// A worker does not die of SIGKILL (it hangs in the operating system, as on a dead network
    /// file system). It may still write, so nothing may be done to the output.
    Unkillable(Owner),
}

/// Whose code the workers of a call run, and so what a crash may have done before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelTrust {
    /// Rowfork's own code: no stray stores. A crash costs the units that the worker held.
    BuiltIn,
    /// The user's code, which sees no writable output. It can only have spoilt its own process, and
    /// the values that it gave since.
    Guarded,
    /// The user's code. It may have written to any row of the output, and to the control block.
    Unguarded,
}

/// How a unit is divided to find the row that kills. It follows from the kind of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Division {
    /// At the row that the worker noted before it began with it. One death in company is enough to
    /// cut the row out. The deaths that count against it come after that, when it is alone.
    AtTheRow,
    /// In halves, because what is noted is not the row: a kernel that gets a whole block, or a
    /// kernel of ours, which notes rows at intervals. A poisoned row in a unit of n rows costs some
    /// log2(n) more deaths.
    InHalves,
    /// Not at all: the result of a fold depends on the cut. The row is passed over instead.
    Never,
}

/// What a call allows and wants. Made once from the options and the operation; it never changes.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// At most this many workers at a time.
    pub(crate) workers: usize,
    /// After this many deaths a row is given up: `retries` + 1, so 3 by default.
    pub(crate) attempts: u32,
    /// The call goes on without rows that fail. Otherwise the first such row ends it.
    pub(crate) fill: bool,
    /// The output is the input. Only what was saved can be run again, so a crash without guard ends
    /// the call.
    pub(crate) in_place: bool,
    /// What a crash may have done.
    pub(crate) kernel: KernelTrust,
    /// How a unit is divided after a death over it.
    pub(crate) division: Division,
}
