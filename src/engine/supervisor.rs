//! The supervisor: the calling process's side of a call.
//!
//! It looks at the control block, lets `decide` decide, performs the decisions, and sleeps until a
//! worker ends or something is due. In the end it makes the report.
//!
//! The executors call [`supervise`], and say by a [`WorkerSet`] where workers come from. What the
//! processes agree on is in `control/README.md`. Nothing is decided here about deaths, time or
//! blame, and nothing that is read from shared memory is believed without `decide`'s checks.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::engine::call::Call;
use crate::engine::cancel::CancelToken;
use crate::engine::control::{ClaimState, Control, Fault, Owner, Saved, Slot};
use crate::engine::decide::{
    self, Action, Change, Clock, Death, KernelTrust, Ledger, Rules, Snapshot, Verdict, Vital,
    update_outcome,
};
use crate::engine::options::Options;
use crate::engine::ranges::{complement, count, joined};
use crate::engine::report::{EarlyEnd, Progress, Report, WorkerDeath};
use crate::engine::worker;
use crate::engine::worker_set::WorkerSet;
use crate::error::{DeathCause, Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::segment::registry;
use crate::sys::process::Exit;

/// How often the supervisor wakes up by itself: to show progress, and to see what no descriptor
/// tells, such as a worker that hangs.
const TICK: Duration = Duration::from_millis(100);

/// The shortest sleep while a worker may be overdue soon.
const SHORT_TICK: Duration = Duration::from_millis(1);

/// If the supervisor has slept longer than it wanted by this much, this process was itself stopped
/// (Ctrl-Z). All limits are then moved by that time, so that no worker is killed for it.
const OVERSLEPT: Duration = Duration::from_secs(1);

/// How long the workers may take to leave by themselves once everything is done. Then they are
/// killed.
const LEAVE_GRACE: Duration = Duration::from_millis(100);

/// The same where they measure their memory first, for which the kernel walks their page tables.
const MEASURE_GRACE: Duration = Duration::from_secs(10);

/// How much time the last step of a call has at least, if the call goes on without missing rows:
/// after the deadline, and after a cancellation.
const OVERTIME: Duration = Duration::from_secs(5);

/// The calling process's side of one call.
struct Supervisor<'a> {
    options: &'a Options<'a>,
    call: &'a Call<'a>,
    control: Control<'a>,
    /// The workers.
    workers: &'a mut dyn WorkerSet,
    /// What `decide` remembers of the call.
    ledger: Ledger,
    /// The deaths for the report, in the order in which they were seen.
    deaths: Vec<WorkerDeath>,
    began: Instant,
    /// When the progress callback may be called again.
    next_progress: Instant,
    /// The highest number of rows that the callback was told: progress never falls, even if rows
    /// are run again.
    rows_shown: usize,
    /// The caller's check has said that the call is to end.
    interrupted: bool,
    /// When the supervisor first saw that the call was cancelled.
    cancelled_since: Option<Instant>,
    /// In place, when the call is over: rows that are new although their unit is not done.
    done_in_part: Vec<Range<usize>>,
    /// How many rows workers have been told to pass over.
    n_skips: usize,
}

/// Runs a call that began at `began`, on a control block that was reset, from the first worker that
/// is put to work to the last that is released. Returns when no worker can write to the output any
/// more, except after [`WorkerUnkillable`](Error::WorkerUnkillable).
///
/// # Errors
/// What ended the call. In place it is [`UpdateInterrupted`](Error::UpdateInterrupted) with the
/// rows, once any row may be new.
pub(crate) fn supervise(
    options: &Options<'_>,
    call: &Call<'_>,
    control: Control<'_>,
    workers: &mut dyn WorkerSet,
    began: Instant,
) -> Result<Report> {
    let mut supervisor = Supervisor::new(options, call, control, workers, began);
    let ended = supervisor.until_over().and_then(|verdict| supervisor.conclude(verdict));
    // Whatever the error was, a worker that does not die is a worse one.
    match ended.or_else(|error| supervisor.end_workers().and(Err(error))) {
        Ok(ended_early) => Ok(supervisor.report(ended_early)),
        Err(error) if call.restore.is_some() => Err(supervisor.update_outcome(error)),
        Err(error) => Err(error),
    }
}

