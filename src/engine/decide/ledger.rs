//! What is remembered of a call, and the judgement of one death.

use std::ops::Range;

use super::blame::Blame;
use super::clock::Clock;
use super::terms::{Action, Change, Death, Division, KernelTrust, Rules, Snapshot, Verdict};
use super::units::Units;
use crate::engine::blocks::RowBlocks;
use crate::engine::control::{
    ClaimState, MAX_FAILED_ROWS, Message, MessageKind, Owner, Saved, digest,
};
use crate::error::{DeathCause, Error, FailedRow};
use crate::failpoints::{Failpoint, is_on};

/// So many deaths over units, with none finished and no row convicted in between, end the call; and
/// for each worker as many more as a conviction may take, since all may be at rows that kill.
const FRUITLESS_DEATHS_MAX: usize = 64;

/// The same for exits of workers that held no unit. They blame no row, and under a killer on a
/// loaded machine they can be many; the bound is there so that workers which cannot even start do
/// not go on for ever.
const IDLE_EXITS_MAX: usize = 1024;

/// So many workers that hang before they are ready, in each slot, with none that is ready in
/// between, end the call.
const HUNG_STARTS_MAX: usize = 3;

/// How often all rows are run where a crash may have written anywhere: to find out what crashes,
/// for the result, and once more.
const RUNS_MAX: u32 = 3;

/// What the supervisor remembers of one call, in private memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    rules: Rules,
    units: Units,
    pub(crate) clock: Clock,
    /// Units that start here or later need not be done: a row of the unit that starts here has
    /// failed.
    limit: usize,
    /// The lowest row that ends the call so far, and with what.
    failure: Option<(usize, Error)>,
    /// The rows that the call goes on without.
    failed: Vec<FailedRow>,
    blame: Blame,
    /// A crash after which nothing done in this run can be believed.
    suspect: Option<(Option<usize>, Owner, DeathCause)>,
    runs: u32,
    /// Ends the call as soon as what the dead held is in order.
    end: Option<Verdict>,
    setup_failure: Option<String>,
    attempt_limits: AttemptLimits,
    restarted: bool,
    /// Rows that are given to another worker, for the report.
    pub(crate) rerun_rows: usize,
}

/// What tries the attempt_limits, since a unit was last finished.
#[derive(Debug, Default)]
struct AttemptLimits {
    n_done: usize,
    fruitless_deaths: usize,
    idle_exits: usize,
    hung_starts: usize,
    last: Option<DeathCause>,
}

/// A part of a unit that is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitPart {
    Done,
    Free,
    /// To be tried first.
    Suspect,
}

