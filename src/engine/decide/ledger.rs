//! What is remembered of a call, and the judgement of one death.
//!
//! The supervisor owns the one [`Ledger`] of a call. [`after_deaths`](super::after_deaths) and
//! [`decide`](super::decide) call its methods; those that are `pub(crate)` answer questions of the
//! supervisor. It lies in private memory, so no kernel can change it, and it never looks at shared
//! memory: what workers left there comes in as arguments, and is compared with what is known here
//! before it counts.
//!
//! # A poisoned row, step by step
//! Block 3 has the rows 30..40, row 35 kills its worker, rows are divided at the row, and 3
//! attempts are allowed.
//!
//! 1. The first worker dies over block 3, and its slot says row 35. The unit is retired. Its rows
//!    come back as the pieces 30..35, 35..36 and 36..40, and the middle one is offered first. The
//!    death is not counted against row 35, because any of the ten rows might have caused it.
//! 2. The next worker dies over the piece 35..36. The row is alone now, so the death counts: one of
//!    three. The piece becomes free as it is, and is offered first.
//! 3. The same happens again.
//! 4. The third death over the piece gives the row up. The piece is retired without successors, and
//!    the call goes on without the row or ends with its name.
//!
//! With halves in place of the noted row, step 1 is repeated for 30..35 and 35..40, for 35..38 and
//! 38..40, and so on down to the single row. Each of these deaths tells which half is meant: the
//! first half is tried first, and the row is in the half whose worker dies.

use std::ops::Range;

use super::blame::Blame;
use super::clock::Clock;
use super::terms::{Action, Change, Death, Division, KernelTrust, Rules, Snapshot, Verdict};
use super::units::Units;
use crate::engine::blocks::RowBlocks;
use crate::engine::control::{
    ClaimState, MAX_FAILED_ROWS, Message, MessageKind, Owner, Saved, SumOverflow, digest,
};
use crate::error::{DeathCause, Error, FailedRow};
use crate::failpoints::{Failpoint, is_on};

/// More deaths over units than this, with none finished and no row given up in between, end the
/// call. For each worker as many more are borne as it may take to give a row up, since all workers
/// may be at poisoned rows at once.
const FRUITLESS_DEATHS_MAX: usize = 64;

/// The same for exits of workers that held no unit. They blame no row, and under a killer on a
/// loaded machine they can be many. The bound is there so that workers which cannot even start do
/// not go on for ever.
const IDLE_EXITS_MAX: usize = 1024;

/// If this many workers hang before they are ready, in each slot, with none that is ready in
/// between, the call ends. A lock that is held for ever hangs every one of them; a slow machine
/// does not.
const HUNG_STARTS_MAX: usize = 3;

/// How often all rows are run where a crash may have written anywhere: once to find out what
/// crashes, once for the result, and once more.
const RUNS_MAX: u32 = 3;

/// What the supervisor remembers of one call, in private memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// What the call allows and wants.
    rules: Rules,
    /// The rows of every unit that there is, or was.
    units: Units,
    /// Which workers have been quiet for how long.
    pub(crate) clock: Clock,
    /// Units that start here or later need not be done: a row of the unit that starts here has
    /// failed. `usize::MAX` while none has. Only falls.
    limit: usize,
    /// The lowest row that has failed so far where that ends the call, and the error. The call does
    /// not end before all units below [`limit`](Self::limit) are done, since a lower row may fail
    /// yet. So the answer is the same for every number of workers.
    failure: Option<(usize, Error)>,
    /// The rows that the call goes on without, in the order in which they were found.
    failed: Vec<FailedRow>,
    /// Which row is to blame for how many deaths.
    blame: Blame,
    /// A crash after which nothing done in this run can be believed: the row if it is known, the
    /// worker, and the cause. The last one, if there are several.
    suspect: Option<(Option<usize>, Owner, DeathCause)>,
    /// How many times all rows are run, this time included.
    runs: u32,
    /// Ends the call as soon as the units of the dead are in order. The first reason stays.
    end: Option<Verdict>,
    /// What the last worker that could not set itself up has said, until somebody asks.
    setup_failure: Option<String>,
    /// Deaths without progress.
    ends: EndsWithoutProgress,
    /// The control block was overwritten once already. There is no second restart.
    restarted: bool,
    /// Rows that are given to another worker, for the report. A row counts each time.
    pub(crate) rerun_rows: usize,
}