impl<'a> Supervisor<'a> {
    fn new(
        options: &'a Options<'a>,
        call: &'a Call<'a>,
        control: Control<'a>,
        workers: &'a mut dyn WorkerSet,
        began: Instant,
    ) -> Self {
        let rules = rules(options, call, call.workers);
        let clock = Clock::new(due(options, call, began), options.stall_limit, call.caller_threads);
        Self {
            options,
            call,
            control,
            workers,
            ledger: Ledger::new(rules, call.blocks.clone(), clock),
            deaths: Vec::new(),
            began,
            next_progress: began + TICK,
            rows_shown: 0,
            interrupted: false,
            cancelled_since: None,
            done_in_part: Vec::new(),
            n_skips: 0,
        }
    }

    /// The claim words of all units, decoded. A word whose seal does not fit is `Corrupt`.
    fn states(&self) -> Vec<ClaimState> {
        self.control.claims(self.ledger.n_units()).states(|unit| self.ledger.digest(unit))
    }

    /// Looks, decides, acts and sleeps, until the decision is to finish.
    fn until_over(&mut self) -> Result<Verdict> {
        loop {
            let states = self.states();
            let vitals = self.vitals();
            let cancelled = self.is_cancelled();
            let snapshot =
                Snapshot { units: &states, vitals: &vitals, cancelled, now: Instant::now() };
            for action in decide::decide(&mut self.ledger, &snapshot) {
                if let Some(verdict) = self.perform(action)? {
                    return Ok(verdict);
                }
            }
            self.show_progress(&states);
            let deaths = self.wait_for_deaths()?;
            if !deaths.is_empty() {
                self.after_deaths(&deaths)?;
            }
        }
    }

    /// Has the units of dead workers freed or divided, and wakes the workers that are left.
    fn after_deaths(&mut self, deaths: &[Death]) -> Result<()> {
        // SIGBUS may mean that another process has cut a segment, which is not the row's fault.
        if deaths.iter().any(|death| {
            matches!(death.cause, DeathCause::MemoryFault { signal: libc::SIGBUS, .. })
        }) {
            (self.call.check_lengths)()?;
        }
        let states = self.states();
        for death in deaths {
            self.note_death(death, &states);
        }
        for change in decide::after_deaths(&mut self.ledger, &states, deaths) {
            self.make(change)?;
        }
        self.workers.wake_all()
    }

    /// Makes one change to the control block or to the output.
    fn make(&mut self, change: Change) -> Result<()> {
        let claims = self.control.claims(self.ledger.n_units());
        match change {
            Change::Restore { rows, owner } => self.restore(rows, owner)?,
            Change::Free { unit, owner } => claims.free(unit, owner, self.ledger.digest(unit)),
            Change::Retire { unit } => {
                claims.settle(unit, ClaimState::Retired, self.ledger.digest(unit));
            }
            Change::Add { unit, rows, state } => {
                self.control.add_piece(unit, &rows, state, self.ledger.digest(unit));
            }
            Change::OfferFirst { unit } => self.control.offer_first(unit),
            Change::Skip { row } => {
                self.control.skip(self.n_skips, row);
                self.n_skips += 1;
            }
            Change::Limit { row } => self.control.set_limit(row),
        }
        Ok(())
    }

    /// In place: puts back the rows that a dead worker had saved.
    fn restore(&self, rows: Range<usize>, owner: Owner) -> Result<()> {
        match self.call.restore {
            Some(restore) if !is_on(Failpoint::RestoreNothing) => restore(rows, owner.slot),
            _ => Ok(()),
        }
    }

