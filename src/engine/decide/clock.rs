//! Which workers are overdue: one that comes to no other row, one that is not ready, one that does
//! not die; and whether the call itself is. Pure: the time is passed in.
//!
//! | what | limit | what follows |
//! |---|---|---|
//! | a worker is not ready | [`STARTUP_LIMIT`], in `init` [`INIT_LIMIT`] | killed: `HungAtStart` |
//! | a worker comes to no other row or unit | the stall limit, if any | killed: `Stalled` |
//! | a killed worker is still there | [`DEATH_LIMIT`] | the call ends: `Unkillable` |
//! | the call goes on | its deadline, if any | it ends early |
//!
//! A worker that is found stopped (SIGSTOP) when it is killed counts as `Stopped` instead.
//!
//! The supervisor makes one `Clock` per call and keeps it in the ledger. All times are of the
//! monotonic clock ([`Instant`]), so a change of the wall clock makes nothing overdue.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::engine::control::Owner;
use crate::error::DeathCause;
use crate::failpoints::{Failpoint, is_on};

/// How long a worker may take to put its process in order. That takes 0.1 ms; but if an `atfork`
/// handler waits for a lock that another thread of the caller held at the fork, it takes for ever.
pub(crate) const STARTUP_LIMIT: Duration = Duration::from_secs(2);

/// How long a pool's `init` function, which is the user's, may take in a worker.
pub(crate) const INIT_LIMIT: Duration = Duration::from_secs(60);

/// How long a worker may take to die of SIGKILL. A process in an uninterruptible wait does not die
/// before that wait ends; then the call gives up rather than hang with it.
pub(crate) const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// What a worker shows of itself in its slot. Untrusted; the worst that a stray store can do here
/// is to let a worker look alive, or have it killed as one that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vital {
    /// Which process.
    pub(crate) owner: Owner,
    /// Its preparations are over.
    pub(crate) ready: bool,
    /// Until then, how long it may stay as it is: [`STARTUP_LIMIT`] or [`INIT_LIMIT`].
    pub(crate) start_limit: Duration,
    /// Changes whenever the worker comes to another row or finishes a unit.
    pub(crate) pulse: (u64, u64),
}

/// The deadlines of one call, and since when each worker has not moved.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// When the call must end; `None` if it may take any time.
    pub(super) deadline: Option<Instant>,
    /// How long a worker may be at one row; `None` for any time.
    pub(super) stall_limit: Option<Duration>,
    /// Threads of the caller at the fork: with more than one, a lock that another thread held may
    /// be why a worker hangs. Errors say so.
    caller_threads: usize,
    /// What each worker showed last, and since when.
    seen: HashMap<Owner, (Vital, Instant)>,
    /// The workers that we have killed and that are not known to be dead; why, and when.
    killed: HashMap<Owner, (DeathCause, Instant)>,
}

impl Clock {
    /// With a deadline for the call, and a limit for a row, in a caller of so many threads.
    pub(crate) fn new(
        deadline: Option<Instant>,
        stall_limit: Option<Duration>,
        caller_threads: usize,
    ) -> Self {
        Self { deadline, stall_limit, caller_threads, ..Self::default() }
    }

    /// Threads of the caller at the fork.
    pub(crate) fn caller_threads(&self) -> usize {
        self.caller_threads
    }