impl Ledger {
    /// For a call on `blocks`.
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
            attempt_limits: AttemptLimits::default(),
            restarted: false,
            rerun_rows: 0,
        }
    }

    /// Units that start at this row or later need not be done.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many units there are.
    pub(crate) fn n_units(&self) -> usize {
        self.units.len()
    }

    /// What a unit is that is done as it should be.
    pub(crate) fn digest(&self, unit: usize) -> u64 {
        let rows = self.rows(unit);
        let failed = if self.rules.division == Division::Never { &*self.failed } else { &[] };
        digest(unit, &rows, failed.iter().map(|failed| failed.row).filter(|row| rows.contains(row)))
    }

    /// The rows of a unit.
    pub(crate) fn rows(&self, unit: usize) -> Range<usize> {
        self.units.rows(unit)
    }

    /// What is known by now to make an early end none: a crash that ends the call, or a control
    /// block that is not what it should be.
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

    /// Why rows that are done may not be as they should be, if so.
    pub(crate) fn why_unsound(&self) -> Option<Error> {
        let (row, owner, cause) = self.suspect.clone()?;
        Some(Error::UnguardedCrash { row, worker: owner.slot.into(), cause, runs: self.runs })
    }

    /// The rows that the call goes on without, in order.
    pub(crate) fn into_failed(mut self) -> Vec<FailedRow> {
        self.failed.sort_unstable_by_key(|failed| failed.row);
        self.failed
    }

    pub(super) fn failed_so_far(&self) -> Vec<FailedRow> {
        let mut rows = self.failed.clone();
        rows.sort_unstable_by_key(|failed| failed.row);
        rows
    }

    /// The units that a worker has claimed and not finished.
    pub(super) fn held_by(states: &[ClaimState], owner: Owner) -> impl Iterator<Item = usize> {
        (0..states.len()).filter(move |&unit| states[unit] == ClaimState::Claimed(owner))
    }

    /// The units that are still to be done.
    pub(super) fn unfinished<'s>(
        &'s self,
        states: &'s [ClaimState],
    ) -> impl Iterator<Item = usize> + 's {
        let over = |state| matches!(state, ClaimState::Done(_) | ClaimState::Retired);
        (0..states.len())
            .filter(move |&unit| !over(states[unit]) && self.rows(unit).start < self.limit)
    }

    /// The kernel's own failure that a worker reports, if it is about the row that the worker was
    /// at, in a unit that it held: anything else is a stray store.
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
    /// on without such rows.
    pub(super) fn note_failure(&mut self, states: &[ClaimState], death: &Death) {
        let Some(message) = self.believable(states, death).filter(|_| !self.rules.fill) else {
            return;
        };
        let mut held = Self::held_by(states, death.owner);
        let Some(unit) = held.find(|&unit| self.rows(unit).contains(&message.row)) else { return };
        if self.failure.as_ref().is_none_or(|known| message.row < known.0) {
            self.limit = self.limit.min(self.rows(unit).start);
            self.failure = Some((message.row, kernel_failure(message.clone())));
        }
    }

    /// The call goes on without this row, or ends with it.
    fn convict(&mut self, failed: FailedRow) {
        if !self.rules.fill {
            self.end.get_or_insert(Verdict::Failed(Error::PoisonedRows { rows: vec![failed] }));
            return;
        }
        self.failed.push(failed);
        self.attempt_limits =
            AttemptLimits { n_done: self.attempt_limits.n_done, ..AttemptLimits::default() };
        if self.failed.len() > MAX_FAILED_ROWS {
            self.end
                .get_or_insert(Verdict::Failed(Error::PoisonedRows { rows: self.failed_so_far() }));
        }
    }

    /// Buries one worker.
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
        // A panic that aborts is a panic.
        let unknown = death.cause == DeathCause::Unknown && !held.is_empty();
        if message.is_none() && (death.cause.is_wild() || unknown) {
            self.suspect_output(states, death, &held, changes);
        }
        for unit in held {
            let rows = self.rows(unit);
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

    /// Counts what tries the attempt_limits.
    fn note(&mut self, death: &Death, held: bool) {
        self.clock.forget(death.owner);
        let attempt_limits = &mut self.attempt_limits;
        attempt_limits.last = Some(death.cause.clone());
        match death.cause {
            DeathCause::HungAtStart => attempt_limits.hung_starts += 1,
            _ if held => attempt_limits.fruitless_deaths += 1,
            _ => attempt_limits.idle_exits += 1,
        }
        if let Some(Message { kind: MessageKind::Setup, text, .. }) = &death.message {
            self.setup_failure = Some(text.clone());
        }
    }

    /// After a crash: what may be wrong beside the units that the worker held.
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
        let row =
            held.iter().find(|&&unit| self.rows(unit).contains(&death.row)).map(|_| death.row);
        match self.rules.kernel {
            KernelTrust::BuiltIn => {}
            // What it changed in place cannot be run again.
            KernelTrust::Guarded if self.rules.in_place => {}
            // It may have spoilt its own process, and with it the values that it gave since.
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
            KernelTrust::Unguarded if self.rules.in_place => {
                let (worker, cause) = (death.owner.slot.into(), death.cause.clone());
                let error = Error::UnguardedCrash { row, worker, cause, runs: self.runs };
                self.end.get_or_insert(Verdict::Failed(error));
            }
            // All rows are to be run again, but not before it is known what crashes.
            KernelTrust::Unguarded => self.suspect = Some((row, death.owner, death.cause.clone())),
        }
    }

    /// What becomes of the rows of a unit that a dead worker held: in order; rows in no part have
    /// failed.
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
        let mut parts = vec![(rows.start..left.start, UnitPart::Done)];
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

    /// The kernel itself has named the row.
    fn parts_after_a_failure(
        &mut self,
        left: &Range<usize>,
        message: &Message,
        owner: Owner,
        changes: &mut Vec<Change>,
    ) -> Vec<(Range<usize>, UnitPart)> {
        let row = message.row;
        if !self.rules.fill {
            return vec![(left.clone(), UnitPart::Free)];
        }
        // The message names the first row of what the user's kernel was called with, but the very
        // row of ours.
        let named =
            self.rules.kernel == KernelTrust::BuiltIn || self.rules.division != Division::InHalves;
        if !named && left.len() > 1 {
            return halves(left);
        }
        self.convict(FailedRow {
            row,
            cause: cause_of(message),
            attempts: 1,
            worker: owner.slot.into(),
        });
        if self.rules.division == Division::Never {
            changes.push(Change::Skip { row });
            return vec![(left.clone(), UnitPart::Free)];
        }
        vec![(left.start..row, UnitPart::Free), (row + 1..left.end, UnitPart::Free)]
    }

    /// Something else has ended the worker. A row is convicted only when no other can be to blame.
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
        let row = if left.len() == 1 { left.start } else { death.row };
        let named = left.contains(&row);
        let alone = left.len() == 1
            || self.rules.division == Division::Never
            || is_on(Failpoint::ConvictWithoutRunAlone);
        // A fold notes a row before it passes over it: no row is convicted twice.
        let passed_over = self.failed.iter().any(|failed| failed.row == row);
        if named
            && alone
            && !passed_over
            && let Some(attempts) = self.blame.convicts(unit, row, &death.cause)
        {
            let (cause, worker) = (death.cause.clone(), death.owner.slot.into());
            self.convict(FailedRow { row, cause, attempts, worker });
            if self.rules.division == Division::Never {
                changes.push(Change::Skip { row });
                return vec![(left.clone(), UnitPart::Suspect)];
            }
            return vec![(left.start..row, UnitPart::Free), (row + 1..left.end, UnitPart::Free)];
        }
        if alone {
            return vec![(left.clone(), UnitPart::Suspect)];
        }
        if self.rules.division == Division::AtTheRow && named {
            return vec![
                (left.start..row, UnitPart::Free),
                (row..row + 1, UnitPart::Suspect),
                (row + 1..left.end, UnitPart::Free),
            ];
        }
        halves(left)
    }

    /// Divides a unit, or gives it back whole.
    fn divide(
        &mut self,
        unit: usize,
        owner: Owner,
        mut parts: Vec<(Range<usize>, UnitPart)>,
        changes: &mut Vec<Change>,
    ) {
        parts.retain(|(rows, _)| !rows.is_empty());
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
    /// be.
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

    /// Too many deaths for too little work.
    fn give_up(&self, rows: Range<usize>) -> Error {
        let AttemptLimits { fruitless_deaths, idle_exits, last, .. } = &self.attempt_limits;
        let cause = last.clone().unwrap_or(DeathCause::Unknown);
        Error::WorkersKeepDying { deaths: fruitless_deaths + idle_exits, rows, cause }
    }

    /// The end of the call, if too many workers have ended since a unit was last finished.
    pub(super) fn no_progress(&mut self, snapshot: &Snapshot<'_>) -> Option<Error> {
        let n_done =
            snapshot.units.iter().filter(|state| matches!(state, ClaimState::Done(_))).count();
        // The most that there ever were: what is freed and done again is no progress.
        if n_done > self.attempt_limits.n_done {
            self.attempt_limits = AttemptLimits { n_done, ..AttemptLimits::default() };
        }
        let hung_starts = self.attempt_limits.hung_starts;
        if hung_starts >= HUNG_STARTS_MAX * self.rules.workers {
            let message = format!(
                "{hung_starts} workers in a row hung before they were ready (the caller has {} threads; an atfork handler may \
                 wait for one of them)",
                self.clock.caller_threads()
            );
            return Some(Error::WorkerSetup { message });
        }
        let barren_deaths_max =
            FRUITLESS_DEATHS_MAX + self.blame.most_deaths() * self.rules.workers;
        if self.attempt_limits.fruitless_deaths <= barren_deaths_max
            && self.attempt_limits.idle_exits <= IDLE_EXITS_MAX + 2 * self.rules.workers
        {
            return None;
        }
        let rows = self.unfinished(snapshot.units).map(|unit| self.rows(unit));
        let rows = rows
            .reduce(|all, rows| all.start.min(rows.start)..all.end.max(rows.end))
            .unwrap_or(0..0);
        Some(self.give_up(rows))
    }

    /// What ends the call, if anything has.
    pub(super) fn take_end(&mut self) -> Option<Verdict> {
        self.end.take()
    }

    /// What a worker said that could not be set up.
    pub(super) fn take_setup_failure(&mut self) -> Option<String> {
        self.setup_failure.take()
    }

    /// At most so many workers at a time.
    pub(super) fn max_workers(&self) -> usize {
        self.rules.workers
    }

    /// Every row is done, has failed, or need not be done.
    pub(super) fn end_of_run(&mut self) -> Action {
        if let Some((_, error)) = self.failure.take() {
            return Action::Finish(Verdict::Failed(error));
        }
        let Some(unsound) = self.why_unsound() else { return Action::Finish(Verdict::Complete) };
        if self.runs >= RUNS_MAX {
            return Action::Finish(Verdict::Failed(unsound));
        }
        self.suspect = None;
        self.runs += 1;
        self.rerun_rows += self.units.blocks().n_rows();
        self.attempt_limits = AttemptLimits::default();
        Action::RunAgain
    }

    /// The control block is not what it should be.
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
        self.attempt_limits = AttemptLimits::default();
        self.rerun_rows += self.units.blocks().n_rows();
        Action::Restart
    }

    /// The workers that are overdue, and the end of the call if one cannot be killed.
    pub(super) fn overdue(&mut self, snapshot: &Snapshot<'_>) -> Vec<Action> {
        if snapshot.vitals.iter().any(|vital| vital.ready) {
            self.attempt_limits.hung_starts = 0;
        }
        if let Some(owner) = self.clock.unkillable(snapshot.vitals, snapshot.now) {
            return vec![Action::Finish(Verdict::Unkillable(owner))];
        }
        let any_free =
            self.unfinished(snapshot.units).any(|unit| snapshot.units[unit] == ClaimState::Free);
        let works = |owner| any_free || snapshot.units.contains(&ClaimState::Claimed(owner));
        self.clock
            .overdue(snapshot.vitals, snapshot.now, works)
            .into_iter()
            .map(Action::Kill)
            .collect()
    }
}

fn halves(rows: &Range<usize>) -> Vec<(Range<usize>, UnitPart)> {
    let middle = rows.start + rows.len().div_ceil(2);
    vec![(rows.start..middle, UnitPart::Suspect), (middle..rows.end, UnitPart::Free)]
}

fn kernel_failure(failure: Message) -> Error {
    let row = failure.row;
    match cause_of(&failure) {
        DeathCause::Panicked { message, location } => {
            Error::KernelPanicked { row, message, location }
        }
        _ => Error::KernelFailed { row, message: failure.text },
    }
}

fn cause_of(failure: &Message) -> DeathCause {
    let message = failure.text.clone();
    match failure.kind {
        MessageKind::KernelError => DeathCause::Failed { message },
        MessageKind::Panic | MessageKind::PanicDraft | MessageKind::Setup => {
            let location = Some(failure.location.clone()).filter(|location| !location.is_empty());
            DeathCause::Panicked {
                message,
                location: location.unwrap_or_else(|| "location unknown".to_owned()),
            }
        }
    }
}