    /// Performs one action. `Some` is the end of the call.
    fn perform(&mut self, action: Action) -> Result<Option<Verdict>> {
        match action {
            Action::Kill(owner) => {
                if self.workers.kill(owner) && !is_on(Failpoint::BlameRowOfStoppedWorker) {
                    self.ledger.clock.found_stopped(owner);
                }
            }
            Action::Restart => {
                self.end_workers()?;
                self.control.reset();
                self.n_skips = 0;
                self.spawn(self.workers.size())?;
            }
            Action::RunAgain => {
                let claims = self.control.claims(self.ledger.n_units());
                let done =
                    self.states().into_iter().enumerate().filter(|(_, state)| is_done(*state));
                done.for_each(|(unit, _)| {
                    claims.settle(unit, ClaimState::Free, self.ledger.digest(unit));
                });
                self.workers.wake_all()?;
                self.spawn(self.workers.size() - self.workers.live())?;
            }
            Action::Spawn(n) => self.spawn(n)?,
            Action::Finish(verdict) => return Ok(Some(verdict)),
        }
        Ok(None)
    }

    /// Ends the workers, and returns why rows are missing, if the call returns a result without
    /// them.
    ///
    /// # Errors
    /// The verdict's, or that the call ended early and has to have all rows.
    fn conclude(&mut self, verdict: Verdict) -> Result<Option<EarlyEnd>> {
        if matches!(verdict, Verdict::Early(_)) {
            // A crash that the supervisor has not seen yet may have spoilt rows that are done.
            let deaths = self.reap(None, Instant::now())?;
            self.after_deaths(&deaths)?;
            if let Some(error) = self.ledger.spoilt(&self.states()) {
                return Err(error);
            }
        }
        if let Verdict::Unkillable(owner) = verdict
            && let Some(pid) = self.workers.give_up(owner)
        {
            self.end_workers()?;
            return Err(Error::WorkerUnkillable { pid, waited: decide::DEATH_LIMIT });
        }
        match verdict {
            Verdict::Complete => {
                let grace = if self.options.measure_memory { MEASURE_GRACE } else { LEAVE_GRACE };
                self.workers.release(Instant::now() + grace).map_err(unkillable)?;
            }
            _ => self.end_workers()?,
        }
        match verdict {
            Verdict::Complete | Verdict::Unkillable(_) => {
                self.show_end();
                Ok(None)
            }
            Verdict::Early(end) => {
                let units = self.restore_the_unfinished()?;
                self.done_in_part = units
                    .into_iter()
                    .filter(|(_, state)| is_done(*state))
                    .map(|(rows, _)| rows)
                    .collect();
                match self.ledger.why_unsound() {
                    _ if !self.options.fills() || self.call.last_step_since.is_some() => {
                        Err(self.early_error(end))
                    }
                    // Rows that a crash may have spoilt must not be part of a result.
                    Some(unsound) => Err(unsound),
                    None => Ok(Some(end)),
                }
            }
            Verdict::Failed(error) => Err(error),
        }
    }

    /// Kills all workers and waits until they are dead.
    fn end_workers(&mut self) -> Result<()> {
        self.workers.end().map_err(unkillable)
    }

    /// The error of a call that ended early and may not go on without rows.
    fn early_error(&self, end: EarlyEnd) -> Error {
        let (rows_done, rows_total) = (count(&self.done_rows()), self.call.blocks.n_rows());
        match (end, self.options.deadline) {
            (EarlyEnd::Deadline, Some(limit)) => Error::DeadlineExceeded {
                limit,
                rows_done,
                rows_total,
                caller_threads: self.ledger.clock.caller_threads(),
            },
            _ => Error::Cancelled { rows_done, rows_total },
        }
    }