/// Deaths since a unit was last finished or a row given up: what is compared with the limits above.
/// All but `n_done` begin anew with every progress.
#[derive(Debug, Default)]
struct EndsWithoutProgress {
    /// The most units that were ever done at a time in this run.
    n_done: usize,
    /// Deaths of workers that held a unit.
    fruitless_deaths: usize,
    /// Exits of workers that held none.
    idle_exits: usize,
    /// Workers that were killed because they were not ready in time.
    hung_starts: usize,
    /// How the last worker ended, for the error.
    last: Option<DeathCause>,
}

/// What becomes of a part of a unit whose worker has died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitPart {
    /// In place: the rows are new already, and must not be run again.
    Done,
    /// To be run, in its turn.
    Free,
    /// To be run first, since it may hold the row that kills.
    Suspect,
}

impl Ledger {
    /// For a call on `blocks`, before its first worker.
    pub(crate) fn new(rules: Rules, blocks: RowBlocks, clock: Clock) -> Self {
        Self {
            blame: Blame::new(rules.attempts),
            rules,
            units: Units::new(blocks),
            clock,
            limit: usize::MAX,
            failure: None,
            failed: Vec::new(),
            suspect: None,
            runs: 1,
            end: None,
            setup_failure: None,
            ends: EndsWithoutProgress::default(),
            restarted: false,
            rerun_rows: 0,
        }
    }

    /// Units that start at this row or later need not be done.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many units there are, retired ones included. This count, not the one in shared memory,
    /// says how many claim words the supervisor looks at.
    pub(crate) fn n_units(&self) -> usize {
        self.units.len()
    }

    /// The digest of a unit as it should be done. It must be what `BlockContext::digest` gives in a
    /// worker that has done the unit so: rows that the call goes on without count only where
    /// workers pass over them.
    pub(crate) fn digest(&self, unit: usize) -> u64 {
        let rows = self.rows(unit);
        let failed = if self.rules.division == Division::Never { &*self.failed } else { &[] };
        digest(unit, &rows, failed.iter().map(|failed| failed.row).filter(|row| rows.contains(row)))
    }

    /// The rows of a unit; an empty range for a number that no unit has.
    pub(crate) fn rows(&self, unit: usize) -> Range<usize> {
        self.units.rows(unit)
    }

