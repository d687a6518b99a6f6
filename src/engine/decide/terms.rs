//! What the supervisor sees and what can be decided: the words in which
//! [`after_deaths`](super::after_deaths) and [`decide`](super::decide) are asked and answer.

use std::ops::Range;
use std::time::Instant;

use super::clock::Vital;
use crate::engine::control::{ClaimState, Message, Owner, Saved};
use crate::engine::report::EarlyEnd;
use crate::error::{DeathCause, Error};

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
    OfferFirst { unit: usize },
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
pub(crate) enum KernelTrust {
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
    pub(crate) kernel: KernelTrust,
    pub(crate) division: Division,
}