    /// Puts up to `n` workers into empty slots. Fewer are no error while at least one worker is
    /// alive.
    fn spawn(&mut self, n: usize) -> Result<()> {
        // A stray store may have changed the hints that the workers read.
        let pieces =
            (self.call.blocks.len()..self.ledger.n_units()).map(|unit| self.ledger.rows(unit));
        self.control.rewrite_hints(self.ledger.limit(), pieces, self.n_skips);
        for _ in 0..n {
            let Some(owner) = self.workers.next_owner() else { break };
            // While later workers are forked the first may have finished everything.
            if self.workers.live() > 0 && !self.states().contains(&ClaimState::Free) {
                break;
            }
            self.control.slots()[usize::from(owner.slot)].clear();
            match self.workers.spawn(owner) {
                Ok(()) => {}
                Err(_) if self.workers.live() > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What each live worker shows of itself in its slot.
    fn vitals(&self) -> Vec<Vital> {
        let vital = |owner: Owner| {
            let slot = &self.control.slots()[usize::from(owner.slot)];
            let start_limit =
                if slot.is_initialising() { decide::INIT_LIMIT } else { decide::STARTUP_LIMIT };
            Vital { owner, ready: slot.is_ready(), start_limit, pulse: slot.pulse() }
        };
        self.workers.owners().into_iter().map(vital).collect()
    }

    /// Whether the call is to end because it was cancelled. The last step of a call that fills has
    /// its [`OVERTIME`] before.
    fn is_cancelled(&mut self) -> bool {
        let cancelled =
            self.interrupted || self.options.cancel.as_ref().is_some_and(CancelToken::is_cancelled);
        if !cancelled {
            return false;
        }
        let since = *self.cancelled_since.get_or_insert_with(Instant::now);
        !has_overtime(self.options, self.call) || since.elapsed() >= OVERTIME
    }

    /// Sleeps until a worker ends, the call is cancelled, a signal comes, or something is due. Then
    /// reaps, and returns how each worker ended. Also asks the caller's interrupt check.
    fn wait_for_deaths(&mut self) -> Result<Vec<Death>> {
        let now = Instant::now();
        // For the clock a worker that was not ready at the last look has the limit of a start. It
        // may come to its first row without anything that wakes this process, so a stall limit
        // shortens the sleep.
        let tick =
            self.options.stall_limit.map_or(TICK, |limit| (limit / 4).clamp(SHORT_TICK, TICK));
        let due = self
            .ledger
            .clock
            .next()
            .map_or(now + tick, |due| due.clamp(now + SHORT_TICK, now + tick));
        let wake = self.options.cancel.clone().filter(|_| self.cancelled_since.is_none());
        let deaths = self.reap(wake.as_ref().map(AsFd::as_fd), due)?;
        let late = Instant::now().saturating_duration_since(due);
        if late > OVERSLEPT && !is_on(Failpoint::CountPauseOfCaller) {
            self.ledger.clock.shift(late);
        }
        if let Some(check) = &self.options.check_interrupt {
            self.interrupted |= check();
        }
        Ok(deaths)
    }

    /// Reaps, and returns how each worker ended.
    fn reap(&mut self, wake: Option<BorrowedFd<'_>>, deadline: Instant) -> Result<Vec<Death>> {
        let ended = self.workers.reap_ended(wake, deadline)?;
        Ok(ended.into_iter().map(|(owner, exit)| self.death_of(owner, exit)).collect())
    }

    /// A death as `decide` gets it: the exit, and what the worker left in its slot. A message
    /// counts only if the exit vouches for its kind.
    fn death_of(&self, owner: Owner, exit: Exit) -> Death {
        let slot = &self.control.slots()[usize::from(owner.slot)];
        Death {
            owner,
            cause: self.cause_of(owner, exit, slot.fault()),
            row: slot.row(),
            saved: slot.saved(),
            message: slot.message().filter(|message| worker::vouches_for(exit, message.kind)),
        }
    }

    /// Puts a death on the list of the report, unless it is an ordinary end: that of a kernel whose
    /// message names its row, or that of a worker that was done.
    fn note_death(&mut self, death: &Death, states: &[ClaimState]) {
        let held = states.iter().position(|state| *state == ClaimState::Claimed(death.owner));
        // A worker that held no block was done if its status is 0, or if other code of this process
        // has taken the status.
        let undone =
            held.is_some() || !matches!(death.cause, DeathCause::Exited(0) | DeathCause::Unknown);
        if undone && self.ledger.believable(states, death).is_none() {
            let (worker, rows) = (death.owner.slot.into(), held.map(|unit| self.ledger.rows(unit)));
            self.deaths.push(WorkerDeath { worker, cause: death.cause.clone(), rows });
        }
    }

    /// How a worker died. The supervisor's own reason for a kill comes first, then the fault that
    /// the worker noted, if its exit fits, and the exit by itself last.
    fn cause_of(&self, owner: Owner, exit: Exit, fault: Option<Fault>) -> DeathCause {
        if let (Some(cause), Exit::Signal(libc::SIGKILL) | Exit::Unknown) =
            (self.ledger.clock.killed_for(owner), exit)
        {
            return cause.clone();
        }
        // Where the status is unknown the note alone tells: no process survives such a fault.
        let fault =
            fault.filter(|fault| [Exit::Signal(fault.signal), Exit::Unknown].contains(&exit));
        let Some(Fault { signal, address }) = fault else { return exit.into() };
        // SIGBUS means a page that is gone, not a page that may not be written to.
        let read_only_segment =
            (signal == libc::SIGSEGV).then(|| self.read_only_segment(address)).flatten();
        DeathCause::MemoryFault { signal, address, read_only_segment }
    }

    /// What error messages call the segment that holds `address`, if workers may not write to it.
    /// The address is one of the caller's address space.
    fn read_only_segment(&self, address: usize) -> Option<String> {
        let registry = registry::lock();
        let mapping =
            registry.mappings().iter().find(|mapping| mapping.range().contains(&address))?;
        let writable =
            self.call.writable.iter().any(|segment| segment.address() == mapping.address);
        (!writable).then(|| (*mapping.label).to_owned())
    }

    /// The caller's callback, if there is one. The last step of a larger call shows no progress.
    fn progress_callback(&self) -> Option<&'a (dyn Fn(&Progress) + 'a)> {
        self.options.progress.as_deref().filter(|_| self.call.last_step_since.is_none())
    }

    /// Calls the callback, at most once per [`TICK`].
    fn show_progress(&mut self, states: &[ClaimState]) {
        let Some(callback) = self.progress_callback() else { return };
        let now = Instant::now();
        if now < self.next_progress {
            return;
        }
        self.next_progress = now + TICK;
        self.rows_shown = self.rows_shown.max(self.rows_seen(states));
        callback(&Progress {
            rows_done: self.rows_shown,
            rows_total: self.call.blocks.n_rows(),
            elapsed: now.duration_since(self.began),
        });
    }

    /// Calls the callback once with all rows done.
    fn show_end(&self) {
        if let Some(callback) = self.progress_callback() {
            let rows = self.call.blocks.n_rows();
            callback(&Progress {
                rows_done: rows,
                rows_total: rows,
                elapsed: self.began.elapsed(),
            });
        }
    }

    /// The rows of finished units, and in each claimed unit the rows before the one that its worker
    /// is at. For progress only: the row is a note in shared memory.
    fn rows_seen(&self, states: &[ClaimState]) -> usize {
        let rows_of = |(unit, state): (usize, &ClaimState)| {
            let rows = self.ledger.rows(unit);
            match state {
                ClaimState::Done(_) => rows.len(),
                ClaimState::Claimed(owner) => {
                    let slot = self.control.slots().get(usize::from(owner.slot));
                    slot.map(Slot::row)
                        .filter(|row| rows.contains(row))
                        .map_or(0, |row| row - rows.start)
                }
                ClaimState::Free | ClaimState::Retired | ClaimState::Corrupt => 0,
            }
        };
        states.iter().enumerate().map(rows_of).sum()
    }

    /// The rows that are done according to the claim words; in place, also the rows of an
    /// unfinished unit that were done before the call ended.
    fn done_rows(&self) -> Vec<Range<usize>> {
        let states = self.states();
        let done = states
            .iter()
            .enumerate()
            .filter(|(_, state)| is_done(**state))
            .map(|(unit, _)| self.ledger.rows(unit));
        joined(done.chain(self.done_in_part.iter().cloned()).collect())
    }

    /// In place, when all workers are dead: puts back the rows that workers had saved in units that
    /// they did not finish. In each such unit only the rows before the saved ones are then new.
    /// Returns rows with their state, some of them parts of units.
    fn restore_the_unfinished(&self) -> Result<Vec<(Range<usize>, ClaimState)>> {
        let mut rows_and_states = Vec::new();
        for (unit, state) in self.states().into_iter().enumerate() {
            let rows = self.ledger.rows(unit);
            let ClaimState::Claimed(owner) = state else {
                rows_and_states.push((rows, state));
                continue;
            };
            let saved = self.control.slots().get(usize::from(owner.slot)).and_then(Slot::saved);
            let saved = saved.filter(|saved| rows.contains(&saved.first()));
            let first = saved.map_or(rows.start, Saved::first);
            if let Some(Saved::Complete(_)) = saved {
                self.restore(first..rows.end, owner)?;
            }
            rows_and_states.push((rows.start..first, ClaimState::Done(owner)));
            rows_and_states.push((first..rows.end, ClaimState::Free));
        }
        Ok(rows_and_states)
    }

    /// The error of a call in place that has failed: it says which rows are new. All workers are
    /// ended first, so that none touches the rows any more.
    fn update_outcome(&mut self, cause: Error) -> Error {
        let n_rows = self.call.blocks.n_rows();
        let ended = self.end_workers();
        let restored = match cause {
            // That worker may still write to its rows, over what would be put back.
            Error::WorkerUnkillable { .. } => None,
            _ => ended.and_then(|()| self.restore_the_unfinished()).ok(),
        };
        // Where the saved rows could not be put back, the claimed units count as they are: their
        // rows may be half changed.
        let as_they_are = || {
            self.states()
                .into_iter()
                .enumerate()
                .map(|(unit, state)| (self.ledger.rows(unit), state))
        };
        let units = restored.unwrap_or_else(|| as_they_are().collect());
        update_outcome(n_rows, &units, cause)
    }

    /// The report of a call that returns a result.
    fn report(self, ended_early: Option<EarlyEnd>) -> Report {
        let elapsed = self.began.elapsed();
        let done_rows = self.done_rows();
        let rows = self.call.blocks.n_rows();
        let rerun_rows = self.ledger.rerun_rows;
        let failed_rows = self.ledger.into_failed();
        let failed = failed_rows.iter().map(|failed| failed.row..failed.row + 1);
        let not_run = complement(&done_rows, rows);
        // The last rows may have been done after it was decided to end the call.
        let ended_early = ended_early.filter(|_| !not_run.is_empty());
        Report {
            deaths: self.deaths,
            missing_rows: joined(not_run.into_iter().chain(failed).collect()),
            failed_rows,
            ended_early,
            rerun_rows,
            ..self.call.report(self.control, elapsed, self.options.measure_memory)
        }
    }
}

fn is_done(state: ClaimState) -> bool {
    matches!(state, ClaimState::Done(_))
}

/// What the ledger has to know of the call and of the caller's options.
fn rules(options: &Options<'_>, call: &Call<'_>, workers: usize) -> Rules {
    Rules {
        workers,
        attempts: options.attempts(),
        fill: options.fills() && call.last_step_since.is_none(),
        in_place: call.restore.is_some(),
        kernel: match (call.foreign, options.guard) {
            (false, _) => KernelTrust::BuiltIn,
            (true, true) => KernelTrust::Guarded,
            (true, false) => KernelTrust::Unguarded,
        },
        division: call.division,
    }
}

/// When the time for a call is over; `None` if it may take any time. The time of the last step of a
/// larger call began with that call.
fn due(options: &Options<'_>, call: &Call<'_>, began: Instant) -> Option<Instant> {
    let due = call.last_step_since.unwrap_or(began).checked_add(options.deadline?)?;
    Some(if has_overtime(options, call) { due.max(began + OVERTIME) } else { due })
}

/// Whether this is the last step of a call that goes on without missing rows. Such a step is given
/// [`OVERTIME`], so that a deadline or a cancellation does not lose the rows that are done.
fn has_overtime(options: &Options<'_>, call: &Call<'_>) -> bool {
    options.fills() && call.last_step_since.is_some()
}

/// The error for a worker that does not die of SIGKILL.
fn unkillable(pid: i32) -> Error {
    Error::WorkerUnkillable { pid, waited: decide::DEATH_LIMIT }
}