    /// What is known by now that forbids an early end with the rows that are done: a control block
    /// that is not what it should be, or a crash that ends the call. The supervisor asks after the
    /// last deaths are taken in.
    pub(crate) fn spoilt(&mut self, states: &[ClaimState]) -> Option<Error> {
        if let Some(unit) = states.iter().position(|state| *state == ClaimState::Corrupt) {
            let block = self.units.blocks().block_of(self.rows(unit).start);
            return Some(Error::ControlCorrupted { block });
        }
        match self.end.take() {
            Some(Verdict::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// Why rows that are done may not be as they should be, if so: a crash in an unguarded kernel,
    /// after which they have not been run again.
    pub(crate) fn why_unsound(&self) -> Option<Error> {
        let (row, owner, cause) = self.suspect.clone()?;
        Some(Error::UnguardedCrash { row, worker: owner.slot.into(), cause, runs: self.runs })
    }

    /// The rows that the call went on without, in order of the rows.
    pub(crate) fn into_failed(mut self) -> Vec<FailedRow> {
        self.failed.sort_unstable_by_key(|failed| failed.row);
        self.failed
    }

    /// The same before the end, for an error.
    pub(super) fn failed_so_far(&self) -> Vec<FailedRow> {
        let mut rows = self.failed.clone();
        rows.sort_unstable_by_key(|failed| failed.row);
        rows
    }

    /// The units that a worker has claimed and not finished. Never more than one, unless a stray
    /// store has forged a claim.
    pub(super) fn held_by(states: &[ClaimState], owner: Owner) -> impl Iterator<Item = usize> {
        (0..states.len()).filter(move |&unit| states[unit] == ClaimState::Claimed(owner))
    }

    /// The units that are still to be done: those that are neither done nor retired, below the
    /// limit. A corrupt one is among them.
    pub(super) fn unfinished<'s>(
        &'s self,
        states: &'s [ClaimState],
    ) -> impl Iterator<Item = usize> + 's {
        let over = |state| matches!(state, ClaimState::Done(_) | ClaimState::Retired);
        (0..states.len())
            .filter(move |&unit| !over(states[unit]) && self.rows(unit).start < self.limit)
    }

    /// The kernel's own failure that a worker reports, if it is about the row that the worker was
    /// at, in a unit that it held. Anything else is a stray store, and the death is judged as if
    /// there were no message. A failed setup is no failure of the kernel.
    pub(crate) fn believable<'d>(
        &self,
        states: &[ClaimState],
        death: &'d Death,
    ) -> Option<&'d Message> {
        let message =
            death.message.as_ref().filter(|message| message.kind != MessageKind::Setup)?;
        let held =
            Self::held_by(states, death.owner).any(|unit| self.rows(unit).contains(&message.row));
        (held && message.row == death.row || is_on(Failpoint::BelieveAnyMessage)).then_some(message)
    }

    /// Takes the kernel's own failure as the answer if no lower row has one; unless the call goes
    /// on without such rows, when the row is dealt with in its unit.
    pub(super) fn note_failure(&mut self, states: &[ClaimState], death: &Death) {
        let Some(message) = self.believable(states, death).filter(|_| !self.rules.fill) else {
            return;
        };
        let mut held = Self::held_by(states, death.owner);
        let Some(unit) = held.find(|&unit| self.rows(unit).contains(&message.row)) else { return };
        // The limit is the start of the unit and not the row, because only units are left out. The
        // rows before `message.row` in this unit have been run without a failure.
        if self.failure.as_ref().is_none_or(|known| message.row < known.0) {
            self.limit = self.limit.min(self.rows(unit).start);
            self.failure = Some((message.row, kernel_failure(message.clone())));
        }
    }

    /// A row is found to be poisoned, or has failed by its own account: the call goes on without
    /// it, or ends with it. To find it is progress, so the counts of deaths begin anew.
    fn mark_poisoned(&mut self, failed: FailedRow) {
        if !self.rules.fill {
            self.end.get_or_insert(Verdict::Failed(Error::PoisonedRows { rows: vec![failed] }));
            return;
        }
        self.failed.push(failed);
        self.ends =
            EndsWithoutProgress { n_done: self.ends.n_done, ..EndsWithoutProgress::default() };
        if self.failed.len() > MAX_FAILED_ROWS {
            self.end
                .get_or_insert(Verdict::Failed(Error::PoisonedRows { rows: self.failed_so_far() }));
        }
    }

    /// Judges the death of one worker: what becomes of the units that it held, and of what it had
    /// done before. `changes` gets what follows.
    pub(super) fn after_death(
        &mut self,
        states: &[ClaimState],
        death: &Death,
        changes: &mut Vec<Change>,
    ) {
        let message = self.believable(states, death).cloned();
        let held: Vec<usize> = Self::held_by(states, death.owner).collect();
        self.note(death, !held.is_empty());
        if held.is_empty() {
            self.blame.note_idle(&death.cause);
        }
        // A panic that aborts is a panic: with a message that can be believed, SIGABRT is no sign
        // of stray stores. An unknown end is one, if the worker held a unit; without a unit it is
        // that of a worker that was done.
        let unknown = death.cause == DeathCause::Unknown && !held.is_empty();
        if message.is_none() && (death.cause.is_wild() || unknown) {
            self.suspect_output(states, death, &held, changes);
        }
        for unit in held {
            let rows = self.rows(unit);
            // Where whole blocks are noted the noted row is only the first of them, so all of the
            // unit's rows are suspects.
            let at = if rows.contains(&death.row) && self.rules.division != Division::InHalves {
                death.row..death.row + 1
            } else {
                rows
            };
            self.blame.note(at, &death.cause);
            let parts = self.parts(unit, death, message.as_ref(), changes);
            self.divide(unit, death.owner, parts, changes);
        }
    }

    /// Counts a death against the limits that end a call without progress, and forgets the worker's
    /// clock.
    fn note(&mut self, death: &Death, held: bool) {
        self.clock.forget(death.owner);
        let ends = &mut self.ends;
        ends.last = Some(death.cause.clone());
        // By the kind of the end, since each kind has a limit of its own.
        match death.cause {
            DeathCause::HungAtStart => ends.hung_starts += 1,
            _ if held => ends.fruitless_deaths += 1,
            _ => ends.idle_exits += 1,
        }
        // Kept until `decide` asks. A later one replaces it: they say the same, as a rule.
        if let Some(Message { kind: MessageKind::Setup, text, .. }) = &death.message {
            self.setup_failure = Some(text.clone());
        }
    }

    /// After a crash: what may be wrong beside the units that the worker held. That depends on
    /// where the kernel could write to.
    fn suspect_output(
        &mut self,
        states: &[ClaimState],
        death: &Death,
        held: &[usize],
        changes: &mut Vec<Change>,
    ) {
        if is_on(Failpoint::TrustAfterCrash) {
            return;
        }
        // The row for the error, and only if the slot names one of a unit that the worker held.
        let row =
            held.iter().find(|&&unit| self.rows(unit).contains(&death.row)).map(|_| death.row);
        match self.rules.kernel {
            // A kernel of ours stores to its own rows only, and these are run again.
            KernelTrust::BuiltIn => {}
            // What it changed in place cannot be run again.
            KernelTrust::Guarded if self.rules.in_place => {}
            // It may have spoilt its own process, and with it the values that it gave since. What
            // other workers gave is right, since it could not reach them.
            KernelTrust::Guarded => {
                for (unit, _) in states
                    .iter()
                    .enumerate()
                    .filter(|(_, state)| **state == ClaimState::Done(death.owner))
                {
                    self.rerun_rows += self.rows(unit).len();
                    changes.push(Change::Free { unit, owner: death.owner });
                }
            }
            // It may have written to any row, and the old rows are gone: neither can a result be
            // given nor can the call be run again.
            KernelTrust::Unguarded if self.rules.in_place => {
                let (worker, cause) = (death.owner.slot.into(), death.cause.clone());
                let error = Error::UnguardedCrash { row, worker, cause, runs: self.runs };
                self.end.get_or_insert(Verdict::Failed(error));
            }
            // All rows are to be run again, but not before it is known what crashes: the next run
            // would crash in the same way.
            KernelTrust::Unguarded => self.suspect = Some((row, death.owner, death.cause.clone())),
        }
    }

    /// What becomes of the rows of a unit that a dead worker held. The parts are in order of the
    /// rows and do not overlap; rows that are in no part have failed.
    ///
    /// In place the note of the saved rows splits the unit first: the rows before it are done,
    /// whatever else is decided. A note of a row that is not in the unit is left over from an
    /// earlier unit, or a stray store, and does not count: nothing of this unit has been touched
    /// then.
    fn parts(
        &mut self,
        unit: usize,
        death: &Death,
        message: Option<&Message>,
        changes: &mut Vec<Change>,
    ) -> Vec<(Range<usize>, UnitPart)> {
        let rows = self.rows(unit);
        let mut left = rows.clone();
        if self.rules.in_place
            && let Some(saved) = death.saved.filter(|saved| rows.contains(&saved.first()))
        {
            left.start = saved.first();
            if let Saved::Complete(_) = saved {
                changes.push(Change::Restore { rows: left.clone(), owner: death.owner });
            }
        }
        // Empty where nothing was done; `divide` drops empty parts.
        let mut parts = vec![(rows.start..left.start, UnitPart::Done)];
        // Beyond the limit nothing is run again. The unit is put in order all the same, so that an
        // account of the rows is right.
        if rows.start >= self.limit {
            parts.push((left, UnitPart::Free));
            return parts;
        }
        self.rerun_rows += left.len();
        let told = message.filter(|message| left.contains(&message.row));
        parts.extend(match told {
            Some(message) => self.parts_after_a_failure(&left, message, death.owner, changes),
            None => self.parts_after_a_death(unit, &left, death, changes),
        });
        parts
    }

    /// The kernel itself has named the row. One such word is enough: no other row and nobody from
    /// outside can be to blame.
    fn parts_after_a_failure(
        &mut self,
        left: &Range<usize>,
        message: &Message,
        owner: Owner,
        changes: &mut Vec<Change>,
    ) -> Vec<(Range<usize>, UnitPart)> {
        let row = message.row;
        if !self.rules.fill {
            // The call is to end with this failure, and `limit` keeps the unit from being run
            // again.
            return vec![(left.clone(), UnitPart::Free)];
        }
        // The message names the first row of what the user's kernel was called with, but the very
        // row where the kernel is ours. A user's block of several rows is therefore halved until
        // the row is alone.
        let named =
            self.rules.kernel == KernelTrust::BuiltIn || self.rules.division != Division::InHalves;
        if !named && left.len() > 1 {
            return halves(left);
        }
        self.mark_poisoned(FailedRow {
            row,
            cause: cause_of(message),
            attempts: 1,
            worker: owner.slot.into(),
        });
        // The group stays whole. Its worker begins it anew and passes over the row.
        if self.rules.division == Division::Never {
            changes.push(Change::Skip { row });
            return vec![(left.clone(), UnitPart::Free)];
        }
        vec![(left.start..row, UnitPart::Free), (row + 1..left.end, UnitPart::Free)]
    }

    /// Something else has ended the worker. A row is given up only when no other can be to blame:
    /// when it is alone in its unit, or noted in one that is never divided, and has killed often
    /// enough.
    fn parts_after_a_death(
        &mut self,
        unit: usize,
        left: &Range<usize>,
        death: &Death,
        changes: &mut Vec<Change>,
    ) -> Vec<(Range<usize>, UnitPart)> {
        if death.message.as_ref().is_some_and(|message| message.kind == MessageKind::Setup) {
            return vec![(left.clone(), UnitPart::Suspect)]; // a system call has failed, not a row
        }
        // The note says nothing new about a single row, and a stray store cannot mislead here.
        let row = if left.len() == 1 { left.start } else { death.row };
        let named = left.contains(&row);
        let alone = left.len() == 1
            || self.rules.division == Division::Never
            || is_on(Failpoint::PoisonWithoutRunAlone);
        // A fold notes a row before it passes over it. A death at that moment must not give the row
        // up twice.
        let passed_over = self.failed.iter().any(|failed| failed.row == row);
        if named
            && alone
            && !passed_over
            && let Some(attempts) = self.blame.poisoned_after(unit, row, &death.cause)
        {
            let (cause, worker) = (death.cause.clone(), death.owner.slot.into());
            self.mark_poisoned(FailedRow { row, cause, attempts, worker });
            if self.rules.division == Division::Never {
                changes.push(Change::Skip { row });
                return vec![(left.clone(), UnitPart::Suspect)];
            }
            return vec![(left.start..row, UnitPart::Free), (row + 1..left.end, UnitPart::Free)];
        }
        // The row is the suspect, but has not killed often enough: once more.
        if alone {
            return vec![(left.clone(), UnitPart::Suspect)];
        }
        // Three parts. Only the middle one is tried first; the rows beside it are most likely
        // harmless.
        if self.rules.division == Division::AtTheRow && named {
            return vec![
                (left.start..row, UnitPart::Free),
                (row..row + 1, UnitPart::Suspect),
                (row + 1..left.end, UnitPart::Free),
            ];
        }
        halves(left)
    }

    /// Divides a unit into `parts`, or gives it back whole. The unit is retired before its pieces
    /// come, so no row is in two units that can be claimed.
    fn divide(
        &mut self,
        unit: usize,
        owner: Owner,
        mut parts: Vec<(Range<usize>, UnitPart)>,
        changes: &mut Vec<Change>,
    ) {
        parts.retain(|(rows, _)| !rows.is_empty());
        // A whole unit keeps its number. With a piece for each death of a single row the table of
        // pieces would be full soon.
        let whole =
            parts.len() == 1 && parts[0].0 == self.rows(unit) && parts[0].1 != UnitPart::Done;
        if whole {
            changes.push(Change::Free { unit, owner });
            changes.push(Change::OfferFirst { unit });
            return;
        }
        if !self.units.has_room(parts.len()) {
            self.keep_whole(unit, owner, &parts, changes);
            return;
        }
        changes.push(Change::Retire { unit });
        for (rows, part) in parts {
            let state =
                if part == UnitPart::Done { ClaimState::Done(owner) } else { ClaimState::Free };
            let unit = self.units.add(rows.clone());
            changes.push(Change::Add { unit, rows, state });
            if part == UnitPart::Suspect {
                changes.push(Change::OfferFirst { unit });
            }
        }
    }

    /// There is no room for pieces: the unit is run again as it is, unless a part of it must not
    /// be: rows that are done in place, or a row that the call goes on without. Then the call
    /// cannot end well.
    fn keep_whole(
        &mut self,
        unit: usize,
        owner: Owner,
        parts: &[(Range<usize>, UnitPart)],
        changes: &mut Vec<Change>,
    ) {
        let rows: usize = parts
            .iter()
            .filter(|(_, part)| *part != UnitPart::Done)
            .map(|(rows, _)| rows.len())
            .sum();
        if rows == self.rows(unit).len() {
            changes.push(Change::Free { unit, owner });
            changes.push(Change::OfferFirst { unit });
        } else {
            let error = self.give_up(self.rows(unit));
            self.end.get_or_insert(Verdict::Failed(error));
        }
    }

    /// The error for too many deaths for too little work. `rows` is where they happened.
    fn give_up(&self, rows: Range<usize>) -> Error {
        let EndsWithoutProgress { fruitless_deaths, idle_exits, last, .. } = &self.ends;
        let cause = last.clone().unwrap_or(DeathCause::Unknown);
        Error::WorkersKeepDying { deaths: fruitless_deaths + idle_exits, rows, cause }
    }

    /// The end of the call, if too many workers have ended since a unit was last finished or a row
    /// given up. The three limits are apart, because the causes are: poisoned rows, a killer from
    /// outside, and a start that hangs.
    pub(super) fn no_progress(&mut self, snapshot: &Snapshot<'_>) -> Option<Error> {
        let n_done =
            snapshot.units.iter().filter(|state| matches!(state, ClaimState::Done(_))).count();
        // Compared with the most that there ever were: a unit that is freed and done again is no
        // progress.
        if n_done > self.ends.n_done {
            self.ends = EndsWithoutProgress { n_done, ..EndsWithoutProgress::default() };
        }
        let hung_starts = self.ends.hung_starts;
        if hung_starts >= HUNG_STARTS_MAX * self.rules.workers {
            let message = format!(
                "{hung_starts} workers in a row hung before they were ready (the caller has {} threads; an atfork handler may \
                 wait for one of them)",
                self.clock.caller_threads()
            );
            return Some(Error::WorkerSetup { message });
        }
        let fruitless_deaths_max =
            FRUITLESS_DEATHS_MAX + self.blame.most_deaths() * self.rules.workers;
        if self.ends.fruitless_deaths <= fruitless_deaths_max
            && self.ends.idle_exits <= IDLE_EXITS_MAX + 2 * self.rules.workers
        {
            return None;
        }
        // The error names the range from the first row that is left to the last.
        let rows = self.unfinished(snapshot.units).map(|unit| self.rows(unit));
        let rows = rows
            .reduce(|all, rows| all.start.min(rows.start)..all.end.max(rows.end))
            .unwrap_or(0..0);
        Some(self.give_up(rows))
    }

    /// What ends the call, if anything has. The caller gets it once.
    pub(super) fn take_end(&mut self) -> Option<Verdict> {
        self.end.take()
    }

    /// What a worker said that could not be set up, once.
    pub(super) fn take_setup_failure(&mut self) -> Option<String> {
        self.setup_failure.take()
    }

    /// At most this many workers at a time.
    pub(super) fn max_workers(&self) -> usize {
        self.rules.workers
    }

    /// Every row is done, has failed, or need not be done. The call is complete, unless a failure
    /// is its answer, or a crash makes another run necessary.
    ///
    /// A failure of the kernel comes first: it would come again in the next run, so a crash beside
    /// it changes nothing.
    pub(super) fn end_of_run(&mut self) -> Action {
        if let Some((_, error)) = self.failure.take() {
            return Action::Finish(Verdict::Failed(error));
        }
        let Some(unsound) = self.why_unsound() else { return Action::Finish(Verdict::Complete) };
        if self.runs >= RUNS_MAX {
            return Action::Finish(Verdict::Failed(unsound));
        }
        // The next run is believed until something crashes in it. Rows that were given up stay so;
        // nothing runs them any more.
        self.suspect = None;
        self.runs += 1;
        self.rerun_rows += self.units.blocks().n_rows();
        self.ends = EndsWithoutProgress::default();
        Action::RunAgain
    }

    /// The word of `unit` is not what it should be, so nothing that the control block says is
    /// believed. The run begins anew with whole blocks and without memory of the deaths. A failure
    /// that a kernel has reported stays, and so does its limit. In place there is no second run:
    /// rows that are done would be changed twice.
    pub(super) fn restart_or_give_up(&mut self, unit: usize) -> Action {
        if self.restarted || self.rules.in_place {
            let block = self.units.blocks().block_of(self.rows(unit).start);
            return Action::Finish(Verdict::Failed(Error::ControlCorrupted { block }));
        }
        self.restarted = true;
        self.clock.forget_all();
        self.units.forget_pieces();
        self.failed.clear();
        self.blame.clear();
        self.suspect = None;
        self.ends = EndsWithoutProgress::default();
        self.rerun_rows += self.units.blocks().n_rows();
        Action::Restart
    }

    /// The workers that are overdue, as actions; or the end of the call if one cannot be killed.
    pub(super) fn overdue(&mut self, snapshot: &Snapshot<'_>) -> Vec<Action> {
        // A worker that is ready proves that a start need not hang.
        if snapshot.vitals.iter().any(|vital| vital.ready) {
            self.ends.hung_starts = 0;
        }
        if let Some(owner) = self.clock.unkillable(snapshot.vitals, snapshot.now) {
            return vec![Action::Finish(Verdict::Unkillable(owner))];
        }
        let any_free =
            self.unfinished(snapshot.units).any(|unit| snapshot.units[unit] == ClaimState::Free);
        // While something is free, every worker could have a unit.
        let works = |owner| any_free || snapshot.units.contains(&ClaimState::Claimed(owner));
        self.clock
            .overdue(snapshot.vitals, snapshot.now, works)
            .into_iter()
            .map(Action::Kill)
            .collect()
    }
}