    /// Whether the time for the call is over. At the deadline itself it is.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline) && !is_on(Failpoint::NoDeadline)
    }

    /// Takes note of what the workers show, and returns those that are overdue now. Each is named
    /// once; from then on it counts as killed.
    ///
    /// `works` tells whether a worker has a unit, or could have one. The time of one that has
    /// nothing to do does not run: in a pool such workers wait, and wait rightly. A worker is late
    /// only for what it has shown unchanged in all calls of this function since, so the supervisor
    /// must come by more often than the limit.
    pub(super) fn overdue(
        &mut self,
        vitals: &[Vital],
        now: Instant,
        works: impl Fn(Owner) -> bool,
    ) -> Vec<Owner> {
        let mut overdue = Vec::new();
        for &vital in vitals {
            let (seen, since) = self.seen.entry(vital.owner).or_insert((vital, now));
            if *seen != vital || !works(vital.owner) {
                (*seen, *since) = (vital, now);
            }
            // Before it is ready a worker has the limit of a start even if there is no stall limit:
            // what hangs there never reaches a row.
            let (limit, cause) = match (vital.ready, self.stall_limit) {
                (false, _) if is_on(Failpoint::NoStartLimit) => continue,
                (true, Some(_)) if is_on(Failpoint::NoStallDetection) => continue,
                (false, _) => (vital.start_limit, DeathCause::HungAtStart),
                (true, Some(limit)) => {
                    (limit, DeathCause::Stalled { limit, caller_threads: self.caller_threads })
                }
                (true, None) => continue,
            };
            // Saturating: `since` may be later than `now` after a pause (see [`Clock::shift`]).
            if now.saturating_duration_since(*since) >= limit
                && !self.killed.contains_key(&vital.owner)
            {
                self.killed.insert(vital.owner, (cause, now));
                overdue.push(vital.owner);
            }
        }
        overdue
    }

    /// A worker that was killed [`DEATH_LIMIT`] ago and is still there.
    pub(super) fn unkillable(&self, vitals: &[Vital], now: Instant) -> Option<Owner> {
        let late = |owner: &Owner| {
            self.killed
                .get(owner)
                .is_some_and(|&(_, at)| now.saturating_duration_since(at) >= DEATH_LIMIT)
        };
        vitals.iter().map(|vital| vital.owner).find(late)
    }

    /// Why we have killed this worker, if we have. The exit status says SIGKILL only, and would
    /// look like a kill from outside.
    pub(crate) fn killed_for(&self, owner: Owner) -> Option<&DeathCause> {
        self.killed.get(&owner).map(|(cause, _)| cause)
    }

    /// The worker that is being killed was found stopped (SIGSTOP), so somebody from outside may
    /// have held it, and its row need not be to blame.
    pub(crate) fn found_stopped(&mut self, owner: Owner) {
        if let Some((cause, _)) = self.killed.get_mut(&owner) {
            *cause = DeathCause::Stopped;
        }
    }

    /// A worker is dead. Its successor in the slot is another owner, and begins with a clock of its
    /// own.
    pub(super) fn forget(&mut self, owner: Owner) {
        self.seen.remove(&owner);
        self.killed.remove(&owner);
    }

    /// All workers are dead.
    pub(super) fn forget_all(&mut self) {
        self.seen.clear();
        self.killed.clear();
    }

    /// This process was itself stopped for so long (Ctrl-Z). All times move on by that, so no
    /// worker, and not the call, is late for it.
    pub(crate) fn shift(&mut self, by: Duration) {
        self.deadline = self.deadline.and_then(|deadline| deadline.checked_add(by));
        self.seen.values_mut().for_each(|(_, since)| *since += by);
        self.killed.values_mut().for_each(|(_, at)| *at += by);
    }

    /// When something could be overdue next, as far as it is known: the supervisor sleeps no longer
    /// than that. `None` if nothing can. The death of a killed worker is not in it; the supervisor
    /// looks up at every tick anyway.
    pub(crate) fn next(&self) -> Option<Instant> {
        let limit =
            |vital: &Vital| if vital.ready { self.stall_limit } else { Some(vital.start_limit) };
        // `checked_add`: a limit of `Duration::MAX` is none.
        let of_workers =
            self.seen.values().filter_map(|(vital, since)| since.checked_add(limit(vital)?));
        of_workers.chain(self.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Owner { slot: 0, generation: 0 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A worker with a start limit, at `row`, which has finished no unit.
    fn vital(ready: bool, row: u64) -> Vital {
        Vital { owner: A, ready, start_limit: STARTUP_LIMIT, pulse: (row, 0) }
    }

    /// Ten rows at 99 ms each, under a limit of 100 ms for a row.
    #[test]
    fn a_worker_that_comes_to_another_row_is_not_stalled() {
        let start = Instant::now();
        let mut clock = Clock::new(None, Some(at(100)), 1);
        for row in 0..10 {
            assert!(clock.overdue(&[vital(true, row)], start + at(row * 99), |_| true).is_empty());
        }
        // One millisecond before the limit, and at the limit.
        assert!(clock.overdue(&[vital(true, 9)], start + at(9 * 99 + 99), |_| true).is_empty());
        assert_eq!(clock.overdue(&[vital(true, 9)], start + at(9 * 99 + 100), |_| true), [A]);
        assert_eq!(
            clock.killed_for(A),
            Some(&DeathCause::Stalled { limit: at(100), caller_threads: 1 })
        );
        assert!(
            clock.overdue(&[vital(true, 9)], start + at(2000), |_| true).is_empty(),
            "killed once"
        );
    }

    #[test]
    fn a_worker_without_work_is_not_stalled() {
        let start = Instant::now();
        let mut clock = Clock::new(None, Some(at(100)), 1);
        // As long as it has nothing to do its time does not run; from 1000 ms on it does.
        for ms in [0, 500, 1000] {
            assert!(clock.overdue(&[vital(true, 3)], start + at(ms), |_| false).is_empty());
        }
        assert!(clock.overdue(&[vital(true, 3)], start + at(1050), |_| true).is_empty());
    }

    #[test]
    fn without_a_limit_only_a_start_is_overdue() {
        let start = Instant::now();
        let mut clock = Clock::default();
        assert!(clock.overdue(&[vital(true, 3)], start, |_| true).is_empty());
        // A ready worker may take any time.
        assert!(clock.overdue(&[vital(true, 3)], start + at(100_000), |_| true).is_empty());
        let mut clock = Clock::default();
        assert!(clock.overdue(&[vital(false, 3)], start, |_| true).is_empty());
        assert_eq!(clock.next(), Some(start + STARTUP_LIMIT));
        assert_eq!(clock.overdue(&[vital(false, 3)], start + STARTUP_LIMIT, |_| true), [A]);
        assert_eq!(clock.killed_for(A), Some(&DeathCause::HungAtStart));
    }

    #[test]
    fn a_start_that_may_take_its_time_is_given_it() {
        let start = Instant::now();
        let mut clock = Clock::new(None, Some(at(100)), 1);
        let slow = Vital { start_limit: at(60_000), ..vital(false, 3) };
        assert!(clock.overdue(&[slow], start, |_| true).is_empty());
        assert!(clock.overdue(&[slow], start + at(59_999), |_| true).is_empty());
        assert_eq!(clock.overdue(&[slow], start + at(60_000), |_| true), [A]);
    }

    #[test]
    fn a_limit_beyond_all_time_is_none() {
        let start = Instant::now();
        let mut clock = Clock::new(None, Some(Duration::MAX), 1);
        assert!(clock.overdue(&[vital(true, 3)], start, |_| true).is_empty());
        assert!(clock.overdue(&[vital(true, 3)], start + at(1 << 40), |_| true).is_empty());
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn a_pause_of_this_process_makes_nobody_late() {
        let start = Instant::now();
        let mut clock = Clock::new(Some(start + at(500)), Some(at(100)), 1);
        clock.overdue(&[vital(true, 3)], start, |_| true);
        // Ten seconds in which neither side ran.
        clock.shift(at(10_000));
        assert!(!clock.is_over(start + at(10_499)) && clock.is_over(start + at(10_500)));
        assert!(clock.overdue(&[vital(true, 3)], start + at(10_099), |_| true).is_empty());
        assert_eq!(clock.next(), Some(start + at(10_100)));
    }

    #[test]
    fn who_does_not_die_of_sigkill_is_found_out() {
        let start = Instant::now();
        let mut clock = Clock::new(None, Some(at(100)), 1);
        clock.overdue(&[vital(true, 3)], start, |_| true);
        clock.overdue(&[vital(true, 3)], start + at(100), |_| true);
        // The time of a kill is when the worker was named, not when it began to hang.
        assert_eq!(clock.unkillable(&[vital(true, 3)], start + at(99) + DEATH_LIMIT), None);
        assert_eq!(clock.unkillable(&[vital(true, 3)], start + at(100) + DEATH_LIMIT), Some(A));
        // Reaped after all.
        clock.forget(A);
        assert_eq!(clock.unkillable(&[vital(true, 3)], start + at(9000)), None);
    }
}