/// Two halves. The first is the larger one if they differ, and is tried first. Of two rows or more
/// both halves are smaller than the whole, so the search ends.
fn halves(rows: &Range<usize>) -> Vec<(Range<usize>, UnitPart)> {
    let middle = rows.start + rows.len().div_ceil(2);
    vec![(rows.start..middle, UnitPart::Suspect), (middle..rows.end, UnitPart::Free)]
}

/// The error that ends a call for a failure of the kernel.
fn kernel_failure(failure: Message) -> Error {
    let row = failure.row;
    if let Some(SumOverflow { sum, signed }) = failure.overflow {
        return Error::sum_overflow(row, sum, signed);
    }
    match cause_of(&failure) {
        DeathCause::Panicked { message, location } => {
            Error::KernelPanicked { row, message, location }
        }
        _ => Error::KernelFailed { row, message: failure.text },
    }
}

/// The same failure as a cause in the table of rows that a call went on without.
fn cause_of(failure: &Message) -> DeathCause {
    let message = match failure.overflow {
        Some(SumOverflow { sum, signed }) => {
            Error::sum_overflow(failure.row, sum, signed).to_string()
        }
        None => failure.text.clone(),
    };
    match failure.kind {
        MessageKind::KernelError | MessageKind::SignedOverflow | MessageKind::UnsignedOverflow => {
            DeathCause::Failed { message }
        }
        MessageKind::Panic | MessageKind::PanicDraft | MessageKind::Setup => {
            let location = Some(failure.location.clone()).filter(|location| !location.is_empty());
            DeathCause::Panicked {
                message,
                location: location.unwrap_or_else(|| "location unknown".to_owned()),
            }
        }
    }
}
